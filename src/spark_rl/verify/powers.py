"""Exact questions about powers of rational numbers: perfect ones, square factors, rational logarithms."""

from __future__ import annotations

import math
from fractions import Fraction

LARGEST_KERNEL = 10**8
"""Radicands above are compared as they are written: their square factors are not looked for."""


def is_power(number: int, index: int) -> bool:
    """Whether a number is an exact power of this index."""
    if number < 2 or number.bit_length() > 1000 or index > 64:
        return number < 2
    root = math.isqrt(number) if index == 2 else round(number ** (1 / index))
    return any(candidate**index == number for candidate in (root - 1, root, root + 1))


def kernel(number: int) -> int:
    """What stays under the square root when all square factors are drawn out."""
    if number > LARGEST_KERNEL:
        return hash(number)
    divisor = 2
    while divisor * divisor <= number:
        while number % (divisor * divisor) == 0:
            number //= divisor * divisor
        divisor += 1
    return number


def are_powers(base: Fraction, number: Fraction) -> bool:
    """Whether the logarithm is rational, as far as denominators up to six."""
    if number <= 0 or base <= 0:
        return False
    one, other = (math.log(each.numerator) - math.log(each.denominator) for each in (base, number))
    if abs(one) < 1e-9 * max(1.0, abs(other)):
        return False
    near = Fraction(other / one).limit_denominator(6)
    return abs(float(near) - other / one) < 1e-12 * max(1.0, abs(other / one)) and (
        abs(near.numerator) < 1000 and base**near.numerator == number**near.denominator
    )
