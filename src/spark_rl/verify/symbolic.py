r"""Symbolic equivalence of two expressions by math-verify. Only a worker imports this: it may hang, recurse or exhaust
memory, and the worker can be killed.

math-verify's own time limits (signal alarms, which score 0 in silence off the main thread) are switched off; the pool
kills instead. Departures from its verdicts: decimals are compared by the rules of :mod:`spark_rl.verify.number`, not by
rounding both sides to six places; structure is compared element by element before it gets here.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig
from math_verify import parse as parse_latex
from math_verify import verify as symbolic_verify

from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.number import APPROXIMATE_PLACES, close_to, read_number, rounding_of
from spark_rl.verify.units import read_unit

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns, once, that its time limits are off

_NOTATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_LATEX = (LatexExtractionConfig(boxed_match_priority=-1, normalization_config=_NOTATION),)
_TRAILING_UNIT = re.compile(r"(?<=[^\\])\\text\{[^{}]*\}(?:\^(?:[0-9]|\{[0-9]\}))?$")
_DIGITS = 40


def symbolically_equal(gold: str, answer: str) -> bool:
    """Whether two canonical expressions are equal. Raises :class:`UnreadableError` if the answer is no expression."""
    parsed_answer = _parse(answer)
    if parsed_answer is None:
        raise UnreadableError("an answer that is not an expression")
    parsed_gold = _parse(gold)
    if parsed_gold is None:
        return False
    by_value = _decimal_against_constant(gold, answer, parsed_gold, parsed_answer)
    if by_value is not None:
        return by_value
    return bool(symbolic_verify(parsed_gold, parsed_answer, timeout_seconds=None, allow_set_relation_comp=True))


def _parse(text: str) -> Any | None:
    """The sympy object, or ``None`` when the parser finds no expression."""
    text = _without_unit(text).replace("%", r"\%").replace(r"\$", "")
    found = parse_latex(f"${text}$", extraction_config=_LATEX, fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


def _without_unit(text: str) -> str:
    unit = _TRAILING_UNIT.search(text)
    return text[: unit.start()] if unit and read_unit(unit[0]) is not None else text


def _decimal_against_constant(gold: str, answer: str, parsed_gold: Any, parsed_answer: Any) -> bool | None:
    r"""The rule for a decimal on one side and a constant such as ``\frac{\pi}{3}`` on the other; else ``None``."""
    gold_number, answer_number = read_number(gold), read_number(answer, bare_letters=True)
    if gold_number is not None and gold_number.places > 0:
        value = _constant(parsed_answer)
        return None if value is None else close_to(gold_number, value)
    if answer_number is not None and answer_number.places >= APPROXIMATE_PLACES:
        value = _constant(parsed_gold)
        return None if value is None else rounding_of(answer_number, value)
    if answer_number is not None and answer_number.places > 0 and not _is_rational(parsed_gold):
        return False
    return None


def _constant(expression: Any) -> Fraction | None:
    """A real constant to forty digits."""
    if not isinstance(expression, sympy.Expr) or not expression.is_number:
        return None
    value = expression.evalf(_DIGITS)
    if not value.is_Float and not value.is_Integer and not value.is_Rational:
        return None
    if value == 0 or 1e-300 < abs(value) < 1e300:
        exact = sympy.Rational(value)
        return Fraction(int(exact.p), int(exact.q))
    return None


def _is_rational(expression: Any) -> bool:
    return not isinstance(expression, sympy.Expr) or not expression.is_number or expression.is_rational is not False
