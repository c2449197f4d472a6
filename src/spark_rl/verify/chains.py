"""What names, chains and equations state: ``x=5`` states 5, ``2+3=5`` does too because it is true, ``2x=10`` does not.

``equal`` compares two values, ``leaf`` two expressions or equations without further structure.
"""

from __future__ import annotations

import re

from spark_rl.verify.leaf import Equal, Leaf
from spark_rl.verify.number import agrees, read_number
from spark_rl.verify.structure import Relation, is_relational
from spark_rl.verify.words import is_text

_BARS = re.compile(r"\\(?:overline|overrightarrow|vec|text|mathcal)(?![A-Za-z])|[|{} ]")
_CALLED = re.compile(r"[A-Za-z]\(([a-z])\)")


def same_relations(first: Relation, second: Relation, gold: str, answer: str, equal: Equal, leaf: Leaf) -> bool | None:
    """Whether two texts that both state something state the same; ``first`` was read from ``gold``."""
    if first.name is not None and second.name is not None and _same_name(first, second):
        if len(first.values) == len(second.values) == 1:
            same = equal(first.values[0], second.values[0])
            if same or read_number(first.values[0]) is not None:
                return same
            return leaf(gold, answer) if same is False else None
        return _both_chains(first, second, equal, leaf)
    if first.name is None and second.name is None:
        return leaf(gold, answer)
    if first.name is not None and second.name is not None:
        both_numbers = read_number(first.values[-1]) is not None and read_number(second.values[-1]) is not None
        return False if both_numbers else leaf(gold, answer)
    by_value = _both_chains(first, second, equal, leaf)
    return by_value or leaf(gold, answer)


def _both_chains(first: Relation, second: Relation, equal: Equal, leaf: Leaf) -> bool | None:
    """Two chains of values: the gold's last value is stated by the answer."""
    if len(first.values) > 1 and not (true := _is_true(first, equal, leaf)):
        return true
    return states(second, first.values[-1], equal, leaf, is_gold=False)


def _same_name(first: Relation, second: Relation) -> bool:
    """``x`` and ``x``, ``AB`` and ``|AB|``, ``y`` and ``f(x)`` (of a value in x), and a description with anything."""
    one, two = (_BARS.sub("", relation.name or "") for relation in (first, second))
    if one == two or is_text(one) or is_text(two):
        return True
    called = [_CALLED.fullmatch(name) for name in (one, two)]
    if all(called):
        return False
    argument = next((found[1] for found in called if found), None)
    plain = two if called[0] else one
    return argument is not None and plain == "y" and all(argument in side.values[-1] for side in (first, second))


def states(stated: Relation, other: str, equal: Equal, leaf: Leaf, *, is_gold: bool) -> bool | None:
    """Whether a name or chain states the value ``other``: a true chain does, by one of its exact members."""

    def same(value: str) -> bool | None:
        return equal(value, other) if is_gold else equal(other, value)

    if len(stated.values) == 1:
        return same(stated.values[0])
    true = _is_true(stated, equal, leaf)
    if not true:
        return true
    found = [same(value) for value in _exact_members(stated, other)]
    return True if any(found) else None if None in found else False


def _exact_members(stated: Relation, other: str) -> tuple[str, ...]:
    """The members that may be the answer: roundings only where the other side is one too."""
    wanted = read_number(other)
    if wanted is not None and wanted.places > 0:
        return stated.values
    exact = []
    for index, value in enumerate(stated.values):
        number = read_number(value)
        near = stated.senses[max(index - 1, 0) : index + 1]
        if r"\approx" not in near or number is None or (number.places == 0 and number.value.denominator > 1):
            exact.append(value)
    return tuple(exact) or stated.values[:1]


def _is_true(stated: Relation, equal: Equal, leaf: Leaf) -> bool | None:
    """Whether neighbours in a chain agree: exactly, or to the precision of the one that is a decimal."""
    certain: bool | None = True
    for one, other, sense in zip(stated.values[:-1], stated.values[1:], stated.senses, strict=True):
        agreed = _agree(one, other, sense, equal, leaf)
        if agreed is False:
            return False
        certain = None if agreed is None else certain
    return certain


def _agree(one: str, other: str, sense: str, equal: Equal, leaf: Leaf) -> bool | None:
    """Whether two neighbours in a chain agree: as a rounding of one another, or as equals."""
    if is_relational(one) or is_relational(other):
        return False
    numbers = read_number(one), read_number(other)
    certain: bool | None = False
    for rounded, number, exact, exact_number in (
        (other, numbers[1], one, numbers[0]),
        (one, numbers[0], other, numbers[1]),
    ):
        if number is None or (number.places == 0 and (sense == "=" or number.value.denominator > 1)):
            continue
        if exact_number is not None and (number.unit is None or number.unit == exact_number.unit):
            agreed: bool | None = agrees(number, exact_number.value)
        elif exact_number is not None:
            agreed = False
        else:
            agreed = leaf(r"\approx" + rounded, exact)
        if agreed:
            return True
        certain = None if agreed is None else certain
    same = equal(one, other)
    return same if same or certain is False else None
