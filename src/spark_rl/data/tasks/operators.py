r"""Family ``operators``: fill in the operators so that the chain reaches the target.

``5?2?7=10`` has the unique solution ``-+`` because ``5-2=3`` and ``3+7=10``. Only puzzles with exactly one solution are
kept, so the answer is compared as an exact string.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from spark_rl.data.tasks.chains import OPERATORS, Split, evaluate, number_tuples

NAME = "operators"


def puzzles(split: Split, sizes: Sequence[int] = (3, 4)) -> Iterator[tuple[tuple[int, ...], tuple[str, ...], int]]:
    """Every (numbers, operators, target) of a split whose operators are the only ones that reach the target."""
    for numbers in number_tuples(sizes, split):
        reached: dict[int, list[tuple[str, ...]]] = {}
        for operators in itertools.product(OPERATORS, repeat=len(numbers) - 1):
            values = evaluate(numbers, operators)
            if values is not None:
                reached.setdefault(values[-1], []).append(operators)
        for target, solutions in sorted(reached.items()):
            if len(solutions) == 1:
                yield numbers, solutions[0], target


def question(numbers: Sequence[int], target: int) -> str:
    """``5?2?7=10``."""
    return "?".join(map(str, numbers)) + f"={target}"
