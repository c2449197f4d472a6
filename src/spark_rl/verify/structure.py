r"""How an answer is built: a list, a set, a tuple, an interval, a matrix, a union, or one expression (a leaf).

Structure is compared here, element by element, because math-verify 0.9 is loose about it: it accepts ``(1,2)`` for
``\{1,2\}``, ``5,5`` for ``5`` and any number for an equation that ends in it. Brackets matter: ``(0,1]`` is not
``[0,1]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from spark_rl.verify.notation import MAX_DEPTH, UnreadableError
from spark_rl.verify.number import THOUSANDS

Kind = Literal["leaf", "list", "set", "matrix", "union", "()", "[]", "(]", "[)"]


@dataclass(frozen=True, slots=True)
class Shape:
    """``(0,1]`` is ``Shape("(]", ("0", "1"))``; a leaf holds itself; a matrix holds its cells row by row."""

    kind: Kind
    items: tuple[str, ...]
    columns: int = 0
    """Width of a matrix."""


@dataclass(frozen=True, slots=True)
class Relation:
    """``x=5`` is ``Relation("x", "5")``; an equation such as ``x+y=3`` has no value of its own."""

    name: str | None
    value: str | None


_TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|[()\[\]{},]|=|[^\\()\[\]{},=]+", re.DOTALL)
_OPENING = frozenset(("(", "[", "{", r"\{"))
_CLOSING = frozenset((")", "]", "}", r"\}"))
_BRACKETS: dict[str, Kind] = {"()": "()", "[]": "[]", "(]": "(]", "[)": "[)", r"\{\}": "set"}
_MATRIX = re.compile(
    r"\\begin\{(?P<env>[pbBs]?(?:small)?matrix|array)\}(?:\{[^{}]*\})?(?P<body>.*)\\end\{(?P=env)\}", re.DOTALL
)
_SYMBOL = re.compile(
    r"(?:[A-Za-z]|\\[A-Za-z]+|\\text\{[^{}]*\})(?:_(?:[A-Za-z0-9]|\{[^{}]*\}))?'*(?:\([A-Za-z0-9, ]*\))?"
    r"|m?\\angle ?[A-Z0-9]{1,3}|[A-Z]{2,3}|[A-Za-z]{4,}(?: [A-Za-z]+)*"
    r"|\([A-Za-z](?:, ?[A-Za-z])*\)"
)
_MEMBERSHIP = re.compile(rf"(?:{_SYMBOL.pattern}) ?\\in(?![A-Za-z]) ?(?P<set>(?:(?!\\in(?![A-Za-z])).)+)")
_BUILDER = re.compile(r"[A-Za-z](?:\\in ?\\mathbb(?:\{R\}|R))?(?:[:|]|\\mid(?![A-Za-z])) ?(.+)")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]")
_EITHER_SIGN = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")
_RELATIONAL = re.compile(r"[<>=]|\\(?:leq|geq|neq|in|approx)(?![A-Za-z])")


def shape(text: str) -> Shape:
    """The structure of canonical ``text``. Raises :class:`UnreadableError` when it is nested too deep."""
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _matrix(matrix["body"])
    members = _MEMBERSHIP.fullmatch(text)
    if members:
        return shape(members["set"])
    items = split(text)
    if len(items) > 1:
        return Shape("list", tuple(value for item in items for value in signs(item)))
    unions = split(text, r"\cup")
    if len(unions) > 1:
        return Shape("union", unions)
    kind = _enclosure(text)
    if kind is None:
        both = signs(text)
        return Shape("list" if len(both) > 1 else "leaf", both)
    width = 2 if kind == "set" else 1
    items = split(text[width:-width])
    if kind == "()" and len(items) == 1:
        return shape(items[0])
    if kind == "set":
        if items == ("",):
            return Shape("set", ())
        condition = _BUILDER.fullmatch(items[0]) if len(items) == 1 else None
        if condition:
            return shape(condition[1])
        return Shape("set", tuple(value for item in items for value in signs(item)))
    return Shape(kind, items)


def split(text: str, separator: str = ",") -> tuple[str, ...]:
    """``text`` cut at the separators outside all brackets; itself when a piece would be empty.

    Commas that only separate thousands do not cut: ``1,000`` is one item, ``1,000, 2,000`` two, ``1,2`` two.
    """
    if separator not in text or (separator == "," and THOUSANDS.fullmatch(text)):
        return (text,)
    cuts = [-len(separator)]
    depth = 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in _OPENING:
            depth += 1
            _check_depth(depth)
        elif word in _CLOSING:
            depth -= 1
        elif word == separator and depth == 0:
            cuts.append(token.start())
    pieces = _cut(text, cuts, len(separator))
    if separator == ",":
        spaced = _cut(text, [cut for cut in cuts if cut < 0 or text[cut : cut + 2] == ", "], 1)
        if 1 < len(spaced) < len(pieces) and all("," not in piece or THOUSANDS.fullmatch(piece) for piece in spaced):
            return spaced
    return pieces if all(pieces) else (text,)


def signs(text: str) -> tuple[str, ...]:
    r"""The two values of an expression with ``\pm``, the upper signs first; otherwise the expression itself."""
    if not _EITHER_SIGN.search(text):
        return (text,)
    upper = _EITHER_SIGN.sub(lambda sign: "+" if sign[1] == "pm" else "-", text)
    lower = _EITHER_SIGN.sub(lambda sign: "-" if sign[1] == "pm" else "+", text)
    return upper.lstrip("+"), lower.lstrip("+")


def relation(text: str) -> Relation | None:
    """What ``text`` says equals what; ``None`` without an equals sign outside brackets, or for a list of equations.

    ``x=5``, ``5=x``, ``AB=5`` and ``\\angle A=5`` give 5. A chain gives its last value when it starts from a symbol or
    from arithmetic: ``x=2+3=5`` and ``2+3=5``.
    """
    if "=" not in text and r"\approx" not in text:
        return None
    parts = split(text.replace(r"\approx", "="), "=")
    if len(parts) < 2:
        return None
    if any("=" in item for item in split(text)[1:]):
        return None
    head = parts[0]
    if _SYMBOL.fullmatch(head):
        return Relation(head, parts[-1])
    if len(parts) == 2 and _SYMBOL.fullmatch(parts[1]):
        return Relation(parts[1], head)
    if not _VARIABLE.search(head):
        return Relation(None, parts[-1])
    return Relation(None, None)


def is_relational(text: str) -> bool:
    """Whether ``text`` states a relation (an equation, an inequality, a membership) and not a value."""
    return _RELATIONAL.search(text) is not None


def _cut(text: str, cuts: list[int], width: int) -> tuple[str, ...]:
    ends = [*cuts[1:], len(text)]
    return tuple(text[start + width : end].strip() for start, end in zip(cuts, ends, strict=True))


def _enclosure(text: str) -> Kind | None:
    """The brackets around the whole of ``text``, if one pair encloses it all."""
    opening = text[:2] if text.startswith("\\") else text[:1]
    if opening not in _OPENING:
        return None
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in _OPENING:
            depth += 1
            _check_depth(depth)
        elif token[0] in _CLOSING:
            depth -= 1
            if depth == 0:
                return _BRACKETS.get(opening + token[0]) if token.end() == len(text) else None
    return None


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnreadableError(f"an answer nested deeper than {MAX_DEPTH} brackets")


def _matrix(body: str) -> Shape:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", body.replace(r"\hline", "")) if row.strip()]
    cells = [row.split("&") for row in rows]
    columns = len(cells[0]) if cells else 0
    if any(len(row) != columns for row in cells):
        raise UnreadableError("a matrix whose rows differ in length")
    return Shape("matrix", tuple(cell.strip() for row in cells for cell in row), columns)
