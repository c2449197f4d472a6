r"""Whether an answer is evaluated: ``42`` is, ``6\times7`` restates the question (the setting ``reward.form``).

Ours; the paper's reward (Eq. 2) asks for equality only, and a policy that learns to box the question's own arithmetic
then earns it without doing any. :func:`is_evaluated` is asked about answers that were found right. It compares nothing:
it names the operations that are left to do in a text (:func:`left_to_do`), and an answer may leave those only that its
gold answer leaves. The rules, for a gold answer without variables:

- Of rational numbers nothing is left to do: no sum, difference or product of two, no fraction that is an integer, no
  fraction of fractions, no power. Left as they are: proper fractions in any terms, mixed numbers, percentages,
  scientific notation (``1.5\times10^{-3}`` from the third power of ten on), and powers, factorials and binomials of
  more than :data:`MOST_DIGITS` digits (``2^{100}``), which a person would leave.
- Radicals, :math:`\pi`, e, i and logarithms may stay: ``2\sqrt{12}``, ``\frac{1+\sqrt5}{2}``, ``3+4i``, ``\ln2``,
  ``e^2``, ``5(\sqrt5-2)``. Not left are perfect powers under a radical, like terms in a sum, two rational factors, two
  radicals or two sums in a product, integer powers of radicals, of i and of short sums, denominators with i, logarithms
  that are rational (``\log_28``), and all trigonometric functions.
- Where the gold answer is written without radicals, constants and functions, so is an evaluated answer, unless the
  gold answer is a decimal or in degrees: it may stand for ``\pi`` or ``\frac\pi2`` then.
- ``\sum``, ``\int``, ``\gcd``, ``|-3|``, ``\lfloor2.5\rfloor`` and their like are never evaluated.
- A list, a tuple, an interval or a matrix is evaluated if each of its members is. A chain is if its last member is, or
  another that is a number: ``6\times7=42``. Names, units and words say nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from spark_rl.verify.expression import Node, read_expression
from spark_rl.verify.notation import UnreadableError, canonical
from spark_rl.verify.number import read_number
from spark_rl.verify.structure import comparisons, is_name, relation, shape, split
from spark_rl.verify.units import trailing_unit
from spark_rl.verify.words import without_label

MOST_DIGITS = 9
"""A person multiplies a power out up to this many digits."""
SHORT_POWER = 9
"""A person expands ``(1+\\sqrt2)^n`` up to this exponent."""
LARGEST_KERNEL = 10**8
"""Radicands above are compared as they are written: their square factors are not looked for."""
MAX_HEIGHT = 128
"""Higher trees leave something to do."""

Left = frozenset[str]
VARIABLES, IRRATIONAL, LONG = "variables", "irrational", "long"
"""What a text may hold beside operations left to do. The last are operations that a person leaves for their length."""

_SEPARATORS = (":", r"\cup", r"\cap", r"\setminus")
_CYCLE = re.compile(r"([0-9]*\.[0-9]*)\(([0-9]+)\)")
_NEVER = re.compile(
    r"\\(?:sum|prod|i{0,3}nt|oint|lim|limsup|liminf|[bp]?mod|choose)(?![A-Za-z])|[∑∏∫⌊⌈]|(?<![A-Za-z])[CP]\([0-9]+,"
)
"""Signs of operations that no expression has, or not in this form."""
_STANDS_FOR_MORE = re.compile(r"[0-9]\.[0-9]|\.[0-9]|\\circ|degree")
"""Decimals, which can be rounded, and degrees."""
_LONG_NUMBER = re.compile(rf"[0-9]{{{MOST_DIGITS + 1}}}|[0-9]{{1,3}}(?:,[0-9]{{3}}){{{MOST_DIGITS // 3}}}")
_LOGARITHMS = frozenset(("ln", "log", "lg"))
_NAMED_OPERATIONS = frozenset(("abs", "floor", "ceil", "max", "min", "gcd", "lcm", "det", "sgn", "arg", "Re", "Im"))


def is_evaluated(gold: str, answer: str) -> bool:
    """Whether a right ``answer`` leaves nothing to do that ``gold`` does not leave as well.

    ``is_evaluated("42", r"6\\times7")`` is false; ``is_evaluated(r"6\\times7", r"7\\cdot6")`` is true, and so is every
    answer to a gold answer with variables, and every answer that is not read.
    """
    wanted = _read(gold)
    if wanted is None or VARIABLES in wanted:
        return True
    text = canonical(gold)
    decimal = {IRRATIONAL} if _STANDS_FOR_MORE.search(text) else set()
    allowed = wanted | decimal | ({LONG} if _LONG_NUMBER.search(text) else set())
    return (_read(answer, allowed) or frozenset()) <= allowed


def left_to_do(text: str) -> Left:
    r"""The operations that a person would still carry out: ``left_to_do(r"2\cdot3+\sin0")`` is product and function."""
    return (_read(text) or frozenset()) - {VARIABLES, IRRATIONAL, LONG}


# --- from text to trees ---


@lru_cache(maxsize=1024)
def _read(text: str, allowed: Left | None = None) -> Left | None:
    """What a text leaves to do, ``None`` if it is not read. Of a chain that is an answer (those have something
    ``allowed``), the member counts that leaves least beside that."""
    try:
        return _left(_CYCLE.sub(r"\1\\overline{\2}", canonical(text)), allowed)
    except UnreadableError:
        return None


def _left(text: str, allowed: Left | None) -> Left | None:
    """The same of canonical text, which may be named, a chain, or built of several expressions."""
    while read_number(text) is None and (plain := without_label(text)) != text:
        text = plain
    stated = relation(text)
    parts = _parts(text) if stated is None else stated.values
    if not parts:
        return _left_by_expression(text, is_answer=allowed is not None)
    found = [left for part in parts if (left := _left(part, allowed)) is not None]
    whole = frozenset[str]().union(*found)
    if not found or stated is None or (allowed is None and VARIABLES in whole):  # the last is an equation
        return whole if found else None
    return min(found, key=lambda left: len(left - (allowed or frozenset())))


def _parts(text: str) -> Sequence[str]:
    """Terms of a ratio, sets, items and sides of inequalities; nothing for an expression."""
    for separator in _SEPARATORS:
        parts = split(text, separator)
        if len(parts) > 1:
            return parts
    items = shape(text).items
    if items != (text,):
        return items
    return [side for one, _, other in comparisons(text) for side in (one, other) if not is_name(side)]


def _left_by_expression(text: str, *, is_answer: bool) -> Left | None:
    number = read_number(text, bare_letters=is_answer)
    rules = _Rules()
    try:
        rules.term(read_expression(number.written if number is not None else trailing_unit(text)[0]))
    except UnreadableError:
        return frozenset(("operation",)) if _NEVER.search(text) else None
    return frozenset(rules.left)


# --- the rules ---


@dataclass(frozen=True, slots=True)
class _Term:
    """A part of an expression as the rules see it."""

    number: Fraction | None = None
    """Its value if it is rational, otherwise the rational factor that is written beside the irrational part."""
    key: str = ""
    """What is irrational about it, in a spelling that like terms share; empty for a rational number."""
    terms: tuple[_Term, ...] = ()
    """Of a sum."""
    form: str = ""
    """``written`` for a number without operations, ``fraction`` for one of two such, ``ten`` for a power of ten."""


class _Rules:
    """What is left to do in a tree."""

    def __init__(self) -> None:
        self.left: set[str] = set()
        self._height = 0
        self._bound: list[str] = []  # indices of summation

    def term(self, node: Node) -> _Term:
        if self._height >= MAX_HEIGHT:
            self.left.add("depth")
            return _Term(key="…")
        self._height += 1
        if node.kind in {"summation", "multiplication"}:
            self._bound.append(node.name)
        found = self._found(node, [self.term(part) for part in node.parts])
        if node.kind in {"summation", "multiplication"}:
            self._bound.pop()
        self._height -= 1
        return found

    def _found(self, node: Node, parts: list[_Term]) -> _Term:
        match node.kind:
            case "number":
                return _Term(node.value, form="fraction" if node.name == "mixed" else "written")
            case "negative":
                return replace(parts[0], number=None if parts[0].number is None else -parts[0].number)
            case "degrees":
                return parts[0]
            case "constant":
                self.left.add(IRRATIONAL)
                return _Term(key=node.name)
            case "sum":
                return self._sum(parts)
            case "product":
                return self._product(parts)
            case "quotient":
                return self._quotient(parts[0], parts[1])
            case "power":
                return self._power(parts[0], parts[1])
            case "root":
                return self._root(parts[1], parts[0])
            case "function":
                return self._function(node.name, parts)
            case "factorial" | "double factorial" | "binomial":
                return self._counted(node.kind, [part.number for part in parts if not part.key])
            case "variable" | "applied":
                self.left |= set() if node.name in self._bound else {VARIABLES}
            case "summation" | "multiplication":
                self.left.add(node.kind)
        return _Term(key=f"{node.kind} {node.name}")

    def _sum(self, parts: list[_Term]) -> _Term:
        terms = tuple(inner for part in parts for inner in (part.terms or (part,)))
        keys = sorted(term.key for term in terms)
        if len(set(keys)) < len(keys):
            self.left.add("sum")
        return _Term(key=f"({'+'.join(keys)})", terms=terms)

    def _product(self, parts: list[_Term]) -> _Term:
        first, second = parts[:2]
        numbers = [part.number for part in parts if part.number is not None]
        if len(parts) == 2 and first.form == "written" and second.form == "ten":  # scientific notation
            return _Term(numbers[0] * numbers[1])
        keys = sorted(part.key for part in parts if part.key)
        radicals = Counter(key.partition(":")[0] for key in keys if key.startswith("√") and ":" in key)
        sums = [part for part in parts if part.terms]
        several = len(numbers) > 1 or len(sums) > 1 or any(count > 1 for count in radicals.values())
        if several or 0 in numbers or len(set(keys)) < len(keys):
            self.left.add("product")
        return _Term(numbers[0] if numbers else None, "*".join(keys))

    def _quotient(self, above: _Term, below: _Term) -> _Term:
        factor = above.number if above.number is not None else Fraction(1)
        number = factor / (below.number or 1) if not below.key else None if factor == 1 else factor
        if not above.key and not below.key:
            undone = above.form != "written" or below.form != "written" or number.denominator == 1
        elif not below.key:
            undone = above.form == "fraction" or number.denominator == 1
        else:
            undone = above.key == below.key or re.search(r"\bi\b", below.key) is not None
        if undone:
            self.left.add("quotient")
        return _Term(number, f"{above.key}/{below.key}" if below.key else above.key, form="fraction")

    def _power(self, base: _Term, exponent: _Term) -> _Term:
        power = exponent.number
        key = f"{base.key}{'' if base.number is None else base.number}^{exponent.key or power}"
        if exponent.key or power is None:
            if exponent.key.startswith("log"):
                self.left.add("power")
            return _Term(key=key)
        if power.denominator > 1:
            self.left.add(IRRATIONAL)
            return _Term(key=key) if base.key else self._root(base, _Term(Fraction(power.denominator)))
        if not base.key and base.number is not None:
            return self._rational_power(base.number, int(power), key)
        if base.key in {"pi", "e"}:
            undone = power in (0, 1)
        else:
            undone = abs(power) <= SHORT_POWER or not base.terms
        if undone:
            self.left.add("power")
        return _Term(key=key)

    def _rational_power(self, base: Fraction, power: int, key: str) -> _Term:
        largest = max(abs(base.numerator), base.denominator)
        if abs(base) == 10 and 3 <= abs(power) <= 300:
            return _Term(base**power, form="ten")
        if largest > 1 and abs(power) * math.log10(largest) > MOST_DIGITS:
            self.left.add(LONG)
            return _Term(key=key)
        self.left.add("power")
        return _Term(base**power if base else Fraction(0))

    def _root(self, inside: _Term, degree: _Term) -> _Term:
        self.left.add(IRRATIONAL)
        index = int(degree.number) if degree.number is not None else 2
        if inside.key or inside.number is None:
            return _Term(key=f"√{index}({inside.key})")
        above, below = abs(inside.number.numerator), inside.number.denominator
        if index > 0 and _is_power(above, index) and _is_power(below, index):
            self.left.add("root")
        return _Term(key=f"√{index}:{_kernel(above * below) if index == 2 else inside.number}")

    def _counted(self, name: str, numbers: list[Fraction | None]) -> _Term:
        """A factorial or a binomial."""
        whole = [int(number) for number in numbers if number is not None and number.denominator == 1]
        if name == "binomial":
            is_long = len(whole) == 2 and 0 <= whole[1] <= whole[0] and _is_long_binomial(*whole)
        else:
            is_long = len(whole) == 1 and whole[0] > 12
        self.left.add(LONG if is_long else name)
        return _Term(key=f"{name}{whole}") if is_long else _Term(Fraction(1, 3))  # whose value says no more

    def _function(self, name: str, arguments: list[_Term]) -> _Term:
        if name in _LOGARITHMS:
            return self._logarithm(*arguments, *([_E] if name == "ln" else [_TEN]))
        if name == "exp":
            self.left.add(IRRATIONAL)
            return self._power(_E, arguments[0])
        self.left |= {name} if name in _NAMED_OPERATIONS else {"function", IRRATIONAL}
        return _Term(key=f"{name}({arguments[0].key})")

    def _logarithm(self, argument: _Term, base: _Term, *_: _Term) -> _Term:
        self.left.add(IRRATIONAL)
        if base.key:
            known = (not argument.key and argument.number == 1) or (argument.key + "^").startswith(f"{base.key}^")
        else:
            known = not argument.key and _are_powers(base.number or Fraction(0), argument.number or Fraction(0))
        if known:
            self.left.add("logarithm")
        return _Term(key=f"log({base.key}{base.number}:{argument.key}{argument.number})")


_E, _TEN = _Term(key="e"), _Term(Fraction(10))


def _is_power(number: int, index: int) -> bool:
    """Whether a number is an exact power of this index."""
    if number < 2:
        return True
    if number.bit_length() > 1000 or index > 64:
        return False
    root = math.isqrt(number) if index == 2 else round(number ** (1 / index))
    return any(candidate**index == number for candidate in (root - 1, root, root + 1) if candidate > 0)


def _kernel(number: int) -> int:
    """What stays under the square root when all square factors are drawn out."""
    if number > LARGEST_KERNEL:
        return number
    divisor = 2
    while divisor * divisor <= number:
        while number % (divisor * divisor) == 0:
            number //= divisor * divisor
        divisor += 1
    return number


def _are_powers(base: Fraction, number: Fraction) -> bool:
    """Whether the logarithm is rational, as far as denominators up to six."""
    if number <= 0 or base <= 0 or base == 1:
        return False
    ratio = (math.log(number.numerator) - math.log(number.denominator)) / (
        math.log(base.numerator) - math.log(base.denominator)
    )
    near = Fraction(ratio).limit_denominator(6)
    return abs(float(near) - ratio) < 1e-12 * max(1.0, abs(ratio)) and (
        abs(near.numerator) < 1000 and base**near.numerator == number**near.denominator
    )


def _is_long_binomial(above: int, below: int) -> bool:
    if not 0 <= below <= above:
        return False
    return above > 10_000 or math.comb(above, below) >= 10**MOST_DIGITS
