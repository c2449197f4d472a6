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
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from spark_rl.verify.expression import read_expression
from spark_rl.verify.notation import UnreadableError, canonical
from spark_rl.verify.number import read_number
from spark_rl.verify.powers import are_powers, is_power, kernel
from spark_rl.verify.structure import parts, relation
from spark_rl.verify.tree import MAX_HEIGHT, Node, variables
from spark_rl.verify.units import trailing_unit
from spark_rl.verify.words import without_label

MOST_DIGITS = 9
"""A person multiplies a power out up to this many digits."""
SHORT_POWER = 9
"""A person expands ``(1+\\sqrt2)^n`` up to this exponent."""

Left = frozenset[str]
DEPTH, VARIABLES, IRRATIONAL, LONG = "depth", "variables", "irrational", "long"
"""What a text may hold beside the names of operations; ``LONG`` ones are left by a person, too."""

_CYCLE = re.compile(r"([0-9]*\.[0-9]*)\(([0-9]+)\)")
_NEVER = re.compile(
    r"\\(?:sum|prod|i{0,3}nt|oint|lim|limsup|liminf|[bp]?mod|choose)(?![A-Za-z])|[∑∏∫⌊⌈]|(?<![A-Za-z])[CP]\([0-9]+,"
)
"""Signs of operations that no expression has, or not in this form."""
_STANDS_FOR_MORE = re.compile(r"[0-9]\.[0-9]|\.[0-9]|\\circ|degree")
"""Decimals, which can be rounded, and degrees."""
_LONG_NUMBER = re.compile(rf"[0-9]{{{MOST_DIGITS + 1}}}|[0-9]{{1,3}}(?:,[0-9]{{3}}){{{MOST_DIGITS // 3}}}")
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
    pieces = parts(text) if stated is None else stated.values
    if not pieces:
        return _left_by_expression(text, is_answer=allowed is not None)
    found = [left for piece in pieces if (left := _left(piece, allowed)) is not None]
    whole = frozenset[str]().union(*found)
    if not found or stated is None or (allowed is None and VARIABLES in whole):  # the last is an equation
        return whole if found else None
    return min(found, key=lambda left: len(left - (allowed or frozenset())))


def _left_by_expression(text: str, *, is_answer: bool) -> Left | None:
    number = read_number(text, bare_letters=is_answer)
    rules = _Rules()
    try:
        tree = read_expression(number.written if number is not None else trailing_unit(text)[0])
    except UnreadableError:
        return frozenset(("operation",)) if _NEVER.search(text) else None
    if is_answer and tree.kind == "variable":  # the letter of an option
        return None
    rules.term(tree)
    if DEPTH not in rules.left and variables(tree):
        rules.left.add(VARIABLES)
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

    def term(self, node: Node) -> _Term:
        if self._height >= MAX_HEIGHT:
            self.left.add(DEPTH)
            return _Term(key="…")
        self._height += 1
        parts = [self.term(part) for part in node.parts]
        self._height -= 1
        if (rule := _RULES.get(node.kind)) is not None:
            return rule(self, *parts)
        match node.kind:
            case "number":
                return _Term(node.value, form="fraction" if node.name == "mixed" else "written")
            case "function":
                return self._function(node.name, *parts)
            case "factorial" | "double factorial" | "binomial":
                return self._counted(node.kind, parts)
            case "constant":
                self.left.add(IRRATIONAL)
            case "applied":
                self.left.add(VARIABLES)
            case "summation" | "multiplication":
                self.left.add(node.kind)
        return _Term(key=node.name or node.kind)

    def _sum(self, *parts: _Term) -> _Term:
        terms = tuple(inner for part in parts for inner in (part.terms or (part,)))
        keys = sorted(term.key for term in terms)
        if len(set(keys)) < len(keys):
            self.left.add("sum")
        return _Term(key=f"({'+'.join(keys)})", terms=terms)

    def _product(self, *parts: _Term) -> _Term:
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
        if below.key:
            undone = above.key == below.key or re.search(r"\bi\b", below.key) is not None
        else:
            nested = {above.form, below.form} != {"written"} if not above.key else above.form == "fraction"
            undone = nested or factor % (below.number or 1) == 0
        self.left |= {"quotient"} if undone else set()
        return _Term(number, f"{above.key}/{below.key}" if below.key else above.key, form="fraction")

    def _power(self, base: _Term, exponent: _Term) -> _Term:
        power = exponent.number
        key = f"{base.key}{'' if base.number is None else hash(base.number)}^{exponent.key or hash(power)}"
        if exponent.key or power is None:
            undone = exponent.key.startswith("log")
        elif power.denominator > 1:
            self.left.add(IRRATIONAL)
            return _Term(key=key) if base.key else self._root(_Term(Fraction(power.denominator)), base)
        elif not base.key and base.number is not None:
            return self._rational_power(base.number, int(power), key)
        else:
            undone = power in (0, 1) if base.key in {"pi", "e"} else abs(power) <= SHORT_POWER or not base.terms
        self.left |= {"power"} if undone else set()
        return _Term(key=key)

    def _rational_power(self, base: Fraction, power: int, key: str) -> _Term:
        if abs(base) == 10 and 3 <= abs(power) <= 300:
            return _Term(base**power, form="ten")
        if min(abs(power), 10**6) * math.log10(max(abs(base.numerator), base.denominator)) > MOST_DIGITS:
            self.left.add(LONG)
            return _Term(key=key)
        self.left.add("power")
        return _Term(base**power if base else Fraction(0))

    def _root(self, degree: _Term, inside: _Term) -> _Term:
        self.left.add(IRRATIONAL)
        index = int(degree.number) if degree.number is not None else 2
        if inside.key or inside.number is None:
            return _Term(key=f"√{hash(index)}({inside.key})")
        above, below = abs(inside.number.numerator), inside.number.denominator
        if index > 0 and is_power(above, index) and is_power(below, index):
            self.left.add("root")
        return _Term(key=f"√{hash(index)}:{kernel(above * below) if index == 2 else hash(inside.number)}")

    def _counted(self, name: str, parts: list[_Term]) -> _Term:
        """A factorial or a binomial."""
        numbers = [int(part.number or 0) for part in parts if not part.key]
        if name == "binomial":
            above, below = numbers if len(numbers) == 2 else (0, 0)
            is_long = 0 <= below <= above and (above > 10_000 or math.comb(above, below) >= 10**MOST_DIGITS)
        else:
            is_long = numbers > [12]
        self.left.add(LONG if is_long else name)
        return _Term(key=f"{name}{hash(tuple(numbers))}") if is_long else _Term(Fraction(1, 3))  # any value

    def _function(self, name: str, *arguments: _Term) -> _Term:
        if name in {"ln", "log", "lg"}:
            return self._logarithm(*arguments, _E if name == "ln" else _TEN)
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
            known = not argument.key and are_powers(base.number or Fraction(0), argument.number or Fraction(0))
        self.left |= {"logarithm"} if known else set()
        return _Term(key=f"log({base.key}{hash(base.number)}:{argument.key}{hash(argument.number)})")


_E, _TEN = _Term(key="e"), _Term(Fraction(10))
_RULES: dict[str, Callable[..., _Term]] = {
    "sum": _Rules._sum,
    "product": _Rules._product,
    "quotient": _Rules._quotient,
    "power": _Rules._power,
    "root": _Rules._root,
    "degrees": lambda _, part: part,
    "negative": lambda _, part: part if part.number is None else replace(part, number=-part.number),
}
"""What a kind of node does with its parts."""
