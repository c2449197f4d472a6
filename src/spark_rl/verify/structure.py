r"""How an answer is built: a list, a set, a tuple, an interval, a matrix, a union, or one expression (a leaf).

The comparison of two answers (:mod:`spark_rl.verify.equivalence`) follows their structure element by element, and is
strict about it: ``(1,2)`` is not ``\{1,2\}``, ``5,5`` is not ``5``, ``(0,1]`` is not ``[0,1]``, and an equation is not
the number that it ends in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from spark_rl.verify.notation import MAX_DEPTH, UnreadableError
from spark_rl.verify.number import THOUSANDS
from spark_rl.verify.words import denying

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
    r"""``x=2\sqrt3\approx3.46`` is ``Relation("x", ("2\sqrt3", "3.46"), ("\approx",))``.

    Several values are a chain, which states a value only if it is true: ``2+3=5`` is, ``2x=6`` is an equation.
    """

    name: str | None
    values: tuple[str, ...]
    senses: tuple[str, ...] = ()
    """What stands between the values: ``=`` or ``\\approx``."""


_TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|[()\[\]{},=:/+\-]|[^\\()\[\]{},=:/+\-]+", re.DOTALL)
_LONG_NUMBER = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])[\\^A-Za-z/!(][^,]*")
"""Thousands at the head of an expression: ``1,000\\pi``."""
_OPENING = frozenset(("(", "[", "{", r"\{"))
_CLOSING = frozenset((")", "]", "}", r"\}"))
_BRACKETS: dict[str, Kind] = {"()": "()", "[]": "[]", "(]": "(]", "[)": "[)", r"\{\}": "set"}
_MATRIX = re.compile(
    r"\\begin\{(?P<env>[pbBs]?(?:small)?matrix|array)\}(?:\{[^{}]*\})?(?P<body>.*)\\end\{(?P=env)\}", re.DOTALL
)
_ROW_BREAK = re.compile(r"\\\\(?:\[[^\]]*\])?")
_SYMBOL = re.compile(
    r"(?:[A-Za-z]|\\(?!pi|infty)[A-Za-z]+|\\text\{[^{}]*\})(?:_(?:[A-Za-z0-9]|\{(?:[^{}]|\{[^{}]*\})*\}))?"
    r"'*(?:\([A-Za-z0-9, ]*\))?"
    r"|m?\\angle ?[A-Z0-9]{1,3}|[A-Z]{2,3}|[A-Za-z]{4,}(?: [A-Za-z]+)*"
    r"|\([A-Za-z](?:, ?[A-Za-z])*\)"
)
_POINTS = r"(?:[A-Z](?:_(?:[A-Za-z0-9]|\{(?:[^{}]|\{[^{}]*\})*\}))?'*)"
_MARKED = (
    r"\\(?:vec|overline|overrightarrow|overleftrightarrow|hat|bar|widehat|tilde|widetilde|mathcal|mathbb)\{[^{}]*\}"
)
_PLAIN_NAME = re.compile(
    rf"{_SYMBOL.pattern}|{_POINTS}{{1,5}}|{_MARKED}(?:_(?:[A-Za-z0-9]|\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}))?"
    rf"|m?\\(?:angle|triangle|odot|measuredangle) ?(?:{_POINTS}{{1,4}}|[0-9]|\\?[a-z]+)|\[{_POINTS}{{3,6}}\]|d[a-z]"
    r"|\\(?:sigma|chi)\^2|\\(?:bar|hat|vec|tilde) ?[A-Za-z]|\\partial ?[a-z]"
    r"|\\(?:mathbb|text)\{?E\}?\[[A-Z]\]|E\[[A-Z]\]"
    r"|\\lim_\{(?:[^{}]|\{[^{}]*\})*\}.+|\\(?:max|min) ?[a-zA-Z](?:\([a-z]\))?"
)
_OF_A_NAME = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc|arg|det|deg|dim|max|min|gcd|Re|Im|rank|tr)(?:\^2|\^\{2\})?(?![A-Za-z])"
    r"|\\text\{[A-Za-z ]+\}|sin|cos|tan|cot"
)
_CALLED = re.compile(rf"(?P<head>{_MARKED}|\\?[A-Za-z]+(?:_(?:[A-Za-z0-9]|\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}))?"
                     r"|\\text\{[^{}]*\}"
                     r"|\([a-z]\\circ [a-z]\))(?:\^\{-1\}|\^\{\([0-9n]\)\}|'+)?\((?P<inside>.*)\)")  # fmt: skip
_FUNCTION_LETTERS = frozenset((*"fghFGHPEVDRQpq", "Var", "Cov", "Pr"))
_OPERAND_NAME = re.compile(rf"{_POINTS}{{2,3}}|\|{_POINTS}{{2}}\||{_MARKED}|m?\\angle ?[A-Z0-9]+")
"""What a name may be added to and multiplied with: segments, vectors, angles."""
_SIMPLE_ARGUMENT = re.compile(r"(?:[-0-9A-Za-z., |']|\\c[ua]p(?![a-z]))*|\\[a-z]+")
_NAMED_FRACTION = re.compile(r"\\frac\{(?P<top>(?:[^{}]|\{[^{}]*\})*)\}\{(?P<bottom>(?:[^{}]|\{[^{}]*\})*)\}")
_LINK = re.compile(r"\\(?:leq|geq|neq|in|approx|sim|equiv|to|subset|subseteq|parallel|perp|cong)(?![A-Za-z])|[<>=]")
_MEMBERSHIP = re.compile(rf"(?:{_SYMBOL.pattern}) ?\\in(?![A-Za-z]) ?(?P<set>(?:(?!\\in(?![A-Za-z])).)+)")
_BUILDER = re.compile(r"[A-Za-z](?:\\in ?\\mathbb(?:\{R\}| ?R))?(?:[:|]|\\mid(?![A-Za-z])) ?(.+)")
_BUILDER_START = re.compile(r"[A-Za-z](?:\\in ?\\mathbb(?:\{R\}| ?R))?(?:[:|]|\\mid(?![A-Za-z]))(?=.*[<>=]|.*\\[gl]eq)")
_EITHER_SIGN = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")


def shape(text: str) -> Shape:
    """The structure of canonical ``text``. Raises :class:`UnreadableError` when it is nested too deep."""
    matrix = _MATRIX.fullmatch(text)
    if matrix and r"\begin" not in matrix["body"]:
        return Shape("matrix", *matrix_cells(matrix["body"]))
    if text[:7] in (r"[\begin", r"(\begin") and text[-2:] in ("}]", "})") and text.count(r"\begin") == 1:
        return shape(text[1:-1])
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
        if len(items) > 1 and (start := _BUILDER_START.match(items[0])):
            return shape(text[width + start.end() : -width])
        if condition:
            return shape(condition[1])
        return Shape("set", tuple(value for item in items for value in signs(item)))
    return Shape(kind, items)


def parts(text: str) -> tuple[str, ...]:
    """The expressions that canonical ``text`` is built of: items, sets, terms of ratios, sides of inequalities.

    Nothing for an expression, and not the names that inequalities are about: ``2<x<3`` is 2 and 3.
    """
    for separator in (":", r"\cup", r"\cap", r"\setminus"):
        pieces = split(text, separator)
        if len(pieces) > 1:
            return pieces
    items = shape(text).items
    if items != (text,):
        return items
    return tuple(side for one, _, other in comparisons(text) for side in (one, other) if not is_name(side))


def split(text: str, separator: str = ",") -> tuple[str, ...]:
    """``text`` cut at the separators outside all brackets; itself when a piece would be empty.

    Commas that only separate thousands do not cut: ``1,000`` is one item, ``1,000, 2,000`` two, ``1,2`` two.
    """
    if separator not in text or (separator == "," and (THOUSANDS.fullmatch(text) or _LONG_NUMBER.fullmatch(text))):
        return (text,)
    outer = [token.start() for token, depth in _tokens(text) if depth == 0 and token[0] == separator]
    cuts = [-len(separator), *outer]
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
    r"""What ``text`` says equals what; ``None`` without an equals sign outside brackets, or for a list of equations.

    ``x=5``, ``5=x``, ``|AB|=5``, ``\sin A=5`` and ``S:S'=5`` state 5 under a name (:func:`is_name`).
    """
    if "=" not in text and r"\approx" not in text:
        return None
    if any("=" in item for item in split(text)[1:]):
        return None
    cuts = [cut for cut in _outer_links(text) if cut[1] in ("=", r"\approx")]
    if not cuts:
        return None
    parts, senses = _between(text, cuts), [sense for _, sense in cuts]
    if not all(parts) or any(is_relational(part) for part in parts):
        return Relation(None, tuple(parts), tuple(senses))
    name = None
    while len(parts) > 1 and is_name(parts[0]):
        name = name or parts[0]
        del parts[0], senses[0]
    if name is None and len(parts) == 2 and is_name(parts[1]):
        return Relation(parts[1], (parts[0],))
    return Relation(name, tuple(parts), tuple(senses[-(len(parts) - 1) :] if len(parts) > 1 else ()))


def is_name(text: str, depth: int = 3) -> bool:
    r"""Whether ``text`` only names a quantity: ``x``, ``AB``, ``|z|``, ``f(-1)``, ``P(A|B)``, ``\frac{NO}{BO}``.

    A sum or product of variables is no name: ``x+y=5`` is an equation.
    """
    text = text.strip()
    if not text or depth < 0 or denying(text):
        return False
    if _PLAIN_NAME.fullmatch(text):
        return True
    if text.startswith(r"\|") and text.endswith(r"\|") and text.count(r"\|") == 2:
        return is_name(text[2:-2], depth - 1)
    if len(text) > 2 and text[0] == text[-1] == "|" and text.count("|") == 2:
        return (
            is_name(text[1:-1], depth - 1)
            or re.fullmatch(rf"{_POINTS}+(?:\\c[ua]p ?{_POINTS})*", text[1:-1]) is not None
        )
    fraction = _NAMED_FRACTION.fullmatch(text)
    if fraction:
        return is_name(fraction["top"], depth - 1) and is_name(fraction["bottom"], depth - 1)
    called = _CALLED.fullmatch(text)
    if called and _closes_at_end(text[called.start("inside") - 1 :]):
        return called["head"] in _FUNCTION_LETTERS or _SIMPLE_ARGUMENT.fullmatch(called["inside"]) is not None
    of_name = _OF_A_NAME.match(text)
    if of_name and is_name(text[of_name.end() :].strip().removeprefix("(").removesuffix(")"), depth - 1):
        return True
    for separator in (":", "/"):
        parts = split(text, separator)
        if len(parts) > 1:
            return all(is_name(part, depth - 1) for part in parts)
    for separator in (r"\cdot", r"\times", "+", "-"):
        parts = split(text, separator)
        if len(parts) > 1:
            return all(_OPERAND_NAME.fullmatch(part) for part in parts)
    return False


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens ``text`` closes at its end."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return index == len(text) - 1
    return False


def comparisons(text: str) -> list[tuple[str, str, str]]:
    """``a<b\\leq c`` as ``[("a", "<", "b"), ("b", "\\leq", "c")]``; empty for anything else."""
    cuts = _outer_links(text)
    if not cuts or any(sense not in ("<", ">", "=", r"\leq", r"\geq", r"\neq") for _, sense in cuts):
        return []
    parts = _between(text, cuts)
    if not all(parts):
        return []
    return [(parts[index], sense, parts[index + 1]) for index, (_, sense) in enumerate(cuts)]


def _outer_links(text: str) -> list[tuple[int, str]]:
    """(position, sign) of every relation sign outside all brackets."""
    if not _LINK.search(text):
        return []
    return [
        (token.start() + link.start(), link[0])
        for token, depth in _tokens(text)
        if depth == 0
        for link in _LINK.finditer(token[0])
    ]


def _between(text: str, cuts: list[tuple[int, str]]) -> list[str]:
    starts = [0, *(cut + len(sign) for cut, sign in cuts)]
    ends = [*(cut for cut, _ in cuts), len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def is_relational(text: str) -> bool:
    """Whether ``text`` states a relation (an equation, an inequality, a membership) and not a value.

    ``P(X=2)`` and ``\\sum_{k=1}^{5}k`` do not: their signs are inside brackets.
    """
    return bool(_outer_links(text))


def _cut(text: str, cuts: list[int], width: int) -> tuple[str, ...]:
    ends = [*cuts[1:], len(text)]
    return tuple(text[start + width : end].strip() for start, end in zip(cuts, ends, strict=True))


def _enclosure(text: str) -> Kind | None:
    """The brackets around the whole of ``text``, if one pair encloses it all."""
    opening = text[:2] if text.startswith("\\") else text[:1]
    if opening not in _OPENING:
        return None
    for token, depth in _tokens(text):
        if depth == 0 and token[0] in _CLOSING:
            return _BRACKETS.get(opening + token[0]) if token.end() == len(text) else None
    return None


def _tokens(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Every token with the number of brackets around it; a bracket is not inside of itself."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth -= token[0] in _CLOSING
        yield token, depth
        depth += token[0] in _OPENING
        if depth > MAX_DEPTH:
            raise UnreadableError(f"an answer nested deeper than {MAX_DEPTH} brackets")


def matrix_cells(body: str) -> tuple[tuple[str, ...], int]:
    r"""The cells of a matrix row by row, and how many a row has. ``body`` stands between its ``\begin`` and ``\end``.

    Raises:
        UnreadableError: for rows that differ in length.
    """
    rows = [row.split("&") for row in _ROW_BREAK.split(body.replace(r"\hline", "")) if row.strip()]
    columns = len(rows[0]) if rows else 0
    if any(len(row) != columns for row in rows):
        raise UnreadableError("a matrix whose rows differ in length")
    return tuple(cell.strip() for row in rows for cell in row), columns
