r"""Pairs of answers whose equality is known by how they were made: the input of the verifier's differential fuzz.

A *value* is drawn first, in an exact form that needs no algebra to compare: a fraction, the coefficients of square
roots, of a polynomial, of a matrix. Then it is written twice, each time in one of many ways. An unequal pair writes two
values that differ, often in the way in which people and graders slip: a sum for a product, a swapped fraction, a sign,
a bracket, a difference far below what a float can hold. Seeded; nothing here uses a parser or a computer algebra.

"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Roots = Mapping[int, Fraction]
"""Radicand without square factor -> coefficient: ``{1: 3, 2: 1/2}`` is 3 + sqrt(2)/2."""
Polynomial = tuple[Fraction, ...]
"""Coefficients from the constant upwards; the last is not zero."""

SQUARE_FREE = (2, 3, 5, 6, 7, 10, 11, 13, 15, 17)


@dataclass(frozen=True, slots=True)
class Pair:
    r"""``Pair("rational", r"\frac{3}{4}", "0.75", equal=True)``."""

    kind: str
    gold: str
    answer: str
    equal: bool


def draw_pair(rng: random.Random, *, equal: bool, kind: str | None = None) -> Pair:
    """A pair of a kind of :data:`KINDS`, drawn evenly if none is named."""
    kind = kind or rng.choice(tuple(KINDS))
    gold, answer = KINDS[kind](rng, equal)
    return Pair(kind, gold, answer, equal)


# Rationals


def rational(rng: random.Random, equal: bool) -> tuple[str, str]:
    value = some_fraction(rng)
    if equal:
        return write_fraction(value, rng), write_fraction(value, rng)
    if rng.random() < 0.2:  # a gold with decimals could be a rounding of its neighbour
        near = Fraction(1, 10 ** rng.randint(7, 20))
        return write_fraction(value, rng, exact=True), write_fraction(value + near, rng)
    return write_fraction(value, rng), write_fraction(_missed_fraction(value, rng), rng)


def some_fraction(rng: random.Random, top: int = 60) -> Fraction:
    bottom = rng.choice((1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 25, 40))
    return Fraction(rng.randint(1, top) * rng.choice((1, 1, 1, -1)), bottom)


def _missed_fraction(value: Fraction, rng: random.Random) -> Fraction:
    slips = [value + 1, value - 1, -value, value + Fraction(1, 7), value * 10]
    if abs(value) != 1:
        slips.append(1 / value)
    if value.denominator > 1:
        whole, rest = divmod(abs(value), 1)
        slips += [Fraction(value.numerator), Fraction(math.floor(value)), value + Fraction(1, value.denominator)]
        if whole * rest not in {0, abs(value)}:
            slips.append(whole * rest)  # a mixed number read as a product
    return rng.choice([slip for slip in slips if slip != value])


def write_fraction(value: Fraction, rng: random.Random, *, exact: bool = False) -> str:
    """A rational in one of many spellings; with ``exact`` never with decimals that could be a rounding."""
    ways: list[Callable[[Fraction, random.Random], str | None]] = [
        _plain_fraction, _plain_fraction, _unreduced, _mixed, _repeating, _as_sum, _as_product, _bracketed, _quotient,
        _with_power, _slashed,
    ]  # fmt: skip
    if not exact:
        ways += [_decimal, _scientific]
    while True:
        found = rng.choice(ways)(value, rng)
        if found is not None:
            return found


def plain(value: Fraction) -> str:
    r"""``-3``, ``-\frac{3}{4}``."""
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    return f"{sign}{top}" if bottom == 1 else rf"{sign}\frac{{{top}}}{{{bottom}}}"


def _plain_fraction(value: Fraction, rng: random.Random) -> str:
    text = plain(value)
    return rng.choice((text, f"${text}$", text.replace(r"\frac", r"\dfrac"), f" {text} "))


def _unreduced(value: Fraction, rng: random.Random) -> str:
    factor = rng.randint(2, 9)
    top, bottom = value.numerator * factor, value.denominator * factor
    if rng.random() < 0.2:
        top, bottom = -top, -bottom
    return rf"\frac{{{top}}}{{{bottom}}}"


def _slashed(value: Fraction, rng: random.Random) -> str | None:
    sign = rng.choice(("/", " / "))
    return f"{value.numerator}{sign}{value.denominator}" if value.denominator > 1 else None


def _mixed(value: Fraction, rng: random.Random) -> str | None:
    whole, rest = divmod(abs(value), 1)
    if not whole or not rest:
        return None
    space = rng.choice(("", " "))
    return rf"{'-' if value < 0 else ''}{whole}{space}\frac{{{rest.numerator}}}{{{rest.denominator}}}"


def _decimal(value: Fraction, rng: random.Random) -> str | None:
    bottom = value.denominator
    for factor in (2, 5):
        while bottom % factor == 0:
            bottom //= factor
    if bottom != 1:
        return None
    places = next(places for places in range(40) if (value * 10**places).denominator == 1)
    digits = f"{abs(value.numerator * 10**places // value.denominator):0{places + 1}d}"
    text = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
    text = ("-" if value < 0 else "") + text
    return text + "0" * rng.choice((0, 0, 2)) if places else text


def _repeating(value: Fraction, rng: random.Random) -> str | None:
    whole, rest = divmod(abs(value), 1)
    if rest.denominator not in {3, 7, 9, 11}:
        return None
    length = next(n for n in range(1, 7) if (10**n - 1) % rest.denominator == 0)
    cycle = f"{rest.numerator * (10**length - 1) // rest.denominator:0{length}d}"
    sign = "-" if value < 0 else ""
    ways = [rf"{sign}{whole}.\overline{{{cycle}}}", f"{sign}{whole}.({cycle})"]
    first, last = cycle[0], cycle[-1]
    dots = rf"\dot{{{first}}}" if length == 1 else rf"\dot{{{first}}}{cycle[1:-1]}\dot{{{last}}}"
    ways += [f"{sign}{whole}.{dots}", rf"{sign}{whole}.{cycle}\overline{{{cycle}}}"]
    return rng.choice(ways)


def _as_sum(value: Fraction, rng: random.Random) -> str:
    part = some_fraction(rng, 20)
    return joined(plain(value - part), part)


def _as_product(value: Fraction, rng: random.Random) -> str | None:
    factor = Fraction(rng.randint(2, 9))
    other = value / factor
    first, second = str(factor), plain(other)
    if other.denominator > 1 and rng.random() < 0.5:
        second = rf"\left({second}\right)"
        return rng.choice((f"{first}{second}", f"{second}({first})", rf"({first})\times {second}"))
    return rng.choice(
        (f"({first})({second})", f"{first}({second})", rf"{first}\cdot({second})", rf"({second})({first})")
    )


def _scientific(value: Fraction, rng: random.Random) -> str | None:
    power = rng.randint(-3, 4)
    mantissa = _decimal(value / Fraction(10) ** power, random.Random(0))
    return rf"{mantissa.rstrip('0') if '.' in mantissa else mantissa} \times 10^{{{power}}}" if mantissa else None


def _bracketed(value: Fraction, rng: random.Random) -> str:
    return rng.choice((f"({plain(value)})", rf"\left({plain(value)}\right)", f"{{{plain(value)}}}"))


def _quotient(value: Fraction, rng: random.Random) -> str:
    factor = some_fraction(rng, 9)
    return rf"\frac{{{plain(value * factor)}}}{{{plain(factor)}}}"


def _with_power(value: Fraction, rng: random.Random) -> str:
    base, power = rng.randint(2, 5), rng.randint(2, 4)
    return joined(plain(value - base**power), f"{base}^{rng.choice((str(power), f'{{{power}}}'))}")


def joined(first: str, second: Fraction | str) -> str:
    """``a + b`` with the sign of b taken out."""
    text = plain(second) if isinstance(second, Fraction) else second
    return f"{first}-{text[1:]}" if text.startswith("-") else f"{first}+{text}"


# Square roots


def radical(rng: random.Random, equal: bool) -> tuple[str, str]:
    value = some_roots(rng)
    other = value if equal else _missed_roots(value, rng)
    gold = write_roots(value, rng)
    if not equal and rng.random() < 0.2:  # a difference that no float can hold
        return gold, joined(write_roots(value, rng), f"10^{{-{rng.randint(17, 60)}}}")
    return gold, write_roots(other, rng)


def some_roots(rng: random.Random) -> Roots:
    radicands = rng.sample((1, *SQUARE_FREE), rng.choice((1, 2, 2, 3)))
    found = {radicand: some_fraction(rng, 9) for radicand in radicands}
    if set(found) == {1}:
        found[rng.choice(SQUARE_FREE)] = Fraction(1)
    return found


def _missed_roots(value: Roots, rng: random.Random) -> Roots:
    changed = dict(value)
    radicand = rng.choice(tuple(value))
    if radicand > 1 and rng.random() < 0.4:
        other = rng.choice([r for r in SQUARE_FREE if r not in value])
        changed[other] = changed.pop(radicand)
    else:
        changed[radicand] *= rng.choice((-1, 2, Fraction(1, 2), 1 + Fraction(1, 10 ** rng.randint(1, 25))))
    return changed


def write_roots(value: Roots, rng: random.Random) -> str:
    terms = [_root_term(radicand, coefficient, rng) for radicand, coefficient in value.items()]
    rng.shuffle(terms)
    text = terms[0]
    for term in terms[1:]:
        text = joined(text, term)
    if len(terms) == 1 or rng.random() < 0.7:
        return text
    bottom = rng.randint(2, 6)
    above = write_roots({radicand: c * bottom for radicand, c in value.items()}, random.Random(rng.random()))
    return rf"\frac{{{above}}}{{{bottom}}}"


def _root_term(radicand: int, coefficient: Fraction, rng: random.Random) -> str:
    if radicand == 1:
        return plain(coefficient)
    sign, size = "-" if coefficient < 0 else "", abs(coefficient)
    ways = [f"{'' if size == 1 else plain(size)}\\sqrt{{{radicand}}}", rf"{plain(size)} \cdot \sqrt{{{radicand}}}"]
    squared = size * size * radicand
    ways.append(rf"\sqrt{{{plain(squared)}}}")
    ways.append(rf"\frac{{{plain(size * radicand)}}}{{\sqrt{{{radicand}}}}}")
    ways.append(rf"{plain(size)}\cdot {radicand}^{{1/2}}")
    if size.denominator > 1:
        top = "" if size.numerator == 1 else str(size.numerator)
        ways.append(rf"\frac{{{top}\sqrt{{{radicand}}}}}{{{size.denominator}}}")
    else:
        ways.append(
            f"{size}({rng.choice((chr(92) + 'sqrt', 'sqrt'))}{{{radicand}}})" if size != 1 else f"sqrt({radicand})"
        )
        ways.append(f"{size if size != 1 else ''}√{radicand}" if radicand < 10 else f"{size}√({radicand})")
    return sign + rng.choice(ways)


# Polynomials and quotients of polynomials


def polynomial(rng: random.Random, equal: bool) -> tuple[str, str]:
    roots = [rng.randint(-6, 6) for _ in range(rng.randint(1, 3))]
    scale = Fraction(rng.choice((1, 1, 1, 2, -1, 3)))
    value = times((scale,), *((Fraction(-root), Fraction(1)) for root in roots))
    factored = _factored(roots, scale, rng)
    writings = [write_polynomial(value, rng), write_polynomial(value, rng, shuffled=True), factored]
    if equal:
        first, second = rng.choice(writings), rng.choice(writings)
        return (first, _quotient_of(second, rng)) if rng.random() < 0.3 else (first, second)
    wrong = list(value)
    place = rng.randrange(len(wrong))
    wrong[place] += rng.choice((1, -1, Fraction(1, 2), Fraction(1, 10**9), -2 * wrong[place] or 1))
    if not wrong[-1]:
        wrong[-1] = value[-1] + 1
    return rng.choice(writings), write_polynomial(tuple(wrong), rng, shuffled=rng.random() < 0.5)


def times(*factors: Polynomial) -> Polynomial:
    found: Polynomial = (Fraction(1),)
    for factor in factors:
        product = [Fraction(0)] * (len(found) + len(factor) - 1)
        for i, one in enumerate(found):
            for j, other in enumerate(factor):
                product[i + j] += one * other
        found = tuple(product)
    return found


def write_polynomial(value: Polynomial, rng: random.Random, *, shuffled: bool = False) -> str:
    terms = [_term(c, power, rng) for power, c in reversed(list(enumerate(value))) if c]
    if shuffled:
        rng.shuffle(terms)
    text = terms[0] if terms else "0"
    for term in terms[1:]:
        text = joined(text, term)
    return text


def _term(coefficient: Fraction, power: int, rng: random.Random) -> str:
    if power == 0:
        return plain(coefficient)
    variable = "x" if power == 1 else rng.choice((f"x^{power}", f"x^{{{power}}}"))
    sign, size = "-" if coefficient < 0 else "", abs(coefficient)
    if size == 1:
        return sign + variable
    if size.denominator > 1 and rng.random() < 0.5:
        return rf"{sign}\frac{{{'' if size.numerator == 1 else size.numerator}{variable}}}{{{size.denominator}}}"
    return f"{sign}{plain(size)}{rng.choice(('', '', ' ', chr(92) + 'cdot '))}{variable}"


def _factored(roots: Sequence[int], scale: Fraction, rng: random.Random) -> str:
    factors = ["x" if root == 0 else f"(x{-root:+d})" for root in roots]
    rng.shuffle(factors)
    front = "" if scale == 1 else "-" if scale == -1 else plain(scale)
    return front + rng.choice(("", r"\cdot ")).join(factors)


def _quotient_of(text: str, rng: random.Random) -> str:
    factor = rng.choice(("x", "2", "(x+7)", "y"))
    return rf"\frac{{{factor}({text})}}{{{factor}}}"


# Structures


def listed(rng: random.Random, equal: bool) -> tuple[str, str]:
    """Unordered: a list, a set, or one of each."""
    size = rng.randint(2, 4)
    values = rng.sample(range(-20, 21), size)
    fractions = [Fraction(value, rng.choice((1, 1, 1, 2, 3))) for value in values]
    fractions = list(dict.fromkeys(fractions))
    gold = [plain(value) for value in fractions]
    if not equal:
        slip = rng.choice(("drop", "change", "extra"))
        if slip == "drop" and len(fractions) > 2:
            fractions = fractions[1:]
        elif slip == "extra":
            fractions = [*fractions, max(fractions) + 1]
        else:
            fractions[rng.randrange(len(fractions))] = max(fractions) + 2
    answer = [rng.choice((plain(value), _unreduced(value, rng))) for value in fractions]
    rng.shuffle(answer)
    opening, closing = rng.choice((("", ""), (r"\{", r"\}"), (r"\left\{", r"\right\}")))
    separator = rng.choice((", ", ",", r",\ ")) if opening else ", "
    between = rng.choice((", ", ", ", " and ", r"\text{ or }")) if not opening and len(answer) == 2 else separator
    return opening + separator.join(gold) + closing, opening + between.join(answer) + closing


def ordered(rng: random.Random, equal: bool) -> tuple[str, str]:
    """Tuples and points."""
    values = [some_fraction(rng, 15) for _ in range(rng.randint(2, 3))]
    gold = f"({', '.join(map(plain, values))})"
    if not equal:
        if len(set(values)) > 1 and rng.random() < 0.5:
            values = [*values[1:], values[0]]
        else:
            values[rng.randrange(len(values))] += 1
        if gold == f"({', '.join(map(plain, values))})":
            values[0] += 1
    left, right = rng.choice((("(", ")"), (r"\left(", r"\right)")))
    return gold, left + ", ".join(rng.choice((plain(v), _unreduced(v, rng))) for v in values) + right


def interval(rng: random.Random, equal: bool) -> tuple[str, str]:
    low, high = sorted(rng.sample(range(-15, 16), 2))
    opening, closing = rng.choice("(["), rng.choice(")]")
    ends = [str(low), str(high)]
    if rng.random() < 0.25:
        ends[1], closing = r"\infty", ")"
    gold = f"{opening}{ends[0]}, {ends[1]}{closing}"
    if not equal:
        slip = rng.choice(("open", "low"))
        if slip == "open":
            opening = "(" if opening == "[" else "["
        else:
            ends[0] = str(low - 1)
    big = rng.random() < 0.5
    answer = f"{chr(92) + 'left' if big else ''}{opening}{ends[0]},{ends[1]}{chr(92) + 'right' if big else ''}{closing}"
    name = rng.choice(("", "", "x\\in "))
    return gold, name + answer


def union(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, c, d = sorted(rng.sample(range(-20, 21), 4))
    parts = [f"({a}, {b})", f"({c}, {d})"]
    gold = rf"{parts[0]} \cup {parts[1]}"
    if not equal:
        parts[1] = rng.choice((f"({c}, {d}]", f"({c}, {d + 1})", f"({c + 0}, {d - 0}]"))
    if rng.random() < 0.5:
        parts.reverse()
    return gold, parts[0] + rng.choice((r" \cup ", r"\cup", " ∪ ")) + parts[1]


def matrix(rng: random.Random, equal: bool) -> tuple[str, str]:
    rows, columns = rng.randint(1, 3), rng.randint(2, 3)
    cells = [[rng.randint(-9, 9) for _ in range(columns)] for _ in range(rows)]
    other = [list(row) for row in cells]
    if not equal:
        other[rng.randrange(rows)][rng.randrange(columns)] += rng.choice((1, -1, 10))
    written = [[str(cell) for cell in row] for row in other]
    if rng.random() < 0.3:
        part = [[rng.randint(-5, 5) for _ in range(columns)] for _ in range(rows)]
        rest = [
            [str(cell - one) for cell, one in zip(row, ones, strict=True)]
            for row, ones in zip(other, part, strict=True)
        ]
        answer = write_matrix(rest, rng) + "+" + write_matrix([[str(one) for one in ones] for ones in part], rng)
    else:
        answer = write_matrix(written, rng)
    return write_matrix([[str(cell) for cell in row] for row in cells], random.Random(0)), answer


def write_matrix(cells: Sequence[Sequence[str]], rng: random.Random) -> str:
    body = r" \\ ".join(" & ".join(row) for row in cells)
    if rng.random() < 0.3:
        return rf"\left[\begin{{array}}{{{'c' * len(cells[0])}}}{body}\end{{array}}\right]"
    name = rng.choice(("pmatrix", "bmatrix"))
    return rf"\begin{{{name}}}{body}\end{{{name}}}"


# Units, functions, complex numbers, chains

_UNITS = {
    "length": {"mm": Fraction(1, 1000), "cm": Fraction(1, 100), "m": Fraction(1), "km": Fraction(1000)},
    "mass": {"mg": Fraction(1, 1000), "g": Fraction(1), "kg": Fraction(1000)},
    "time": {"s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)},
}


def unit(rng: random.Random, equal: bool) -> tuple[str, str]:
    kind = rng.choice(tuple(_UNITS))
    first, second = rng.choice(tuple(_UNITS[kind])), rng.choice(tuple(_UNITS[kind]))
    value = Fraction(rng.randint(1, 400))
    other = value * _UNITS[kind][first] / _UNITS[kind][second]
    if not equal:
        if rng.random() < 0.3:
            stranger = rng.choice([name for name in _UNITS if name != kind])
            return _measured(value, first, rng), _measured(value, rng.choice(tuple(_UNITS[stranger])), rng)
        other *= rng.choice((10, Fraction(1, 10), 2, Fraction(101, 100)))
    return _measured(value, first, rng), _measured(other, second, rng)


def _measured(value: Fraction, name: str, rng: random.Random) -> str:
    number = _decimal(value, random.Random(1)) or plain(value)
    return number + rng.choice((rf"\text{{ {name}}}", rf"\ \text{{{name}}}", rf"\,\mathrm{{{name}}}", f" {name}"))


def angle(rng: random.Random, equal: bool) -> tuple[str, str]:
    degrees = rng.choice((15, 30, 36, 45, 60, 72, 90, 120, 135, 150, 180, 270))
    part = Fraction(degrees, 180) if equal else Fraction(degrees, 180) * rng.choice((2, Fraction(1, 2), -1, 3))
    top = "" if part.numerator == 1 else "-" if part.numerator == -1 else str(part.numerator)
    radians = rf"{top}\pi" if part.denominator == 1 else rf"\frac{{{top}\pi}}{{{part.denominator}}}"
    return rng.choice((rf"{degrees}^\circ", rf"{degrees}°", rf"{degrees}^{{\circ}}")), radians


_COSINES: Mapping[int, Roots] = {
    0: {1: Fraction(1)}, 30: {3: Fraction(1, 2)}, 45: {2: Fraction(1, 2)}, 60: {1: Fraction(1, 2)},
    120: {1: Fraction(-1, 2)}, 135: {2: Fraction(-1, 2)}, 150: {3: Fraction(-1, 2)}, 180: {1: Fraction(-1)},
    15: {6: Fraction(1, 4), 2: Fraction(1, 4)}, 75: {6: Fraction(1, 4), 2: Fraction(-1, 4)},
}  # fmt: skip


def trigonometric(rng: random.Random, equal: bool) -> tuple[str, str]:
    degrees = rng.choice(tuple(_COSINES))
    value = _COSINES[degrees]
    angle_ = Fraction(degrees, 180)
    if rng.random() < 0.5:
        shown = rf"{degrees}^\circ"
    elif angle_ == 0:
        shown = "0"
    else:
        top = "" if angle_.numerator == 1 else str(angle_.numerator)
        shown = rf"{top}\pi" if angle_.denominator == 1 else rf"\frac{{{top}\pi}}{{{angle_.denominator}}}"
    scale = Fraction(rng.randint(1, 6))
    front = "" if scale == 1 else str(scale)
    function = rng.choice((rf"{front}\cos {shown}", rf"{front}\cos({shown})", rf"{front}\cos\left({shown}\right)"))
    scaled = {radicand: c * scale for radicand, c in value.items()}
    return write_roots(scaled if equal else _missed_roots(scaled, rng), rng), function


def logarithmic(rng: random.Random, equal: bool) -> tuple[str, str]:
    way = rng.choice(("base", "sum", "power"))
    if way == "base":
        base, power = rng.randint(2, 7), Fraction(rng.randint(-3, 6), rng.choice((1, 1, 2)))
        inside = plain(Fraction(base) ** power.numerator)
        inside = inside if power.denominator == 1 else rf"\sqrt{{{inside}}}"
        return plain(power if equal else power + rng.choice((1, -1, Fraction(1, 3)))), rf"\log_{{{base}}}{{{inside}}}"
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    if way == "sum":
        return rf"\ln {a * b if equal else a * b + 1}", rng.choice((rf"\ln {a}+\ln {b}", rf"\ln({a})+\ln({b})"))
    power = Fraction(rng.randint(2, 4))
    return rf"\ln {a ** int(power)}", rf"{power if equal else power + 1}\ln {a}"


def complex_number(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, c, d = (rng.choice((-1, 1)) * rng.randint(1, 6) for _ in range(4))
    real, imaginary = Fraction(a * c - b * d), Fraction(a * d + b * c)
    product = f"({write_complex(Fraction(a), Fraction(b))})({write_complex(Fraction(c), Fraction(d))})"
    if rng.random() < 0.3:
        size = c * c + d * d
        real, imaginary = Fraction(a * c + b * d, size), Fraction(b * c - a * d, size)
        product = rf"\frac{{{write_complex(Fraction(a), Fraction(b))}}}{{{write_complex(Fraction(c), Fraction(d))}}}"
    if not equal:
        slips = ((real + 1, imaginary), (real, -imaginary), (real, imaginary + Fraction(1, 2)), (-real, imaginary))
        real, imaginary = rng.choice([slip for slip in slips if slip != (real, imaginary)])
    return write_complex(real, imaginary), product


def write_complex(real: Fraction, imaginary: Fraction) -> str:
    if not imaginary:
        return plain(real)
    size = abs(imaginary)
    part = ("-" if imaginary < 0 else "") + ("i" if size == 1 else plain(size) + "i")
    return joined(plain(real), part) if real else part


def chain(rng: random.Random, equal: bool) -> tuple[str, str]:
    """An answer that states its value in several ways; a false chain is wrong whatever it ends in."""
    value = some_fraction(rng)
    first, second = (
        rng.choice((plain, _as_plain_sum))(
            value,
        )
        for _ in range(2)
    )
    if equal:
        name = rng.choice(("", "x=", "y="))
        return plain(value), rng.choice((f"{name}{first}={second}", f"{name}{second}"))
    wrong = _missed_fraction(value, rng)
    return plain(value), rng.choice((
        f"{plain(wrong)}={plain(value)}", f"{plain(value)}={plain(wrong)}", f"{plain(wrong)}",
        f"x={plain(wrong)}={plain(value)}",
    ))  # fmt: skip


def _as_plain_sum(value: Fraction) -> str:
    return joined(plain(value - 3), Fraction(3))


def counting(rng: random.Random, equal: bool) -> tuple[str, str]:
    """Powers, factorials and binomials."""
    way = rng.choice(("power", "factorial", "binomial"))
    if way == "power":
        base, power = rng.randint(2, 12), rng.randint(2, 9)
        value, text = (
            base**power,
            rng.choice((f"{base}^{power}", f"{base}^{{{power}}}", rf"{base} \cdot {base}^{{{power - 1}}}")),
        )
    elif way == "factorial":
        n = rng.randint(3, 10)
        value, text = math.factorial(n), f"{n}!"
    else:
        n = rng.randint(4, 15)
        k = rng.randint(1, n - 1)
        value, text = math.comb(n, k), rng.choice((rf"\binom{{{n}}}{{{k}}}", rf"\dbinom{{{n}}}{{{k}}}"))
    return str(value if equal else value + rng.choice((1, -1, 10, value))), text


# More kinds: products without a sign, two variables, equations, identities, roundings


def _spelled(rng: random.Random, value: Fraction) -> str:
    """One spelling of a rational number."""
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    if bottom == 1:
        factors = next(((a, top // a) for a in (2, 3, 5, 7) if top > a and top % a == 0), (1, top))
        return sign + rng.choice(
            [str(top), f"{top}.0", str(top), f"({factors[0]})({factors[1]})" if not sign else str(top)]
        )
    times = rng.choice((1, 1, 2, 3))
    spelled = [rf"\frac{{{times * top}}}{{{times * bottom}}}", rf"\dfrac{{{top}}}{{{bottom}}}", f"{top}/{bottom}"]
    if top > bottom:
        spelled.append(rf"{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}")
    if bottom in (2, 4, 5, 8, 10, 20, 25):
        spelled.append(str(top / bottom))
    return sign + rng.choice(spelled)


def _another(rng: random.Random, value: Fraction) -> Fraction:
    """Another rational number, near or far."""
    if value in (0, 1, -1):
        return value + rng.choice((-2, 3, Fraction(1, rng.randint(2, 10**6))))
    return rng.choice([value + Fraction(1, rng.randint(1, 10**6)), value + 1, value - 1, -value, 1 / value, 10 * value])


def _any_fraction(rng: random.Random) -> Fraction:
    return Fraction(rng.randint(-99, 99), rng.choice((1, 1, 1, 2, 3, 4, 5, 7, 8, 12)))


def product(rng: random.Random, equal: bool) -> tuple[str, str]:
    """Products without a sign against their value or, unequal, the sum of the factors."""
    a, b = rng.randint(2, 60), rng.randint(3, 60)
    half = Fraction(b, 2)
    written, value, total = rng.choice([
        (f"({a})({b})", Fraction(a * b), Fraction(a + b)),
        (f"{a}({b})", Fraction(a * b), Fraction(a + b)),
        (rf"{a}\left({b}\right)", Fraction(a * b), Fraction(a + b)),
        (rf"{a}\left(\frac{{{b}}}{{2}}\right)", a * half, a + half),
        (rf"\frac{{{a}({b})}}{{2}}", a * half, Fraction(a + b, 2)),
        (rf"{a} \times {b}", Fraction(a * b), Fraction(a + b)),
    ])  # fmt: skip
    if total == value:  # 2 and 4/2
        total += 1
    return _spelled(rng, value if equal else total), written


Terms = dict[tuple[int, int], int]


def _terms(rng: random.Random, terms: Terms) -> str:
    order = list(terms)
    rng.shuffle(order)
    written = ""
    for powers in order:
        value = terms[powers]
        if value == 0:
            continue
        letters = "".join(
            name if power == 1 else f"{name}^{power}" if power else "" for name, power in zip("xy", powers, strict=True)
        )
        number = "" if abs(value) == 1 and letters else str(abs(value))
        sign = "-" if value < 0 else "+" if written else ""
        joint = r"\cdot " if number and letters and rng.random() < 0.2 else ""
        written += rng.choice(["", " "]) + sign + rng.choice(["", " "]) + number + joint + letters
    return written.strip() or "0"


def _product_of(first: Terms, second: Terms) -> Terms:
    found: Terms = {}
    for (a, b), value in first.items():
        for (c, d), other in second.items():
            found[a + c, b + d] = found.get((a + c, b + d), 0) + value * other
    return found


def two_variables(rng: random.Random, equal: bool) -> tuple[str, str]:
    """Expanded, factored and reordered two_variables in x and y."""
    first: Terms = {(1, 0): rng.randint(1, 9), (0, 0): rng.choice((-1, 1)) * rng.randint(1, 9)}
    second: Terms = {(1, 0): rng.randint(1, 9), (0, 1): rng.choice((-1, 0, 1)), (0, 0): rng.randint(1, 9)}
    product = _product_of(first, second)
    gold = _terms(rng, product)
    if not equal:
        product = dict(product)
        place = rng.choice(list(product))
        product[place] += rng.choice((-1, 1, 10))
        return gold, _terms(rng, product)
    factored = f"({_terms(rng, first)})({_terms(rng, second)})"
    return rng.choice([(gold, _terms(rng, product)), (gold, factored), (factored, gold)])


def rational_function(rng: random.Random, equal: bool) -> tuple[str, str]:
    """Rational functions: cancelled, expanded, split."""
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 9)
    gold = rf"\frac{{{a}x+{b}}}{{x+{c}}}"
    changed = a if equal else a + rng.choice((-1, 1, 2))
    other = rng.choice([
        rf"\frac{{({changed}x+{b})(x-{c})}}{{x^2-{c * c}}}",
        rf"{changed}+\frac{{{b - changed * c}}}{{x+{c}}}".replace("+\\frac{-", "-\\frac{"),
        f"({changed}x+{b})/(x+{c})",
        rf"\frac{{{2 * changed}x+{2 * b}}}{{{2}x+{2 * c}}}",
    ])  # fmt: skip
    return gold, other


def solutions(rng: random.Random, equal: bool) -> tuple[str, str]:
    values = [Fraction(value) for value in rng.sample(range(-40, 40), rng.randint(2, 4))]
    values[0] += Fraction(1, 3)
    other = list(values)
    rng.shuffle(other)
    if not equal:
        if rng.random() < 0.3:
            other.pop()
        else:
            place = rng.randrange(len(other))
            other[place] += 100
    form = rng.choice([(r"\{", r"\}"), (r"\left\{", r"\right\}")])
    gold = r"\{" + ", ".join(plain(value) for value in values) + r"\}"
    listed = ", ".join(plain(value) for value in other)
    return gold, rng.choice([form[0] + listed + form[1], "x=" + listed.replace(", ", " or x=")])


def inequality(rng: random.Random, equal: bool) -> tuple[str, str]:
    low, high = Fraction(rng.randint(-30, 0), rng.choice((1, 2))), Fraction(rng.randint(1, 30), rng.choice((1, 3)))
    closed = [rng.random() < 0.5, rng.random() < 0.5]
    gold = _as_interval(rng, low, high, closed, exact=True)
    if not equal:
        changed = rng.randrange(3)
        if changed == 0:
            closed[rng.randrange(2)] ^= True
        elif changed == 1:
            low -= Fraction(1, 7)
        else:
            high += Fraction(1, 10**6)
    return gold, _as_interval(rng, low, high, closed, exact=False)


def _as_interval(rng: random.Random, low: Fraction, high: Fraction, closed: Sequence[bool], *, exact: bool) -> str:
    brackets = "[" if closed[0] else "(", "]" if closed[1] else ")"
    interval = f"{brackets[0]}{plain(low)}, {plain(high)}{brackets[1]}"
    if exact:
        return interval
    signs = r"\leq" if closed[0] else "<", r"\le" if closed[1] else "<"
    middle = (low + high) / 2
    return rng.choice([
        interval, rf"\left{interval[:-1]}\right{interval[-1]}", rf"x \in {interval}",
        f"{plain(low)} {signs[0]} x {signs[1]} {plain(high)}",
        rf"{brackets[0]}{plain(low)},{plain(middle)}) \cup [{plain(middle)},{plain(high)}{brackets[1]}",
    ])  # fmt: skip


def matrix_sum(rng: random.Random, equal: bool) -> tuple[str, str]:
    cells = [rng.randint(-9, 9) for _ in range(4)]
    other = [rng.randint(-9, 9) for _ in range(4)]
    total = [a + b for a, b in zip(cells, other, strict=True)]
    gold = _square(rng, total)
    if not equal:
        other[rng.randrange(4)] += rng.choice((-1, 1))
        total = [a + b for a, b in zip(cells, other, strict=True)]
    doubled = [2 * value for value in total]
    return gold, rng.choice([
        _square(rng, total),
        f"{_square(rng, cells)} + {_square(rng, other)}",
        rf"\frac{{1}}{{2}}{_square(rng, doubled)}",
    ])  # fmt: skip


def _square(rng: random.Random, cells: Sequence[int]) -> str:
    body = r"{} & {} \\ {} & {}".format(*cells)
    return rng.choice([
        rf"\begin{{pmatrix}} {body} \end{{pmatrix}}", rf"\begin{{bmatrix}} {body} \end{{bmatrix}}",
        rf"\left[\begin{{array}}{{cc}} {body} \end{{array}}\right]",
    ])  # fmt: skip


_FAMILIES: tuple[tuple[tuple[str, int], ...], ...] = (
    (("mm", 1), ("cm", 10), ("m", 1000), ("km", 10**6)),
    (("g", 1), ("kg", 1000)),
    (("seconds", 1), ("minutes", 60), ("hours", 3600)),
    (("cm^2", 1), ("m^2", 10**4)),
    (("cents", 1), ("dollars", 100)),
)


def converted(rng: random.Random, equal: bool) -> tuple[str, str]:
    family = rng.choice(_FAMILIES)
    (first, scale), (second, other) = rng.choice(family), rng.choice(family)
    value = Fraction(rng.randint(1, 500))
    converted = value * scale / other
    if not equal:
        converted = rng.choice([value if scale != other else value + 1, converted * 10, converted + 1])
    return f"{_with_unit(rng, plain(value), first)}", _with_unit(rng, plain(converted), second)


def _with_unit(rng: random.Random, number: str, unit: str) -> str:
    name, _, power = unit.partition("^")
    tail = f"^{power}" if power else ""
    return rng.choice(
        [rf"{number}\text{{ {name}}}{tail}", rf"{number}\,\mathrm{{{name}}}{tail}", rf"{number} \text{{{name}}}{tail}"]
    )


def identity(rng: random.Random, equal: bool) -> tuple[str, str]:
    n = rng.randint(1, 5)
    gold, same = rng.choice([
        (rf"\sin {2 * n}x", rf"2\sin {n}x \cos {n}x" if n > 1 else r"2\sin x\cos x"),
        (rf"\cos {2 * n}x", rf"1-2\sin^2 {n}x" if n > 1 else r"1-2\sin^2 x"),
        (rf"{n}", rf"{n}\sin^2 x+{n}\cos^2 x"),
        (rf"\tan^2 x+{n}", rf"\frac{{1}}{{\cos^2 x}}+{n - 1}"),
    ])  # fmt: skip
    return gold, same if equal else same + rng.choice(["+1", "-x", r"+\sin x"])


def log_identity(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, n = rng.choice((2, 3, 5, 7)), rng.choice((2, 3, 5, 6)), rng.randint(2, 5)
    gold, same, other = rng.choice([
        (rf"{n}\ln {a}", rf"\ln {a**n}", rf"\ln {a**n + 1}"),
        (rf"\ln {a * b}", rf"\ln {a}+\ln {b}", rf"\ln {a}\cdot\ln {b}"),
        (f"{n}", rf"\log_{{{a}}} {a**n}", rf"\log_{{{a}}} {a ** (n + 1)}"),
        (rf"\log_{{{a}}} {b + 6}", rf"\frac{{\ln {b + 6}}}{{\ln {a}}}", rf"\frac{{\ln {a}}}{{\ln {b + 6}}}"),
        (f"{a**n}", rf"e^{{{n}\ln {a}}}", rf"e^{{{n}+\ln {a}}}"),
        (rf"\log_{{{a}}} {b + 6}", f"log_{a} {b + 6}", f"log_{a} {b + 7}"),
        (rf"\ln(x^{n})", rf"{n}\ln x", rf"{n + 1}\ln x"),
    ])  # fmt: skip
    return gold, same if equal else other


def named_tuple(rng: random.Random, equal: bool) -> tuple[str, str]:
    values = [_any_fraction(rng) for _ in range(rng.randint(2, 3))]
    gold = f"({', '.join(plain(value) for value in values)})"
    other = list(values)
    if not equal:
        place = rng.randrange(len(other))
        other[place] = _another(rng, other[place])
    return gold, rng.choice([
        rf"\left({', '.join(_spelled(rng, value) for value in other)}\right)",
        ", ".join(f"{name}={plain(value)}" for name, value in zip("xyz", other, strict=False)),
    ])  # fmt: skip


def equation(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(-9, 9)
    common = math.gcd(math.gcd(a, b), c) or 1
    gold = f"{a}x+{b}y={c}"
    times = rng.choice((1, -1, 2, 3))
    changed = c if equal else c + rng.choice((-1, 1))
    left = f"{times * a}x{times * b:+}y"
    return gold, rng.choice([
        f"{left}={times * changed}", f"{times * changed}={left}",
        f"{left}{-times * changed:+}=0" if changed else f"{left}=0",
        rf"y=\frac{{{changed}-{a}x}}{{{b}}}", f"{a}x = {changed} - {b}y" if common else gold,
    ])  # fmt: skip


def rounded_chain(rng: random.Random, equal: bool) -> tuple[str, str]:
    """True rounded_chain of the gold's value; unequal: false ones, or true ones of another value."""
    n, d = rng.randint(2, 12), rng.choice((2, 3, 5, 7))
    exact, value = rf"{n}\sqrt{{{d}}}", n * d**0.5
    places = rng.randint(1, 4)
    rounded = f"{value:.{places}f}"
    if equal:
        return exact, rng.choice(
            [rf"{exact} \approx {rounded}", f"{exact} = {rounded}", rf"x = {exact}", rf"{exact}\ (\approx {rounded})"]
        )
    wrong = f"{value + 3 * 10**-places:.{places}f}"
    return exact, rng.choice([
        rf"{exact} \approx {wrong}", f"{exact} = {wrong}", rf"{n + 1}\sqrt{{{d}}} = {exact}", f"{exact}={n}", rounded,
    ])  # fmt: skip


KINDS: Mapping[str, Callable[[random.Random, bool], tuple[str, str]]] = {
    "rational": rational, "radical": radical, "polynomial": polynomial, "list or set": listed, "tuple": ordered,
    "interval": interval, "union": union, "matrix": matrix, "unit": unit, "angle": angle,
    "trigonometric": trigonometric, "logarithmic": logarithmic, "complex": complex_number, "chain": chain,
    "counting": counting, "product": product, "two variables": two_variables, "rational function": rational_function,
    "solutions": solutions, "inequality": inequality, "matrix sum": matrix_sum, "conversion": converted,
    "identity": identity, "logarithm": log_identity, "named tuple": named_tuple, "equation": equation,
    "rounded chain": rounded_chain,
}  # fmt: skip
"""Kind -> (rng, whether the two are equal) -> (gold, content of the answer's box)."""
