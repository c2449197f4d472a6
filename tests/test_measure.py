"""Golden numbers of hand-made groups."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spark_rl.config import ChatConfig
from spark_rl.data.images import open_image
from spark_rl.measure import batch_metrics, left_out_metrics, rollout_records
from spark_rl.problem import STATUSES, Completion, Group, Kind, Problem, Rollout, Status, Task, Verdict
from spark_rl.report.thumbnails import BUDGET, MOST, SIDE, thumbnails
from vision import draw_image


def rollout(status: Status, logprobs: tuple[float, ...] = (-1.0,), *, cut: bool = False) -> Rollout:
    completion = Completion(f"text {status}", tuple(range(len(logprobs))), logprobs, "length" if cut else "stop")
    return Rollout(completion, Verdict(1.0 if status == "correct" else 0.0, status, "7"))


def group(*rollouts: Rollout, task: Task = "policy", kind: Kind = "math", answer: str = "42", id: str = "p") -> Group:  # noqa: A002
    return Group(Problem(id, "What?", answer, kind=kind, task=task), rollouts, (1, 2))


def judge(answer: str, *statuses: Status, task: Task = "pointwise") -> Group:
    return group(*map(rollout, statuses), task=task, kind="verdict", answer=answer)


def test_golden_metrics_of_a_mixed_batch() -> None:
    metrics = batch_metrics(
        [
            group(rollout("correct", (-1.0, -2.0)), rollout("wrong", (-0.5,))),
            group(rollout("no_answer", (-0.5, -0.5, -0.5, -3.0), cut=True), rollout("timeout", (-2.0,), cut=True)),
            judge("Yes", "correct", "wrong"),
            group(rollout("correct"), rollout("correct"), task="reflection"),
        ]
    )
    assert metrics["reward/policy"] == 0.25
    assert metrics["reward/pointwise"] == 0.5
    assert metrics["reward/reflection"] == 1.0
    assert "reward/pairwise" not in metrics
    assert (metrics["recycled/pointwise"], metrics["recycled/reflection"]) == (1, 1)
    assert "recycled/policy" not in metrics
    assert "recycled/pairwise" not in metrics
    assert metrics["tokens"] == 2 + 1 + 4 + 1 + 4
    assert metrics["prompt_tokens"] == 4 * 2, "a group's prompt counts once"
    assert "images" not in metrics
    assert metrics["entropy"] == pytest.approx((3 + 0.5 + 4.5 + 2 + 4) / 12)
    assert metrics["length/mean"] == 1.5
    assert metrics["length/max"] == 4
    assert metrics["clipped"] == 0.25
    shares = {"correct": 4 / 8, "wrong": 2 / 8, "no_answer": 1 / 8, "unparsable": 0.0, "timeout": 1 / 8, "failed": 0.0}
    assert {status: metrics[f"status/{status}"] for status in STATUSES} == shares


def test_golden_balance_of_labels_and_verdicts() -> None:
    metrics = batch_metrics(
        [
            judge("Yes", "correct", "wrong"),  # says Yes, No
            judge("No", "wrong", "unparsable"),  # says Yes, nothing
            judge("No", "correct", "no_answer"),  # says No, nothing
            judge("A", "wrong", "wrong", task="pairwise"),  # says B, B
            judge("B", "correct", "wrong", task="pairwise"),  # says B, A
            judge("B", "correct", "correct", task="pairwise"),  # says B, B
            judge("A", "correct", "correct"),  # of one response: no position, so it says nothing about position bias
            judge("B", "wrong", "wrong"),
        ]
    )
    assert metrics["label/yes"] == pytest.approx(1 / 3)
    assert metrics["verdict/yes"] == pytest.approx(2 / 4), "of those that can be read"
    assert metrics["unreadable/yes"] == pytest.approx(2 / 6)
    assert metrics["label/a"] == pytest.approx(1 / 3)
    assert metrics["verdict/a"] == pytest.approx(1 / 6)
    assert metrics["unreadable/a"] == 0
    assert (metrics["label/letter"], metrics["verdict/letter"]) == (0.5, 1.0)


def test_a_judge_that_says_yes_or_nothing_does_not_look_balanced() -> None:
    metrics = batch_metrics([judge("Yes", "correct", "timeout"), judge("No", "wrong", "no_answer")])
    assert (metrics["label/yes"], metrics["verdict/yes"], metrics["unreadable/yes"]) == (0.5, 1.0, 0.5)


def test_no_readable_verdict_has_no_share() -> None:
    metrics = batch_metrics([judge("Yes", "timeout", "unparsable", "no_answer")])
    assert (metrics["label/yes"], metrics["unreadable/yes"]) == (1.0, 1.0)
    assert "verdict/yes" not in metrics


def test_what_a_step_left_out_is_counted_by_task() -> None:
    tasks: tuple[Task, ...] = ("policy", "reflection", "reflection")
    assert left_out_metrics([Problem("p", "?", "1", task=task) for task in tasks], 4) == {
        "skipped": 3, "skipped/policy": 1, "skipped/pointwise": 0, "skipped/pairwise": 0, "skipped/reflection": 2,
        "dropped": 4,
    }  # fmt: skip


def test_a_choice_problem_answered_a_is_no_verdict() -> None:
    metrics = batch_metrics([group(rollout("correct"), kind="choice", answer="A")])
    assert not [name for name in metrics if name.startswith(("label/", "verdict/"))]


def test_no_groups_and_no_tokens() -> None:
    assert batch_metrics([]) == {"tokens": 0}
    metrics = batch_metrics([group(rollout("no_answer", ()))])
    assert (metrics["tokens"], metrics["entropy"], metrics["length/mean"]) == (0, 0.0, 0.0)


def test_a_reward_taken_for_length_counts_as_no_reward_and_stays_correct() -> None:
    taken = Rollout(Completion("", (1,), (-1.0,), "length"), Verdict(0.0, "correct", "42"))
    metrics = batch_metrics([group(taken, rollout("correct"))])
    assert (metrics["reward/policy"], metrics["status/correct"]) == (0.5, 1.0)


def records(groups: list[Group], count: int) -> list[dict[str, Any]]:
    return list(rollout_records(groups, 5, count, ChatConfig(policy="solve {question}")))


def test_records_hold_what_a_reader_needs() -> None:
    (record,) = records([group(rollout("wrong"), rollout("correct"), id="gsm8k-1")], 3)
    assert record == {
        "step": 5, "task": "policy", "problem": "gsm8k-1", "prompt": "solve What?", "response": "text wrong",
        "label": "42", "reward": 0.0, "status": "wrong", "extracted": "7", "tokens": 1, "question": "What?",
        "others": [{"response": "text correct", "reward": 1.0, "status": "correct", "extracted": "7", "tokens": 1}],
    }  # fmt: skip
    json.dumps(record, allow_nan=False)


def recycled(task: Task, parent: str, number: int = 0) -> Group:
    problem = Problem(f"{parent}/{task}-{number}", "What?", "Yes", "verdict", task, "right?", parent=parent)
    return Group(problem, (rollout("correct"), rollout("wrong")), (1, 2))


def kept(groups: list[Group], count: int) -> set[str]:
    return {record["problem"] for record in records(groups, count)}


def test_problems_are_kept_with_all_that_was_made_of_them() -> None:
    asked = [group(rollout("wrong"), id=f"p-{number}") for number in range(9)]
    made = [recycled("pointwise", "p-7", 0), recycled("pointwise", "p-7", 1), recycled("reflection", "p-7"),
            recycled("pairwise", "p-2"), recycled("pointwise", "p-3")]  # fmt: skip
    found = kept([*asked, *made], 1)
    assert found >= {"p-7", "p-7/pointwise-0", "p-7/pointwise-1", "p-7/reflection-0"}, "most kinds were made of it"
    assert found - {"p-7", "p-7/pointwise-0", "p-7/pointwise-1", "p-7/reflection-0"} == {"p-2", "p-2/pairwise-0"}, (
        "each task is there, with its parent"
    )
    assert len(kept(asked, 4)) == 4
    assert kept([*asked, *made], 99) == {one.problem.id for one in [*asked, *made]}
    assert records([*asked, *made], 0) == []
    child = next(one for one in records([*asked, *made], 1) if one["problem"] == "p-7/reflection-0")
    assert (child["parent"], len(child["others"])) == ("p-7", 1)


def test_what_waited_in_the_pool_is_kept_where_its_parent_was() -> None:
    asked = [group(rollout("wrong"), id=f"p-{number}") for number in range(50)]
    parents = kept(asked, 5)
    later = [recycled(task, f"p-{number}") for number in range(50) for task in ("pointwise", "reflection")]
    assert {name.partition("/")[0] for name in kept(later, 5)} == parents
    assert len(kept(later, 5)) == 10


def test_images_are_counted_and_kept_as_thumbnails() -> None:
    picture = draw_image(0, 500, 300)
    seen = replace(group(rollout("wrong")), problem=Problem("p", "What?", "42", images=(picture, picture)))
    assert batch_metrics([seen, group(rollout("wrong"))])["images"] == 2
    with_images, without = records([seen, group(rollout("wrong"))], 2)
    assert "images" not in without
    first, second = with_images["images"]
    assert first == second
    small = open_image(first)
    assert small.size == (160, 96)
    assert small.getpixel((0, 0)) == pytest.approx(picture.getpixel((0, 0)), abs=8)
    json.dumps(with_images, allow_nan=False)


def test_thumbnails_are_few_and_small_whatever_the_images() -> None:
    noise = Image.effect_noise((900, 700), 90).convert("RGB")
    found = thumbnails([noise] * 9)
    assert len(found) == MOST
    assert sum(map(len, found)) <= BUDGET
    assert max(open_image(found[0]).size) <= SIDE


def test_an_image_that_is_gone_costs_no_record(tmp_path: Path) -> None:
    draw_image(1, 40, 40).save(tmp_path / "there.png")
    images = (str(tmp_path / "gone.png"), str(tmp_path / "there.png"))
    (record,) = records([replace(group(rollout("wrong")), problem=Problem("p", "What?", "42", images=images))], 1)
    assert len(record["images"]) == 1
