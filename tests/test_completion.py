"""What shells complete: the scripts are run by the shells that are there, bash always."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spark_rl.cli import main


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "spark-rl.bash"
    done = subprocess.run([sys.executable, "-m", "spark_rl", "completion", "bash"], capture_output=True, check=True)
    path.write_bytes(done.stdout)
    return path


def completed(script: Path, *words: str, folder: Path) -> list[str]:
    """What bash offers for the last word of a command."""
    program = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
compopt() { :; }
function=$(complete -p spark-rl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" spark-rl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
    shell = ["bash", "--norc", "-eu", "-c", program, "bash", str(script), "spark-rl", *words]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=folder, check=False)
    assert not done.stderr
    return sorted(line for line in done.stdout.splitlines() if line)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("tr",), ["train"]),
        (("co",), ["completion", "config", "cost"]),
        (("eval", "--format", ""), ["csv", "latex", "markdown", "terminal"]),
        (("train", "--run-d"), ["--run-dir"]),
        (("train", "rollout.sa"), ["rollout.samples="]),
        (("train", "--seed", "1", "recycle.pr"), ["recycle.preset="]),
        (("train", "--data", "mine."), ["mine.csv", "mine.jsonl"]),
        (("train", "--run-dir", "a"), ["a-folder"]),
        (("completion", ""), ["bash", "fish", "zsh"]),
    ],
)
def test_bash_completes(bash_script: Path, words: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    (tmp_path / "mine.csv").touch()
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder").mkdir()
    assert completed(bash_script, *words, folder=tmp_path) == expected


def test_an_interactive_bash_completes_a_setting_without_a_space_behind_it(bash_script: Path) -> None:
    """Keys pressed in a real one: the command echoes what it was given."""
    lines = ("PS1=", "spark-rl() { printf '<%s>' \"$@\"; }", "spark-rl trai\trollout.samp\t4", "exit")
    program = "\n".join((f"source {bash_script}", *lines, ""))
    typed = subprocess.run(["bash", "--norc", "-i"], input=program, capture_output=True, text=True, check=False)
    assert "<train><rollout.samples=4>" in typed.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_their_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("rollout.samples=", "--run-dir", "ablate"):
        assert word in script
    if (program := shutil.which(shell)) is not None:
        path = tmp_path / "script"
        path.write_text(script)
        done = subprocess.run([program, "--no-execute", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
