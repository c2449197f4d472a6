r"""Numbers as answers write them, read exactly and compared exactly (Eq. 2 for the common case, in microseconds).

Read: integers, decimals, thousands separators (``1,000``, ``1 000``, never ``1,2``), ``\frac{a}{b}``, ``a/b``, mixed
numbers, repeating decimals, scientific notation, percent, currency, degrees, units, scale words, numerals in a base.

Decisions, where graders disagree:

- An exact gold (an integer, a fraction) wants the exact value. Only a decimal of six places or more that is the correct
  rounding is accepted for it: ``0.333333`` for 1/3, never ``0.333``.
- A gold with decimals may itself be a rounding: the answer must round to it at its precision and lie within a relative
  1e-4. That holds for irrational answers (``\pi`` for ``3.1416``), for decimals with more places if the gold has four
  (``3.14159``), and for fractions that are best approximations of the gold, at most 1/(2 q^2) from it (1/3 for
  ``0.3333``, but no long fraction near ``6.625``). ``3.14`` is wrong for ``3.1416``.
- ``50\%`` is 0.5. It is also right for 50, and 50 for it: a percent sign on one side only counts as a unit.
- Units are optional. Known units convert (5 km, 5000 m); those that contradict each other (5 cm, 5 m; 5 cm, 5 s) make
  unequal numbers; unknown ones are ignored.
- A whole number before a fraction is a mixed number if the fraction is proper (``3\frac12``), else a product that is no
  numeral; ``3(4)`` is never a numeral.
- The base of a numeral is optional too, but two bases must agree: ``52_8`` equals 52, not ``52_7``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.units import CURRENCY_SIGNS, SCALES, conversion, read_unit

MAX_EXPONENT = 1000
"""Larger powers of ten are refused: 10^{10^9} must not be written out."""
RELATIVE_TOLERANCE = Fraction(1, 10_000)
APPROXIMATE_PLACES = 6
"""Decimal places from which a decimal counts as a rounding of an exact gold."""
ROUNDED_PLACES = 4
"""Decimal places from which a gold may be a rounding of a longer decimal."""

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]{1,3}(?:[ ][0-9]{3})++(?![0-9])|[0-9]++)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]*+)?|\.[0-9]++)"
_POWER = r"(?P<{0}>\{{[+-]?[0-9]++\}}|-?[0-9])"
_MAGNITUDE = re.compile(
    rf"""(?P<whole>{_WHOLE})\ ?(?:\\frac\{{(?P<over>[0-9]++)\}}\{{(?P<under>[0-9]++)\}}
                                |(?<=[0-9]\ )(?P<slash_over>[0-9]++)/(?P<slash_under>[0-9]++))
    |\\frac\{{(?P<top>-?{_DECIMAL})\}}\{{(?P<bottom>-?{_DECIMAL})\}}
    |(?P<left>{_DECIMAL})/(?P<right>{_DECIMAL})
    |10\^{_POWER.format("power")}
    |(?P<fixed>[0-9]*+\.[0-9]*+)(?:\\overline\{{(?P<cycle>[0-9]++)\}}|(?<=\.)\((?P<bracketed>[0-9]++)\))
    |(?P<mantissa>{_DECIMAL})(?:(?:\\times|\\cdot|\*)\ ?10\^{_POWER.format("scientific")}|[eE](?P<e>[+-]?[0-9]++))?""",
    re.VERBOSE,
)
_SIGN = re.compile(rf"([+-]?)(\\\$|[{CURRENCY_SIGNS}]|\\pounds|\\euro)?(-?)")
_BASED = re.compile(r"([0-9][0-9A-Za-z]*+)_(?:\{([0-9]+)\}|([0-9]))")
_SCALE = re.compile(
    rf" ?(\\text\{{)? ?({'|'.join(word for word in SCALES if word.isascii())}"
    rf"|{'|'.join(word for word in SCALES if not word.isascii())})(?:s(?![A-Za-z])|(?<![A-Za-z])|(?![A-Za-z])) ?"
)
_FIRST = frozenset("0123456789.\\")
"""What a numeral begins with."""
THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})++")
"""An integer with separators, which could also be a list of integers."""


@dataclass(frozen=True, slots=True)
class Number:
    r"""A number as read: ``50\%`` is ``Number(value=Fraction(1, 2), places=2, percent=True, unit=None)``."""

    value: Fraction
    places: int
    """Decimal places it is written with; 0 for integers and fractions, which are exact."""
    percent: bool = False
    unit: str | None = None
    """The canonical name of a known unit."""
    written: str = field(default="", compare=False)
    """The numeral itself, without sign, currency and unit."""


def read_number(text: str, *, bare_letters: bool = False) -> Number | None:
    """The number that canonical ``text`` is, or ``None`` if it is something else.

    Args:
        text: canonical text (:func:`spark_rl.verify.notation.canonical`).
        bare_letters: whether a single letter may be a unit without a space (``5m``): where no expression is expected.

    Raises:
        UnreadableError: for exponents beyond :data:`MAX_EXPONENT`.
    """
    if text.startswith(r"\text{") and text.endswith("}") and text.count("{") == 1:
        text = text[6:-1].strip()
    sign = _SIGN.match(text)
    assert sign is not None
    start = sign.end()
    if text[start : start + 1] not in _FIRST:
        return None
    match = _MAGNITUDE.match(text, start)
    if match is None or (sign[1] and sign[3]):
        return None
    magnitude = _magnitude(match)
    if magnitude is None:
        return None
    value, places = magnitude
    if "-" in (sign[1], sign[3]):
        value = -value
    rest = text[match.end() :]
    if not rest and not sign[2]:
        return Number(value, places, written=match[0])
    number = _with_unit(value, places, rest, sign[2], bare_letters)
    return number and replace(number, written=match[0])


def equal_numbers(gold: Number, answer: Number) -> bool:
    """Whether ``answer`` states the gold number, by the rules at the top of this module."""
    if gold.unit is not None and answer.unit is not None and gold.unit != answer.unit:
        factor = conversion(gold.unit, answer.unit)
        return factor is not None and _close(gold.value, gold.places, answer.value * factor, 0)
    if _close(gold.value, gold.places, answer.value, answer.places):
        return True
    if gold.percent == answer.percent or gold.unit or answer.unit:
        return False
    gold_value, gold_places = _without_percent(gold)
    answer_value, answer_places = _without_percent(answer)
    return _close(gold_value, gold_places, answer_value, answer_places)


def close_to(gold: Number, value: Fraction, *, irrational: bool) -> bool:
    """Whether ``value``, exact or known to many digits, is what a gold with decimals approximates."""
    return _close(gold.value, gold.places, value, 0, irrational=irrational)


def rounding_of(answer: Number, value: Fraction) -> bool:
    """Whether ``answer`` is the rounding of the exact ``value`` to six decimal places or more."""
    return _close(value, 0, answer.value, answer.places)


def agrees(rounded: Number, value: Fraction) -> bool:
    """Whether ``rounded`` is ``value`` rounded, or cut off, at the decimal places it is written with."""
    scaled, digits = value * 10**rounded.places, rounded.value * 10**rounded.places
    return bool(2 * abs(scaled - digits) <= 1 or digits == int(scaled))


def equal_bases(gold: str, answer: str) -> bool | None:
    """Whether two numerals of which at least one names its base are equal; ``None`` if neither does."""
    first, second = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if first is None and second is None:
        return None
    digits = [match[1] if match else text for match, text in ((first, gold), (second, answer))]
    bases = {match[2] or match[3] for match in (first, second) if match}
    return digits[0].upper() == digits[1].upper() and len(bases) == 1


def _close(gold: Fraction, gold_places: int, answer: Fraction, answer_places: int, *, irrational: bool = False) -> bool:
    """The rules for roundings; 0 places stand for an exact number."""
    if gold == answer:
        return True
    if gold.denominator == 1:
        return False
    gap = abs(gold - answer)
    if gold_places == 0:
        return answer_places >= APPROXIMATE_PLACES and 2 * gap * 10**answer_places <= 1
    if 2 * gap * 10**gold_places > 1 or gap > RELATIVE_TOLERANCE * max(abs(gold), abs(answer)):
        return False
    if irrational:
        return True
    if answer_places > 0:
        return gold_places >= ROUNDED_PLACES
    return 2 * answer.denominator**2 * gap <= 1


def _without_percent(number: Number) -> tuple[Fraction, int]:
    if not number.percent:
        return number.value, number.places
    return number.value * 100, max(number.places - 2, 0)


def _magnitude(match: re.Match[str]) -> tuple[Fraction, int] | None:
    """(value, decimal places) of a matched numeral, or ``None`` for a division by zero."""
    if match["mantissa"] is not None:
        exponent = _exponent(match["scientific"] or match["e"])
        value, places = _decimal(match["mantissa"])
        return value * Fraction(10) ** exponent, max(places - exponent, 0)
    if match["power"] is not None:
        return Fraction(10) ** _exponent(match["power"]), 0
    cycle = match["cycle"] or match["bracketed"]
    if cycle is not None:
        fixed, places = _decimal("0" + match["fixed"])
        return fixed + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10**places), 0
    if match["whole"] is not None:
        numerator, denominator = match["over"] or match["slash_over"], match["under"] or match["slash_under"]
        whole = _decimal(match["whole"])[0]
        if not 0 < int(numerator) < int(denominator):
            return None
    else:
        numerator, denominator = match["top"] or match["left"], match["bottom"] or match["right"]
        whole = Fraction(0)
    bottom = _decimal(denominator)[0]
    return None if bottom == 0 else (whole + _decimal(numerator)[0] / bottom, 0)


def _decimal(text: str) -> tuple[Fraction, int]:
    text = text.replace(",", "").replace(" ", "")
    if text.isdigit():
        return Fraction(int(text)), 0
    whole, _, decimals = text.partition(".")
    sign = -1 if whole.startswith("-") else 1
    whole = whole.lstrip("-")
    return Fraction(sign * int((whole + decimals) or "0"), 10 ** len(decimals)), len(decimals)


def _exponent(text: str | None) -> int:
    if text is None:
        return 0
    digits = text.strip("{}")
    if len(digits) > 6 or abs(int(digits)) > MAX_EXPONENT:
        raise UnreadableError(f"a power of ten beyond 10^{MAX_EXPONENT}")
    return int(digits)


def _with_unit(value: Fraction, places: int, rest: str, currency: str | None, bare_letters: bool) -> Number | None:
    if rest.lstrip() in ("%", r"\text{%}", r"\text{percent}", "percent"):
        return None if currency else Number(value / 100, places + 2, percent=True)
    scale = _SCALE.match(rest)
    if scale is not None:
        value, places = value * SCALES[scale[2]], 0
        rest = ((scale[1] or "") + rest[scale.end() :]).replace(r"\text{}", "")
    if not currency and len(rest.strip()) == 1 and rest.strip() in CURRENCY_SIGNS:
        currency, rest = rest.strip(), ""
    unit = read_unit(rest, bare_letters=bare_letters) if rest else ""
    if unit is None:
        return None
    if currency:
        return (
            Number(value, places, unit="dollar" if currency == r"\$" else currency) if unit in ("", "dollar") else None
        )
    return Number(value, places, unit=unit or None)
