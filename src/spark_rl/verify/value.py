r"""Values of expressions, exact where they are rational and otherwise a ball that is known to contain them.

A :class:`Value` is an exact complex rational, or a midpoint and a radius at the working precision, together with what a
zero test needs. :func:`is_zero` never compares with a fixed tolerance:

- a ball without zero in it proves that the value is not zero;
- otherwise the precision grows until the ball is smaller than the separation bound of the expression. For algebraic
  numbers (roots, the sine and cosine of rational degrees) that is the theorem of Burnikel, Funke, Mehlhorn, Schirra and
  Schmitt (2001): with conjugates of E = U / L at most 2^u and 2^l and a degree of at most D, E is zero or at least
  2^-(l + (D - 1) u). The bound is proof then, whichever way it falls.
- ``\pi``, ``e``, logarithms and the like have no such theorem. **The stated rule**: equal if they agree to
  :data:`RULE_BITS` bits (300 digits) beyond twice the sizes u + l, in which arguments of functions count too.
  :data:`CAP_BITS` cuts off the bound of algebraic numbers in the same way where the degree makes it astronomic.

Powers are bounded by the bits of their result before they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath

from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.powers import whole_root
from spark_rl.verify.tree import Node

RULE_BITS = 1000
"""Bits to which transcendental constants must agree, beyond the sizes of the numbers in them."""
CAP_BITS = 4000
"""Bits at which a bound of a high degree is cut off, beyond eight times the sizes of the numbers in it."""
MAX_BITS = 100_000
"""Larger exact numbers, and comparisons that would need more precision, are refused."""
START_BITS = 192

mp = mpmath.mp.clone()
Exact = tuple[Fraction, Fraction]
"""Real and imaginary part."""
ZERO: Exact = (Fraction(0), Fraction(0))
ONE: Exact = (Fraction(1), Fraction(0))
Mark = tuple[Any, int, bool]
"""(what the expression contains, by how much it multiplies the degree, whether it is transcendental). The degree only
counts where nothing is transcendental."""


class NoValueError(UnreadableError):
    """An expression that has no value: a division by zero, a logarithm of zero."""


class ImpreciseError(Exception):
    """The working precision does not decide; ``bits`` would."""

    def __init__(self, bits: int = 0) -> None:
        super().__init__(bits)
        self.bits = bits


@dataclass(frozen=True, slots=True)
class Value:
    """``exact`` is (real, imaginary); without it, ``mid`` and ``radius`` hold the ball.

    The value is U / L, and ``u`` and ``l`` are the bits that bound the conjugates of U and L; ``marks`` is what its
    degree is made of.
    """

    exact: Exact | None
    mid: Any = None
    radius: Any = None
    u: float = 0.0
    l: float = 0.0  # noqa: E741  # the bound's own letter
    marks: frozenset[Mark] = frozenset()
    turn: Fraction | None = None
    """The value is exactly this many times pi."""

    @property
    def is_real(self) -> bool:
        return self.exact[1] == 0 if self.exact is not None else isinstance(self.mid, mp.mpf)


def precise(compute: Callable[[], Any], *, most: int = 4 * MAX_BITS) -> Any:
    """What ``compute`` returns at the first precision that decides; :class:`UnreadableError` beyond ``most`` bits."""
    bits = START_BITS
    while True:
        mp.prec = bits
        try:
            return compute()
        except ImpreciseError as needed:
            bits = max(2 * bits, needed.bits + 64)
            if bits > most:
                raise UnreadableError("values too close to be told apart") from None


def rational(real: Fraction | int, imaginary: Fraction | int = 0) -> Value:
    exact = (Fraction(real), Fraction(imaginary))
    for part in exact:
        if part.numerator.bit_length() + part.denominator.bit_length() > MAX_BITS:
            raise UnreadableError(f"a number of more than {MAX_BITS} bits")
    return Value(exact, turn=Fraction(0) if exact == ZERO else None)


def is_zero(value: Value) -> bool:
    """Whether the value is zero; raises :class:`ImpreciseError` if this precision cannot tell."""
    if value.exact is not None:
        return value.exact == ZERO
    size = abs(value.mid)
    if size > value.radius:
        return False
    needed = separation(value)
    if size + value.radius < mp.ldexp(1, -needed):
        return True
    raise ImpreciseError(needed)


def separation(value: Value) -> int:
    """Bits b so that the value is zero or at least 2^-b in size."""
    degree = math.prod(factor for _, factor, _ in value.marks)
    sizes = value.u + value.l
    if any(transcendental for *_, transcendental in value.marks):
        needed = RULE_BITS + 2 * sizes
    else:
        needed = min(value.l + (degree - 1) * value.u, CAP_BITS + 8 * sizes)
    return math.ceil(needed) + 4


def subtract(first: Value, second: Value) -> Value:
    return add(first, negate(second))


def as_fraction(value: Value) -> Fraction | None:
    """A real value to forty digits and more, exactly if it is rational; ``None`` for a complex one."""
    if not value.is_real:
        return None
    if value.exact is not None:
        return value.exact[0]
    if value.mid == 0 or value.radius > abs(value.mid) * mp.ldexp(1, -140):
        raise ImpreciseError
    sign, mantissa, exponent, _ = value.mid._mpf_
    if abs(exponent) > MAX_BITS:
        return None
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** int(exponent)


def sign(value: Value) -> int:
    """-1, 0 or 1 of a real value. Raises :class:`NoValueError` for a complex one."""
    value = settled(value)
    if not value.is_real:
        raise NoValueError("a comparison of complex numbers")
    if value.exact is not None:
        return (value.exact[0] > 0) - (value.exact[0] < 0)
    return 0 if is_zero(value) else 1 if value.mid > 0 else -1


def ball_of(value: Value) -> Value:
    """The same value with a ball and sizes, also if it is exact."""
    if value.exact is None:
        return value
    real, imaginary = value.exact
    mid = mp.mpf(real.numerator) / real.denominator
    if imaginary:
        mid = mp.mpc(mid, mp.mpf(imaginary.numerator) / imaginary.denominator)
    marks: frozenset[Mark] = frozenset((("i", 2, False),)) if imaginary else frozenset()
    common = math.lcm(real.denominator, imaginary.denominator)
    top = max(abs(int(real * common)), abs(int(imaginary * common)), 1)
    u = math.log2(top) + (1 if imaginary else 0)
    return Value(value.exact, mid, rounding(mid), u, math.log2(common), marks, value.turn)


def rounding(mid: Any) -> Any:
    return abs(mid) * mp.ldexp(1, 2 - mp.prec)


def add(first: Value, second: Value) -> Value:
    if first.exact is not None and second.exact is not None:
        return rational(first.exact[0] + second.exact[0], first.exact[1] + second.exact[1])
    if first.exact == ZERO:
        return second
    if second.exact == ZERO:
        return first
    a, b = ball_of(first), ball_of(second)
    turn = first.turn + second.turn if first.turn is not None and second.turn is not None else None
    if turn == 0:
        return rational(0)
    mid = a.mid + b.mid
    radius = a.radius + b.radius + rounding(mid)
    u = max(a.u + b.l, a.l + b.u) + 1
    return Value(None, mid, radius, u, a.l + b.l, a.marks | b.marks, turn)


def negate(value: Value) -> Value:
    if value.exact is not None:
        return Value((-value.exact[0], -value.exact[1]), turn=value.turn)
    turn = None if value.turn is None else -value.turn
    return Value(None, -value.mid, value.radius, value.u, value.l, value.marks, turn)


def multiply(first: Value, second: Value) -> Value:
    if first.exact is not None and second.exact is not None:
        (a, b), (c, d) = first.exact, second.exact
        return rational(a * c - b * d, a * d + b * c)
    if ZERO in (first.exact, second.exact):
        return rational(0)
    a_, b_ = ball_of(first), ball_of(second)
    mid = a_.mid * b_.mid
    radius = abs(a_.mid) * b_.radius + abs(b_.mid) * a_.radius + a_.radius * b_.radius + rounding(mid)
    return Value(
        None,
        mid,
        radius,
        a_.u + b_.u,
        a_.l + b_.l,
        a_.marks | b_.marks,
        _scaled(first, second) or _scaled(second, first),
    )


def _scaled(turned: Value, factor: Value) -> Fraction | None:
    if turned.turn is None or factor.exact is None or factor.exact[1] != 0:
        return None
    return turned.turn * factor.exact[0]


def divide(first: Value, second: Value) -> Value:
    second = settled(second)
    if is_zero(second):
        raise NoValueError("a division by zero")
    if second.exact is not None:
        c, d = second.exact
        square = c * c + d * d
        return multiply(first, rational(c / square, -d / square))
    if first.exact == ZERO:
        return first
    if first.turn is not None and second.turn is not None:
        return rational(first.turn / second.turn)
    a, b = ball_of(first), second
    mid = a.mid / b.mid
    low = abs(b.mid) - b.radius
    radius = (a.radius + abs(mid) * b.radius) / low + rounding(mid)
    return Value(None, mid, radius, a.u + b.l, a.l + b.u, a.marks | b.marks)


def settled(value: Value) -> Value:
    """The value as a real one if it is real: if the imaginary part of its ball cannot be told from zero, at a precision
    beyond the separation bound.
    """
    if value.is_real:
        return value
    if value.exact is not None or abs(value.mid.imag) > value.radius:
        return value
    needed = separation(value)
    if value.radius > mp.ldexp(1, -needed):
        raise ImpreciseError(needed)
    return Value(None, value.mid.real, value.radius, value.u, value.l, value.marks, value.turn)


def whole_power(base: Value, exponent: int) -> Value:
    if exponent == 0:
        return rational(1)
    if base.exact in (ZERO, ONE):
        if exponent < 0:
            return divide(rational(1), base)
        return base
    size = ball_of(base)
    if abs(exponent) * max(size.u, size.l, 1) > MAX_BITS:
        raise UnreadableError(f"a power of more than {MAX_BITS} bits")
    result, factor, left = rational(1), base, abs(exponent)
    while left:
        if left & 1:
            result = multiply(result, factor)
        left >>= 1
        if left:
            factor = multiply(factor, factor)
    return divide(rational(1), result) if exponent < 0 else result


def root_of(degree: int, value: Value, key: Node) -> Value:
    """The principal root; the real one of a real number if the degree is odd."""
    if degree == 1:
        return value
    value = settled(value)
    if value.is_real and sign(value) < 0:
        if degree % 2:
            return negate(root_of(degree, negate(value), key))
        if degree == 2:
            return multiply(rational(0, 1), root_of(2, negate(value), key))
    if is_zero(value):
        return rational(0)
    if value.exact is not None and value.is_real and value.exact[0] > 0:
        number = value.exact[0]
        top, bottom = whole_root(number.numerator, degree), whole_root(number.denominator, degree)
        if top is not None and bottom is not None:
            return rational(Fraction(top, bottom))
    ball = ball_of(value)
    mid = mp.root(ball.mid, degree)
    relative = ball.radius / (abs(ball.mid) - ball.radius)
    if not ball.is_real and ball.mid.real < 0 and abs(ball.mid.imag) <= ball.radius:
        raise ImpreciseError
    mark: Mark = (("root", degree, value.exact or key), degree, False)
    return Value(
        None,
        mid,
        abs(mid) * relative + rounding(mid),
        (ball.u + (degree - 1) * ball.l) / degree,
        ball.l,
        ball.marks | {mark},
    )
