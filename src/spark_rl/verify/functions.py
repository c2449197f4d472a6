r"""Functions of values: exponentials, logarithms, sines, parts of complex numbers, and what is built from them.

Values stay exact where they are: the sine of a rational number of degrees is algebraic (exact where it is rational), a
logarithm that is a fraction is one. Everything else is transcendental by the rule of :mod:`spark_rl.verify.value`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.tree import Node
from spark_rl.verify.value import (
    MAX_BITS,
    ONE,
    ZERO,
    ImpreciseError,
    Mark,
    NoValueError,
    Value,
    add,
    as_fraction,
    ball_of,
    divide,
    is_zero,
    mp,
    multiply,
    negate,
    rational,
    root_of,
    rounding,
    settled,
    sign,
    subtract,
    whole_power,
)


def power(base: Value, exponent: Value, key: Node) -> Value:
    """The principal value, exact or algebraic where the exponent is rational. ``key``: the expression itself."""
    exponent = settled(exponent)
    if exponent.exact is not None and exponent.exact[1] == 0:
        power = exponent.exact[0]
        if power.denominator == 1:
            return whole_power(base, int(power))
        if power.denominator <= 64:
            return whole_power(root_of(power.denominator, base, key), power.numerator)
    if base.exact == ZERO:
        raise NoValueError("a power of zero")
    if base.exact == ONE:
        return base
    return exponential(multiply(exponent, logarithm(base)))


def transcendental(name: str, mid: Any, radius: Any, *arguments: Value) -> Value:
    """A function's value with the sizes that the rule of :mod:`spark_rl.verify.value` counts."""
    balls = [ball_of(argument) for argument in arguments]
    u = max(float(mp.mag(mid)), 0.0) + 1 + sum(4 * (ball.u + ball.l) for ball in balls)
    if u > MAX_BITS:
        raise UnreadableError(f"a value of more than {MAX_BITS} bits")
    marks: frozenset[Mark] = frozenset().union(*(ball.marks for ball in balls))
    identity = (name, *(str(argument.exact) if argument.exact else str(argument.mid)[:40] for argument in arguments))
    return Value(None, mid, radius + rounding(mid), u, sum(ball.l for ball in balls), marks | {(identity, 2, True)})


def exponential(value: Value) -> Value:
    value = settled(value)
    if value.exact == ZERO:
        return rational(1)
    ball = ball_of(value)
    if abs(ball.mid) > MAX_BITS / 2:
        raise UnreadableError(f"a power of more than {MAX_BITS} bits")
    if ball.radius > 0.5:
        raise ImpreciseError
    mid = mp.exp(ball.mid)
    return transcendental("exp", mid, 2 * abs(mid) * ball.radius, value)


def logarithm(value: Value) -> Value:
    value = settled(value)
    if is_zero(value):
        raise NoValueError("a logarithm of zero")
    if value.exact == ONE:
        return rational(0)
    ball = ball_of(value)
    if 2 * ball.radius > abs(ball.mid):
        raise ImpreciseError
    if not ball.is_real and ball.mid.real < 0 and abs(ball.mid.imag) <= ball.radius:
        raise ImpreciseError
    mid = mp.log(ball.mid)
    return transcendental("log", mid, 2 * ball.radius / abs(ball.mid) + mp.ldexp(1, 2 - mp.prec), value)


def log_base(value: Value, base: Value) -> Value:
    """A logarithm to a base, exactly where it is rational."""
    found = divide(logarithm(value), logarithm(base))
    if value.exact is not None and base.exact is not None and value.is_real and base.is_real:
        guess = Fraction(as_fraction(found) or 0).limit_denominator(12)
        small = max(value.exact[0].numerator.bit_length(), base.exact[0].numerator.bit_length()) < 4096
        if small and abs(guess) < 4096 and base.exact[0] > 0 < value.exact[0]:
            powers = whole_power(base, guess.numerator), whole_power(value, guess.denominator)
            if powers[0].exact == powers[1].exact:
                return rational(guess)
    return found


_HALVES = {Fraction(0): 0, Fraction(1, 6): 1, Fraction(1, 2): 2, Fraction(5, 6): 1, Fraction(1): 0, Fraction(7, 6): -1,
           Fraction(3, 2): -2, Fraction(11, 6): -1}  # fmt: skip
"""Multiples of pi in [0, 2) -> twice the sine, where it is a whole number (the only rational ones, by Niven)."""


def sine(value: Value) -> Value:
    value = settled(value)
    if value.turn is not None:
        turn = value.turn % 2
        if turn in _HALVES:
            return rational(Fraction(_HALVES[turn], 2))
        mid = mp.sin(mp.pi * (mp.mpf(turn.numerator) / turn.denominator))
        if turn.denominator <= 10**6:  # 2 sin is an algebraic integer of the field of roots of unity of this order
            mark: Mark = (("root of unity", turn.denominator), 4 * turn.denominator, False)
            return Value(None, mid, mp.ldexp(1, 5 - mp.prec), 1.0, 1.0, frozenset((mark,)))
    ball = ball_of(value)
    if abs(ball.mid) > mp.ldexp(1, MAX_BITS) or (not ball.is_real and abs(ball.mid.imag) > 1000) or ball.radius > 0.5:
        raise ImpreciseError
    mid = mp.sin(ball.mid)
    grows = 1 if ball.is_real else 2 * mp.cosh(abs(ball.mid.imag) + 1)
    return transcendental("sin", mid, ball.radius * grows + mp.ldexp(grows, 2 - mp.prec), value)


def cosine(value: Value) -> Value:
    return sine(add(half_pi(), negate(value)))


def half_pi() -> Value:
    return multiply(pi(), rational(Fraction(1, 2)))


def pi() -> Value:
    mid = +mp.pi
    return Value(None, mid, rounding(mid), 2.0, 0.0, frozenset((("pi", 2, True),)), Fraction(1))


def _arctan(value: Value) -> Value:
    value = settled(value)
    if not value.is_real:
        raise NoValueError("an inverse function of a complex number")
    ball = ball_of(value)
    mid = mp.atan(ball.mid)
    return transcendental("arctan", mid, ball.radius, value)


def _arcsin(value: Value, key: Node) -> Value:
    value = settled(value)
    one = rational(1)
    if not value.is_real:
        raise NoValueError("an inverse function of a complex number")
    above, below = sign(subtract(value, one)), sign(add(value, one))
    if above > 0 or below < 0:
        raise NoValueError("an inverse sine beyond 1")
    if above == 0 or below == 0:
        return multiply(half_pi(), rational(1 if above == 0 else -1))
    cosine = root_of(2, subtract(one, multiply(value, value)), key)
    return _arctan(divide(value, cosine))


def whole_number(value: Value, limit: int) -> int:
    """An exact whole number of at most ``limit`` in size."""
    value = settled(value)
    if value.exact is None or value.exact[1] != 0 or value.exact[0].denominator != 1:
        raise NoValueError("a whole number is wanted")
    if abs(value.exact[0]) > limit:
        raise UnreadableError(f"a number beyond {limit}")
    return int(value.exact[0])


def _floor(value: Value) -> Value:
    value = settled(value)
    if not value.is_real:
        raise NoValueError("the floor of a complex number")
    if value.exact is not None:
        return rational(math.floor(value.exact[0]))
    if abs(value.mid) > mp.ldexp(1, mp.prec // 2):
        raise ImpreciseError
    nearest = rational(int(mp.nint(value.mid)))
    return add(nearest, rational(-1)) if sign(subtract(value, nearest)) < 0 else nearest


def _absolute(value: Value, key: Node) -> Value:
    value = settled(value)
    if value.is_real:
        return negate(value) if sign(value) < 0 else value
    real, imaginary = _part(value, imaginary=False), _part(value, imaginary=True)
    return root_of(2, add(multiply(real, real), multiply(imaginary, imaginary)), key)


def _part(value: Value, *, imaginary: bool) -> Value:
    if value.exact is not None:
        return rational(value.exact[1 if imaginary else 0])
    if value.is_real:
        return rational(0) if imaginary else value
    mid = value.mid.imag if imaginary else value.mid.real
    marks = value.marks | {("i", 2, False)}
    return Value(None, mid, value.radius, value.u + 1, value.l + 1, marks)


def _argument(value: Value) -> Value:
    value = settled(value)
    if is_zero(value):
        raise NoValueError("the argument of zero")
    if value.is_real:
        return pi() if sign(value) < 0 else rational(0)
    return _part(logarithm(value), imaginary=True)


def applied(name: str, arguments: list[Value]) -> Value:
    """A function that is only named: any one that no identity fits by accident."""
    total = rational(Fraction(ord(name[0]), 7))
    for index, argument in enumerate(arguments):
        total = add(total, multiply(rational(Fraction(31 + 2 * index, 11)), argument))
    return sine(total)


_RECIPROCALS = {"cot": "tan", "sec": "cos", "csc": "sin", "coth": "tanh"}


def function_of(name: str, arguments: list[Value], key: Node) -> Value:
    first = arguments[0]
    if name in ("max", "min", "gcd", "lcm"):
        return _of_several(name, arguments)
    if name in ("log", "lg", "ln"):
        if len(arguments) > 2 or (len(arguments) == 2 and name == "ln"):
            raise UnreadableError("a logarithm of several numbers")
        if name == "ln":
            return logarithm(first)
        return log_base(first, arguments[1] if len(arguments) == 2 else rational(10))
    if len(arguments) != 1:
        raise UnreadableError(f"{name} of several numbers")
    if name in _RECIPROCALS:
        if name == "cot":
            return divide(cosine(first), sine(first))
        return divide(rational(1), function_of(_RECIPROCALS[name], arguments, key))
    if name == "tan":
        return divide(sine(first), cosine(first))
    if name in ("sinh", "cosh", "tanh"):
        up, down = exponential(first), exponential(negate(first))
        odd, even = subtract(up, down), add(up, down)
        if name == "tanh":
            return divide(odd, even)
        return divide(odd if name == "sinh" else even, rational(2))
    if name == "arccos":
        return subtract(half_pi(), _arcsin(first, key))
    if name == "arccot":
        return subtract(half_pi(), _arctan(first))
    if name == "ceil":
        return negate(_floor(negate(first)))
    if name == "sgn":
        return rational(sign(first))
    if name in ("Re", "Im"):
        return _part(first, imaginary=name == "Im")
    one: Mapping[str, Callable[[Value], Value]] = {
        "sin": sine, "cos": cosine, "exp": exponential, "arctan": _arctan, "floor": _floor, "arg": _argument,
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
        wholes = [whole_number(argument, 10**100) for argument in arguments]
        return rational(math.gcd(*wholes) if name == "gcd" else math.lcm(*wholes))
    best = arguments[0]
    for other in arguments[1:]:
        if sign(subtract(other, best)) * (1 if name == "max" else -1) > 0:
            best = other
    return best
