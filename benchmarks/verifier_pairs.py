r"""Pairs of answers of known truth, and how the verifier and math-verify judge them.

``python benchmarks/verifier_pairs.py [--pairs N] [--against-math-verify]`` draws N unequal and N equal pairs of each
kind, seeded, and counts false rewards and false refusals, with examples of each. A pair is equal or unequal by
construction: its parameters (fractions, coefficients, end points) are the same or are not, and are written in two of
many spellings. Nothing of the verifier is used to draw it. ``tests/verify/test_mathematics.py`` runs a small draw.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import gcd, isqrt

Pair = tuple[str, str]
"""(gold, content of the box)."""
Draw = Callable[[random.Random, bool], Pair]
"""Draws a pair that is equal, or not."""


def _fraction(rng: random.Random, value: Fraction) -> str:
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


def _other(rng: random.Random, value: Fraction) -> Fraction:
    """Another rational number, near or far."""
    if value in (0, 1, -1):
        return value + rng.choice((-2, 3, Fraction(1, rng.randint(2, 10**6))))
    return rng.choice([value + Fraction(1, rng.randint(1, 10**6)), value + 1, value - 1, -value, 1 / value, 10 * value])


def _some(rng: random.Random) -> Fraction:
    return Fraction(rng.randint(-99, 99), rng.choice((1, 1, 1, 2, 3, 4, 5, 7, 8, 12)))


def rationals(rng: random.Random, equal: bool) -> Pair:
    value = _some(rng)
    return _fraction(rng, value), _fraction(rng, value if equal else _other(rng, value))


def products(rng: random.Random, equal: bool) -> Pair:
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
    return _fraction(rng, value if equal else total), written


def _radical(rng: random.Random, p: Fraction, q: Fraction, d: int) -> str:
    """One spelling of p + q sqrt(d)."""
    size = abs(q)
    inside = size.numerator**2 * d
    root = rng.choice([
        rf"{'' if size.numerator == 1 else size.numerator}\sqrt{{{d}}}",
        rf"\sqrt{{{inside}}}",
        rf"{size.numerator}\cdot\sqrt{{{d}}}",
        rf"{size.numerator} sqrt({d})",
    ])  # fmt: skip
    if size.denominator > 1:
        root = rng.choice(
            [rf"\frac{{{root}}}{{{size.denominator}}}", rf"\frac{{1}}{{{size.denominator}}} \cdot {root}"]
        )
    sign = "-" if q < 0 else "+"
    if p == 0:
        return root if q > 0 else "-" + root
    rational = _plain(p)
    return rng.choice([f"{rational}{sign}{root}", f"{'-' if q < 0 else ''}{root}{'' if p < 0 else '+'}{rational}"])


def radicals(rng: random.Random, equal: bool) -> Pair:
    p, q = _some(rng) if rng.random() < 0.7 else Fraction(0), Fraction(rng.randint(1, 20), rng.choice((1, 1, 2, 3)))
    d = rng.choice((2, 3, 5, 6, 7, 10, 11, 13, 17))
    q *= rng.choice((-1, 1))
    gold = _radical(rng, p, q, d)
    if equal:
        return gold, _radical(rng, p, q, d)
    changed = rng.choice([(p, -q, d), (p, q, d + 1), (p + 1, q, d), (p, 2 * q, d), (p + Fraction(1, 10**18), q, d)])
    if isqrt(changed[2]) ** 2 == changed[2]:
        changed = (p, q, d + 2 if isqrt(d + 2) ** 2 != d + 2 else d + 4)
    return gold, _radical(rng, *changed)


Terms = dict[tuple[int, int], int]
"""Exponents of x and y -> coefficient."""


def _polynomial(rng: random.Random, terms: Terms) -> str:
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


def _multiplied(first: Terms, second: Terms) -> Terms:
    found: Terms = {}
    for (a, b), value in first.items():
        for (c, d), other in second.items():
            found[a + c, b + d] = found.get((a + c, b + d), 0) + value * other
    return found


def polynomials(rng: random.Random, equal: bool) -> Pair:
    """Expanded, factored and reordered polynomials in x and y."""
    first: Terms = {(1, 0): rng.randint(1, 9), (0, 0): rng.choice((-1, 1)) * rng.randint(1, 9)}
    second: Terms = {(1, 0): rng.randint(1, 9), (0, 1): rng.choice((-1, 0, 1)), (0, 0): rng.randint(1, 9)}
    product = _multiplied(first, second)
    gold = _polynomial(rng, product)
    if not equal:
        product = dict(product)
        place = rng.choice(list(product))
        product[place] += rng.choice((-1, 1, 10))
        return gold, _polynomial(rng, product)
    factored = f"({_polynomial(rng, first)})({_polynomial(rng, second)})"
    return rng.choice([(gold, _polynomial(rng, product)), (gold, factored), (factored, gold)])


def quotients(rng: random.Random, equal: bool) -> Pair:
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


def sets(rng: random.Random, equal: bool) -> Pair:
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
    gold = r"\{" + ", ".join(_plain(value) for value in values) + r"\}"
    listed = ", ".join(_plain(value) for value in other)
    return gold, rng.choice([form[0] + listed + form[1], "x=" + listed.replace(", ", " or x=")])


def _plain(value: Fraction) -> str:
    return (
        str(value)
        if value.denominator == 1
        else rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    )


def intervals(rng: random.Random, equal: bool) -> Pair:
    low, high = Fraction(rng.randint(-30, 0), rng.choice((1, 2))), Fraction(rng.randint(1, 30), rng.choice((1, 3)))
    closed = [rng.random() < 0.5, rng.random() < 0.5]
    gold = _interval(rng, low, high, closed, plain=True)
    if not equal:
        changed = rng.randrange(3)
        if changed == 0:
            closed[rng.randrange(2)] ^= True
        elif changed == 1:
            low -= Fraction(1, 7)
        else:
            high += Fraction(1, 10**6)
    return gold, _interval(rng, low, high, closed, plain=False)


def _interval(rng: random.Random, low: Fraction, high: Fraction, closed: Sequence[bool], *, plain: bool) -> str:
    brackets = "[" if closed[0] else "(", "]" if closed[1] else ")"
    interval = f"{brackets[0]}{_plain(low)}, {_plain(high)}{brackets[1]}"
    if plain:
        return interval
    signs = r"\leq" if closed[0] else "<", r"\le" if closed[1] else "<"
    middle = (low + high) / 2
    return rng.choice([
        interval, rf"\left{interval[:-1]}\right{interval[-1]}", rf"x \in {interval}",
        f"{_plain(low)} {signs[0]} x {signs[1]} {_plain(high)}",
        rf"{brackets[0]}{_plain(low)},{_plain(middle)}) \cup [{_plain(middle)},{_plain(high)}{brackets[1]}",
    ])  # fmt: skip


def matrices(rng: random.Random, equal: bool) -> Pair:
    cells = [rng.randint(-9, 9) for _ in range(4)]
    other = [rng.randint(-9, 9) for _ in range(4)]
    total = [a + b for a, b in zip(cells, other, strict=True)]
    gold = _matrix(rng, total)
    if not equal:
        other[rng.randrange(4)] += rng.choice((-1, 1))
        total = [a + b for a, b in zip(cells, other, strict=True)]
    doubled = [2 * value for value in total]
    return gold, rng.choice([
        _matrix(rng, total),
        f"{_matrix(rng, cells)} + {_matrix(rng, other)}",
        rf"\frac{{1}}{{2}}{_matrix(rng, doubled)}",
    ])  # fmt: skip


def _matrix(rng: random.Random, cells: Sequence[int]) -> str:
    body = r"{} & {} \\ {} & {}".format(*cells)
    return rng.choice([
        rf"\begin{{pmatrix}} {body} \end{{pmatrix}}", rf"\begin{{bmatrix}} {body} \end{{bmatrix}}",
        rf"\left[\begin{{array}}{{cc}} {body} \end{{array}}\right]",
    ])  # fmt: skip


_UNITS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("mm", 1), ("cm", 10), ("m", 1000), ("km", 10**6)),
    (("g", 1), ("kg", 1000)),
    (("seconds", 1), ("minutes", 60), ("hours", 3600)),
    (("cm^2", 1), ("m^2", 10**4)),
    (("cents", 1), ("dollars", 100)),
)


def units(rng: random.Random, equal: bool) -> Pair:
    family = rng.choice(_UNITS)
    (first, scale), (second, other) = rng.choice(family), rng.choice(family)
    value = Fraction(rng.randint(1, 500))
    converted = value * scale / other
    if not equal:
        converted = rng.choice([value if scale != other else value + 1, converted * 10, converted + 1])
    return f"{_with_unit(rng, _plain(value), first)}", _with_unit(rng, _plain(converted), second)


def _with_unit(rng: random.Random, number: str, unit: str) -> str:
    name, _, power = unit.partition("^")
    tail = f"^{power}" if power else ""
    return rng.choice(
        [rf"{number}\text{{ {name}}}{tail}", rf"{number}\,\mathrm{{{name}}}{tail}", rf"{number} \text{{{name}}}{tail}"]
    )


_ANGLES: tuple[tuple[int, str, str], ...] = (
    (0, "0", "1"), (30, r"\frac{1}{2}", r"\frac{\sqrt{3}}{2}"), (45, r"\frac{\sqrt{2}}{2}", r"\frac{\sqrt{2}}{2}"),
    (60, r"\frac{\sqrt{3}}{2}", r"\frac{1}{2}"), (90, "1", "0"),
    (15, r"\frac{\sqrt{6}-\sqrt{2}}{4}", r"\frac{\sqrt{6}+\sqrt{2}}{4}"),
    (75, r"\frac{\sqrt{6}+\sqrt{2}}{4}", r"\frac{\sqrt{6}-\sqrt{2}}{4}"),
)  # fmt: skip


def trigonometry(rng: random.Random, equal: bool) -> Pair:
    if rng.random() < 0.4:
        return _identity(rng, equal)
    degrees, sine, cosine = rng.choice(_ANGLES)
    function, value = rng.choice([("sin", sine), ("cos", cosine)])
    shifted = degrees if function == "sin" else 90 - degrees  # as a sine
    if not equal:
        others = [angle for angle, *_ in _ANGLES if angle != shifted]
        shifted = rng.choice(others)
    turn = Fraction(shifted, 180)
    angle = rf"\frac{{{turn.numerator}\pi}}{{{turn.denominator}}}" if turn.numerator else "0"
    written = [rf"\sin {shifted}^\circ", rf"\sin({shifted}^{{\circ}})", rf"\cos {90 - shifted}^\circ", rf"\sin {angle}",
               rf"\sin {180 - shifted}^\circ", rf"-\sin(-{shifted}^\circ)"]  # fmt: skip
    return value, rng.choice(written)


def _identity(rng: random.Random, equal: bool) -> Pair:
    n = rng.randint(1, 5)
    gold, same = rng.choice([
        (rf"\sin {2 * n}x", rf"2\sin {n}x \cos {n}x" if n > 1 else r"2\sin x\cos x"),
        (rf"\cos {2 * n}x", rf"1-2\sin^2 {n}x" if n > 1 else r"1-2\sin^2 x"),
        (rf"{n}", rf"{n}\sin^2 x+{n}\cos^2 x"),
        (rf"\tan^2 x+{n}", rf"\frac{{1}}{{\cos^2 x}}+{n - 1}"),
    ])  # fmt: skip
    return gold, same if equal else same + rng.choice(["+1", "-x", r"+\sin x"])


def logarithms(rng: random.Random, equal: bool) -> Pair:
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


def complexes(rng: random.Random, equal: bool) -> Pair:
    a, b, c, d = (rng.choice((-1, 1)) * rng.randint(1, 9) for _ in range(4))
    real, imaginary = a * c - b * d, a * d + b * c
    if not equal:
        changed = rng.choice([(0, 1), (1, 0), (0, -2 * imaginary if imaginary else 3)])
        real, imaginary = real + changed[0], imaginary + changed[1]
    gold = _complex(rng, Fraction(real), Fraction(imaginary))
    norm = c * c + d * d
    written = [f"({_complex(rng, Fraction(a), Fraction(b))})({_complex(rng, Fraction(c), Fraction(d))})"]
    if equal:
        written.append(_complex(rng, Fraction(real), Fraction(imaginary)))
        written.append(rf"\frac{{{_complex(rng, Fraction(real * norm), Fraction(imaginary * norm))}}}{{{norm}}}")
    return gold, rng.choice(written)


def _complex(rng: random.Random, real: Fraction, imaginary: Fraction) -> str:
    if imaginary == 0:
        return str(real)
    unit = f"{'' if abs(imaginary) == 1 else abs(imaginary)}i"
    sign = "-" if imaginary < 0 else "+"
    if real == 0:
        return unit if imaginary > 0 else "-" + unit
    return rng.choice([f"{real}{sign}{unit}", f"{'-' if imaginary < 0 else ''}{unit}{'+' if real > 0 else ''}{real}"])


def tuples(rng: random.Random, equal: bool) -> Pair:
    values = [_some(rng) for _ in range(rng.randint(2, 3))]
    gold = f"({', '.join(_plain(value) for value in values)})"
    other = list(values)
    if not equal:
        place = rng.randrange(len(other))
        other[place] = _other(rng, other[place])
    return gold, rng.choice([
        rf"\left({', '.join(_fraction(rng, value) for value in other)}\right)",
        ", ".join(f"{name}={_plain(value)}" for name, value in zip("xyz", other, strict=False)),
    ])  # fmt: skip


def equations(rng: random.Random, equal: bool) -> Pair:
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(-9, 9)
    common = gcd(gcd(a, b), c) or 1
    gold = f"{a}x+{b}y={c}"
    times = rng.choice((1, -1, 2, 3))
    changed = c if equal else c + rng.choice((-1, 1))
    left = f"{times * a}x{times * b:+}y"
    return gold, rng.choice([
        f"{left}={times * changed}", f"{times * changed}={left}",
        f"{left}{-times * changed:+}=0" if changed else f"{left}=0",
        rf"y=\frac{{{changed}-{a}x}}{{{b}}}", f"{a}x = {changed} - {b}y" if common else gold,
    ])  # fmt: skip


def chains(rng: random.Random, equal: bool) -> Pair:
    """True chains of the gold's value; unequal: false ones, or true ones of another value."""
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


KINDS: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        rationals, products, radicals, polynomials, quotients, sets, intervals, matrices, units, trigonometry,
        logarithms, complexes, tuples, equations, chains,
    )
}  # fmt: skip


def draw_pairs(kind: str, count: int, *, equal: bool, seed: int = 0) -> list[Pair]:
    """Seeded pairs of one kind."""
    rng = random.Random(f"{kind} {equal} {seed}")
    return [KINDS[kind](rng, equal) for _ in range(count)]


def _ours(pairs: Sequence[Pair]) -> list[bool]:
    from spark_rl.config import VerifyConfig  # noqa: PLC0415  # the pairs themselves need nothing of the verifier
    from spark_rl.verify import Verifier  # noqa: PLC0415

    with Verifier(VerifyConfig(workers=2, timeout=60.0)) as verifier:
        verdicts = verifier.verify_many([(rf"\boxed{{{answer}}}", gold, "math", ()) for gold, answer in pairs])
    return [verdict.status == "correct" for verdict in verdicts]


def _math_verify(pairs: Sequence[Pair]) -> list[bool]:
    from math_verify import parse, verify  # noqa: PLC0415

    return [
        bool(
            verify(
                parse(f"${gold}$", parsing_timeout=None),
                parse(f"${answer}$", parsing_timeout=None),
                timeout_seconds=None,
            )
        )
        for gold, answer in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=1000, help="equal and unequal pairs of each kind (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="some of the kinds only")
    parser.add_argument("--against-math-verify", action="store_true", help="judge with math-verify as well")
    parser.add_argument("--examples", type=int, default=3, help="examples of each mistake to show")
    options = parser.parse_args()
    judges = {"ours": _ours} | ({"math-verify": _math_verify} if options.against_math_verify else {})
    totals: Counter[tuple[str, bool]] = Counter()
    drawn: Counter[bool] = Counter()
    for kind in options.kinds:
        for equal in (True, False):
            pairs = draw_pairs(kind, options.pairs, equal=equal, seed=options.seed)
            drawn[equal] += len(pairs)
            for name, judge in judges.items():
                start = time.perf_counter()
                wrong = [pair for pair, found in zip(pairs, judge(pairs), strict=True) if found != equal]
                totals[name, equal] += len(wrong)
                what = "refused of equal" if equal else "rewarded of unequal"
                taken = 1e3 * (time.perf_counter() - start) / len(pairs)
                print(f"{kind:14} {name:12} {len(wrong):6} of {len(pairs)} {what:20} {taken:7.2f} ms a pair")
                for pair in wrong[: options.examples]:
                    print("    " + json.dumps(pair))
    for (name, equal), count in totals.items():
        print(f"{name}: {count} of {drawn[equal]} {'equal pairs refused' if equal else 'unequal pairs rewarded'}")


if __name__ == "__main__":
    main()
