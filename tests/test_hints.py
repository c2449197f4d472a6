"""Hints: each is given for what it is about, once, and never for a healthy run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from running import json_lines, small, write_lines
from spark_rl import train
from spark_rl.config import settings_table
from spark_rl.hints import WINDOW, Hints
from spark_rl.report.watch import Silent

HEALTHY = {
    "reward/policy": 0.4, "reward/pointwise": 0.6, "reward/pairwise": 0.5, "flat": 0.3, "flat/recycled": 0.4,
    "status/no_answer": 0.1, "entropy": 0.4, "clipped": 0.1, "label/yes": 0.4, "verdict/yes": 0.6, "label/a": 0.5,
    "verdict/a": 0.7, "engine_kl": 1e-6, "reward_failed/mine": 0,
}  # fmt: skip

CASES = [
    ({"reward/policy": 0.0, "reward/pointwise": 0.0, "reward/pairwise": 0.0, "flat": 1.0}, "no response has earned"),
    ({"reward/policy": 0.0, "reward/pointwise": 0.0, "reward/pairwise": 0.0, "status/no_answer": 0.9}, "chat.policy"),
    ({"flat": 1.0, "flat/recycled": 1.0}, "in every group of 10 steps"),
    ({"verdict/yes": 0.995}, "the judge has said Yes to almost all for 10 steps, but 40% of the labels are Yes"),
    ({"verdict/yes": 0.0}, "the judge has said No"),
    ({"verdict/a": 1.0}, "the judge has said A"),
    ({"clipped": 0.8}, "80% of the responses of 10 steps were cut"),
    ({"entropy": 0.001}, "the policy always gives the same responses"),
    ({"engine_kl": 0.3}, "engine and learner disagree by 0.3 nats"),
]


def heard(records: list[dict[str, Any]]) -> list[str]:
    hints = Hints()
    return [line for step, record in enumerate(records, start=1) for line in hints.hear({"step": step, **record})]


def test_a_healthy_run_gets_none() -> None:
    assert heard([HEALTHY] * 50) == []


def test_the_embedded_default_gets_none() -> None:
    """The log of a whole run of it, 45 steps with seed 0."""
    assert heard(json_lines(Path(__file__).parent / "default_metrics.jsonl")) == []


@pytest.mark.parametrize(("change", "begins"), CASES)
def test_a_hint_is_given_once_after_enough_steps(change: dict[str, float], begins: str) -> None:
    sick = HEALTHY | change
    assert heard([sick] * (WINDOW - 1)) == []
    (line,) = heard([HEALTHY] * 5 + [sick] * (3 * WINDOW))
    assert begins in line
    assert "\n" not in line
    assert heard(([sick] * (WINDOW - 1) + [HEALTHY]) * 3) == [], "only steps in a row count"


@pytest.mark.parametrize("change", [change for change, _ in CASES])
def test_a_hint_names_settings_that_exist(change: dict[str, float]) -> None:
    (line,) = heard([HEALTHY | change] * WINDOW)
    known = {name for name, *_ in settings_table()}
    named = set(re.findall(r"\b(?:[a-z]+\.)[a-z_]+\b", line)) - {"rollouts.jsonl"}
    assert named
    assert named <= known


def test_a_judge_that_is_asked_now_and_then_is_heard_over_as_many_turns() -> None:
    quiet = {key: value for key, value in HEALTHY.items() if not key.startswith(("verdict/", "label/"))}
    turns = [record for _ in range(WINDOW) for record in (quiet, quiet, HEALTHY | {"verdict/yes": 0.0})]
    assert heard(turns[:-1]) == []
    (line,) = heard(turns)
    assert "the judge has said No" in line


def test_what_is_rare_is_no_collapse() -> None:
    assert heard([HEALTHY | {"label/yes": 0.02, "verdict/yes": 0.0}] * 30) == [], "the judge is right, then"


def test_a_reward_function_that_fails_is_named_at_once() -> None:
    (line,) = heard([HEALTHY, HEALTHY | {"reward_failed/mine": 0.25}, HEALTHY | {"reward_failed/mine": 0.5}])
    assert line.startswith("the reward function mine failed on 25% of the responses of step 2")


def test_steps_without_metrics_say_nothing() -> None:
    assert heard([{"tokens": 0}] * 30) == []


# Real runs


class Hinted(Silent):
    def __init__(self) -> None:
        self.hints: list[str] = []

    def hint(self, text: str) -> None:
        self.hints.append(text)


def test_a_run_that_is_never_right_is_told_so(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "d.jsonl", *({"question": f"7*_-{n}=1{n}", "answer": "999"} for n in range(6)))
    watcher = Hinted()
    settings = (f"data.train={rows}", "train.steps=11", "recycle.preset=policy-only", "rollout.problems=2")
    train(small(tmp_path / "run", *settings), watcher=watcher)
    (line,) = watcher.hints
    assert line.startswith("no response has earned a reward in 10 steps")


def test_a_run_whose_responses_are_cut_is_told_so(tmp_path: Path) -> None:
    watcher = Hinted()
    settings = ("train.steps=10", "recycle.preset=policy-only", "rollout.problems=2", "rollout.max_new_tokens=2")
    train(small(tmp_path, *settings), watcher=watcher)
    assert any("were cut at the limit" in line for line in watcher.hints)
    assert len(set(watcher.hints)) == len(watcher.hints)
