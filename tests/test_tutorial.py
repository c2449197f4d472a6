"""docs/tutorial.md, followed to the letter: its files are written and its commands run in order, with smaller runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from spark_rl.cli import main

PAGE = (Path(__file__).parents[1] / "docs/tutorial.md").read_text(encoding="utf-8")
SMALLER = (
    "train.steps=1", "rollout.problems=2", "rollout.samples=2", "recycle.ready=1", "recycle.judge_cap=2",
    "recycle.reflection_cap=2", "evaluation.problems=1", "inference.rounds=1", "data.transfer=null",
    "rollout.max_new_tokens=16", "inference.max_new_tokens=16",
)  # fmt: skip
"""Settings that make a run of seconds out of any run; they come last, so they win."""


@pytest.mark.timeout(900)
def test_every_command_of_the_tutorial_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in re.findall(r'^```\w+ title="(\S+)"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE):
        Path(name).write_text(content)
    commands = re.findall(r"^    spark-rl (.*)$", PAGE, re.MULTILINE)
    said = {}
    for command in commands:
        words = shlex.split(command)
        more = (
            SMALLER
            if words[0] == "train"
            else ("inference.max_new_tokens=16",)
            if words[0] in {"solve", "eval"}
            else ()
        )
        code = main([*words, *more])
        out, err = capsys.readouterr()
        assert code == 0, f"{command}\n{err}"
        said[words[0]] = out

    steps = {name: len(Path(f"runs/{name}/metrics.jsonl").read_text().splitlines())
             for name in ("first", "mine", "further", "brief")}  # fmt: skip
    assert steps == dict.fromkeys(steps, 1)
    record = json.loads(Path("runs/brief/metrics.jsonl").read_text())
    assert 0 < record["reward_function/brevity"] <= 1
    assert Path("brief/model.safetensors").exists()
    assert "GiB" in said["plan"]
    assert len(commands) == 13
