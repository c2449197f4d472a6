r"""Values of expressions, exact where they are rational and otherwise a ball that is known to contain them.

A :class:`Value` is an exact complex rational, or a midpoint and a radius at the working precision, together with what a
zero test needs. :func:`is_zero` never compares with a fixed tolerance:

- a ball without zero in it proves that the value is not zero;
- otherwise the precision grows until the ball is smaller than the separation bound of the expression. For algebraic
  numbers (roots, the sine and cosine of rational degrees) that is the theorem of Burnikel, Funke, Mehlhorn, Schirra and
  Schmitt (2001): with conjugates of E = U / L at most 2^u and 2^l and a degree of at most D, E is zero or at least
  2^-(l + (D - 1) u). The bound is proof then, whichever way it falls.
- ``\pi``, ``e``, logarithms and the like have no such theorem. **The stated rule**: they are treated as if they had,
  with the sizes of their arguments in the bound and at least :data:`RULE_BITS` bits (300 digits) of agreement. The same
  rule caps the bound where the degree makes it astronomic.

Everything is bounded before it is computed: exponents, factorials and lengths of sums by the bits of their result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath

from spark_rl.verify.expression import Node
from spark_rl.verify.notation import UnreadableError

RULE_BITS = 1000
"""Bits to which transcendental constants must agree, beyond the sizes of the numbers in them."""
CAP_BITS = 4000
"""Bits at which a bound of a high degree is cut off, beyond eight times the sizes of the numbers in it."""
MAX_BITS = 100_000
"""Larger exact numbers, and comparisons that would need more precision, are refused."""
MAX_FACTORIAL = 3000
MAX_TERMS = 2000
"""Terms of a sum or product, cells of a matrix."""
START_BITS = 192

_mp = mpmath.mp.clone()
Exact = tuple[Fraction, Fraction]
Mark = tuple[Any, int, bool]
"""(what it is, factor of the degree, whether it is transcendental)."""


class NoValueError(UnreadableError):
    """An expression that has no value: a division by zero, a logarithm of zero."""


class ImpreciseError(Exception):
    """The working precision does not decide; ``bits`` would."""

    def __init__(self, bits: int = 0) -> None:
        super().__init__(bits)
        self.bits = bits


@dataclass(frozen=True, slots=True)
class Value:
    """``exact`` is (real, imaginary); without it, ``mid`` and ``radius`` hold the ball."""

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
        return self.exact[1] == 0 if self.exact is not None else isinstance(self.mid, _mp.mpf)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells row by row."""

    cells: tuple[Value, ...]
    columns: int

    @property
    def rows(self) -> int:
        return len(self.cells) // self.columns


def precise(compute: Callable[[], Any]) -> Any:
    """What ``compute`` returns at the first precision that decides. Raises :class:`UnreadableError` beyond the bound."""
    bits = START_BITS
    while True:
        _mp.prec = bits
        try:
            return compute()
        except ImpreciseError as needed:
            bits = max(2 * bits, needed.bits + 64)
            if bits > 4 * MAX_BITS:
                raise UnreadableError("values too close to be told apart") from None


def rational(real: Fraction | int, imaginary: Fraction | int = 0) -> Value:
    exact = (Fraction(real), Fraction(imaginary))
    for part in exact:
        if part.numerator.bit_length() + part.denominator.bit_length() > MAX_BITS:
            raise UnreadableError(f"a number of more than {MAX_BITS} bits")
    return Value(exact, turn=Fraction(0) if exact == (0, 0) else None)


def is_zero(value: Value) -> bool:
    """Whether the value is zero; raises :class:`ImpreciseError` if this precision cannot tell."""
    if value.exact is not None:
        return value.exact == (0, 0)
    size = abs(value.mid)
    if size > value.radius:
        return False
    needed = separation(value)
    if size + value.radius < _mp.ldexp(1, -needed):
        return True
    raise ImpreciseError(needed)


def separation(value: Value) -> int:
    """Bits b so that the value is zero or at least 2^-b in size."""
    degree = math.prod(factor for _, factor, _ in value.marks)
    sizes = value.u + value.l
    needed = min(value.l + (degree - 1) * value.u, CAP_BITS + 8 * sizes)
    if any(transcendental for *_, transcendental in value.marks):
        needed = max(needed, RULE_BITS + 2 * sizes)
    return math.ceil(needed) + 4


def subtract(first: Value, second: Value) -> Value:
    return _add(first, _negate(second))


def as_fraction(value: Value) -> Fraction | None:
    """A real value to forty digits and more, exactly if it is rational; ``None`` for a complex one."""
    if not value.is_real:
        return None
    if value.exact is not None:
        return value.exact[0]
    if value.mid == 0 or value.radius > abs(value.mid) * _mp.ldexp(1, -140):
        raise ImpreciseError
    sign, mantissa, exponent, _ = value.mid._mpf_
    if abs(exponent) > MAX_BITS:
        return None
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** int(exponent)


def sign(value: Value) -> int:
    """-1, 0 or 1 of a real value. Raises :class:`NoValueError` for a complex one."""
    value = _settled(value)
    if not value.is_real:
        raise NoValueError("a comparison of complex numbers")
    if value.exact is not None:
        return (value.exact[0] > 0) - (value.exact[0] < 0)
    return 0 if is_zero(value) else 1 if value.mid > 0 else -1


def _ball(value: Value) -> Value:
    """The same value with a ball and sizes, also if it is exact."""
    if value.exact is None:
        return value
    real, imaginary = value.exact
    mid = _mp.mpf(real.numerator) / real.denominator
    if imaginary:
        mid = _mp.mpc(mid, _mp.mpf(imaginary.numerator) / imaginary.denominator)
    marks: frozenset[Mark] = frozenset((("i", 2, False),)) if imaginary else frozenset()
    common = math.lcm(real.denominator, imaginary.denominator)
    top = max(abs(real * common), abs(imaginary * common), 1)
    u = math.log2(int(top)) + (1 if imaginary else 0)
    return Value(value.exact, mid, _rounding(mid), u, math.log2(common), marks, value.turn)


def _rounding(mid: Any) -> Any:
    return abs(mid) * _mp.ldexp(1, 2 - _mp.prec)


def _add(first: Value, second: Value) -> Value:
    if first.exact is not None and second.exact is not None:
        return rational(first.exact[0] + second.exact[0], first.exact[1] + second.exact[1])
    if first.exact == (0, 0):
        return second
    if second.exact == (0, 0):
        return first
    a, b = _ball(first), _ball(second)
    turn = first.turn + second.turn if first.turn is not None and second.turn is not None else None
    if turn == 0:
        return rational(0)
    mid = a.mid + b.mid
    radius = a.radius + b.radius + _rounding(mid)
    u = max(a.u + b.l, a.l + b.u) + 1
    return Value(None, mid, radius, u, a.l + b.l, a.marks | b.marks, turn)


def _negate(value: Value) -> Value:
    if value.exact is not None:
        return Value((-value.exact[0], -value.exact[1]), turn=value.turn)
    turn = None if value.turn is None else -value.turn
    return Value(None, -value.mid, value.radius, value.u, value.l, value.marks, turn)


def multiply(first: Value, second: Value) -> Value:
    if first.exact is not None and second.exact is not None:
        (a, b), (c, d) = first.exact, second.exact
        return rational(a * c - b * d, a * d + b * c)
    if (0, 0) in (first.exact, second.exact):
        return rational(0)
    a_, b_ = _ball(first), _ball(second)
    mid = a_.mid * b_.mid
    radius = abs(a_.mid) * b_.radius + abs(b_.mid) * a_.radius + a_.radius * b_.radius + _rounding(mid)
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


def _divide(first: Value, second: Value) -> Value:
    second = _settled(second)
    if is_zero(second):
        raise NoValueError("a division by zero")
    if second.exact is not None:
        c, d = second.exact
        square = c * c + d * d
        return multiply(first, rational(c / square, -d / square))
    if first.exact == (0, 0):
        return first
    if first.turn is not None and second.turn is not None:
        return rational(first.turn / second.turn)
    a, b = _ball(first), second
    mid = a.mid / b.mid
    low = abs(b.mid) - b.radius
    radius = (a.radius + abs(mid) * b.radius) / low + _rounding(mid)
    return Value(None, mid, radius, a.u + b.l, a.l + b.u, a.marks | b.marks)


def _settled(value: Value) -> Value:
    """A complex ball whose imaginary part cannot be told from zero is real, once the precision is beyond its bound."""
    if value.is_real:
        return value
    if value.exact is not None or abs(value.mid.imag) > value.radius:
        return value
    needed = separation(value)
    if value.radius > _mp.ldexp(1, -needed):
        raise ImpreciseError(needed)
    return Value(None, value.mid.real, value.radius, value.u, value.l, value.marks, value.turn)


def _power(base: Value, exponent: Value, key: Node) -> Value:
    exponent = _settled(exponent)
    if exponent.exact is not None and exponent.exact[1] == 0:
        power = exponent.exact[0]
        if power.denominator == 1:
            return _whole_power(base, int(power))
        if power.denominator <= 64:
            return _whole_power(_root(power.denominator, base, key), power.numerator)
    if base.exact == (0, 0):
        raise NoValueError("a power of zero")
    if base.exact == (1, 0):
        return base
    return _exp(multiply(exponent, _log(base)))


def _whole_power(base: Value, exponent: int) -> Value:
    if exponent == 0:
        return rational(1)
    if base.exact in ((0, 0), (1, 0)):
        if exponent < 0:
            return _divide(rational(1), base)
        return base
    size = _ball(base)
    if abs(exponent) * max(size.u, size.l, 1) > MAX_BITS:
        raise UnreadableError(f"a power of more than {MAX_BITS} bits")
    result, factor, left = rational(1), base, abs(exponent)
    while left:
        if left & 1:
            result = multiply(result, factor)
        left >>= 1
        if left:
            factor = multiply(factor, factor)
    return _divide(rational(1), result) if exponent < 0 else result


def _root(degree: int, value: Value, key: Node) -> Value:
    """The principal root; the real one of a real number if the degree is odd."""
    if degree == 1:
        return value
    value = _settled(value)
    if value.is_real and sign(value) < 0:
        if degree % 2:
            return _negate(_root(degree, _negate(value), key))
        if degree == 2:
            return multiply(rational(0, 1), _root(2, _negate(value), key))
    if is_zero(value):
        return rational(0)
    if value.exact is not None and value.is_real and value.exact[0] > 0:
        number = value.exact[0]
        top, bottom = _whole_root(number.numerator, degree), _whole_root(number.denominator, degree)
        if top is not None and bottom is not None:
            return rational(Fraction(top, bottom))
    ball = _ball(value)
    mid = _mp.root(ball.mid, degree)
    relative = ball.radius / (abs(ball.mid) - ball.radius)
    if not ball.is_real and ball.mid.real < 0 and abs(ball.mid.imag) <= ball.radius:
        raise ImpreciseError
    mark: Mark = (("root", degree, value.exact or key), degree, False)
    return Value(
        None,
        mid,
        abs(mid) * relative + _rounding(mid),
        (ball.u + (degree - 1) * ball.l) / degree,
        ball.l,
        ball.marks | {mark},
    )


def _whole_root(number: int, degree: int) -> int | None:
    """The exact root of a natural number, if it has one."""
    if number < 2:
        return number
    if degree == 2:
        root = math.isqrt(number)
    else:
        if number.bit_length() < degree:
            return None
        root = 1 << -(-number.bit_length() // degree)
        while True:
            lower = ((degree - 1) * root + number // root ** (degree - 1)) // degree
            if lower >= root:
                break
            root = lower
    return root if root**degree == number else None


def _transcendental(name: str, mid: Any, radius: Any, *arguments: Value) -> Value:
    """A function's value with the sizes of the rule at the top of this module."""
    balls = [_ball(argument) for argument in arguments]
    size = abs(mid)
    u = (float(_mp.log(size, 2)) if size > 1 else 0.0) + 1 + sum(4 * (ball.u + ball.l) for ball in balls)
    if u > MAX_BITS:
        raise UnreadableError(f"a value of more than {MAX_BITS} bits")
    marks: frozenset[Mark] = frozenset().union(*(ball.marks for ball in balls))
    identity = (name, *(str(argument.exact) if argument.exact else str(argument.mid)[:40] for argument in arguments))
    return Value(None, mid, radius + _rounding(mid), u, sum(ball.l for ball in balls), marks | {(identity, 2, True)})


def _exp(value: Value) -> Value:
    value = _settled(value)
    if value.exact == (0, 0):
        return rational(1)
    ball = _ball(value)
    if abs(ball.mid) > MAX_BITS / 2:
        raise UnreadableError(f"a power of more than {MAX_BITS} bits")
    if ball.radius > 0.5:
        raise ImpreciseError
    mid = _mp.exp(ball.mid)
    return _transcendental("exp", mid, 2 * abs(mid) * ball.radius, value)


def _log(value: Value) -> Value:
    value = _settled(value)
    if is_zero(value):
        raise NoValueError("a logarithm of zero")
    if value.exact == (1, 0):
        return rational(0)
    ball = _ball(value)
    if 2 * ball.radius > abs(ball.mid):
        raise ImpreciseError
    if not ball.is_real and ball.mid.real < 0 and abs(ball.mid.imag) <= ball.radius:
        raise ImpreciseError
    mid = _mp.log(ball.mid)
    return _transcendental("log", mid, 2 * ball.radius / abs(ball.mid) + _mp.ldexp(1, 2 - _mp.prec), value)


def _log_base(value: Value, base: Value) -> Value:
    """A logarithm to a base, exactly where it is rational."""
    found = _divide(_log(value), _log(base))
    if value.exact is not None and base.exact is not None and value.is_real and base.is_real:
        guess = Fraction(as_fraction(found) or 0).limit_denominator(12)
        small = max(value.exact[0].numerator.bit_length(), base.exact[0].numerator.bit_length()) < 4096
        if small and abs(guess) < 4096 and base.exact[0] > 0 < value.exact[0]:
            powers = _whole_power(base, guess.numerator), _whole_power(value, guess.denominator)
            if powers[0].exact == powers[1].exact:
                return rational(guess)
    return found


_HALVES = {Fraction(0): 0, Fraction(1, 6): 1, Fraction(1, 2): 2, Fraction(5, 6): 1, Fraction(1): 0, Fraction(7, 6): -1,
           Fraction(3, 2): -2, Fraction(11, 6): -1}  # fmt: skip
"""Multiples of pi in [0, 2) -> twice the sine, where it is a whole number (the only rational ones, by Niven)."""


def _sin(value: Value) -> Value:
    value = _settled(value)
    if value.turn is not None:
        turn = value.turn % 2
        if turn in _HALVES:
            return rational(Fraction(_HALVES[turn], 2))
        _mp_turn = _mp.mpf(turn.numerator) / turn.denominator
        mid = _mp.sin(_mp.pi * _mp_turn)
        if turn.denominator <= 10**6:  # 2 sin is an algebraic integer of the field of roots of unity of this order
            mark: Mark = (("root of unity", turn.denominator), 4 * turn.denominator, False)
            return Value(None, mid, _mp.ldexp(1, 5 - _mp.prec), 1.0, 1.0, frozenset((mark,)))
    ball = _ball(value)
    if abs(ball.mid) > _mp.ldexp(1, MAX_BITS) or (not ball.is_real and abs(ball.mid.imag) > 1000) or ball.radius > 0.5:
        raise ImpreciseError
    mid = _mp.sin(ball.mid)
    grows = 1 if ball.is_real else 2 * _mp.cosh(abs(ball.mid.imag) + 1)
    return _transcendental("sin", mid, ball.radius * grows + _mp.ldexp(grows, 2 - _mp.prec), value)


def _cos(value: Value) -> Value:
    return _sin(_add(_PI_HALF(), _negate(value)))


def _PI_HALF() -> Value:  # noqa: N802  # a constant at the working precision
    return multiply(_pi(), rational(Fraction(1, 2)))


def _pi() -> Value:
    mid = +_mp.pi
    return Value(None, mid, _rounding(mid), 2.0, 0.0, frozenset((("pi", 2, True),)), Fraction(1))


def _arctan(value: Value) -> Value:
    value = _settled(value)
    if not value.is_real:
        raise NoValueError("an inverse function of a complex number")
    ball = _ball(value)
    mid = _mp.atan(ball.mid)
    return _transcendental("arctan", mid, ball.radius, value)


def _arcsin(value: Value, key: Node) -> Value:
    value = _settled(value)
    one = rational(1)
    if not value.is_real:
        raise NoValueError("an inverse function of a complex number")
    above, below = sign(subtract(value, one)), sign(_add(value, one))
    if above > 0 or below < 0:
        raise NoValueError("an inverse sine beyond 1")
    if above == 0 or below == 0:
        return multiply(_PI_HALF(), rational(1 if above == 0 else -1))
    cosine = _root(2, subtract(one, multiply(value, value)), key)
    return _arctan(_divide(value, cosine))


def _whole(value: Value, limit: int) -> int:
    """An exact whole number of at most ``limit`` in size."""
    value = _settled(value)
    if value.exact is None or value.exact[1] != 0 or value.exact[0].denominator != 1:
        raise NoValueError("a whole number is wanted")
    if abs(value.exact[0]) > limit:
        raise UnreadableError(f"a number beyond {limit}")
    return int(value.exact[0])


def _floor(value: Value) -> Value:
    value = _settled(value)
    if not value.is_real:
        raise NoValueError("the floor of a complex number")
    if value.exact is not None:
        return rational(math.floor(value.exact[0]))
    if abs(value.mid) > _mp.ldexp(1, _mp.prec // 2):
        raise ImpreciseError
    nearest = rational(int(_mp.nint(value.mid)))
    return _add(nearest, rational(-1)) if sign(subtract(value, nearest)) < 0 else nearest


def _absolute(value: Value, key: Node) -> Value:
    value = _settled(value)
    if value.is_real:
        return _negate(value) if sign(value) < 0 else value
    real, imaginary = _part(value, imaginary=False), _part(value, imaginary=True)
    return _root(2, _add(multiply(real, real), multiply(imaginary, imaginary)), key)


def _part(value: Value, *, imaginary: bool) -> Value:
    if value.exact is not None:
        return rational(value.exact[1 if imaginary else 0])
    if value.is_real:
        return rational(0) if imaginary else value
    mid = value.mid.imag if imaginary else value.mid.real
    marks = value.marks | {("i", 2, False)}
    return Value(None, mid, value.radius, value.u + 1, value.l + 1, marks)


def _argument(value: Value) -> Value:
    value = _settled(value)
    if is_zero(value):
        raise NoValueError("the argument of zero")
    if value.is_real:
        return _pi() if sign(value) < 0 else rational(0)
    return _part(_log(value), imaginary=True)


def _applied(name: str, arguments: list[Value]) -> Value:
    """A function that is only named: any one that no identity fits by accident."""
    total = rational(Fraction(ord(name[0]), 7))
    for index, argument in enumerate(arguments):
        total = _add(total, multiply(rational(Fraction(31 + 2 * index, 11)), argument))
    return _sin(total)


_RECIPROCALS = {"cot": "tan", "sec": "cos", "csc": "sin", "coth": "tanh"}


def _function(name: str, arguments: list[Value], key: Node) -> Value:
    first = arguments[0]
    if name in ("max", "min", "gcd", "lcm"):
        return _of_several(name, arguments)
    if name in ("log", "lg", "ln"):
        if len(arguments) > 2 or (len(arguments) == 2 and name == "ln"):
            raise UnreadableError("a logarithm of several numbers")
        if name == "ln":
            return _log(first)
        return _log_base(first, arguments[1] if len(arguments) == 2 else rational(10))
    if len(arguments) != 1:
        raise UnreadableError(f"{name} of several numbers")
    if name in _RECIPROCALS:
        if name == "cot":
            return _divide(_cos(first), _sin(first))
        return _divide(rational(1), _function(_RECIPROCALS[name], arguments, key))
    if name == "tan":
        return _divide(_sin(first), _cos(first))
    if name in ("sinh", "cosh", "tanh"):
        up, down = _exp(first), _exp(_negate(first))
        odd, even = subtract(up, down), _add(up, down)
        if name == "tanh":
            return _divide(odd, even)
        return _divide(odd if name == "sinh" else even, rational(2))
    if name == "arccos":
        return subtract(_PI_HALF(), _arcsin(first, key))
    if name == "arccot":
        return subtract(_PI_HALF(), _arctan(first))
    if name == "ceil":
        return _negate(_floor(_negate(first)))
    if name == "sgn":
        return rational(sign(first))
    if name in ("Re", "Im"):
        return _part(first, imaginary=name == "Im")
    one: Mapping[str, Callable[[Value], Value]] = {
        "sin": _sin, "cos": _cos, "exp": _exp, "arctan": _arctan, "floor": _floor, "arg": _argument,
    }  # fmt: skip
    if name in one:
        return one[name](first)
    if name == "arcsin":
        return _arcsin(first, key)
    if name == "abs":
        return _absolute(first, key)
    raise UnreadableError(f"no value of {name}")


def _of_several(name: str, arguments: list[Value]) -> Value:
    if name in ("gcd", "lcm"):
        wholes = [_whole(argument, 10**100) for argument in arguments]
        return rational(math.gcd(*wholes) if name == "gcd" else math.lcm(*wholes))
    best = arguments[0]
    for other in arguments[1:]:
        if sign(subtract(other, best)) * (1 if name == "max" else -1) > 0:
            best = other
    return best


def evaluate(node: Node, point: Mapping[str, Value], *, degrees: bool = True) -> Value | Matrix:
    r"""The value of a tree at the working precision; call it within :func:`precise`.

    Args:
        node: the tree.
        point: a value for each variable.
        degrees: whether the degree sign outside of functions is pi / 180, or a unit that counts as 1.

    Raises:
        NoValueError: where there is none.
        UnreadableError: for what is too large, or no mathematics.
        ImpreciseError: if the working precision does not decide.
    """
    if node.kind == "matrix":
        cells = tuple(_scalar(evaluate(part, point, degrees=degrees)) for part in node.parts)
        return Matrix(cells, node.columns)
    if node.kind in ("sum", "product", "negative", "power", "function", "quotient"):
        within = degrees or node.kind == "function"
        parts = [evaluate(part, point, degrees=within) for part in node.parts]
        if any(isinstance(part, Matrix) for part in parts):
            return _with_matrices(node, parts)
        return _combined(node, [_scalar(part) for part in parts])
    return _single(node, point, degrees=degrees)


def _scalar(value: Value | Matrix) -> Value:
    if isinstance(value, Matrix):
        raise UnreadableError("a matrix where a number is wanted")
    return value


def _combined(node: Node, parts: list[Value]) -> Value:
    if node.kind in ("sum", "product"):
        result = parts[0]
        for part in parts[1:]:
            result = _add(result, part) if node.kind == "sum" else multiply(result, part)
        return result
    if node.kind == "negative":
        return _negate(parts[0])
    if node.kind == "quotient":
        return _divide(parts[0], parts[1])
    if node.kind == "power":
        return _power(parts[0], parts[1], node)
    return _function(node.name, parts, node)


def _single(node: Node, point: Mapping[str, Value], *, degrees: bool) -> Value:
    if node.kind == "number":
        return rational(node.value)
    if node.kind == "constant":
        return _pi() if node.name == "pi" else rational(0, 1) if node.name == "i" else _exp(rational(1))
    if node.kind == "variable":
        return point[node.name]
    if node.kind in ("summation", "multiplication"):
        return _series(node, point, degrees=degrees)
    parts = [_scalar(evaluate(part, point, degrees=degrees)) for part in node.parts]
    if node.kind == "degrees":
        return multiply(parts[0], multiply(_pi(), rational(Fraction(1, 180)))) if degrees else parts[0]
    if node.kind == "root":
        return _root(_positive(parts[0]), parts[1], node)
    if node.kind in ("factorial", "double factorial"):
        number = _whole(parts[0], MAX_FACTORIAL)
        if number < 0:
            raise NoValueError("a factorial of a negative number")
        return rational(math.factorial(number) if node.kind == "factorial" else math.prod(range(number, 0, -2)))
    if node.kind == "binomial":
        top, bottom = _whole(parts[0], 10**6), _whole(parts[1], 10**6)
        if top < 0 or bottom < 0 or min(bottom, top - bottom) * top.bit_length() > MAX_BITS:
            raise UnreadableError("a binomial coefficient beyond the bound")
        return rational(math.comb(top, bottom))
    assert node.kind == "applied"
    return _applied(node.name, parts)


def _positive(value: Value) -> int:
    degree = _whole(value, 64)
    if degree < 1:
        raise NoValueError("a root whose degree is not positive")
    return degree


def _series(node: Node, point: Mapping[str, Value], *, degrees: bool) -> Value:
    first, last = (_whole(_scalar(evaluate(part, point)), 10**6) for part in node.parts[:2])
    if last - first > MAX_TERMS:
        raise UnreadableError(f"a sum or product of more than {MAX_TERMS} terms")
    adding = node.kind == "summation"
    result = rational(0 if adding else 1)
    for index in range(first, last + 1):
        term = _scalar(evaluate(node.parts[2], {**point, node.name: rational(index)}, degrees=degrees))
        result = _add(result, term) if adding else multiply(result, term)
    return result


def _with_matrices(node: Node, parts: list[Value | Matrix]) -> Value | Matrix:
    if node.kind == "function" and node.name == "det" and isinstance(parts[0], Matrix):
        return _determinant(parts[0])
    result = parts[0]
    if node.kind == "negative":
        return _matrix_product(rational(-1), result)
    if node.kind == "sum":
        for part in parts[1:]:
            result = _matrix_sum(result, part)
        return result
    if node.kind == "product":
        for part in parts[1:]:
            result = _matrix_product(result, part)
        return result
    if node.kind == "quotient" and not isinstance(parts[1], Matrix):
        return _matrix_product(_divide(rational(1), parts[1]), result)
    if node.kind == "power" and isinstance(result, Matrix) and not isinstance(parts[1], Matrix):
        return _matrix_power(result, _whole(parts[1], 64))
    raise UnreadableError("an operation that matrices do not have")


def _matrix_sum(first: Value | Matrix, second: Value | Matrix) -> Matrix:
    if not (isinstance(first, Matrix) and isinstance(second, Matrix)):
        raise UnreadableError("a sum of a matrix and a number")
    if (first.columns, first.rows) != (second.columns, second.rows):
        raise UnreadableError("a sum of matrices of different sizes")
    return Matrix(tuple(_add(a, b) for a, b in zip(first.cells, second.cells, strict=True)), first.columns)


def _matrix_product(first: Value | Matrix, second: Value | Matrix) -> Value | Matrix:
    if not isinstance(first, Matrix):
        if not isinstance(second, Matrix):
            return multiply(first, second)
        return Matrix(tuple(multiply(first, cell) for cell in second.cells), second.columns)
    if not isinstance(second, Matrix):
        return _matrix_product(second, first)
    if first.columns != second.rows:
        raise UnreadableError("a product of matrices that do not fit")
    cells = []
    for row in range(first.rows):
        for column in range(second.columns):
            total = rational(0)
            for inner in range(first.columns):
                left = first.cells[row * first.columns + inner]
                total = _add(total, multiply(left, second.cells[inner * second.columns + column]))
            cells.append(total)
    return Matrix(tuple(cells), second.columns)


def _matrix_power(base: Matrix, exponent: int) -> Matrix:
    if base.rows != base.columns:
        raise UnreadableError("a power of a matrix that is not square")
    if exponent < 0:
        base = _inverse(base)
    size = base.rows
    result: Value | Matrix = Matrix(
        tuple(rational(int(row == column)) for row in range(size) for column in range(size)), size
    )
    for _ in range(abs(exponent)):
        result = _matrix_product(result, base)
    assert isinstance(result, Matrix)
    return result


def _minor(matrix: Matrix, row: int, column: int) -> Matrix:
    cells = tuple(
        cell
        for index, cell in enumerate(matrix.cells)
        if index // matrix.columns != row and index % matrix.columns != column
    )
    return Matrix(cells, matrix.columns - 1)


def _determinant(matrix: Matrix) -> Value:
    if matrix.rows != matrix.columns or matrix.rows > 6:
        raise UnreadableError("a determinant of a matrix that is not square, or too large")
    if matrix.rows == 1:
        return matrix.cells[0]
    total = rational(0)
    for column in range(matrix.columns):
        term = multiply(matrix.cells[column], _determinant(_minor(matrix, 0, column)))
        total = _add(total, _negate(term) if column % 2 else term)
    return total


def _inverse(matrix: Matrix) -> Matrix:
    determinant = _determinant(matrix)
    if matrix.rows == 1:
        return Matrix((_divide(rational(1), determinant),), 1)
    size = matrix.rows
    cells = []
    for row in range(size):
        for column in range(size):
            cofactor = _determinant(_minor(matrix, column, row))
            cells.append(_divide(_negate(cofactor) if (row + column) % 2 else cofactor, determinant))
    return Matrix(tuple(cells), size)
