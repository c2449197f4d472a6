"""The reward functions that users read first: what they give, and that the commands in their docstrings work."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from running import SMALL, json_lines, spark_rl_process, write_lines
from spark_rl.rewards import load_function

EXAMPLES = Path(__file__).parents[2] / "examples"
FORMAT, CODE = f"{EXAMPLES}/format_reward.py:works_first", f"{EXAMPLES}/code_reward.py:passes_tests"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"6 times 7 is 42, so \boxed{42}.", 1.0),
        (r"\boxed{42}", 0.5),
        (r"so \boxed{42}, as was to be shown", 0.5),
        (r"\boxed{41}, no: \boxed{42}", 0.5),
        ("42", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_reward(text: str, reward: float) -> None:
    assert load_function(FORMAT)(completions=[text]) == [reward]


ADD = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", 1.0),
        ("def add(a, b): return a + b", 1.0),
        ("def add(a, b): return 3", 0.5),
        ("I can't.", 0.0),
        ("exit(0)", 0.0),
        ("import os; os._exit(0)", 0.0),
        ("def add(a, b): return a + b\nx = ' ' * (1 << 33)", 0.0),
        ("import sys\nwhile True: sys.stderr.write('x' * 9999)", 0.0),
        ("def add(a, b): return a + b  # \ud800", 1.0),
        ("import subprocess; subprocess.Popen(['sleep', '99'])\ndef add(a, b): return a + b", 1.0),
    ],
    ids=["fenced", "bare", "half", "no code", "exit", "hard exit", "memory", "flood", "surrogate", "left behind"],
)
def test_the_code_reward(text: str, reward: float) -> None:
    begun = time.monotonic()
    found = asyncio.run(load_function(CODE)(completions=[text], tests=[ADD]))
    assert found == [reward]
    assert time.monotonic() - begun < 60


def test_the_code_reward_ends_endless_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    function = load_function(CODE)
    monkeypatch.setitem(function.__globals__, "SECONDS", 1)
    looping = ["while True: pass", "import time; time.sleep(99)", "def add(a, b): return a + b"]
    assert asyncio.run(function(completions=looping, tests=[ADD[:1], ADD[:1], ADD[1]])) == [0.0, 0.0, 1.0]


def test_a_format_reward_beside_the_verifier_trains(tmp_path: Path) -> None:
    done = spark_rl_process(
        "train", "--config", "tiny", "--run-dir", "run", *SMALL, "reward.verifier=1",
        f"reward.function=[{{path: {FORMAT}, weight: 0.2}}]", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for record in json_lines(tmp_path / "run" / "metrics.jsonl"):
        assert record["reward_failed/works_first"] == 0
        assert 0 < record["reward_function/works_first"] <= 1
        assert record["status/failed"] == 0
    for row in json_lines(tmp_path / "run" / "rollouts.jsonl"):
        if row["task"] in {"policy", "reflection"}:
            right = float(row["status"] == "correct")
            assert row["reward"] == pytest.approx((right + 0.2 * row["values"]["works_first"]) / 1.2)


def test_a_code_reward_in_place_of_the_verifier_trains(tmp_path: Path) -> None:
    write_lines(tmp_path / "code.jsonl", *({"question": f"{n}+add", "tests": ["x = 1"]} for n in range(6)))
    done = spark_rl_process(
        "train", "--config", "tiny", "--data", "code.jsonl", "--heldout", "split:2", "--run-dir", "run", *SMALL[:-2],
        "train.steps=1", "data.heldout=split:2", "rollout.problems=2", "inference.rounds=1", f"reward.function={CODE}",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = json_lines(tmp_path / "run" / "metrics.jsonl")
    assert record["reward_failed/passes_tests"] == 0
    assert record["status/correct"] + record["status/wrong"] == 1
