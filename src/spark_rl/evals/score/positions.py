"""Whether a judge's verdicts follow the place of an answer, from the comparisons of a reward benchmark (Sec. 4.4).

An item of a reward benchmark shows two or four answers and its gold is the place of the better one: ``1`` or ``2``,
``A`` to ``D``. Where ``meta["swapped"]`` says that two were shown the other way round, both orders are one pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spark_rl.evals.benchmark import Graded, Item
from spark_rl.evals.judge_accuracy import Comparison, position_bias

_PLACES = {"1": (0, 2), "2": (1, 2), "A": (0, 4), "B": (1, 4), "C": (2, 4), "D": (3, 4)}
"""Gold -> its place, and how many answers are shown with it."""


def positions(items: Sequence[Item], grades: Sequence[Graded]) -> dict[str, Any]:
    """:func:`~spark_rl.evals.judge_accuracy.position_bias` of the items that compare; empty if none does."""
    found = [
        _comparison(item, grade)
        for item, grade in zip(items, grades, strict=True)
        if item.problem.answer in _PLACES and item.meta.get("mode", "ranking") == "ranking"
    ]
    return position_bias(found) if found else {}


def _comparison(item: Item, grade: Graded) -> Comparison:
    place, count = _PLACES[item.problem.answer]
    shown = list(range(count))
    if item.meta.get("swapped") or count > 2:  # of four, the better one changed places with the first
        other = 1 if count == 2 else place
        shown[0], shown[other] = shown[other], shown[0]
    chosen, size = _PLACES.get(grade.extracted or "", (0, 0))
    return Comparison(
        str(item.meta.get("row", item.problem.id)), tuple(shown), shown[place], chosen if size == count else None
    )
