"""The measures that are weighed are those that tables show, and a claim is decided by where its interval lies."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.ablate import ARMS, FORMS
from spark_rl.claims.bootstrap import Estimate
from spark_rl.claims.catalogue import CLAIMS, Comparison
from spark_rl.claims.measures import MEASURES, columns, difference
from spark_rl.claims.page import named, tokens_until
from spark_rl.claims.run import Run, decide, decision_of
from spark_rl.evals.judge_accuracy import Judged, judge_accuracy
from spark_rl.evals.outcomes import Outcomes

rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from([True, False, None]), st.booleans(), st.sampled_from([True, False, None])),
    min_size=1, max_size=30,
)  # fmt: skip


def outcomes(drawn: list[tuple[bool, bool | None, bool, bool | None]]) -> Outcomes:
    first, accepted, final, compared = zip(*drawn, strict=True)
    return Outcomes(tuple(f"p{n}" for n in range(len(drawn))), first, accepted, final, compared)


def measured(kept: Outcomes) -> dict[str, float]:
    sums = columns(kept).sum(axis=1)
    return {name: float(function(sums)) for name, (_, function) in MEASURES.items()}


@given(rows)
def test_measures_are_those_of_the_tables(drawn: list[tuple[bool, bool | None, bool, bool | None]]) -> None:
    kept = outcomes(drawn)
    found = measured(kept)
    judged = [Judged(right, said) for right, said in zip(kept.first, kept.accepted, strict=True)]
    table = {name: share["score"] for name, share in judge_accuracy(judged, random.Random(0), 1).items()}
    table["above_constant"] = table["accuracy"] - table["constant_accuracy"]
    same = {"judge": "accuracy", "balanced": "balanced_accuracy", "recall": "recall", "precision": "precision"}
    for ours, theirs in {**same, "f1": "f1", "above_constant": "above_constant"}.items():
        if table[theirs] is not None:
            assert found[ours] == pytest.approx(table[theirs]), ours
    n = len(drawn)
    assert found["policy"] == pytest.approx(sum(kept.first) / n)
    assert found["tts"] == pytest.approx(sum(kept.final) / n)
    assert found["tts_gain"] == pytest.approx(found["tts"] - found["policy"])
    assert found["tts_loss"] == -found["tts_gain"]
    pairs = [hit for hit in kept.compared if hit is not None]
    if pairs:
        assert found["pairwise"] == pytest.approx(sum(pairs) / len(pairs))


def test_a_difference_is_of_two_stacked_arms() -> None:
    first, second = (
        outcomes([(True, True, True, None)] * 3),
        outcomes([(True, None, False, True), *[(False, False, False, None)] * 2]),
    )
    stacked = [*columns(first).sum(axis=1), *columns(second).sum(axis=1)]
    import numpy as np

    assert difference("policy", 0, 1)(np.array(stacked)) == pytest.approx(2 / 3)
    assert difference("policy", 1, 0)(np.array(stacked)) == pytest.approx(-2 / 3)
    assert difference("tts", 0, None)(np.array(stacked)) == 1


def test_decisions() -> None:
    gain, kept = Comparison("policy", "spark", "policy-only").bounds, Comparison("policy", "spark", kept=True).bounds
    assert decision_of(Estimate(0.03, 0.001, 0.05), gain) == "HOLDS"
    assert decision_of(Estimate(0.003, 0.001, 0.005), gain) == "HOLDS", "small, and more than nothing"
    assert decision_of(Estimate(0.03, -0.001, 0.05), gain) == "UNDECIDED"
    assert decision_of(Estimate(0.0, -0.03, 0.009), gain) == "FAILS", "no gain of a point"
    assert decision_of(Estimate(-0.02, -0.03, -0.01), gain) == "FAILS"
    assert decision_of(Estimate(-0.004, -0.009, 0.0), kept) == "HOLDS"
    assert decision_of(Estimate(-0.004, -0.02, 0.0), kept) == "UNDECIDED"
    assert decision_of(Estimate(-0.03, -0.04, -0.02), kept) == "FAILS"


def test_every_claim_compares_arms_and_measures_that_there_are() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        for comparison in claim.comparisons:
            assert comparison.measure in MEASURES
            assert set(comparison.arms) <= {*ARMS, *FORMS}
            assert re.fullmatch(r"[a-zA-Z0-9 ,]+: [\w-]+( − [\w-]+)?( \(transfer\))?(, kept)?", named(comparison))
    budgets = [comparison.budgets for comparison in CLAIMS[1].comparisons]
    assert budgets == [("steps", "tokens")] * 12


def test_a_claim_is_decided_on_the_problems_that_both_arms_answered() -> None:
    better, worse = [(True, True, True, None)] * 400, [(False, True, False, None)] * 400
    arms = ("spark", "policy-and-reward", "policy-only", "reward-only")
    found = {
        Run(base, arm, "steps", seed): {
            "heldout": {0: (0, outcomes(worse)), 9: (500, outcomes(better if arm == "spark" else worse))}
        }
        for base in ("a", "b") for arm in arms for seed in (0, 1)
    }  # fmt: skip
    del found[Run("b", "policy-only", "steps", 1)]
    verdicts = {verdict.claim.name: verdict for verdict in decide(CLAIMS, found, draws=100)}
    direct = [
        finding for finding in verdicts["order"].findings
        if finding.comparison.than == "policy-only" and finding.comparison.measure == "policy"
    ]  # fmt: skip
    assert [(f.comparison.arm, f.budget, f.decision, f.bases, f.runs, f.problems) for f in direct] == [
        ("policy-and-reward", "steps", "FAILS", 2, 3, 400),
        ("policy-and-reward", "tokens", "NOT RUN", 0, 0, 0),
        ("spark", "steps", "HOLDS", 2, 3, 400),
        ("spark", "tokens", "NOT RUN", 0, 0, 0),
    ]
    assert verdicts["order"].decision == "FAILS"
    assert verdicts["transfer"].decision == "NOT RUN"
    assert verdicts["cost"].decision == "NOT RUN"
    pairwise = verdicts["judge"].findings[2]
    assert (pairwise.comparison.measure, pairwise.estimate, pairwise.decision) == ("pairwise", None, "UNDECIDED")


def test_tokens_until_an_accuracy_lie_on_the_line_between_evaluations() -> None:
    curve = ((0.0, 0.2), (100.0, 0.4), (300.0, 0.8))
    assert tokens_until(curve, 0.1) == 0
    assert tokens_until(curve, 0.3) == pytest.approx(50)
    assert tokens_until(curve, 0.7) == pytest.approx(250)
    assert tokens_until(curve, 0.9) is None
