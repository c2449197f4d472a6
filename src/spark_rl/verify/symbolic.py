r"""Whether two expressions, equations or sets of real numbers are equal, decided exactly (Eq. 2).

Only a worker calls this: everything is bounded, but not cheap. No computer algebra is involved. Constants are decided
by :mod:`spark_rl.verify.value`. With variables, two expressions are compared at points:

- Rational points, drawn from a generator seeded by the two texts: of both signs, small and large, and around every
  number that occurs, so that ``|x-9|`` is told from ``x-9``. At each point the comparison is that of constants, so a
  rational function is decided by the Schwartz-Zippel lemma: two that differ agree at a point with a chance of at most
  their degree times 2^-31, and five points are asked.
- One point where they differ proves them unequal. Points where one of them has no value or is not real (while neither
  mentions ``i``) are passed over: ``\frac{x^2}{x}`` equals ``x``, and ``\sqrt{x}\sqrt{y}`` equals ``\sqrt{xy}``.
- Where no number of the kind can be drawn (factorials, ``(-1)^n``), variables called n, m, k are whole numbers.

An equation equals another if one is a constant times the other, an inequality if the constant is positive.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from spark_rl.verify.evaluation import Matrix, evaluate
from spark_rl.verify.expression import WordsError, read_expression
from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.number import APPROXIMATE_PLACES, Number, agrees, close_to, read_number, rounding_of
from spark_rl.verify.region import MIRRORED, Region, is_region, read_region, same_region
from spark_rl.verify.structure import comparisons, is_relational
from spark_rl.verify.tree import Node, as_variable, uses, variables
from spark_rl.verify.units import ratio, trailing_unit
from spark_rl.verify.value import NoValueError, Value, as_fraction, is_zero, multiply, precise, rational, sign, subtract

ATTEMPTS = 30
"""Points that are tried."""
WANTED = 5
"""Points at which both sides have values."""
WANTED_BRANCHED = 14
"""The same where absolute values, roots, logarithms and the like may branch."""
APPROXIMATELY = r"\approx"
_IRRATIONAL = frozenset(("root", "function", "degrees", "applied", "constant"))
_ANALYTIC = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "exp"])
_DISCRETE = frozenset(("factorial", "double factorial", "binomial", "summation", "multiplication"))
_WHOLE_NAMES = frozenset("nmk")
_INFINITE = re.compile(r"([+-]?)\\infty")


def symbolically_equal(gold: str, answer: str) -> bool:
    r"""Whether two canonical texts state the same. Raises :class:`UnreadableError` if the answer is no mathematics.

    A gold that starts with ``\approx`` is a rounding: the answer must agree with it to its own precision.
    """
    try:
        return _decided(gold, answer)
    except WordsError:
        return False


def _decided(gold: str, answer: str) -> bool:
    if gold.startswith(APPROXIMATELY):
        return _approximates(gold.removeprefix(APPROXIMATELY), answer)
    infinite = _INFINITE.fullmatch(gold), _INFINITE.fullmatch(answer)
    if any(infinite):
        signs = [match and match[1].strip("+") for match in infinite]
        return all(infinite) and signs[0] == signs[1]
    if is_region(gold) or is_region(answer):
        found = _same_regions(gold, answer)
        if found is not None:
            return found
    if is_relational(answer) or is_relational(gold):
        return _same_relations(gold, answer)
    return _same_expressions(gold, answer)


def _read_both(gold: str, answer: str) -> tuple[Node, Node] | None:
    """The trees of both; ``None`` if the gold has none. ``i`` beside ``j`` is a vector, not the imaginary unit."""
    second = read_expression(answer)
    try:
        first = read_expression(gold)
    except UnreadableError:
        return None
    if "j" in variables(first) | variables(second):
        return as_variable(first, "i"), as_variable(second, "i")
    return first, second


def _same_expressions(gold: str, answer: str) -> bool:
    (gold, unit), (answer, other) = trailing_unit(gold), trailing_unit(answer)
    scale = Fraction(1) if unit is None or other is None else ratio(unit, other)
    if scale is None:
        return False
    both = _read_both(gold, answer)
    if both is None:
        return False
    first, second = both
    if scale != 1:
        second = Node("product", (Node("number", value=scale), second))
    if not variables(first) | variables(second):
        by_value = _decimal_against_constant(gold, answer, first, second)
        if by_value is not None:
            return by_value
    if same_trees(first, second):
        return True
    loose = _outer_degrees(first) != _outer_degrees(second)
    return loose and same_trees(first, second, degrees=False)


def _outer_degrees(node: Node) -> bool:
    """Whether a degree sign stands outside of all functions."""
    if node.kind == "degrees":
        return True
    return node.kind != "function" and any(_outer_degrees(part) for part in node.parts)


def _decimal_against_constant(gold: str, answer: str, first: Node, second: Node) -> bool | None:
    r"""The rule for a decimal on one side and a constant such as ``\frac{\pi}{3}`` on the other; else ``None``."""
    gold_number, answer_number = _number(gold), _number(answer)
    try:
        if gold_number is not None and gold_number.places > 0:
            value = _constant(second)
            return None if value is None else close_to(gold_number, value[0], irrational=value[1])
        if answer_number is not None and answer_number.places >= APPROXIMATE_PLACES:
            value = _constant(first)
            return None if value is None else rounding_of(answer_number, value[0])
    except NoValueError:
        return False
    return None


def _number(text: str) -> Number | None:
    try:
        return read_number(text, bare_letters=True)
    except UnreadableError:
        return None


def _constant(node: Node) -> tuple[Fraction, bool] | None:
    """(a real constant to forty digits, whether it is irrational as far as can be told)."""

    def value() -> tuple[Fraction, bool] | None:
        found = evaluate(node, {})
        if isinstance(found, Matrix):
            return None
        number = as_fraction(found)
        return None if number is None else (number, found.exact is None)

    result: tuple[Fraction, bool] | None = precise(value)
    return result


def _approximates(rounded: str, exact: str) -> bool:
    """Whether ``rounded`` is a rounding of the value of ``exact``."""
    number = _number(rounded)
    node = read_expression(exact)
    if number is None:
        return same_trees(node, read_expression(rounded))
    if variables(node):
        return False
    try:
        value = _constant(node)
    except NoValueError:
        return False
    return value is not None and agrees(number, value[0])


def same_trees(first: Node, second: Node, *, degrees: bool = True) -> bool:
    """Whether two trees have equal values wherever both have one."""
    names = sorted(variables(first) | variables(second))
    if not names:
        try:
            return bool(precise(lambda: _equal_at(first, second, {}, degrees=degrees)[0]))
        except NoValueError:
            return False
    complex_ = _mentions_i(first) or _mentions_i(second)
    wanted = WANTED_BRANCHED if _branches(first) or _branches(second) else WANTED
    only_whole = _WHOLE_NAMES.issuperset(names)
    discrete = uses(first, _DISCRETE) or uses(second, _DISCRETE)
    for whole in (True,) if discrete else (False, True) if only_whole else (False,):
        verdict = _sampled(first, second, names, wanted, degrees=degrees, whole=whole, complex_=complex_)
        if verdict:
            return True
    return False


def _branches(node: Node) -> bool:
    """Whether a formula may hold on one side of some number and fail on the other."""
    if node.kind == "root" or node.kind in _DISCRETE or (node.kind == "function" and node.name not in _ANALYTIC):
        return True
    if node.kind == "power" and not (node.parts[1].kind == "number" and node.parts[1].value.denominator == 1):
        return node.parts[0].kind != "constant" or any(_branches(part) for part in node.parts)
    return any(_branches(part) for part in node.parts)


def _is_rational(node: Node) -> bool:
    """Whether a tree is a rational function of its variables with rational coefficients."""
    if node.kind == "power":
        return node.parts[1].kind == "number" and node.parts[1].value.denominator == 1 and _is_rational(node.parts[0])
    return (
        node.kind not in _IRRATIONAL and node.kind not in _DISCRETE and all(_is_rational(part) for part in node.parts)
    )


def _mentions_i(node: Node) -> bool:
    return (node.kind == "constant" and node.name == "i") or any(_mentions_i(part) for part in node.parts)


def _sampled(
    first: Node, second: Node, names: Sequence[str], wanted: int, *, degrees: bool, whole: bool, complex_: bool
) -> bool:
    """Whether the trees agree at points that are drawn: at ``wanted`` of them, or at two if no more have values."""
    rng = random.Random(repr((first, second, whole)))
    bits = _bits(first, second)
    real = other = 0
    for attempt in range(ATTEMPTS):
        point = _point(rng, names, _literals(first, second), attempt, bits=0 if whole else bits)
        try:
            equal, is_real = precise(lambda: _equal_at(first, second, point, degrees=degrees))  # noqa: B023  # called at once
        except NoValueError:
            continue
        if complex_ or is_real:
            if not equal:
                return False
            real += 1
        elif is_real is not None:
            other += equal
            if not equal:
                other -= ATTEMPTS
        if real >= wanted:
            return True
    return real >= 2 or (real == 0 and other >= 2)


def _equal_at(first: Node, second: Node, point: Mapping[str, Value], *, degrees: bool) -> tuple[bool, bool | None]:
    """(equal?, are both real?) at a point; the second is ``None`` if only one of them is real."""
    one, two = (evaluate(node, point, degrees=degrees) for node in (first, second))
    if isinstance(one, Matrix) or isinstance(two, Matrix):
        if not (isinstance(one, Matrix) and isinstance(two, Matrix)):
            return False, True
        if (one.columns, one.rows) != (two.columns, two.rows):
            return False, True
        return all(is_zero(subtract(a, b)) for a, b in zip(one.cells, two.cells, strict=True)), True
    if not point:
        return is_zero(subtract(one, two)), True
    equal = is_zero(subtract(one, two))
    if one.is_real != two.is_real:
        return equal, True if equal else None
    return equal, one.is_real


def _literals(*nodes: Node) -> list[Fraction]:
    found: set[Fraction] = set()
    for node in nodes:
        if node.kind == "number":
            found.add(abs(node.value))
        found.update(_literals(*node.parts))
    return sorted(found)


def _point(
    rng: random.Random, names: Sequence[str], literals: Sequence[Fraction], attempt: int, *, bits: int
) -> dict[str, Value]:
    return {name: rational(_coordinate(rng, literals, attempt, bits=bits)) for name in names}


def _bits(first: Node, second: Node) -> int:
    """Bits of a coordinate: many where values are exact and cheap, and a polynomial could vanish by chance."""
    return 31 if _is_rational(first) and _is_rational(second) else 12


def _coordinate(rng: random.Random, literals: Sequence[Fraction], attempt: int, *, bits: int) -> Fraction:
    """A rational number with that many bits after the point; without any, a whole number."""
    if not bits:
        return Fraction(rng.randint(0, 6 + 3 * attempt))
    fine = Fraction(rng.randint(1, 2**bits), 2**bits)
    if attempt % 6 == 0:
        return 1 + 9 * fine
    if attempt % 6 == 1:
        return fine
    signed = rng.choice((-1, 1))
    if attempt % 6 == 2:
        return signed * 5 * fine
    if attempt % 6 == 3:
        return -1 - 9 * fine
    if attempt % 6 == 4 and literals:
        return signed * (rng.choice(literals) + rng.choice((-1, 1)) * fine)
    return signed * fine * rng.choice((1, 10, 100, 1000, 10_000))


def _same_regions(gold: str, answer: str) -> bool | None:
    """Sets of real numbers, where both sides can be read as one."""
    regions: list[Region] = []
    for text in (gold, answer):
        try:
            regions.append(read_region(text))
        except UnreadableError:
            return None
    try:
        return bool(precise(lambda: same_region(regions[0], regions[1])))
    except NoValueError:
        return False


def _same_relations(gold: str, answer: str) -> bool:
    """Equations and inequalities that are no sets: the same up to a constant factor, link by link."""
    first, second = comparisons(gold), comparisons(answer)
    if not second and is_relational(answer):
        raise UnreadableError("a relation that is not read")
    if len(first) != len(second) or not first:
        return False
    return all(_same_relation(one, two) for one, two in zip(first, second, strict=True))


def _same_relation(gold: tuple[str, str, str], answer: tuple[str, str, str]) -> bool:
    senses = {gold[1], answer[1]}
    flipped = MIRRORED.get(answer[1], answer[1])
    if gold[1] not in (answer[1], flipped):
        return False
    second = _difference(answer)
    try:
        first = _difference(gold)
    except UnreadableError:
        return False
    wanted = 0 if senses <= {"=", r"\neq"} else 1 if gold[1] == answer[1] else -1
    return _proportional(first, second, wanted)


def _difference(relation: tuple[str, str, str]) -> Node:
    left, right = read_expression(relation[0]), read_expression(relation[2])
    return Node("sum", (left, Node("negative", (right,))))


def _proportional(first: Node, second: Node, wanted_sign: int) -> bool:
    """Whether one is a constant times the other at all points; ``wanted_sign``: the constant's, 0 for any."""
    names = sorted(variables(first) | variables(second))
    if not names:
        return False
    rng = random.Random(repr((first, second)))
    bits = _bits(first, second)
    previous: dict[str, Value] | None = None
    agreed = 0
    for attempt in range(ATTEMPTS):
        point = _point(rng, names, _literals(first, second), attempt, bits=bits)
        before = previous

        def related() -> bool | None:
            one, two = _numbers_at((first, second), point)  # noqa: B023  # called at once
            zeros = is_zero(one), is_zero(two)
            if any(zeros):
                return None if all(zeros) else False
            if not one.is_real or not two.is_real:
                return None
            if wanted_sign and sign(multiply(one, two)) != wanted_sign:
                return False
            if before is None:  # noqa: B023  # called at once
                return True
            third, fourth = _numbers_at((first, second), before)  # noqa: B023  # called at once
            return is_zero(subtract(multiply(one, fourth), multiply(two, third)))

        try:
            found = precise(related)
        except NoValueError:
            continue
        if found is False:
            return False
        if found:
            agreed += previous is not None
            previous = previous or point
        if agreed >= WANTED_BRANCHED:
            break
    return agreed >= 2


def _numbers_at(nodes: Iterable[Node], point: Mapping[str, Value]) -> list[Value]:
    found = []
    for node in nodes:
        value = evaluate(node, point)
        if isinstance(value, Matrix):
            raise UnreadableError("an equation of matrices")
        found.append(value)
    return found
