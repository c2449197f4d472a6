"""Whether the members of two lists, sets or tuples are the same, given how two of them are compared.

``equal`` compares two members as well as it can. ``quickly`` compares them without algebra: where members may stand in
any order, it is asked about all pairs first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spark_rl.verify.leaf import Equal
from spark_rl.verify.structure import relation

MAX_UNORDERED = 32
"""Longer lists are compared in order: matching takes a quadratic number of comparisons."""


def lists(gold: Sequence[str], answer: Sequence[str], equal: Equal, quickly: Equal) -> bool | None:
    """Lists and sets: in any order, unless they assign different names (``x=1,y=2`` against ``1,2``)."""
    names = [_names(items) for items in (gold, answer)]
    distinct = any(len({name for name in side if name}) > 1 for side in names)
    if not distinct:
        return unordered(_values(gold), _values(answer), equal, quickly)
    if all(names[0]) and all(names[1]):
        return unordered(gold, answer, equal, quickly)
    return ordered(_values(gold), _values(answer), equal)


def tuples(gold: Sequence[str], answer: Sequence[str], equal: Equal) -> bool | None:
    """In order; by name where both name their coordinates (``(q=2,p=5)``)."""
    names = [_names(items) for items in (gold, answer)]
    if all(all(side) and len(set(side)) == len(side) for side in names) and set(names[0]) == set(names[1]):
        placed = dict(zip(names[1], answer, strict=True))
        answer = [placed[name] for name in names[0]]
    return ordered(_values(gold), _values(answer), equal)


def _names(items: Sequence[str]) -> list[str | None]:
    return [stated.name if (stated := relation(item)) else None for item in items]


def _values(items: Iterable[str]) -> tuple[str, ...]:
    """The items without ``x=``."""
    found = []
    for item in items:
        stated = relation(item)
        found.append(stated.values[0] if stated is not None and stated.name and len(stated.values) == 1 else item)
    return tuple(found)


def ordered(gold: Sequence[str], answer: Sequence[str], equal: Equal) -> bool | None:
    """Whether each item equals the one in its place."""
    if len(gold) != len(answer):
        return False
    certain: bool | None = True
    for one, other in zip(gold, answer, strict=True):
        same = equal(one, other)
        if same is False:
            return False
        certain = None if same is None else certain
    return certain


def unordered(gold: Sequence[str], answer: Sequence[str], equal: Equal, quickly: Equal) -> bool | None:
    """Whether the items match one to one. Equality is transitive enough for a greedy match."""
    if len(gold) != len(answer):
        return False
    if len(gold) > MAX_UNORDERED:
        return ordered(gold, answer, equal)
    left = list(answer)
    pending = []
    for item in gold:
        match = next((other for other in left if quickly(item, other)), None)
        if match is None:
            pending.append(item)
        else:
            left.remove(match)
    for item in pending:
        results = [(other, equal(item, other)) for other in left]
        match = next((other for other, same in results if same), None)
        if match is None:
            return None if any(same is None for _, same in results) else False
        left.remove(match)
    return True
