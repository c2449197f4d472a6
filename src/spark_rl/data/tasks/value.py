r"""Family ``value``: the value of a chain.

``7*3-4=_`` has the answer ``17``. Here judging an answer **is** solving again: whoever checks ``17`` computes the chain
and compares, so practice in judging is practice in solving.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from spark_rl.data.tasks.chains import OPERATORS, Split, evaluate, number_tuples

NAME = "value"


def puzzles(
    split: Split, sizes: Sequence[int] = (4, 5), seed: int = 0
) -> Iterator[tuple[tuple[int, ...], tuple[str, ...], int]]:
    """(numbers, operators, value): a random chain for every tuple of numbers of a split, where it stays in range."""
    rng = random.Random(f"value:{split}:{seed}")
    for numbers in number_tuples(sizes, split):
        operators = tuple(rng.choice(OPERATORS) for _ in numbers[1:])
        values = evaluate(numbers, operators)
        if values is not None and 0 not in values:
            yield numbers, operators, values[-1]


def question(numbers: Sequence[int], operators: Sequence[str]) -> str:
    """``7*3-4=_``."""
    return f"{numbers[0]}" + "".join(o + str(n) for o, n in zip(operators, numbers[1:], strict=True)) + "=_"
