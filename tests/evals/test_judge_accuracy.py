"""What a model's verdicts are worth: golden values by hand, undefined shares, and places."""

from __future__ import annotations

import base64
import io
import json
import random
import statistics
from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spark_rl.evals.benchmarks import find
from spark_rl.evals.judge_accuracy import (
    Comparison,
    Judged,
    judge_accuracy,
    judged,
    position_bias,
)
from spark_rl.evals.score.positions import positions
from spark_rl.verify import Verifier

VERDICTS = st.lists(st.tuples(st.booleans(), st.sampled_from((True, False, None))), max_size=30)


def scores(answers: Sequence[Judged]) -> dict[str, Any]:
    return {name: one["score"] for name, one in judge_accuracy(answers, random.Random(0), 5).items()}


def sizes(answers: Sequence[Judged]) -> dict[str, Any]:
    return {name: one["n"] for name, one in judge_accuracy(answers, random.Random(0), 5).items()}


TEN = [
    *[Judged(True, True)] * 3,
    *[Judged(True, False)] * 1,
    *[Judged(True, None)] * 1,
    *[Judged(False, True)] * 2,
    *[Judged(False, False)] * 2,
    *[Judged(False, None)] * 1,
]
"""Five right answers, three accepted; five wrong ones, two rejected; two unreadable verdicts."""


def test_golden_values() -> None:
    assert scores(TEN) == pytest.approx({
        "recall": 3 / 5, "precision": 3 / 5, "f1": 0.6, "specificity": 2 / 5, "accuracy": 5 / 10,
        "balanced_accuracy": 0.5, "constant_accuracy": 0.5,
        "verdict_rate": 0.8, "unparsable_rate": 0.2, "yes_rate": 5 / 8, "right_rate": 0.5,
    })  # fmt: skip
    assert sizes(TEN) == {
        "recall": 5, "precision": 5, "f1": 10, "specificity": 5, "accuracy": 10, "balanced_accuracy": 10,
        "constant_accuracy": 10,
        "verdict_rate": 10, "unparsable_rate": 10, "yes_rate": 8, "right_rate": 10,
    }  # fmt: skip


def test_a_judge_that_always_says_yes_gains_nothing_in_balanced_accuracy() -> None:
    found = scores([Judged(True, True)] * 9 + [Judged(False, True)])
    assert (found["accuracy"], found["recall"], found["balanced_accuracy"]) == (0.9, 1.0, 0.5)
    assert found["constant_accuracy"] == found["accuracy"], "always Yes is no better than it looks"


def test_what_can_not_be_counted_is_unknown_and_never_zero() -> None:
    nothing = judge_accuracy([], random.Random(0))
    assert {one["score"] for one in nothing.values()} == {None}
    assert {(one["n"], one["low"], one["high"]) for one in nothing.values()} == {(0, 0.0, 1.0)}
    only_right = scores([Judged(True, False)] * 4)
    assert (only_right["precision"], only_right["specificity"], only_right["balanced_accuracy"]) == (None, None, None)
    assert (only_right["recall"], only_right["f1"]) == (0.0, 0.0)


@given(VERDICTS)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(cells: list[tuple[bool, bool | None]]) -> None:
    found = scores(list(starmap(Judged, cells)))
    if found["precision"] and found["recall"]:
        assert found["f1"] == pytest.approx(statistics.harmonic_mean((found["precision"], found["recall"])))


@given(VERDICTS)
def test_an_unreadable_verdict_never_raises_a_score(cells: list[tuple[bool, bool | None]]) -> None:
    clear = [Judged(right, accepted is True) for right, accepted in cells]
    misread = [Judged(right, accepted or None) for right, accepted in cells]
    for name in ("recall", "precision", "f1", "specificity", "accuracy", "balanced_accuracy"):
        before, after = scores(clear)[name], scores(misread)[name]
        assert (before is None) == (after is None)
        assert before is None or after <= before


def test_every_interval_holds_its_score_and_is_the_same_again() -> None:
    found = judge_accuracy(TEN, random.Random(5))
    assert all(one["low"] <= one["score"] <= one["high"] for one in found.values())
    assert all(one["low"] < one["high"] for one in found.values())
    assert found == judge_accuracy(TEN, random.Random(5))


def test_answers_of_one_problem_are_resampled_together() -> None:
    alone = [Judged(True, n % 2 == 0) for n in range(40)]
    together = [Judged(True, n % 2 == 0, unit=str(n % 2)) for n in range(40)]
    widths = [
        one["f1"]["high"] - one["f1"]["low"] for one in (judge_accuracy(a, random.Random(0)) for a in (alone, together))
    ]
    assert widths[1] == 1.0
    assert widths[0] < 0.5


def coverage(judge_of: Callable[[random.Random], Sequence[Any]], name: str, truth: float, measure: Any) -> float:
    """How often the 95% interval of ``name`` holds the truth, over 400 simulated judges."""
    rng = random.Random(11)
    found = [measure(judge_of(rng))[name] for _ in range(400)]
    return sum(one["low"] <= truth <= one["high"] for one in found) / len(found)


def samples_of_40_problems(rng: random.Random) -> list[Judged]:
    """Eight right answers a problem, which the judge accepts with a chance of the problem's own, 0.7 on average."""
    chances = [rng.betavariate(0.7, 0.3) for _ in range(40)]
    return [Judged(True, rng.random() < chance, unit=str(n)) for n, chance in enumerate(chances) for _ in range(8)]


def pairs_in_two_orders(rng: random.Random) -> list[Comparison]:
    """Forty pairs in both orders, three times each; one pair in two is judged by its place, always A."""
    found = []
    for n in range(40):
        by_place = rng.random() < 0.5
        orders = ((0, 1), (1, 0)) * 3
        found += [Comparison(str(n), shown, 0, 0 if by_place else shown.index(0)) for shown in orders]
    return found


def test_intervals_of_dependent_trials_cover_what_they_promise() -> None:
    """As if they were independent, they covered 49 % and 70 % here."""
    recall = coverage(samples_of_40_problems, "recall", 0.7, lambda a: judge_accuracy(a, random.Random(0), 1))
    verdict = coverage(pairs_in_two_orders, "verdict/A", 0.75, position_bias)
    assert 0.92 <= recall <= 0.99
    assert 0.92 <= verdict <= 0.99


def test_rows_without_a_judgement_are_left_out() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "status": "correct", "judgement": "\\boxed{Yes}", "accepted": True, "verdict_probability": 0.9},
        {"id": "2", "status": "no_answer", "judgement": "hm", "accepted": None},
        {"id": "3", "status": "skipped", "judgement": None, "accepted": None},
        {"id": "4", "status": "wrong"},
    ]
    assert judged(rows) == [Judged(True, True, 0.9, "1"), Judged(False, None, None, "2")]


def swapped(pair: str, first: int | None, second: int | None) -> list[Comparison]:
    """Candidate 0 is better; the verdicts, as places, in the order (0, 1) and in the order (1, 0)."""
    return [Comparison(pair, (0, 1), 0, first), Comparison(pair, (1, 0), 0, second)]


def test_position_bias_by_hand() -> None:
    found = position_bias([
        *swapped("right in both", 0, 1),
        *swapped("wrong in both", 1, 0),
        *swapped("always A", 0, 0),
        *swapped("always A again", 0, 0),
        *swapped("one unreadable", 0, None),
    ])  # fmt: skip
    assert {name: one["score"] for name, one in found.items()} == pytest.approx({
        "verdict/A": 7 / 9, "verdict/B": 2 / 9, "label/A": 0.5, "label/B": 0.5,
        "accuracy": 5 / 10, "accuracy/A": 4 / 5, "accuracy/B": 1 / 5,
        "consistency": 2 / 4, "right_in_all_orders": 1 / 5, "unparsable_rate": 0.1,
    })  # fmt: skip
    assert found["consistency"]["n"] == 4


def test_a_judge_that_reads_shows_no_bias_and_full_consistency() -> None:
    found = position_bias([one for n in range(6) for one in swapped(str(n), 0, 1)])
    for name in ("consistency", "right_in_all_orders", "accuracy/A", "accuracy/B"):
        assert found[name]["score"] == 1.0
    assert found["verdict/A"]["score"] == found["label/A"]["score"] == 0.5


def test_pairs_in_one_order_say_nothing_of_consistency() -> None:
    found = position_bias([Comparison("p", (0, 1), 0, 0), Comparison("p", (0, 1), 0, 0)])
    assert (found["consistency"]["score"], found["consistency"]["n"]) == (None, 0)
    assert {one["score"] for one in position_bias([]).values()} == {None}


def test_four_places() -> None:
    found = position_bias([Comparison("p", (2, 1, 0, 3), 0, 2), Comparison("q", (0, 1, 2, 3), 0, 3)])
    assert [found[f"verdict/{letter}"]["score"] for letter in "ABCD"] == [0.0, 0.0, 0.5, 0.5]
    assert found["accuracy"]["score"] == 0.5


def test_both_reward_benchmarks_can_be_compared(tmp_path: Path) -> None:
    """Through their own loaders and scorers: a judge that always names the first place."""
    rows = [
        {"id": "1", "prompt": "Q", "chosen": ["good"], "rejected": ["b", "c", "d"], "num_correct": 1, "subset": "Math"}
    ]
    pairs = [{"id": "RLAIF-1", "query": "Q", "response": ["good", "bad"], "human_ranking": [0, 1]}]
    (tmp_path / "rb.jsonl").write_text("\n".join(map(json.dumps, rows)))
    image = base64.b64encode(png()).decode()
    (tmp_path / "vl.jsonl").write_text("\n".join(json.dumps(pair | {"image": image}) for pair in pairs))
    for name, file, text in (
        ("rewardbench2", "rb.jsonl", "[[A]]"), ("vl_rewardbench", "vl.jsonl", "Overall Judgment: Answer 1 is better."),
    ):  # fmt: skip
        items = find(name).load(tmp_path / file)
        protocol = next(iter(find(name).protocols.values()))
        grades = protocol.score(items, [text] * len(items), Verifier())
        found = positions(items, grades)
        assert (found["verdict/A"]["score"], found["verdict/A"]["n"]) == (1.0, len(items))
        assert found["unparsable_rate"]["score"] == 0.0
    assert (found["consistency"]["score"], found["accuracy"]["score"]) == (0.0, 0.5)


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()
