"""``recycle.credit: original``: what a reflection takes along, and which responses go to its parent's prompt."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.chat import Prompt
from spark_rl.config import RecycleConfig
from spark_rl.problem import Group, Problem
from spark_rl.recycle import Pool, recycle
from spark_rl.recycle.credit import credited

from .groups import GOLD, groups, rollout, solved, unanswered

ORIGINAL = RecycleConfig(credit="original", reflection_cap=1000, judge_cap=1000, per_group=2)


def encode(problem: Problem) -> Prompt:
    """As many tokens as the question has letters."""
    assert problem.prompt is None
    return Prompt("", tuple(range(len(problem.question))), ())


@given(groups(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_reflections_alone_take_the_rewards_of_their_parents_along(step: list[Group], seed: int) -> None:
    rewards = {group.problem.id: group.rewards for group in step}
    problems = recycle(step, ORIGINAL, random.Random(seed))
    for problem in problems:
        assert problem.siblings == (rewards[problem.parent or ""] if problem.task == "reflection" else ())
    own = recycle(step, ORIGINAL.model_copy(update={"credit": "own"}), random.Random(seed))
    assert own == [replace(problem, siblings=()) for problem in problems], "and nothing else is another"


def reflected(*answers: str, siblings: tuple[float, ...] = (0.0, 1.0)) -> Group:
    """A group of reflections on a wrong response of a parent, as it is sampled."""
    (problem,) = recycle([solved(0, 1)], ORIGINAL.model_copy(update={"pointwise": False}), random.Random(0))
    rollouts = tuple(rollout(f"rather \\boxed{{{answer}}}") for answer in answers)
    return Group(replace(problem, siblings=siblings), rollouts, (9, 9, 9))


def test_the_right_ones_answer_the_parent() -> None:
    group = reflected(GOLD, "3", GOLD)
    (found,) = credited([group], encode, 100)
    parent = solved(0, 1).problem
    assert found.problem == parent, "the very problem from the data"
    assert found.rollouts == (group.rollouts[0], group.rollouts[2])
    assert found.siblings == (0.0, 1.0)
    assert found.prompt_ids == tuple(range(len(parent.question)))


def test_what_is_not_credited() -> None:
    assert list(credited([reflected("3", "4")], encode, 100)) == [], "none is right"
    assert list(credited([reflected(GOLD, siblings=())], encode, 100)) == [], "recycle.credit is own"
    assert list(credited([reflected(GOLD)], encode, 3)) == [], "the prompt is too long"
    late = replace(reflected(GOLD), rollouts=(unanswered("timeout"),))
    assert list(credited([late, solved(1, 1)], encode, 100)) == []


def test_a_resumed_pool_credits_the_same() -> None:
    problems = recycle([solved(1, 2)], ORIGINAL, random.Random(0))
    pool = Pool(9)
    pool.add(problems)
    state = json.loads(json.dumps(pool.state()))
    assert Pool.from_state(9, state).take(9) == problems
    assert [values.get("siblings") for values in state] == [
        [1.0, 0.0, 0.0] if problem.task == "reflection" else None for problem in problems
    ], "what has none is saved as before"
