"""Items graded one by one, and items that only count together (Sec. 4.1).

A circular question, the ratings of one row, or a row in both orders is one unit of several items. Intervals come from
resampling whole units, so a unit may be drawn twice. Each copy is a unit of its own here; merging them would give a
question that was drawn twice the weight of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from spark_rl.evals.benchmark import Graded, Item, Scorer
from spark_rl.verify import Verifier

Unit = list[tuple[Item, Graded]]


def units(items: Sequence[Item], grades: Sequence[Graded], key: Callable[[Item], Hashable]) -> list[Unit]:
    """The items of each unit with their grades, in the order in which units and items first appear."""
    seen: Counter[str] = Counter()
    found: dict[Hashable, Unit] = {}
    for item, grade in zip(items, grades, strict=True):
        copy = seen[item.problem.id]
        seen[item.problem.id] += 1
        found.setdefault((key(item), copy), []).append((item, grade))
    return list(found.values())


def each(grade: Callable[[Item, str], Graded]) -> Scorer:
    """A scorer that grades every response by itself, quickly enough to need no worker."""

    def score(items: Sequence[Item], responses: Sequence[str], _verifier: Verifier) -> list[Graded]:
        return [grade(item, response) for item, response in zip(items, responses, strict=True)]

    return score


def grade_as(found: str | None, gold: str) -> Graded:
    """The grade of an answer as read: ``None`` is unparsable."""
    if found is None:
        return Graded(0.0, None, "unparsable")
    return Graded(1.0, found, "correct") if found == gold else Graded(0.0, found, "wrong")


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)
