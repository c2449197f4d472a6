"""What goes wrong is told in one line, before the work, and what was done until then is kept."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from running import BASE, ENVIRONMENT, SMALL, command, complaints, json_lines, small, write_lines
from spark_rl.cli import main
from spark_rl.commands import asking
from spark_rl.commands.checks import check_device
from spark_rl.config import load_config
from spark_rl.errors import ConfigError
from spark_rl.files import write_output

FAST = ("model.threads=1", "inference.max_new_tokens=12", "inference.rounds=1", "inference.reflect_temperature=0")


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line of a mistake."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    (line,) = complaints(capsys.readouterr().err).splitlines()
    return line.removeprefix("spark-rl: ")


def python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**ENVIRONMENT, **environment}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


BEFORE_TORCH = {
    "model.device=warp": "'warp' is no device",
    "model.device=cuda:x": "'cuda:x' is no device",
    "recycle.templates=nowhere.yaml": "cannot read templates",
    "chat.template=nowhere.jinja": "cannot read nowhere.jinja",
    "data.images.root=nowhere": "data.images.root 'nowhere' is no folder",
}


def test_what_can_be_known_before_torch_is_told_before_it_is_imported(tmp_path: Path) -> None:
    """Every command that uses a model, in one process: none of them imports torch."""
    (tmp_path / "file").write_text("x")
    commands = (["train"], ["ablate"], ["solve", "x"], ["judge", "--question", "a", "--response", "b"], ["recycle"],
                ["eval"])  # fmt: skip
    mistakes = [[*words, setting] for words in commands for setting in BEFORE_TORCH]
    outputs = [[*words, "--out", name] for words in commands[2:] for name in ("a.csv", "file/x.jsonl", "x" * 300)]
    outputs += [[*words, "--json", name] for words in commands for name in ("a.yaml", "file/x.json", "x" * 300)]
    outputs += [["train", "--run-dir", "file/a"], ["ablate", "--run-dir", "file"]]
    code = f"""
import sys
from spark_rl.cli import main
for words in {[*mistakes, *outputs]!r}:
    print(words[-1], "<-", " ".join(words[:-1]), file=sys.stderr)
    assert main(words) == 2
    assert "torch" not in sys.modules, words
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len([*mistakes, *outputs]), "each mistake is one line"
    for asked, said in zip(lines[::2], lines[1::2], strict=True):
        assert BEFORE_TORCH.get(asked.partition(" <- ")[0], "cannot write") in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has it")
def test_a_device_that_only_other_machines_have() -> None:
    with pytest.raises(ConfigError, match="only a Mac has it"):
        check_device("mps")
    for name in ("auto", "cpu", "cpu:0", "xpu:1"):
        check_device(name)


def test_text_that_the_output_cannot_show_is_replaced(tmp_path: Path) -> None:
    """Every command with foreign text, in one process whose output is ASCII."""
    write_lines(tmp_path / "ü.jsonl", *({"question": f"π – 漢字 {n}+{n}", "answer": str(n + n)} for n in range(4)))
    settings = [*SMALL, "train.steps=1", "data.train=ü.jsonl", "data.heldout=split:1", "rollout.problems=2",
                "inference.max_new_tokens=8", "rollout.max_new_tokens=8"]  # fmt: skip
    lines = [
        ["train", "--run-dir", "rün", *settings],
        ["report", "rün"],
        ["solve", "π – 漢字", *FAST],
        ["judge", "--question", "π – 漢字", "--response", "ü", *FAST],
        ["eval", "--data", "ü.jsonl", *FAST],
        ["recycle", "--data", "ü.jsonl", *settings],
        ["data", "ü.jsonl"],
        ["config"],
        ["config", "chat.system=π – 漢字"],
    ]
    code = f"""
from spark_rl.cli import main
for words in {lines!r}:
    print("DONE", words[0], main(words))
"""
    done = python(code, tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("DONE")] == [
        f"DONE {words[0]} 0" for words in lines
    ]
    assert done.stdout.isascii()
    assert "? ? ?? 1+1" in done.stdout


# Damaged files

JUNK = {"cut": b'{"a":', "a list": b"[1]", "null": b"null", "empty": b"", "no text": b"\xff\xfe", "deep": b"[" * 20_000}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_damaged_files_of_a_run_are_named(
    junk: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    whole = json.dumps(small(run).model_dump(mode="json"))
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n')
    (run / "config.json").write_bytes(junk)
    for words in (["report", run], ["train", "--run-dir", run, "--resume"], ["solve", "x", "--model", run]):
        assert "config.json" in told(capsys, *words)
    (run / "config.json").write_text(whole)
    (run / "summary.json").write_bytes(junk)
    assert "summary.json" in told(capsys, "report", run)
    (run / "summary.json").unlink()
    (run / "parts.json").write_bytes(junk)
    assert "parts.json" in told(capsys, "train", "--run-dir", run, "--resume")
    (run / "parts.json").unlink()
    for name in ("rollouts.jsonl", "metrics.jsonl"):
        (run / name).write_bytes(junk + b'x\n{"step": 2}\n')
        said = f"{run / name}: 1 of 2 rows is damaged and left out (line 1)"
        caplog.clear()
        assert main(["report", str(run)]) == 0
        assert said in caplog.text
        assert said in (run / "report.html").read_text()
        (run / name).unlink()


def test_the_settings_of_a_run_that_are_none_name_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"rollout": {"samples": "many"}}')
    line = told(capsys, "train", "--run-dir", tmp_path, "--resume")
    assert f"{tmp_path / 'config.json'}: rollout.samples" in line


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"version": "1.0", "added_tokens": [], "model": {"type": "X"}}'),
        ("tokenizer_config.json", b"[]"),
        ("config.json", b"{"),
        ("config.json", b"[]"),
    ],
)
def test_a_model_with_damaged_texts_is_one_line(
    file: str, content: bytes | None, tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_models["qwen3"], tmp_path / "model")
    if content is None:
        for path in model.glob("tokenizer*"):
            path.unlink()
    else:
        (model / file).write_bytes(content)
    line = told(capsys, "data", "procedural:missing", "--model", model)
    assert str(model) in line


@pytest.mark.parametrize(
    "words",
    [["train", "--data", "p.jsonl"], ["eval", "--data", "p.jsonl"], ["solve", "x"], ["recycle", "--data", "p.jsonl"],
     ["judge", "--question", "a", "--response", "b"], ["data", "p.jsonl"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_model_folder_without_a_tokenizer(
    words: list[str], tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "p.jsonl", {"question": "1+1", "answer": "2"})
    shutil.copytree(tiny_models["qwen3"], "model", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "holds no tokenizer" in told(capsys, *words, "--model", "model")


# What was done is kept


def test_rows_are_written_as_they_are_made(tmp_path: Path) -> None:
    total = 40 * asking.BATCH
    write_lines(tmp_path / "many.jsonl", *({"question": f"{n}+_=9", "answer": "1"} for n in range(total)))
    words = command("solve", "--file", "many.jsonl", "--out", "new/rows.jsonl", "--model", BASE, *FAST)
    out = tmp_path / "new" / "rows.jsonl"
    with subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=100)
    rows = json_lines(out)
    assert process.returncode == 130, complained
    assert 0 < len(rows) < total
    assert len(rows) % asking.BATCH == 0
    assert said == f"wrote   new/rows.jsonl: {len(rows):,} of {total:,} rows\n"
    assert complaints(complained).splitlines() == ["spark-rl: stopped"]


def judged_in(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has a P(Yes) in it: the rounds of answers, or the rows of judgements."""
    return [part for row in rows for part in row.get("rounds", [row]) if part.get("probability") is not None]


@pytest.mark.parametrize("name", ["solve", "judge"])
def test_greedy_rows_do_not_depend_on_the_batch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [{"question": f"{n}+_=9", "answer": str(9 - n), "response": f"\\boxed{{{n}}}"} for n in range(5)]
    given[2]["response_b"] = "\\boxed{7}"
    write_lines(tmp_path / "some.jsonl", *given)
    found = []
    for size in (64, 2):
        monkeypatch.setattr(asking, "BATCH", size)
        assert main([name, "--file", "some.jsonl", "--out", f"{size}.jsonl", "--model", BASE, *FAST]) == 0
        found.append(json_lines(tmp_path / f"{size}.jsonl"))
    chances = [[row.pop("probability") for row in judged_in(rows)] for rows in found]
    assert chances[0] == pytest.approx(chances[1], abs=1e-5)  # padding rounds them otherwise
    assert found[0] == found[1]
    assert [row["question"] for row in found[0]] == [row["question"] for row in given]


# Files that are asked for


def test_outputs_make_their_folders_and_follow_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--markdown", str(tmp_path / "a" / "b" / "list.md")]) == 0
    assert (tmp_path / "a" / "b" / "list.md").read_text().startswith("# Settings")
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert main(["config", "--json", str(tmp_path / "link.json")]) == 0
    assert json.loads((tmp_path / "real.json").read_text())["seed"] == 0
    assert (tmp_path / "link.json").is_symlink()
    capsys.readouterr()
    assert main(["config", "--config", "tiny", "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == load_config("tiny").model_dump(mode="json")
    assert "seed: 0" in printed.err
    write_output(Path("/dev/null"), "anything")
