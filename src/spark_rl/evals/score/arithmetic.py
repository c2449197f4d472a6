r"""The value of a boxed number or simple LaTeX expression, for benchmarks that compare with a tolerance (Sec. 4.1).

``value_of(r"\frac{2\pi}{3}")`` is 2.0943951... Read: numbers as :func:`spark_rl.verify.number.read_number` reads them,
``+ - * / ^``, ``\frac``, ``\sqrt``, ``\pi``, brackets and products without a sign. Text is parsed, never evaluated, in
bounded depth; anything else, a variable included, has no value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from spark_rl.evals.benchmark import Graded, Item, Scorer
from spark_rl.evals.score.scorers import rule
from spark_rl.verify import Verifier, extract_boxed
from spark_rl.verify.notation import UnreadableError, canonical
from spark_rl.verify.number import read_number

MAX_DEPTH = 64

_TOKEN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+|\\(?:frac|sqrt|pi|times|cdot)(?![A-Za-z])|[-+*/^(){}\[\]])")
_UNIT = re.compile(r"(?:\^\\circ ?|\\text\{[^{}]*\}(?:\^[0-9])?|%)$")
_PLAIN = {"left": "", "right": "", "dfrac": r"\frac", "tfrac": r"\frac"}
_COMMAND = re.compile(rf"\\({'|'.join(_PLAIN)})(?![A-Za-z])")
_GROUPED = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_CLOSING = {"(": ")", "{": "}", "[": "]"}


class _NoValueError(ValueError):
    """Not an expression that this module reads."""


def value_of(text: str) -> float | None:
    """The finite value of ``text``, of what stands behind its last ``=`` or ``≈``; ``None`` if it is no number.

    Percent signs, degrees and units are left out: ``50%`` is 50.
    """
    try:
        plain = canonical(re.split(r"=|≈|\\approx", text)[-1])
        number = read_number(plain, bare_letters=True)
        if number is not None:
            value = float(number.value) * (100 if number.percent else 1)
        else:
            value = _Reader(_UNIT.sub("", plain)).whole()
    except (UnreadableError, _NoValueError, OverflowError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def plain_value(text: str) -> float | None:
    r"""The finite value of an expression as latex2sympy reads it, unit, percent sign and degrees being no part of one.

    ``1,000`` is 1000, ``1:2`` and ``1\div2`` are quotients, dollars are left out, ``2\frac12`` has no value and
    ``2\frac{1}{2}`` is a product. Reading ends before a bracket that closes nothing.
    """
    plain = _GROUPED.sub("", text.replace("$", "")).replace(":", "/").replace(r"\div", "/")
    try:
        value = _Reader(_COMMAND.sub(lambda command: _PLAIN[command[1]], _opened(plain))).whole()
    except (_NoValueError, OverflowError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def within(same: Callable[[Item, str], bool]) -> Scorer:
    """The shared ``rule``, or the benchmark's own tolerance.

    Args:
        same: whether a box that ``rule`` does not call right is right for this item after all. Never asked about
            multiple choice.
    """

    def score(items: Sequence[Item], responses: Sequence[str], verifier: Verifier) -> list[Graded]:
        grades = []
        for item, response, grade in zip(items, responses, rule(items, responses, verifier), strict=True):
            boxed = extract_boxed(response)
            asked = grade.status != "correct" and item.problem.kind != "choice" and boxed is not None
            grades.append(Graded(1.0, boxed, "correct") if asked and same(item, boxed or "") else grade)
        return grades

    return score


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    def whole(self) -> float:
        value = self._sum()
        if self._next is not None:
            raise _NoValueError
        return value

    @property
    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> str:
        token = self._next
        if token is None:
            raise _NoValueError
        self._at += 1
        return token

    def _sum(self) -> float:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NoValueError
        value = self._product()
        while self._next in ("+", "-"):
            value += self._product() if self._take() == "+" else -self._product()
        self._depth -= 1
        return value

    def _product(self) -> float:
        value = self._signed()
        while True:
            sign = self._next
            if sign in ("*", r"\times", r"\cdot"):
                self._take()
                value *= self._signed()
            elif sign == "/":
                self._take()
                value /= self._signed()
            elif sign in ("(", r"\frac", r"\sqrt", r"\pi"):
                value *= self._power()
            else:
                return value

    def _signed(self) -> float:
        sign = 1.0
        while self._next in ("+", "-"):
            sign = -sign if self._take() == "-" else sign
        return sign * self._power()

    def _power(self) -> float:
        base = self._atom()
        if self._next != "^":
            return base
        self._take()
        negative = self._next == "-"
        if negative:
            self._take()
        exponent = self._atom()
        if base < 0 and not exponent.is_integer():
            raise _NoValueError
        return float(base ** (-exponent if negative else exponent))

    def _atom(self) -> float:
        first = self._take()
        if first in ("(", "{"):
            value = self._sum()
            self._close(first)
            return value
        if first == r"\pi":
            return math.pi
        if first == r"\frac":
            top = self._group()
            return top / self._group()
        if first == r"\sqrt":
            degree = 2.0
            if self._next == "[":
                self._take()
                degree = self._sum()
                self._close("[")
            radicand = self._group()
            if radicand < 0:
                raise _NoValueError
            return float(radicand ** (1 / degree))
        if first[0].isdigit() or first[0] == ".":
            return float(first)
        raise _NoValueError

    def _group(self) -> float:
        """What stands in the braces of a command's argument."""
        if self._next not in ("{", "("):
            raise _NoValueError
        return self._atom()

    def _close(self, opening: str) -> None:
        if self._take() != _CLOSING[opening]:
            raise _NoValueError


def _opened(text: str) -> str:
    """The text before the first bracket that closes nothing."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in "({[") - (char in ")}]")
        if depth < 0:
            return text[:place]
    return text


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _NoValueError
        found.append(token[1])
        position = token.end()
    return found
