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
- Where the gold answer is written without radicals, constants and functions, so is an evaluated answer.
- ``\sum``, ``\int``, ``\gcd``, ``|-3|``, ``\lfloor2.5\rfloor`` and their like are never evaluated.
- A list, a tuple, an interval or a matrix is evaluated if each of its members is. A chain is if its last member is, or
  another that is a number: ``6\times7=42``. Names, units and words say nothing.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

from spark_rl.verify.notation import MAX_DEPTH, MAX_LENGTH
from spark_rl.verify.units import read_unit

MOST_DIGITS = 9
"""A person multiplies a power out up to this many digits."""
SHORT_POWER = 9
"""A person expands ``(1+\\sqrt2)^n`` up to this exponent."""
LARGEST_KERNEL = 10**8
"""Radicands above are compared as they are written: their square factors are not looked for."""

_SPELLINGS = {
    "²": "^2", "³": "^3", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "÷": r"\div ",
    "−": "-", "–": "-", "π": r"\pi ", "√": r"\sqrt ", "∑": r"\sum ", "Σ": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "≈": "=", "°": r"^\circ ", "⌊": r"\lfloor ", "⌈": r"\lceil ", "∪": r"\cup ", "≤": "<", "≥": ">",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
}  # fmt: skip
_SPELLED = re.compile("|".join(map(re.escape, _SPELLINGS)))
_DROPPED = re.compile(
    r"\$|(?<!\\)\\[()\[\],;:! ]|~|\\(?:left|right)(?![A-Za-z])\.?"
    r"|\\(?:[bB]igg?[lrm]?|displaystyle|textstyle|limits|q?quad|hline)(?![A-Za-z])"
)
_WORDY = re.compile(r"\\(?:text|mbox|mathrm|textrm|operatorname\*?|textbf|mathbf|boldsymbol|textit|bf|rm)(?![A-Za-z])")
_TOKEN = re.compile(
    r"(?P<open>\\begin\{[A-Za-z*]+\}(?:\{[lcr| ]*\})?|\\\{|[({\[])|(?P<close>\\end\{[A-Za-z*]+\}|\\\}|[)}\]])"
    r"|(?P<mixed>\d+ +\d+ */ *\d+)"
    r"|(?P<number>(?:\d{1,3}(?:(?:,|\{,\}| )\d{3})+(?!\d)|\d+)?\.\d*(?:\\overline *\{\d+\}|\\dot *\{?\d\}?|\(\d+\))"
    r"|(?:\d{1,3}(?:(?:,|\{,\}| )\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?![A-Za-z\d]))?|\.\d+)"
    r"|(?P<command>\\(?:[A-Za-z]+|.))|(?P<word>[^\W\d_]+)|(?P<space>\s+|\.+)|(?P<symbol>.)",
    re.DOTALL,
)

_TIMES = frozenset((r"\times", r"\cdot", "*", r"\ast", r"\bullet"))
_OVER = frozenset(("/", r"\div"))
_SIGNS = frozenset(("+", "-", r"\pm", r"\mp"))
_EQUALS = frozenset(("=", r"\approx", r"\simeq", r"\equiv", r"\doteq"))
_SEPARATORS = frozenset((
    ",", ";", "&", r"\\", r"\cup", r"\cap", "<", ">", r"\le", r"\ge", r"\leq", r"\geq", r"\lt", r"\gt", r"\ne", r"\neq",
    r"\in", r"\to", r"\rightarrow", ":", "and", "or",
))  # fmt: skip
_TRIGONOMETRIC = frozenset(
    f"{arc}{name}{h}"
    for arc in ("", "arc", "a")
    for name in ("sin", "cos", "tan", "cot", "sec", "csc")
    for h in ("", "h")
)
_LOGARITHMS = frozenset(("ln", "log", "lg"))
_NEVER = frozenset((
    "sum", "prod", "int", "iint", "iiint", "oint", "lim", "limsup", "liminf", "max", "min", "gcd", "lcm", "det",
    "choose", "lfloor", "lceil", "floor", "ceil", "abs", "mod", "bmod", "pmod", "lvert", "vert",
))  # fmt: skip
_INFIX = frozenset(("mod", "choose"))
_CONSTANTS = {"pi": "π", "e": "e", "i": "i"}
_GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "rho", "sigma", "tau", "phi", "varphi",
    "omega",
))  # fmt: skip
_MARKS = frozenset(("circ", "degree", "prime"))


def is_evaluated(gold: str, answer: str) -> bool:
    """Whether a right ``answer`` leaves nothing to do that ``gold`` does not leave as well.

    ``is_evaluated("42", r"6\\times7")`` is false; ``is_evaluated(r"6\\times7", r"7\\cdot6")`` is true, and so is every
    answer to a gold answer with variables. Linear in the length of the texts.
    """
    wanted = _read(gold)
    if wanted.variables or not wanted.values:
        return True
    given = _read(answer)
    left = set(given.left)
    if not wanted.irrational:
        left |= given.irrational
        left |= given.long if not (wanted.long or wanted.long_numbers) else set()
    return left <= wanted.left


def left_to_do(text: str) -> frozenset[str]:
    r"""The operations that a person would still carry out: ``left_to_do(r"2\cdot3+\sin0")`` is product and function."""
    return frozenset(_read(text).left)


@dataclass(slots=True)
class _Found:
    """What a text is made of."""

    left: set[str] = field(default_factory=set)
    """Operations left to do."""
    irrational: set[str] = field(default_factory=set)
    """Radicals, constants and functions."""
    long: set[str] = field(default_factory=set)
    """Operations that a person would leave because their value is long."""
    long_numbers: bool = False
    values: int = 0
    """Numbers and constants."""
    words: int = 0
    variables: bool = False
    """Whether a letter stands for a number, as far as that can be told."""

    def add(self, other: _Found) -> None:
        """What ``other`` holds too, whichever of its letters are variables."""
        self.left |= other.left
        self.irrational |= other.irrational
        self.long |= other.long
        self.long_numbers |= other.long_numbers
        self.values += other.values
        self.words += other.words


@dataclass(frozen=True, slots=True)
class _Value:
    """A part of an expression as the rules see it."""

    rational: Fraction | None = None
    key: str = ""
    """What is irrational about it, in a spelling that like terms share; empty for a rational number."""
    scale: Fraction | None = None
    """The rational factor or divisor that is written beside the irrational part."""
    terms: tuple[_Value, ...] = ()
    """Of a sum."""
    written: bool = False
    """A number as it is written, with no operation in it."""
    fraction: bool = False
    """A fraction of two such numbers."""
    ten: bool = False
    """A power of ten."""


class _TooDeepError(Exception):
    """Nested deeper than the verifier reads."""


@lru_cache(maxsize=1024)
def _read(text: str) -> _Found:
    if len(text) > MAX_LENGTH:
        return _Found(left={"length"}, values=1)
    reader = _Reader(_tokens(text))
    try:
        reader.members(None)
    except _TooDeepError:
        reader.found.left.add("depth")
    return reader.found


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each token; words that only format are gone."""
    text = _SPELLED.sub(lambda found: _SPELLINGS[found[0]], text)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/")
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", re.sub(r"\\[dt]binom(?![A-Za-z])", r"\\binom", text))
    tokens: list[tuple[str, str]] = []
    for found in _TOKEN.finditer(_WORDY.sub(_plain_words, _DROPPED.sub(" ", text))):
        kind = found.lastgroup or ""
        if kind != "space":
            tokens.append((kind, found[0]))
    return tokens


def _plain_words(_: re.Match[str]) -> str:
    return r"\text "


class _Reader:
    """Recursive descent over tokens: a list of chains of sums of products of powers."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.found = _Found()
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._apart = False  # whether a unit or a degree sign stood before what comes next
        self._word_before = ""

    # --- structure ---

    def members(self, closing: str | None) -> _Value | None:
        """What stands up to the closing bracket: one expression, or several with separators between them."""
        found = [self._chain()]
        while self._at < len(self._tokens):
            kind, token = self._tokens[self._at]
            self._at += 1
            if kind == "close" and closing is not None:
                break
            if kind == "close" or token in _SEPARATORS:
                found.append(self._chain())
            else:
                raise AssertionError(f"an expression ends before {token!r}")
        self._apart = False
        present = [value for value in found if value is not None]
        return present[0] if len(found) == 1 and present else _Value(key="()") if len(present) > 1 else None

    def _chain(self) -> _Value | None:
        """Members with equals signs between them. Its value, unless it is a remark such as ``(\\approx 3.46)``."""
        whole, members = self.found, []
        while True:
            self.found = _Found()
            value = self._sum()
            members.append(self.found)
            if self._peek() not in _EQUALS:
                break
            self._at += 1
        *others, last = members
        stated = [last, *(member for member in others if member.values and not member.words)]
        whole.add(min(stated, key=lambda member: (len(member.left), len(member.irrational), len(member.long))))
        whole.variables |= last.variables
        self.found = whole
        is_remark = bool(others) and not others[0].values and not others[0].words
        return None if is_remark else value

    # --- expressions ---

    def _sum(self) -> _Value | None:
        terms: list[_Value] = []
        while True:
            negative = False
            while self._peek() in _SIGNS:
                negative ^= self._peek() == "-"
                self._at += 1
            term = self._product()
            if term is not None:
                terms.append(_negative(term) if negative else term)
            if self._peek() not in _SIGNS:
                break
        if len(terms) < 2:
            return terms[0] if terms else None
        flat = [inner for term in terms for inner in (term.terms or (term,))]
        if max(Counter(term.key for term in flat).values()) > 1:
            self.found.left.add("sum")
        return _Value(key="(" + "+".join(sorted(term.key for term in flat)) + ")", terms=tuple(flat))

    def _product(self) -> _Value | None:
        factors: list[_Value] = []
        self._apart = False
        while True:
            operator = self._peek() if self._peek() in _TIMES | _OVER else ""
            self._at += bool(operator)
            if not self._more():
                break
            is_frac = self._peek() == r"\frac"
            apart, self._apart = self._apart and not operator, False
            factor = self._power()
            if factor is None:
                self._apart |= apart
            elif operator in _OVER:
                factors = [self._quotient(self._times(factors), factor) or factor]
            elif not operator and is_frac and factor.fraction and factors and _is_whole(factors[-1]):
                factors[-1] = _Value(rational=Fraction(1, 3), fraction=True)  # a mixed number; its value says no more
            elif not (apart and factor.written):  # 2 hours 30 minutes, 30 degrees 15 minutes
                factors.append(factor)
        return self._times(factors)

    def _times(self, factors: Sequence[_Value]) -> _Value | None:
        if len(factors) < 2:
            return factors[0] if factors else None
        first, second = factors[0], factors[1]
        if len(factors) == 2 and first.written and second.ten:
            return _Value(rational=(first.rational or Fraction(0)) * (second.rational or Fraction(0)))
        numbers = [factor.scale if factor.rational is None else factor.rational for factor in factors]
        scales = [number for number in numbers if number is not None]
        keys = [factor.key for factor in factors if factor.key]
        radicals = Counter(key.partition(":")[0] for key in keys if key.startswith("√") and ":" in key)
        sums = sum(bool(factor.terms) for factor in factors)
        if (
            len(scales) > 1
            or 0 in scales
            or any(count > 1 for count in radicals.values())
            or sums > 1
            or len(set(keys)) < len(keys)
        ):
            self.found.left.add("product")
        scale = scales[0] if scales else None
        return _Value(key="*".join(sorted(keys)), scale=scale, rational=None if keys else scale)

    def _quotient(self, above: _Value | None, below: _Value | None) -> _Value | None:
        if above is None or below is None:
            return above or below
        if above.rational is not None and below.rational is not None:
            value = above.rational / below.rational if below.rational else Fraction(0)
            if not (above.written and below.written) or value.denominator == 1:
                self.found.left.add("quotient")
            return _Value(rational=value, fraction=True)
        if below.rational is not None:
            scale = (above.scale or Fraction(1)) / (below.rational or 1)
            if scale.denominator == 1 or above.fraction:
                self.found.left.add("quotient")
            return _Value(key=above.key, scale=scale, fraction=True)
        if above.key == below.key or "i" in below.key:
            self.found.left.add("quotient")
        factor = above.scale if above.rational is None or above.rational == 1 else above.rational
        return _Value(key=f"{above.key}/{below.key}", scale=factor, fraction=True)

    def _power(self) -> _Value | None:
        """A primary with what is written behind it: exponents, subscripts, signs of units."""
        base = self._primary()
        while (mark := self._peek()) in {"^", "_", "!", "%", r"\%", "'", '"', r"\prime"}:
            self._at += 1
            if mark == "^" and self._peek() in {r"\circ", r"\prime"}:
                self._at += 1
                self._apart = True
            elif mark == "^":
                base = self._raised(base, self._argument())
            elif mark == "_":
                self._skipped()
            elif mark == "!":
                whole = base.rational if base is not None else None
                base = self._counted("factorial", whole is not None and whole > 12)
            elif mark not in {"%", r"\%"}:
                self._apart = True
        return base

    def _primary(self) -> _Value | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeepError
        kind, text = self._tokens[self._at]
        self._at += 1
        value = self._of(kind, text)
        self._depth -= 1
        return value

    def _of(self, kind: str, text: str) -> _Value | None:
        if kind in {"number", "mixed"}:
            return self._number(text)
        if kind == "open":
            return self.members(text)
        name = text.removeprefix("\\")
        if name in _CONSTANTS:
            self.found.values += 1
            self.found.irrational.add("constant")
            return _Value(key=_CONSTANTS[name])
        if name == "exp":
            self.found.irrational.add("constant")
            return self._raised(_Value(key="e"), self._power() if self._more() else None)
        if name == "frac":
            return self._quotient(self._argument(), self._argument())
        if name == "sqrt":
            return self._root(whole=kind == "word")
        if name in _TRIGONOMETRIC:
            return self._function(name)
        if name in _LOGARITHMS:
            return self._logarithm(name)
        if name == "binom":
            return self._binomial()
        if text == "|" or name in (_NEVER if kind == "command" else _INFIX):
            self.found.left.add(name)
            self.found.values += 1
            return _Value(key=name)
        if text == r"\infty":
            self.found.values += 1
            return _Value(key="∞")
        return self._word(kind, name)

    def _word(self, kind: str, name: str) -> _Value | None:
        """A unit, a name or a word: nothing, unless it is applied to numbers."""
        if name == "text":
            variables = self.found.variables
            value = self._argument()
            self.found.variables = variables  # words in text are units
            self._apart = value is None
            if value is None and self._word_before in _NEVER and self._peek() in {"(", r"\{", "{"}:
                self.found.left.add(self._word_before)
            return value
        if kind not in {"word", "command"}:
            return None
        self._apart = name in _MARKS or bool(read_unit(name))
        self._word_before = name
        self.found.words += 1
        is_letter = name in _GREEK if kind == "command" else name.isascii() and (len(name) == 1 or not read_unit(name))
        self.found.variables |= is_letter
        if kind == "word" and self._peek() == "(":
            self._at += 1
            if self.members("(") is not None:
                self.found.left.add("function")
        return None

    def _number(self, token: str) -> _Value:
        self.found.values += 1
        if "/" in token:
            return _Value(rational=Fraction(1, 3), fraction=True)
        digits = re.sub(r"[,{} ()]|\\[a-z]+", "", token)
        mantissa, _, exponent = digits.lower().partition("e")
        self.found.long_numbers |= len(mantissa) > MOST_DIGITS
        value = Fraction(mantissa.rstrip(".") or 0) * (Fraction(10) ** int(exponent) if exponent else 1)
        return _Value(rational=value, written=True)

    def _argument(self) -> _Value | None:
        """What a command takes: a group, or one token, which of a number is its first digit."""
        negative = False
        while self._peek() in _SIGNS:
            negative ^= self._peek() == "-"
            self._at += 1
        if not self._more():
            return None
        kind, text = self._tokens[self._at]
        if kind == "number" and len(text) > 1 and text.isdecimal():
            self._tokens[self._at] = ("number", text[1:])
            value: _Value | None = self._number(text[0])
        else:
            value = self._primary()
        return _negative(value) if negative and value is not None else value

    def _skipped(self) -> None:
        """A subscript."""
        found, self.found = self.found, _Found()
        self._argument()
        self.found = found

    # --- operations ---

    def _binomial(self) -> _Value:
        above, below = self._argument(), self._argument()
        if above is None or above.rational is None or below is None or below.rational is None:
            return self._counted("binomial", False)
        return self._counted("binomial", _is_long_binomial(int(above.rational), int(below.rational)))

    def _counted(self, name: str, is_long: bool) -> _Value:
        if is_long:
            self.found.long.add(name)
            return _Value(key=f"{name[0].upper()}!{self._at}")
        self.found.left.add(name)
        return _Value(rational=Fraction(1, 3))

    def _root(self, *, whole: bool) -> _Value | None:
        """A radical; ``whole`` for ``sqrt12``, of which TeX's ``\\sqrt12`` takes the first digit."""
        index = 2
        if self._peek() == "[":
            self._at += 1
            given = self.members("[")
            index = int(given.rational) if given is not None and given.rational is not None else 2
        inside = self._primary() if whole and self._more() else self._argument()
        self.found.irrational.add("root")
        return None if inside is None else self._radical(inside, index)

    def _radical(self, inside: _Value, index: int) -> _Value:
        if inside.rational is None:
            return _Value(key=f"√{index}({inside.key})")
        above, below = abs(inside.rational.numerator), inside.rational.denominator
        if index > 0 and _is_power(above, index) and _is_power(below, index):
            self.found.left.add("root")
        return _Value(key=f"√{index}:{_kernel(above * below) if index == 2 else inside.rational}")

    def _raised(self, base: _Value | None, exponent: _Value | None) -> _Value | None:
        if base is None or exponent is None:
            return base
        number = exponent.rational
        if number is None:
            if exponent.key.startswith("log"):
                self.found.left.add("power")
            return _Value(key=f"{base.key}{base.rational or ''}^{exponent.key}")
        key = f"{base.key}{'' if base.rational is None else base.rational}^{number}"
        if number.denominator > 1:
            self.found.irrational.add("root")
            return self._radical(base, number.denominator) if base.rational is not None else _Value(key=key)
        power = int(number)
        if base.rational is not None:
            return self._rational_power(base.rational, power, key)
        constant = base.key in {"π", "e", "∞"}
        if (abs(power) < 2 and power != -1) or (not constant and (abs(power) <= SHORT_POWER or not base.terms)):
            self.found.left.add("power")
        return _Value(key=key)

    def _rational_power(self, base: Fraction, power: int, key: str) -> _Value:
        largest = max(abs(base.numerator), base.denominator)
        if abs(base) == 10 and 3 <= abs(power) <= 300:
            return _Value(rational=base**power, ten=True)
        if largest > 1 and abs(power) * math.log10(largest) > MOST_DIGITS:
            self.found.long.add("power")
            return _Value(key=key)
        self.found.left.add("power")
        return _Value(rational=base**power if base else Fraction(0))

    def _function(self, name: str) -> _Value:
        if self._peek() == "^":
            self._at += 1
            self._skipped()
        argument = self._power() if self._more() else None
        self.found.left.add("function")
        self.found.irrational.add("function")
        return _Value(key=f"{name}({argument.key if argument else ''})")

    def _logarithm(self, name: str) -> _Value:
        base: _Value | None = _Value(key="e") if name == "ln" else _Value(rational=Fraction(10))
        if self._peek() == "_":
            self._at += 1
            base = self._argument()
        argument = self._power() if self._more() else None
        self.found.irrational.add("logarithm")
        if argument is None or base is None:
            return _Value(key="log")
        if base.rational is None:
            known = argument.rational == 1 or argument.key == base.key or argument.key.startswith(f"{base.key}^")
        else:
            known = argument.rational is not None and _are_powers(base.rational, argument.rational)
        if known:
            self.found.left.add("logarithm")
        return _Value(key=f"log({base.key}{base.rational}:{argument.key}{argument.rational})")

    # --- tokens ---

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _more(self) -> bool:
        """Whether a factor follows."""
        if self._at >= len(self._tokens):
            return False
        kind, token = self._tokens[self._at]
        return kind != "close" and token not in _SIGNS | _EQUALS | _SEPARATORS


def _negative(value: _Value) -> _Value:
    return value if value.rational is None else replace(value, rational=-value.rational)


def _is_whole(value: _Value) -> bool:
    return value.written and value.rational is not None and value.rational.denominator == 1


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
