r"""Units of measurement after a number: which are the same, which contradict, and which are mere words.

A unit wrapped in ``\text{}`` may be any words. A bare one must be known (``5cm``, and with a space ``5 m``) or stand
apart as a word of four letters or more (``5 apples``), because ``5xy`` and ``5m`` are expressions.
"""

from __future__ import annotations

import re

SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Words that multiply the number before them."""

_SPELLINGS = """
mm millimeter millimeters millimetre millimetres
cm centimeter centimeters centimetre centimetres
m meter meters metre metres
km kilometer kilometers kilometre kilometres
in inch inches
ft foot feet
yd yard yards
mi mile miles
mg milligram milligrams
g gram grams
kg kilogram kilograms
lb lbs pound pounds
oz ounce ounces
ml mL milliliter milliliters millilitre millilitres
L liter liters litre litres
gal gallon gallons
s sec secs second seconds
min mins minute minutes
h hr hrs hour hours
day days
week weeks
month months
yr yrs year years
mph
degree degrees deg
radian radians rad
dollar dollars usd
cent cents
"""
_CANONICAL = {word: line.split()[0] for line in _SPELLINGS.strip().splitlines() for word in line.split()}
_NOT_UNITS = frozenset(
    ("and", "or", "not", "than", "least", "most", "more", "less", "over", "under", "to", "of", "the", "pi", "dozen")
)

_WRAPPED = re.compile(r"(?:\\text\{[^{}]*\}(?:\^(?:[0-9]|\{[0-9]\}))?[ /]?(?:\\cdot ?)?)+")
_BARE = re.compile(r" ?[A-Za-z]+(?:\^[0-9])?(?:[ /][A-Za-z]+(?:\^[0-9])?)*")
_DEGREES = re.compile(r"\^\\circ ?(?:\\text\{([CF])\}|([CF])|\\text\{degrees?\})?")
_WORD = re.compile(r"[A-Za-z]+")


def read_unit(text: str, *, bare_letters: bool = False) -> str | None:
    """The canonical unit that ``text`` is; ``""`` for words that are no known unit; ``None`` if it is not a unit.

    ``text`` is what follows a number in canonical text; ``bare_letters`` lets ``m g s h L`` follow it without a space.
    """
    degrees = _DEGREES.fullmatch(text)
    if degrees:
        scale = degrees[1] or degrees[2]
        return f"degree {scale}" if scale else "degree"
    wrapped = _WRAPPED.fullmatch(text) is not None
    if not wrapped and not _BARE.fullmatch(text):
        return None
    plain = text.replace(r"\text{", " ").replace(r"\cdot", " ").translate(_BRACES)
    words = _WORD.findall(plain)
    if not words or not _NOT_UNITS.isdisjoint(map(str.lower, words)):
        return None
    if not wrapped and not _may_stand_bare(words, text.startswith(" "), bare_letters):
        return None
    return _name(plain)


_BRACES = str.maketrans("", "", "{}")


def _may_stand_bare(words: list[str], apart: bool, bare_letters: bool) -> bool:
    if all(_known(word) and (len(word) > 1 or apart or bare_letters) for word in words):
        return True
    return apart and len(words[0]) >= 4


def _known(word: str) -> str | None:
    return _CANONICAL.get(word) or _CANONICAL.get(word.lower())


def _name(plain: str) -> str:
    """``square inches`` and ``in^2`` become ``in^2``; one unknown word makes the whole unknown."""
    parts: list[str] = []
    power = ""
    for token in re.findall(r"[A-Za-z]+|\^[0-9]|/", plain):
        word = token.lower()
        if word in ("square", "sq", "cubic"):
            power = "^3" if word == "cubic" else "^2"
        elif word in ("squared", "cubed") or token.startswith("^"):
            parts.append({"squared": "^2", "cubed": "^3"}.get(word, token))
        elif word in ("per", "/"):
            parts.append("/")
        elif (unit := _known(token)) is not None:
            parts.append(unit + power)
            power = ""
        else:
            return ""
    return "".join(parts)
