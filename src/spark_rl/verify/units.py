r"""Units of measurement after a number: which are the same, how they convert, which contradict, which are mere words.

A unit wrapped in ``\text{}`` may be any words that do not change the number or comment on it. A bare one must be known
(``5cm``, and with a space ``5 m``), be written in another script (``20元``), or stand apart as one or two words of
which the first has four letters or more (``5 apples``), because ``5xy`` and ``5m`` are expressions. Symbols keep their
case: ``42M`` is not 42 metres.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "lakh": 10**5, "crore": 10**7, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
    "тысяч": 1000, "тыс": 1000, "миллион": 10**6, "млн": 10**6, "миллиард": 10**9, "млрд": 10**9,
    "천": 1000, "만": 10**4, "억": 10**8, "हज़ार": 1000, "हजार": 1000, "लाख": 10**5, "करोड़": 10**7,
    "ألف": 1000, "آلاف": 1000, "مليون": 10**6,
}  # fmt: skip
"""Words that multiply the number before them."""

CURRENCY_SIGNS = "€£¥₹₩₽฿₺₫₦₱"
"""All but the dollar's, which LaTeX writes ``\\$``."""

_TABLE = """
mm millimeter millimeters millimetre millimetres 毫米 | m 1/1000
cm centimeter centimeters centimetre centimetres 厘米 | m 1/100
dm decimeter decimeters decimetre decimetres 分米 | m 1/10
m meter meters metre metres 米 | m 1
km kilometer kilometers kilometre kilometres 千米 公里 | m 1000
in inch inches | m 0.0254
ft foot feet | m 0.3048
yd yard yards | m 0.9144
mi mile miles | m 1609.344
mg milligram milligrams | g 1/1000
g gram grams 克 | g 1
kg kilogram kilograms kgs 千克 公斤 | g 1000
lb lbs pound pounds | g 453.59237
oz ounce ounces | g 28.349523125
ml mL milliliter milliliters millilitre millilitres 毫升 | m^3 1/1000000
L l liter liters litre litres 升 | m^3 1/1000
gal gallon gallons | m^3 0.003785411784
s sec secs second seconds 秒 | s 1
min mins minute minutes 分钟 | s 60
h hr hrs hour hours 小时 | s 3600
day days 天 | s 86400
week weeks | s 604800
month months | month 1
yr yrs year years | month 12
mph | m/s 0.44704
kph kmh | m/s 5/18
degree degrees deg 度 | degree 1
radian radians rad rads | radian 1
dollar dollars usd USD | dollar 1
cent cents | dollar 1/100
yuan 元 | yuan 1
ohm ohms Ohm | ohm 1
kohm | ohm 1000
N newton newtons | g*m/s^2 1000
kN | g*m/s^2 1000000
J joule joules | g*m^2/s^2 1000
kJ | g*m^2/s^2 1000000
W watt watts | g*m^2/s^3 1000
kW kilowatts | g*m^2/s^3 1000000
Pa pascal pascals | g/m*s^2 1000
kPa | g/m*s^2 1000000
Hz hertz | 1/s 1
kHz | 1/s 1000
MHz | 1/s 1000000
V volt volts | volt 1
kV | volt 1000
mV | volt 1/1000
amp amps ampere amperes | amp 1
mA | amp 1/1000
K kelvin kelvins | kelvin 1
mol mole moles | mol 1
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """Kilometres per hour are ``Unit((("m", 1), ("s", -1)), Fraction(5, 18))``."""

    dimensions: tuple[tuple[str, int], ...]
    scale: Fraction


def _dimensions(text: str) -> dict[str, int]:
    """``g*m/s^2``: everything after the slash is divided by."""
    found: dict[str, int] = {}
    for side, factor in zip(text.split("/"), (1, -1), strict=False):
        for part in side.split("*"):
            name, _, power = part.partition("^")
            if name != "1":
                found[name] = factor * int(power or 1)
    return found


_CANONICAL: dict[str, str] = {}
_BASIC: dict[str, tuple[dict[str, int], Fraction]] = {}
for _line in _TABLE.strip().splitlines():
    _words, _, _meaning = _line.partition("|")
    _base, _scale = _meaning.split()
    _BASIC[_words.split()[0]] = (_dimensions(_base), Fraction(_scale))
    _CANONICAL |= dict.fromkeys(_words.split(), _words.split()[0])

_SPACED_LETTERS = frozenset(("m", "g", "s", "h", "L", "N", "J", "W"))
"""Symbols of one letter that may stand without ``\\text``, set apart from the number."""
_BESIDE_LETTERS = frozenset(("m", "g", "s", "h", "L"))
"""Those that may follow a number without a space, where no expression is expected."""
_LOWERED = frozenset(
    ("MM", "CM", "KM", "KG", "Kg", "Km", "Cm", "ML", "Ml", "FT", "Ft", "In", "IN", "LB", "Lb", "OZ", "Oz")
)
_COMMENTS = """
and or not no than least most more less over under above below to of the pi x times plus minus by is are was
were be equals equal wrong false incorrect right correct true answer answers maybe perhaps probably guess sure
unsure hopefully check error approx about around if but because since then when for with without except
instead otherwise unless i you we it this that these those my so also either neither nor never none nothing
only just please ignore mod modulo half third squared cubed factorial percent k mil bn mn
"""
NOT_UNITS = frozenset(_COMMENTS.split())
"""Words that change a number or comment on it, wherever they stand."""
_COMMENTS_AFTER = """
positive negative greater smaller larger bigger fewer upper lower bound too twice thrice double triple
inverse reciprocal
opposite invalid impossible false contradiction nope oops wait hmm lol yes out both all but any some point
halves thirds fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths
one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
sixty seventy eighty ninety
sin cos tan cot sec csc log ln lg sqrt exp max gcd lcm undefined infinity unknown
mille mil millones millon millionen tausend faux falsch falso incorrecto nicht kein pas oder sondern ni non nein ou o
khong sai fail fails failed
"""
_NOT_AFTER = NOT_UNITS | frozenset(_COMMENTS_AFTER.split())
"""Those that do so after a number."""
_PARTS_OF_COMMENTS = """
不 非 错 錯 無 无 没 沒 未 否 负 負 误 誤 或 勿 别 除
以上 以下 以内 以內 以外 左右 约 約 超 低于 高于 少于 多于 大于 小于 至少 至多
最 多 少 几 余 近 又 半 分之 一 二 三 四 五 六 七 八 九 十 百 千 万 萬 亿 億 兆 倍以
より ない でな 違 아니 틀 이상 이하 미만 초과
십 백 천 만 억 조 ليس لا غير خط أو سالب مئ مائ ألف آلاف مليون مليار
नह ग़ल गल सौ हज लाख करोड या ऋण
тысяч тыс миллион млн миллиард млрд сотен сотн десят минус неверн неправ ошиб больш меньш более менее около примерно
полов треть четверт или кроме không sai nghìn triệu trăm âm
"""
_IN_COMMENTS = tuple(_PARTS_OF_COMMENTS.split())
"""What words of other scripts deny, bound, round or multiply a number with."""
_WHOLE_COMMENTS = frozenset(("не", "нет", "и", "ни", "no", "né"))
_ADJECTIVE = re.compile(r".{2,}(?:[^e]ed|ly|[ai]ble|less|ous)")
"""An adjective as the last word behind a number is a comment: ``5 rejected``, but not ``5 unshaded squares``, which
counts things."""
_JOINTS = frozenset(("per", "square", "sq", "cubic"))
_LARGE = frozenset(("M", "B", "k", "T"))
"""Letters that people write for millions, billions and thousands."""

_LETTERS = r"[^\W\d_]+"
_WRAPPED = re.compile(r"(?:\\text\{[^{}]*\}(?:\^(?:-?[0-9]|\{-?[0-9]\}))?[ /]?(?:\\cdot ?)?)+")
_BARE = re.compile(rf" ?{_LETTERS}(?:\^[0-9])?(?:[ /]{_LETTERS}(?:\^[0-9])?)*")
_BRACKETED = re.compile(rf" ?\(({_LETTERS}(?: {_LETTERS})*)\)")
_DEGREES = re.compile(r"\^\\circ ?(?:\\text\{([CF])\}|([CF])|\\text\{degrees?\})?")
_TRAILING = re.compile(
    r"(?<=[^\\])(?:\\text\{[^{}]*\}(?:\^(?:-?[0-9]|\{-?[0-9]\}))?[ /]?(?:\\cdot ?)?)+$|(?<=[0-9})])[^\W\d_a-zA-Z]+$"
)
_OHM = re.compile(r"(?:\\text\{ ?)?(k?)(?:\} ?)?\\Omega(?![A-Za-z])\}?")
_WORD = re.compile(_LETTERS)


def read_unit(text: str, *, bare_letters: bool = False) -> str | None:
    """The canonical unit that ``text`` is; ``""`` for words that are no known unit; ``None`` if it is not a unit.

    ``text`` is what follows a number in canonical text; ``bare_letters`` lets ``m g s h L`` follow it without a space.
    """
    degrees = _DEGREES.fullmatch(text)
    if degrees:
        scale = degrees[1] or degrees[2]
        return f"degree{scale}" if scale else "degree"
    if r"\Omega" in text:
        text = _OHM.sub(r"\\text{\1ohm}", text)
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed and all(_known(word) or len(word) >= 4 or not word.isascii() for word in bracketed[1].split()):
        text = rf"\text{{{bracketed[1]}}}"
    wrapped = _WRAPPED.fullmatch(text) is not None
    if not wrapped and not _BARE.fullmatch(text):
        return None
    plain = text.replace(r"\text{", " ").replace(r"\cdot", " ").translate(_BRACES)
    words = _WORD.findall(plain)
    if not words or comments(plain) or (len(words) == 1 and words[0] in _LARGE):
        return None
    if wrapped:
        return None if len(words) > 4 else _name(plain)
    return _name(plain) if _may_stand_bare(words, text.startswith(" "), bare_letters) else None


def conversion(gold: str, answer: str) -> Fraction | None:
    """What a number in the unit ``answer`` is multiplied with to be in ``gold``; ``None`` if they contradict."""
    if gold == answer:
        return Fraction(1)
    first, second = unit_of(gold), unit_of(answer)
    return None if first is None or second is None else ratio(first, second)


def ratio(gold: Unit, answer: Unit) -> Fraction | None:
    """The same for units whose meaning is known."""
    return answer.scale / gold.scale if gold.dimensions == answer.dimensions else None


@cache
def unit_of(name: str) -> Unit | None:
    """The meaning of a name that :func:`read_unit` returned; ``None`` for temperatures and currencies with a sign."""
    dimensions: dict[str, int] = {}
    scale = Fraction(1)
    sign = 1
    for token in name.split():
        if token == "/":  # noqa: S105  # a slash, not a secret
            sign = -1
            continue
        word, _, power = token.partition("^")
        if word not in _BASIC:
            return None
        basic, factor = _BASIC[word]
        exponent = sign * int(power or 1)
        scale *= factor**exponent
        for base, times in basic.items():
            dimensions[base] = dimensions.get(base, 0) + times * exponent
    return Unit(tuple(sorted((base, times) for base, times in dimensions.items() if times)), scale)


def trailing_unit(text: str) -> tuple[str, Unit | None]:
    r"""An expression without the unit in ``\text{}`` at its end, and that unit if it is known."""
    found = _TRAILING.search(text)
    if found is None:
        return text, None
    name = read_unit(found[0])
    if name is None:
        return text, None
    return text[: found.start()].rstrip(), unit_of(name) if name else None


_BRACES = str.maketrans("", "", "{}")


def comments(plain: str) -> bool:
    """Whether words that follow a number change it or comment on it."""
    words = _WORD.findall(plain)
    return denies(plain) or (
        _ADJECTIVE.fullmatch(words[-1].lower()) is not None and words[-1].lower() not in _CANONICAL
    )


def denies(plain: str) -> bool:
    """Whether one of the words changes a number or comments on it."""
    if any(word.lower() in _NOT_AFTER and word not in _CANONICAL for word in _WORD.findall(plain)):
        return True
    return not plain.isascii() and any(
        _denies_in_its_script(word.strip(".,:;!?()")) for word in plain.casefold().split()
    )


def _denies_in_its_script(word: str) -> bool:
    if word.isascii() or word in _CANONICAL:
        return False
    return word in _WHOLE_COMMENTS or any(part in word for part in _IN_COMMENTS)


def _may_stand_bare(words: list[str], apart: bool, bare_letters: bool) -> bool:
    if all(not word.isascii() for word in words):
        return True
    allowed = (_SPACED_LETTERS if apart else frozenset()) | (_BESIDE_LETTERS if bare_letters else frozenset())
    if all((_known(word) and (len(word) > 1 or word in allowed)) or word in _JOINTS for word in words):
        return True
    return apart and len(words[0]) >= 4 and len(words) <= 2


def _known(word: str) -> str | None:
    found = _CANONICAL.get(word)
    if found is None and (len(word) > 2 or word in _LOWERED):
        found = _CANONICAL.get(word.lower())
    return found


def _name(plain: str) -> str:
    """``square inches`` and ``in^2`` become ``in^2``; one unknown word makes the whole unknown."""
    parts: list[str] = []
    power = ""
    for token in re.findall(rf"{_LETTERS}|\^-?[0-9]|/", plain):
        word = token.lower()
        if word in ("square", "sq", "cubic"):
            power = "^3" if word == "cubic" else "^2"
        elif token.startswith("^"):
            if not parts:
                return ""
            parts[-1] += token
        elif word in ("per", "/"):
            parts.append("/")
        elif (unit := _known(token)) is not None:
            parts.append(unit + power)
            power = ""
        else:
            return ""
    return " ".join(parts)
