"""``objective.distil``: which groups have a teacher, and what it has in view."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from spark_rl.chat import Prompt
from spark_rl.config import Config, load_config
from spark_rl.problem import Group, Problem
from spark_rl.recycle.teacher import taught

from .groups import GOLD, group, rollout, solved, unanswered


def config(*overrides: str) -> Config:
    return load_config(None, ["recycle.templates=terse", *overrides])


class Encoder:
    """Keeps what it was asked to encode; as many tokens as the prompt has letters."""

    def __init__(self) -> None:
        self.asked: list[Problem] = []

    def __call__(self, problem: Problem) -> Prompt:
        self.asked.append(problem)
        return Prompt("", tuple(range(len(problem.prompt or ""))), ())


def found(*groups: Group, seed: int = 0, settings: Config | None = None) -> tuple[list[Group], list[Problem]]:
    encoder = Encoder()
    return list(taught(groups, settings or config(), encoder, random.Random(seed))), encoder.asked


def test_the_teacher_sees_a_right_response_of_the_group_in_the_prompt_of_a_reflection() -> None:
    step = [solved(2, 2, i) for i in range(20)]
    given, asked = found(*step)
    shows = {problem.prompt for problem in asked}
    assert shows == {f"retry What is it?:way {i}: \\boxed{{{GOLD}}}" for i in (0, 1)}, "either of the right ones"
    assert [g.teacher_ids for g in given] == [tuple(range(len(problem.prompt or ""))) for problem in asked]
    assert [replace(g, teacher_ids=()) for g in given] == step, "and nothing else is changed"
    assert {problem.images for problem in asked} == {("a.png",)}


@pytest.mark.parametrize(
    "alone",
    [
        solved(3, 0),
        solved(0, 3),
        group(unanswered("timeout"), rollout("no box")),
        replace(solved(1, 1), problem=replace(solved(1, 1).problem, task="reflection")),
    ],
    ids=["all right", "all wrong", "none readable", "recycled"],
)
def test_groups_without_a_teacher(alone: Group) -> None:
    assert found(alone) == ([alone], [])


def test_a_prompt_that_is_too_long_teaches_nothing() -> None:
    given, asked = found(solved(1, 1), settings=config("rollout.max_prompt_tokens=9"))
    assert len(asked) == 1
    assert given == [solved(1, 1)]


def test_what_has_no_readable_answer_is_taught_too() -> None:
    (given,), _ = found(group(rollout(f"\\boxed{{{GOLD}}}"), rollout("no box")))
    assert given.teacher_ids
