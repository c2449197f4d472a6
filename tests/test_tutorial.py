"""docs/tutorial.md, followed to the letter: its files are written and its commands run in order, with smaller runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from running import spark_rl_process

PAGE = (Path(__file__).parents[1] / "docs/tutorial.md").read_text(encoding="utf-8")
SMALLER = (
    "train.steps=2", "rollout.problems=4", "rollout.samples=4", "recycle.ready=4", "recycle.judge_cap=4",
    "recycle.reflection_cap=4", "evaluation.problems=2", "inference.rounds=1", "data.transfer=null",
    "rollout.max_new_tokens=16", "inference.max_new_tokens=16",
)  # fmt: skip
"""Settings that make a run of seconds out of any run; they come last, so they win."""


@pytest.mark.timeout(900)
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    for name, content in re.findall(r'^```\w+ title="(\S+)"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content)
    commands = re.findall(r"^    spark-rl (.*)$", PAGE, re.MULTILINE)
    said = {}
    for command in commands:
        words = shlex.split(command.replace("\\", "\\\\"))
        done = spark_rl_process(*words, *(SMALLER if words[0] == "train" else ()), cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        said[command] = done.stdout

    steps = {name: len((tmp_path / f"runs/{name}/metrics.jsonl").read_text().splitlines())
             for name in ("first", "mine", "further", "brief")}  # fmt: skip
    assert steps == {"first": 2, "mine": 2, "further": 2, "brief": 2}
    record = json.loads((tmp_path / "runs/brief/metrics.jsonl").read_text().splitlines()[0])
    assert 0 < record["reward_function/brevity"] <= 1
    assert (tmp_path / "brief/model.safetensors").exists()
    assert "runs/further" in said["runs"] or "first" in said["runs"]
    assert any("GiB" in text for command, text in said.items() if command.startswith("plan"))
