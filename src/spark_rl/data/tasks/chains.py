"""Left-to-right arithmetic on small numbers, the ground both procedural families stand on.

A *chain* is a list of numbers 1..9 and the operators between them, evaluated strictly from left to right with every
intermediate result in 0..99: ``5-2+7`` is ``(5-2)+7 = 10``. Solving one of the puzzles made from a chain takes a
search or an inversion; checking an answer takes one evaluation. That asymmetry is what makes self-judging pay.

Splits: every chain belongs to exactly one split, decided by a hash of its ordered numbers alone. The two families share
that hash, so a held-out tuple of numbers appears in no warm start and in no training problem of either family.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

Split = Literal["warm", "train", "heldout"]

OPERATORS = "+-*"
LOW, HIGH = 0, 99
DIGITS = range(1, 10)

_SPLIT_OF_BUCKET: tuple[Split, ...] = ("heldout",) * 2 + ("train",) * 6 + ("warm",) * 12


def split_of(numbers: Sequence[int]) -> Split:
    """The split a tuple of numbers belongs to: 60 % warm start, 30 % RL training, 10 % held out."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return _SPLIT_OF_BUCKET[int.from_bytes(digest[:4], "big") % len(_SPLIT_OF_BUCKET)]


def apply(left: int, operator: str, right: int) -> int:
    """One step of a chain. Raises ``ValueError`` on an operator that is not one of ``+-*``."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    raise ValueError(f"operator {operator!r} is not one of {OPERATORS}")


def evaluate(numbers: Sequence[int], operators: Sequence[str], high: int = HIGH) -> list[int] | None:
    """The running results after each operator, or ``None`` if one leaves 0..``high``."""
    values: list[int] = []
    value = numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        value = apply(value, operator, number)
        if not LOW <= value <= high:
            return None
        values.append(value)
    return values


def write_chain(numbers: Sequence[int], operators: Sequence[str], values: Sequence[int]) -> str:
    """``5-2=3+7=10``: the chain with its running results, as the base writes its work."""
    steps = (f"{o}{n}={v}" for o, n, v in zip(operators, numbers[1:], values, strict=True))
    return f"{numbers[0]}" + "".join(steps)


def number_tuples(sizes: Sequence[int], split: Split) -> Iterator[tuple[int, ...]]:
    """All tuples of numbers 1..9 of the given sizes that belong to a split, in a fixed order."""
    for size in sizes:
        for numbers in itertools.product(DIGITS, repeat=size):
            if split_of(numbers) == split:
                yield numbers
