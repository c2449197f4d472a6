"""Which of several answers is given, and which of them are the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl import Problem
from spark_rl.inference import equal_answers
from spark_rl.voting import VOTES, Vote, classes, elected

VOTED = st.lists(st.tuples(st.integers(0, 4) | st.none(), st.integers(0, 8).map(lambda n: n / 8)), min_size=1)


@pytest.mark.parametrize(
    ("vote", "answers", "chances", "given"),
    [
        ("majority", "abb", (1.0, 0.0, 0.0), 1),
        ("majority", "abab", (0.0, 0.0, 1.0, 1.0), 0),
        ("majority", "--a", (1.0, 1.0, 0.0), 2),
        ("verdict", "abb", (0.9, 0.1, 0.95), 2),
        ("verdict", "ab", (0.5, 0.5), 0),
        ("verdict", "-a", (1.0, 0.0), 1),
        ("weighted", "abb", (0.9, 0.5, 0.5), 1),
        ("weighted", "abb", (0.9, 0.4, 0.4), 0),
        ("weighted", "abb", (0.0, 0.0, 0.0), 1),
        ("weighted", "---", (1.0, 1.0, 1.0), 0),
    ],
)
def test_votes_by_hand(vote: Vote, answers: str, chances: tuple[float, ...], given: int) -> None:
    members = classes([None if answer == "-" else answer for answer in answers], lambda one, other: one == other)
    assert elected(members, chances, vote) == given


@given(VOTED, st.randoms(use_true_random=False))
def test_the_order_of_samples_decides_between_equals_only(
    voted: list[tuple[int | None, float]], rng: random.Random
) -> None:
    def result(drawn: list[tuple[int | None, float]], vote: Vote) -> tuple[float, int]:
        """What the elected answer had to show for itself."""
        members = classes([None if a is None else str(a) for a, _ in drawn], lambda one, other: one == other)
        won = drawn[elected(members, [chance for _, chance in drawn], vote)]
        mine = [chance for answer, chance in drawn if answer == won[0]]
        return {"majority": (0.0, len(mine)), "verdict": (won[1], 0), "weighted": (sum(mine), len(mine))}[vote]

    mixed = rng.sample(voted, len(voted))
    for vote in VOTES:
        if any(answer is not None for answer, _ in voted):
            assert result(mixed, vote) == result(voted, vote)


@given(VOTED)
def test_equal_chances_make_a_weighted_vote_a_majority(voted: list[tuple[int | None, float]]) -> None:
    members = classes([None if a is None else str(a) for a, _ in voted], lambda one, other: one == other)
    assert elected(members, [0.5] * len(voted), "weighted") == elected(members, [0.5] * len(voted), "majority")


def test_answers_are_the_same_if_the_verifier_says_so() -> None:
    math = Problem(id="p", question="?", answer="")
    answers = [r"\frac{1}{2}", "0.5", None, "2", r"\frac{1}{", "1/2", r"\sqrt{4}"]
    assert equal_answers(math, answers) == [0, 0, None, 3, None, 0, 3]
    choice = Problem(id="p", question="?", answer="", kind="choice", choices=("ten", "twelve"))
    assert equal_answers(choice, ["B", "twelve", "(A)", "Z"]) == [0, 0, 2, None]
    exact = Problem(id="p", question="?", answer="", kind="exact")
    assert equal_answers(exact, ["+-", "-+", " +- "]) == [0, 1, 0]
