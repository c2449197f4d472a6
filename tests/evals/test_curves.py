"""Accuracy against tokens: points by hand, and rounds that are those of test-time scaling itself."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import BASE, reasoner_of
from spark_rl import load_config
from spark_rl.backend import open_backend
from spark_rl.config import DataConfig, InferenceConfig
from spark_rl.data import load_problems
from spark_rl.evals.curves import Attempt, Spent, Try, attempts, chained, curves, measured, sizes, spent
from spark_rl.rewards import Grader
from spark_rl.verify import Verifier

RIGHT, WRONG = Try(True, 10, 4, True, 0.9), Try(False, 10, 4, False, 0.2)
FOOLED = Try(False, 6, 2, True, 0.6)
CHAIN = ((WRONG, 0), (WRONG, 0), (FOOLED, 2), (RIGHT, 3))
"""A wrong answer, a reflection that can't be read, one that the judge is fooled by, and a right one."""


@pytest.mark.parametrize(
    ("rounds", "least", "right", "tokens"),
    [
        (0, 0.5, False, 10),
        (1, 0.5, False, 10 + 4 + 10),
        (2, 0.5, False, 10 + 4 + 10 + 6),
        (3, 0.5, False, 10 + 4 + 10 + 6 + 2),
        (3, 0.8, True, 10 + 4 + 10 + 6 + 2 + 10),
        (3, 0.1, False, 10 + 4),
    ],
)
def test_a_chain_costs_what_was_generated_until_it_stops(rounds: int, least: float, right: bool, tokens: int) -> None:
    """What stands is judged once, though a reflection that can't be read was made of it."""
    assert chained(CHAIN, rounds, lambda one: (one.probability or 0) >= least) == (right, tokens)


def test_points_by_hand() -> None:
    attempt = Attempt("p", (RIGHT, WRONG, WRONG, RIGHT), (0, 1, 1, 0), (CHAIN,))
    found = spent(attempt, 3, random.Random(0))
    assert found["single", 1] == found["majority", 1] == (0.5, 10)
    assert found["weighted", 1] == found["verdict", 1] == (0.5, 14)
    assert found["majority", 4] == (1.0, 40), "a tie goes to the earliest"
    assert found["verdict", 4] == found["weighted", 4] == (1.0, 56)
    assert found["verdict", 2][0] > found["majority", 2][0], "a judge that is right picks the right one of two"
    assert found["rounds", 0] == (0.0, 10)
    assert found["rounds", 3] == (0.0, 32)
    assert found["adaptive", 0.8] == (1.0, 42)
    assert sizes(6) == [1, 2, 4, 6]


def test_equal_tokens_by_hand() -> None:
    """Weighted voting reaches 0.6 at 40 tokens where majority voting has 0.5; between 20 and 40 it is straight."""
    one: Spent = {
        ("single", 1): (0.3, 10.0),
        ("majority", 1): (0.3, 10.0), ("majority", 2): (0.4, 20.0), ("majority", 4): (0.5, 40.0),
        ("weighted", 1): (0.3, 20.0), ("weighted", 2): (0.6, 40.0),
    }  # fmt: skip
    found = curves([one] * 5, random.Random(0), 20)
    assert found["budgets"] == pytest.approx([10, 20, 40])
    assert [cell["accuracy"] for cell in found["equal_tokens"]["majority"]] == pytest.approx([0.3, 0.4, 0.5])
    assert [cell["gain"] for cell in found["equal_tokens"]["majority"]] == [0, 0, 0]
    assert [cell["accuracy"] for cell in found["equal_tokens"]["weighted"]] == pytest.approx([0.3, 0.3, 0.6])
    assert [cell["gain"] for cell in found["equal_tokens"]["weighted"]] == pytest.approx([0, -0.1, 0.1])
    cell = found["equal_tokens"]["weighted"][2]
    assert (cell["gain_low"], cell["gain_high"]) == pytest.approx((0.1, 0.1)), "problems that are alike"


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=8), st.integers(0, 9))
def test_votes_cost_no_more_than_all_answers_and_judgements(drawn: list[tuple[bool, float]], seed: int) -> None:
    answers = tuple(Try(right, 10, 5, p > 0.5, p) for right, p in drawn)
    attempt = Attempt("p", answers, tuple(0 if right else 1 for right, _ in drawn), (((answers[0], 0),),))
    found = spent(attempt, 0, random.Random(seed))
    for (name, size), (accuracy, tokens) in found.items():
        assert 0 <= accuracy <= 1
        if name != "single":
            assert tokens == pytest.approx(
                {"majority": 10, "verdict": 15, "weighted": 15, "rounds": 10}[name] * max(size, 1)
            )


def test_rounds_are_those_of_test_time_scaling(verifier: Verifier) -> None:
    """Greedily one answer a problem has one chain, and that is what the reasoner itself would have made."""
    backend = open_backend(load_config("tiny", ["model.threads=1"], model={"path": BASE}))
    puzzles = load_problems("procedural:missing", DataConfig(), "heldout")[:12]
    reasoner = replace(reasoner_of(backend), config=InferenceConfig(rounds=2, max_new_tokens=40))
    (drawn,) = attempts(reasoner, Grader(verifier), puzzles, 1, 2)
    points = [spent(attempt, 2, random.Random(0)) for attempt in drawn]
    for rounds in (0, 1, 2):
        config = InferenceConfig(rounds=rounds, max_new_tokens=40)
        traces = replace(reasoner, config=config).solve(puzzles)
        verdicts = Grader(verifier).grade(puzzles, [trace.response for trace in traces])
        for point, trace, verdict in zip(points, traces, verdicts, strict=True):
            assert point["rounds", rounds] == (verdict.reward, sum(turn.tokens for turn in trace.rounds))
    whole = measured(drawn, 2, 0)
    assert whole["single"]["accuracy"] == whole["curves"]["rounds"][0]["accuracy"]
    assert set(whole["calibration"]) == {"ece", "brier", "auroc"}
