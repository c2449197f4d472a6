r"""Sets of real numbers: intervals, unions, inequalities in one variable, whatever they are written as.

``x<2 or x>3``, ``(-\infty,2)\cup(3,\infty)`` and ``\mathbb{R}\setminus[2,3]`` are the same region. End points are
constants and are compared exactly. Conditions in a list (``x>2, x<5``; "and" and "or" are not told apart by writers)
hold together if they can, otherwise they are alternatives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key

from spark_rl.verify.evaluation import Matrix, evaluate
from spark_rl.verify.expression import read_expression
from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.structure import Shape, comparisons, shape, split
from spark_rl.verify.tree import Node, variables
from spark_rl.verify.value import Value, sign, subtract

MAX_PIECES = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``; ``None`` is infinity. A point is a closed interval."""

    low: Node | None
    low_closed: bool
    high: Node | None
    high_closed: bool


Region = tuple["Interval | Region | str", ...]
"""A set as an operation on others: ``("union", A, B)``, ``("both", A, B)``, ``("without", A, B)``,
``("conditions", A, B)`` for a list of conditions; or an interval by itself."""

_SETS = re.compile(r"[<>]|\\(?:leq|geq|neq|cup|cap|setminus|mathbb|emptyset|infty)(?![A-Za-z])|\\backslash")
_REALS = re.compile(r"\\mathbb(?:\{R\}| ?R)|\\R|\\Reals")
_INFINITY = re.compile(r"[+-]?\\infty")
_VARIABLE = re.compile(r"[A-Za-z](?:_[A-Za-z0-9])?|\\[a-z]+")
_WITHOUT = re.compile(r"\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])|(?<=\})-(?=\\\{)")
MIRRORED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq"}
"""The sign of an inequality read from right to left; the other signs stay as they are."""
EVERYTHING = Interval(None, False, None, False)


def is_region(text: str) -> bool:
    """Whether ``text`` writes something that only sets and inequalities have."""
    return _SETS.search(text) is not None


def read_region(text: str) -> Region:
    """The region that canonical ``text`` is. Raises :class:`UnreadableError` if it is none."""
    text = text.strip()
    for operator, name in ((r"\cup", "union"), (r"\cap", "both")):
        parts = split(text, operator)
        if len(parts) > 1:
            return _joined(name, [read_region(part) for part in parts])
    if (cut := _WITHOUT.search(text)) is not None:
        return ("without", read_region(text[: cut.start()]), read_region(text[cut.end() :]))
    if _REALS.fullmatch(text):
        return (EVERYTHING,)
    if text in (r"\emptyset", r"\{\}"):
        return ("union",)
    found = shape(text)
    if found.kind == "leaf" and found.items == (text,):
        return _conditions(text)
    if found.kind == "leaf":
        return read_region(found.items[0])
    if found.kind == "list":
        return _joined("conditions", [read_region(item) for item in found.items])
    if found.kind == "set":
        return _joined("union", [(_point(item),) for item in found.items])
    if found.kind == "union":
        return _joined("union", [read_region(item) for item in found.items])
    if len(found.items) == 2 and found.kind in ("()", "[]", "(]", "[)"):
        return (_interval(found),)
    raise UnreadableError("no set of real numbers")


def _joined(name: str, parts: Sequence[Region]) -> Region:
    if len(parts) > MAX_PIECES:
        raise UnreadableError(f"a set of more than {MAX_PIECES} pieces")
    return (name, *parts)


def _constant(text: str) -> Node:
    node = read_expression(text)
    if variables(node):
        raise UnreadableError("an end point with a variable")
    return node


def _point(text: str) -> Interval:
    node = _constant(text)
    return Interval(node, True, node, True)


def _interval(found: Shape) -> Interval:
    low, high = found.items
    ends: list[Node | None] = []
    for text, infinity in ((low, r"-\infty"), (high, r"\infty")):
        if _INFINITY.fullmatch(text):
            if text.lstrip("+") != infinity:
                raise UnreadableError("an interval that ends before it begins")
            ends.append(None)
        else:
            ends.append(_constant(text))
    closed = found.kind[0] == "[", found.kind[1] == "]"
    if (closed[0] and ends[0] is None) or (closed[1] and ends[1] is None):
        raise UnreadableError("an infinity that belongs to an interval")
    return Interval(ends[0], closed[0], ends[1], closed[1])


def _conditions(text: str) -> Region:
    """``1<x\\leq2``: all of its comparisons hold."""
    links = comparisons(text)
    if not links:
        raise UnreadableError("no set of real numbers")
    sides = [side for left, _, right in links for side in (left, right)]
    names = {side for side in sides if _VARIABLE.fullmatch(side) and side not in ("e", "i", r"\pi", r"\infty")}
    if len(names) != 1:
        raise UnreadableError("conditions on more than one variable")
    name = names.pop()
    return _joined("both", [(_condition(left, sense, right, name)) for left, sense, right in links])


def _condition(left: str, sense: str, right: str, name: str) -> Region:
    if right == name:
        left, sense, right = right, MIRRORED.get(sense, sense), left
    if left != name:
        raise UnreadableError("a condition without its variable")
    if _INFINITY.fullmatch(right):
        if (sense, right.lstrip("+")) in (("<", r"\infty"), (">", r"-\infty")):
            return (EVERYTHING,)
        raise UnreadableError("a condition that infinity fulfils")
    bound = _constant(right)
    if sense == r"\neq":
        return ("without", (EVERYTHING,), (_point(right),))
    if sense == "=":
        return (_point(right),)
    closed = sense in (r"\leq", r"\geq")
    if sense in ("<", r"\leq"):
        return (Interval(None, False, bound, closed),)
    return (Interval(bound, closed, None, False),)


@dataclass(frozen=True, slots=True)
class _Span:
    """An interval with its values at the working precision."""

    low: Value | None
    low_closed: bool
    high: Value | None
    high_closed: bool


def same_region(first: Region, second: Region) -> bool:
    """Whether two regions are the same set; call it within :func:`spark_rl.verify.value.precise`."""
    one, two = _spans(first), _spans(second)
    return len(one) == len(two) and all(_same(a, b) for a, b in zip(one, two, strict=True))


def _same(first: _Span, second: _Span) -> bool:
    if (first.low_closed, first.high_closed) != (second.low_closed, second.high_closed):
        return False
    for a, b in ((first.low, second.low), (first.high, second.high)):
        if (a is None) != (b is None) or (a is not None and b is not None and sign(subtract(a, b)) != 0):
            return False
    return True


def _spans(region: Region) -> list[_Span]:
    """The region as disjoint intervals in order."""
    head = region[0]
    if isinstance(head, Interval):
        span = _Span(_value(head.low), head.low_closed, _value(head.high), head.high_closed)
        return [] if _is_empty(span) else [span]
    parts = [_spans(part) for part in region[1:] if isinstance(part, tuple)]
    if head == "union":
        return _merged([span for part in parts for span in part])
    if head == "without":
        return _intersection(parts[0], _complement(parts[1]))
    together = parts[0]
    for part in parts[1:]:
        together = _intersection(together, part)
    if head == "conditions" and not together:
        return _merged([span for part in parts for span in part])
    return together


def _value(node: Node | None) -> Value | None:
    if node is None:
        return None
    value = evaluate(node, {})
    if isinstance(value, Matrix):
        raise UnreadableError("a matrix as an end point")
    return value


def _is_empty(span: _Span) -> bool:
    if span.low is None or span.high is None:
        return False
    order = sign(subtract(span.high, span.low))
    return order < 0 or (order == 0 and not (span.low_closed and span.high_closed))


def _compare_lows(first: _Span, second: _Span) -> int:
    if first.low is None or second.low is None:
        return (first.low is not None) - (second.low is not None)
    return sign(subtract(first.low, second.low)) or second.low_closed - first.low_closed


def _compare_highs(first: _Span, second: _Span) -> int:
    if first.high is None or second.high is None:
        return (first.high is None) - (second.high is None)
    return sign(subtract(first.high, second.high)) or first.high_closed - second.high_closed


def _merged(spans: Sequence[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for span in sorted(spans, key=cmp_to_key(_compare_lows)):
        if merged and _touch(merged[-1], span):
            if _compare_highs(merged[-1], span) < 0:
                merged[-1] = _Span(merged[-1].low, merged[-1].low_closed, span.high, span.high_closed)
        else:
            merged.append(span)
    return merged


def _touch(first: _Span, second: _Span) -> bool:
    """Whether no number lies between two intervals of which the first begins first."""
    if first.high is None or second.low is None:
        return True
    order = sign(subtract(first.high, second.low))
    return order > 0 or (order == 0 and (first.high_closed or second.low_closed))


def _intersection(first: Sequence[_Span], second: Sequence[_Span]) -> list[_Span]:
    found = []
    for one in first:
        for two in second:
            low = one if _compare_lows(one, two) >= 0 else two
            high = one if _compare_highs(one, two) <= 0 else two
            span = _Span(low.low, low.low_closed, high.high, high.high_closed)
            if not _is_empty(span):
                found.append(span)
    return found


def _complement(spans: Sequence[_Span]) -> list[_Span]:
    found: list[_Span] = []
    low: Value | None = None
    low_closed = False
    for span in spans:
        if span.low is not None:
            gap = _Span(low, low_closed, span.low, not span.low_closed)
            if not _is_empty(gap):
                found.append(gap)
        if span.high is None:
            return found
        low, low_closed = span.high, not span.high_closed
    return [*found, _Span(low, low_closed, None, False)]
