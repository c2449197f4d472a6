"""The procedural families as problems: the data of the embedded default, made in a fraction of a second.

Training reads the split ``train``; every other role reads ``heldout``. The two splits, in all families, share no
ordered tuple of numbers (:mod:`spark_rl.data.tasks.chains`), so a held-out problem cannot reach training. Families with
pictures draw them here, for the problems that are asked for.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from spark_rl.data.tasks import missing, operators, tiles, value
from spark_rl.data.tasks.chains import Split
from spark_rl.errors import DataError
from spark_rl.problem import Problem

PREFIX = "procedural:"


def procedural_problems(
    family: str, split: Literal["train", "heldout"], limit: int | None = None
) -> tuple[Problem, ...]:
    """The puzzles of a family and split in a fixed shuffled order, the first ``limit`` of them.

    ``procedural_problems("operators", "train")[0]`` is a problem such as ``Problem(id="operators-train-0",
    question="5?2?7=10", answer="-+", kind="exact", source="operators")``. The order depends on the family and the split
    alone, so a smaller ``limit`` gives a prefix of a larger one. Problems of ``tiles`` carry a picture as PNG bytes.

    Raises:
        DataError: no family has that name.
    """
    if family not in FAMILIES:
        close = difflib.get_close_matches(family, FAMILIES, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else f"known: {', '.join(FAMILIES)}"
        raise DataError(f"there is no procedural family {family!r}; {hint}")
    puzzles = list(FAMILIES[family](split))
    random.Random(f"procedural:{family}:{split}").shuffle(puzzles)
    return tuple(
        Problem(
            id=f"{family}-{split}-{i}", question=question, answer=answer, kind="exact", source=family,
            images=() if draw is None else (draw(),),
        )
        for i, (question, answer, draw) in enumerate(puzzles[:limit])
    )  # fmt: skip


Puzzle = tuple[str, str, Callable[[], bytes] | None]
"""(question, answer, what draws its picture, if it has one)"""


def _operators(split: Split) -> Iterator[Puzzle]:
    for numbers, solution, target in operators.puzzles(split):
        yield operators.question(numbers, target), "".join(solution), None


def _missing(split: Split) -> Iterator[Puzzle]:
    for numbers, chain, target, hidden in missing.puzzles(split):
        yield missing.question(numbers, chain, target, hidden), str(numbers[hidden]), None


def _value(split: Split) -> Iterator[Puzzle]:
    for numbers, chain, target in value.puzzles(split):
        yield value.question(numbers, chain), str(target), None


def _tiles(split: Split) -> Iterator[Puzzle]:
    for asked in tiles.problems(split):
        yield asked.question, asked.answer, asked.picture


def _tiles_sum(split: Split) -> Iterator[Puzzle]:
    for asked in tiles.sum_problems(split):
        yield asked.question, asked.answer, asked.picture


FAMILIES: Mapping[str, Callable[[Split], Iterator[Puzzle]]] = {
    operators.NAME: _operators,
    missing.NAME: _missing,
    value.NAME: _value,
    tiles.NAME: _tiles,
    tiles.SUM_NAME: _tiles_sum,
}
"""Family name -> the puzzles of a split."""
