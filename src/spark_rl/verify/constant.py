r"""The real number that a text states, as a float: for scores that compare with a tolerance (Sec. 4.1).

``number_value(r"\frac{2\pi}{3}")`` is 2.0943951... Texts are read as the verifier reads them, but only numbers and
``\pi``, their sums, products, quotients, powers and roots have a value here. A letter has none, not even ``e`` and
``i``: they are more often options and variables than numbers. A numeral that names its base has none either, because
the verifier takes ``52_8`` for 52 (:func:`spark_rl.verify.number.equal_bases`).

This runs in the process that asks, without a worker's timer. Therefore trees and precision are bounded far below what
:mod:`spark_rl.verify.symbolic` allows. The working precision is one for the process: ask from one thread at a time.
"""

from __future__ import annotations

import re
from fractions import Fraction

from spark_rl.verify.evaluation import Matrix, evaluate
from spark_rl.verify.expression import read_expression
from spark_rl.verify.notation import UnreadableError, canonical
from spark_rl.verify.number import read_number
from spark_rl.verify.tree import MAX_HEIGHT, Node
from spark_rl.verify.units import trailing_unit
from spark_rl.verify.value import as_fraction, is_zero, precise, settled

MAX_PRECISION = 4096
"""Bits; an expression that needs more to be told from zero has no value."""

_OPERATIONS = frozenset(("number", "sum", "product", "quotient", "negative", "power", "root"))
_DEGREES_BEHIND = re.compile(r"\^\\circ ?$")


def number_value(text: str, *, units: bool = False) -> float | None:
    """The finite value of ``text``, or ``None`` if it is no number and no expression of numbers.

    Args:
        text: an answer as it is written, or a part of one.
        units: whether a unit, a degree sign or a percent sign behind the number is left out (``50%`` is 50); otherwise
            text with a unit or degrees has no value, and ``50%`` is 0.5.
    """
    try:
        plain = canonical(text)
        exact = (_without_unit if units else _value)(plain)
        return None if exact is None else float(exact)
    except (UnreadableError, ArithmeticError):
        return None


def _without_unit(text: str) -> Fraction | None:
    number = read_number(text, bare_letters=True)
    if number is not None:
        return number.value * (100 if number.percent else 1)
    value = _value(_DEGREES_BEHIND.sub("", trailing_unit(text)[0]))
    return 100 * value if value is not None and text.endswith("%") else value


def _value(text: str) -> Fraction | None:
    """The real value of an expression, to more digits than a float has; ``None`` where there is none."""
    node = read_expression(text)
    if "_" in text or not _is_arithmetic(node):
        return None

    def real() -> Fraction | None:
        found = evaluate(node, {})
        if isinstance(found, Matrix):
            return None
        found = settled(found)
        return Fraction(0) if found.is_real and is_zero(found) else as_fraction(found)

    value: Fraction | None = precise(real, most=MAX_PRECISION)
    return value


def _is_arithmetic(node: Node) -> bool:
    """Whether a tree is low and holds nothing but numbers, ``\\pi`` and operations on them."""
    level = [node]
    for _ in range(MAX_HEIGHT):
        if not all(each.kind in _OPERATIONS or (each.kind, each.name) == ("constant", "pi") for each in level):
            return False
        level = [part for each in level for part in each.parts]
        if not level:
            return True
    return False
