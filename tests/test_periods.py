"""Whose turn it is (``recycle.every``, ``recycle.first``): what is trained on when, and what waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from running import json_lines, loop_of, small
from spark_rl import train
from spark_rl.problem import TASKS
from spark_rl.runs import checkpoints


def facts(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what a clock says."""
    clocks = ("time/", "seconds", "tokens_per_second")
    log = json_lines(run_dir / "metrics.jsonl")
    return [{name: value for name, value in record.items() if not name.startswith(clocks)} for record in log]


def trained(record: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a step updated on the policy's batch, and on recycled problems."""
    return "loss" in record, "loss/recycled" in record


def recycled(record: dict[str, Any]) -> int:
    return sum(record.get(f"recycled/{task}", 0) for task in TASKS)


def test_the_second_period_takes_its_turns_and_the_pool_gathers_between_them(tmp_path: Path) -> None:
    with loop_of(small(tmp_path, "recycle.every=3", "recycle.ready=3")) as loop:
        records = [loop.advance()[0] for _ in range(6)]
    assert [trained(record) for record in records] == [(True, False), (True, False), (True, True)] * 2
    assert [recycled(record) for record in records] == [0, 0, 3] * 2
    pools = [record["pool"] for record in records]
    assert 0 < pools[0] < pools[1], "each step adds to it"
    assert "reward/policy" in records[2]


def test_at_first_the_policys_batch_is_recycled_and_not_trained_on(tmp_path: Path) -> None:
    schedule = ("optimiser.schedule=linear", "optimiser.final_lr=0", "optimiser.lr=1e-6")
    with loop_of(small(tmp_path, "recycle.first=2", "recycle.every=4", "recycle.ready=3", *schedule), steps=4) as loop:
        records = [loop.advance()[0] for _ in range(4)]
    assert [trained(record) for record in records] == [(False, True)] * 2 + [(True, False), (True, True)]
    assert all("reward/policy" in record for record in records), "it is sampled and graded in each step"
    rates = [record.get(name) for record in records for name in ("lr", "lr/recycled")]
    assert rates == [None, pytest.approx(1e-6), None, pytest.approx(7.5e-7), pytest.approx(5e-7), None,
                     pytest.approx(2.5e-7), pytest.approx(1.25e-7)]  # fmt: skip


def test_one_update_of_both_waits_for_its_turn_too(tmp_path: Path) -> None:
    periods = ("train.periods=combined", "recycle.first=2", "recycle.every=4", "recycle.ready=3")
    with loop_of(small(tmp_path, *periods)) as loop:
        before = {name: tensor.clone() for name, tensor in loop.learner.weights().named()}
        first, groups = loop.advance()
        assert {group.problem.task for group in groups} == {"policy"}
        assert not any(trained(first)), "nothing was in the pool"
        assert all(torch.equal(before[name], tensor) for name, tensor in loop.learner.weights().named())
        records = [loop.advance()[0] for _ in range(3)]
    assert [recycled(record) for record in records] == [3, 0, 3]
    assert [trained(record) for record in records] == [(True, False)] * 3


def test_nothing_is_held_back_where_nothing_is_recycled(tmp_path: Path) -> None:
    with loop_of(small(tmp_path, "recycle.preset=policy-only", "recycle.first=3")) as loop:
        assert trained(loop.advance()[0]) == (True, False)


def test_right_reflections_are_trained_under_the_parents_prompt_too(tmp_path: Path) -> None:
    """Without another token sampled, and the same after an interruption."""
    credit = ("recycle.credit=original", "recycle.pointwise=false", "recycle.pairwise=false", "recycle.ready=3",
              "train.save_every=1")  # fmt: skip
    own = train(small(tmp_path / "own", "train.steps=1", *credit, "recycle.credit=own"))
    train(small(tmp_path / "whole", "train.steps=3", *credit))
    train(small(tmp_path / "parts", "train.steps=2", *credit))
    train(small(tmp_path / "parts", "train.steps=3", *credit), resume=True)
    whole, parts = (facts(tmp_path / run) for run in ("whole", "parts"))
    assert whole == parts
    assert whole[0]["tokens"] == own["tokens"]
    right = [record["reward/reflection"] for record in whole]
    assert any(right)
    assert [bool(record.get("credited/recycled")) for record in whole] == [reward > 0 for reward in right]
    assert not any(name.startswith("credited") for name in facts(tmp_path / "own")[0])


def test_a_teacher_changes_the_update_and_not_what_is_sampled_for_it(tmp_path: Path) -> None:
    records, samples = [], []
    for weight in (0, 0.5):
        policy = ("recycle.preset=policy-only", "rollout.samples=8", f"objective.distil={weight}")
        with loop_of(small(tmp_path, *policy)) as loop:
            steps = [loop.advance() for _ in range(2)]
        records.append([record for record, _ in steps])
        samples.append([[r.completion.token_ids for g in groups for r in g.rollouts] for _, groups in steps])
    assert samples[0][0] == samples[1][0]
    assert ["distil" in record for record in records[0]] == [False, False]
    assert records[1][0]["distil"] > 0
    assert records[1][0]["grad_norm"] != records[0][0]["grad_norm"]


def test_turns_go_on_where_a_run_was_interrupted(tmp_path: Path) -> None:
    turns = ("recycle.every=3", "recycle.first=1", "recycle.ready=3", "train.save_every=1")
    train(small(tmp_path / "whole", "train.steps=6", *turns))
    train(small(tmp_path / "parts", "train.steps=4", *turns))
    train(small(tmp_path / "parts", "train.steps=6", *turns), resume=True)
    whole, parts = (facts(tmp_path / run) for run in ("whole", "parts"))
    assert whole == parts
    assert [trained(record)[1] for record in whole] == [True, False, True, False, False, True]
    last = [checkpoints(tmp_path / run)[-1] / "state.json" for run in ("whole", "parts")]
    assert json.loads(last[0].read_text())["pool"] == json.loads(last[1].read_text())["pool"]
