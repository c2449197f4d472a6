"""Comparisons of the reward benchmarks, and whether the place decides."""

from __future__ import annotations

from typing import Any

from spark_rl import Problem
from spark_rl.evals.benchmark import Graded, Item
from spark_rl.evals.score.positions import positions


def item(answer: str, **meta: Any) -> Item:
    return Item(Problem(id=repr(meta), question="?", answer=answer), meta)


def test_a_judge_that_prefers_a_place_contradicts_itself_when_it_is_asked_both_ways() -> None:
    items = [item("1", row="a", swapped=False), item("2", row="a", swapped=True)]
    always_first = positions(items, [Graded(1.0, "1"), Graded(0.0, "1")])
    assert always_first["verdict/A"]["score"] == 1.0
    assert always_first["label/A"]["score"] == 0.5
    assert always_first["consistency"]["score"] == always_first["right_in_all_orders"]["score"] == 0.0
    fair = positions(items, [Graded(1.0, "1"), Graded(1.0, "2")])
    assert fair["consistency"]["score"] == fair["right_in_all_orders"]["score"] == fair["accuracy"]["score"] == 1.0


def test_the_first_of_four_changed_places_with_the_better_one() -> None:
    items = [item("C", row="a"), item("A", row="b"), item("D", row="c")]
    found = positions(items, [Graded(1.0, "C"), Graded(0.0, "B"), Graded(0.25, None)])
    assert found["accuracy"]["score"] == 1 / 3
    assert found["unparsable_rate"]["score"] == 1 / 3
    assert [found[f"label/{place}"]["score"] for place in "ABCD"] == [1 / 3, 0.0, 1 / 3, 1 / 3]


def test_ratings_and_answers_out_of_range_are_no_verdicts() -> None:
    assert positions([item("A", mode="rating")], [Graded(1.0, "7")]) == {}
    found = positions([item("1", row="a")], [Graded(0.0, "3")])
    assert found["unparsable_rate"]["score"] == 1.0
