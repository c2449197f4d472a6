r"""A bounded reader of expressions as answers write them, in LaTeX or plain text: from canonical text to a tree.

``read_expression(r"2\sin^2x")`` is the tree of 2 (sin x)^2. Nothing is simplified or evaluated here
(:mod:`spark_rl.verify.value` does that), so a power tower costs as much as its text. What is not listed is refused:

- numbers (thousands, decimals, ``0.\overline{3}``, ``0.(3)``, ``3e5``, numerals in a base), ``\pi``, ``e``, ``i``,
  variables with subscripts, primes and marks (``\vec{a}``), applied names (``f(x)``);
- ``+ - * / ^ ! %``, ``\frac``, ``\sqrt[n]{}``, ``\binom``, ``|x|``, floor and ceiling, degrees, finite sums and
  products, matrices, determinants, powers and transposes of matrices;
- functions with a backslash and without, with powers and bases (``\sin^2x``, ``log_2 3``, ``\tan^{-1}x``).

Where writers differ: ``3\frac12`` is a mixed number, and so is any whole number before a proper fraction; every other
juxtaposition is a product (``3(4)``, ``2\frac{\pi}{3}``). ``1/2x`` is read from left to right. A function without
brackets takes the product that follows it: ``\sin2x\cos y``, ``\ln2+1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from spark_rl.verify.notation import GREEK_NAMES, MAX_DEPTH, UnreadableError
from spark_rl.verify.number import MAX_EXPONENT
from spark_rl.verify.structure import matrix_cells
from spark_rl.verify.units import NOT_UNITS


class WordsError(UnreadableError):
    """Mathematics with words or marks beside it: readable, but no value (``12 or more``, ``5'``)."""


@dataclass(frozen=True, slots=True)
class Node:
    """``x+1`` is ``Node("sum", (Node("variable", name="x"), Node("number", value=Fraction(1))))``."""

    kind: str
    parts: tuple[Node, ...] = ()
    value: Fraction = Fraction(0)
    name: str = ""
    """Of a variable, a constant, a function; ``mixed`` of a mixed number."""
    columns: int = 0
    """Width of a matrix, whose parts are its cells row by row."""


_FUNCTION_NAMES = """
sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot asin acos atan ln log lg exp abs sgn
max min gcd lcm Re Im arg det
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "asin": "arcsin", "acos": "arccos",
             "atan": "arctan"}  # fmt: skip
_WORDS = tuple(sorted((FUNCTIONS - {"arg", "det", "Re", "Im", "sgn"}) | {"sqrt", "tg", "ctg"}, key=len, reverse=True))
_ALIASES = {"tg": "tan", "ctg": "cot", "cosec": "csc", "arctg": "arctan", "lb": "log"}
_CALLED_ONLY = frozenset(("abs", "max", "min", "gcd", "lcm", "exp", "sec"))
"""Plain words that are functions only before a bracket: ``5 min`` and ``5 sec`` are units."""
_MARK_NAMES = r"""
\vec \hat \bar \overline \overrightarrow \widehat \tilde \dot \underline \mathcal
"""
_MARKS = frozenset(_MARK_NAMES.split())
_GREEK = frozenset("\\" + name for name in GREEK_NAMES | {"varepsilon", "Omega", "ell"})
"""Commands that are variables."""
_APPLIED = frozenset("fgh")
_FENCES = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil",
           r"\|": r"\|"}  # fmt: skip
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_TOKEN = re.compile(
    rf"(?P<number>{_NUMBER})|(?P<command>\\(?:[A-Za-z]+|.))|(?P<letters>[A-Za-z]+)|(?P<space> +)|(?P<char>.)", re.DOTALL
)
_SCIENTIFIC = re.compile(r"[eE]([0-9]+|[+-][0-9]+(?![A-Za-z\\]))(?![0-9.])")
"""But ``2e+8e`` is a sum."""
_CYCLE = re.compile(r"\\overline\{([0-9]+)\}|(?<=\.)\(([0-9]+)\)")
_BASE = re.compile(r"_(?:\{([0-9]+)\}|([0-9]))")
_MATRIX = re.compile(
    r"\\begin\{(?P<env>[pbBvV]?(?:small)?matrix|array)\}(?:\{[^{}]*\})?(?P<body>.*?)\\end\{(?P=env)\}", re.DOTALL
)
_PROPER = re.compile(r" ?\\frac\{([0-9]+)\}\{([0-9]+)\}")
_SCRIPT = re.compile(r"\\[A-Za-z]+|[A-Za-z0-9]")
"""A subscript without braces."""
ZERO, ONE = Node("number"), Node("number", value=Fraction(1))


def read_expression(text: str) -> Node:
    """The tree of canonical ``text``. Raises :class:`UnreadableError` for what is no expression."""
    return _Reader(text).whole()


def variables(node: Node) -> frozenset[str]:
    """The names of the free variables of a tree."""
    if node.kind == "variable":
        return frozenset((node.name,))
    inner: frozenset[str] = frozenset().union(*(variables(part) for part in node.parts))
    return inner - {node.name} if node.kind in ("summation", "multiplication") else inner


def uses(node: Node, kinds: frozenset[str]) -> bool:
    """Whether a node of one of the ``kinds`` occurs in the tree."""
    return node.kind in kinds or any(uses(part, kinds) for part in node.parts)


def as_variable(node: Node, name: str) -> Node:
    """The tree with a variable in place of the constant ``name``: ``i`` may be an index of summation, or a vector."""
    if node.kind == "constant" and node.name == name:
        return Node("variable", name=name)
    return replace(node, parts=tuple(as_variable(part, name) for part in node.parts))


class _Reader:
    """Recursive descent over the text; ``self._at`` is the position."""

    def __init__(self, text: str, depth: int = 0) -> None:
        self._text = text
        self._at = 0
        self._fences: list[str] = []
        self._depth = depth
        self._cycle_end = -1
        """Where the last repeating decimal ended, whose bracket is no product's."""

    def whole(self) -> Node:
        node = self._sum()
        if self._take(r"\choose"):
            node = Node("binomial", (node, self._sum()))
        if self._peek():
            raise self._refusal()
        return node

    def _refusal(self) -> UnreadableError:
        return UnreadableError(f"no expression at {self._text[self._at : self._at + 20]!r}")

    def _peek(self) -> str:
        """The next word, without spaces before it; "" at the end. Letters come one run at a time."""
        while self._text[self._at : self._at + 1] == " ":
            self._at += 1
        match = _TOKEN.match(self._text, self._at)
        return match[0] if match else ""

    def _take(self, word: str) -> bool:
        if self._peek() != word:
            return False
        self._at += len(word)
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self._refusal()

    def _deepen(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError(f"an expression nested deeper than {MAX_DEPTH} groups")

    def _sum(self) -> Node:
        terms: list[Node] = []
        sign = self._signs(first=True)
        while sign:
            term = self._product()
            terms.append(_negative(term) if sign < 0 else term)
            sign = self._signs(first=False)
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def _signs(self, *, first: bool) -> int:
        """1 or -1 for the signs at the position; 0 where a further term does not begin."""
        sign = 1 if first else 0
        while (word := self._peek()) in ("+", "-"):
            self._at += 1
            sign = (sign or 1) * (-1 if word == "-" else 1)
        return sign

    def _product(self) -> Node:
        node = self._signed_power()
        while True:
            word = self._peek()
            if word in (r"\times", r"\cdot", "*", r"\bullet"):
                self._at += len(word)
                node = _times(node, self._signed_power())
            elif word == "/":
                self._at += 1
                node = Node("quotient", (node, self._signed_power()))
            elif self._begins_factor(word, node):
                node = _times(node, self._power())
            else:
                return node

    def _begins_factor(self, word: str, before: Node) -> bool:
        """Whether a product goes on without a sign. Digits may follow a bracket, never another number or a letter."""
        if not word or (self._fences and word == self._fences[-1]):
            return False
        if word[0].isdigit() or word[0] == ".":
            end = self._text[: self._at].rstrip()
            bracket = end[-1:] in (")", "]") and len(end) != self._cycle_end
            return bracket or (end[-1:] in ("}", "|", "!") and before.kind != "number")
        if word[0].isalpha() and word.isascii():
            return True
        if word in ("(", "[", "{", "|"):
            return True
        return word.startswith("\\") and self._is_operand(word)

    def _is_operand(self, word: str) -> bool:
        return (
            word in _GREEK
            or word in _MARKS
            or word[1:] in FUNCTIONS
            or word[1:] in _ALIASES
            or word
            in (r"\pi", r"\frac", r"\sqrt", r"\binom", r"\lfloor", r"\lceil", r"\text", r"\begin", r"\sum", r"\prod")
        )

    def _signed_power(self) -> Node:
        sign = self._signs(first=True)
        node = self._power()
        return _negative(node) if sign < 0 else node

    def _power(self) -> Node:
        """An operand with everything that is written after it: powers, factorials, degrees, percent."""
        self._deepen()
        node = self._operand()
        while True:
            word = self._peek()
            if word == "^":
                self._at += 1
                node = self._raised(node)
            elif word == "!":
                self._at += 1
                double = self._take("!")
                node = Node("double factorial" if double else "factorial", (node,))
            elif word == "%":
                self._at += 1
                node = Node("quotient", (node, Node("number", value=Fraction(100))))
            elif word == "'":
                raise WordsError("a number with a prime")
            else:
                self._depth -= 1
                return node

    def _raised(self, base: Node) -> Node:
        if self._take(r"\circ"):
            return Node("degrees", (base,))
        if self._take("{"):
            if self._peek() == r"\circ":
                self._at += len(r"\circ")
                self._expect("}")
                return Node("degrees", (base,))
            if self._peek() in ("T", r"\top") and base.kind in ("matrix", "variable"):
                return self._transposed(base, closing=True)
            exponent = self._inside("}")
        elif self._peek() in ("T", r"\top") and base.kind == "matrix":
            return self._transposed(base, closing=False)
        else:
            exponent = self._small()
        return Node("power", (base, exponent))

    def _transposed(self, base: Node, *, closing: bool) -> Node:
        self._at += len(self._peek())
        if closing:
            self._expect("}")
        if base.kind != "matrix":
            return Node("variable", name=base.name + "^T")
        width = base.columns
        cells = tuple(
            base.parts[row * width + column] for column in range(width) for row in range(len(base.parts) // width)
        )
        return Node("matrix", cells, columns=len(base.parts) // width)

    def _small(self) -> Node:
        """An exponent without braces: a sign, then one operand, itself perhaps raised (``2^3^2``)."""
        self._deepen()
        sign = self._signs(first=True)
        node = self._operand()
        if self._peek() == "^":
            self._at += 1
            node = self._raised(node)
        self._depth -= 1
        return _negative(node) if sign < 0 else node

    def _inside(self, closing: str) -> Node:
        self._fences.append(closing)
        node = self._sum()
        if closing == "}" and self._take(r"\choose"):
            node = Node("binomial", (node, self._sum()))
        self._fences.pop()
        self._expect(closing)
        return node

    def _operand(self) -> Node:
        word = self._peek()
        if not word:
            raise UnreadableError("an unfinished expression")
        if word[0].isdigit() or word[0] == ".":
            return self._number(word)
        if word[0].isalpha() and word.isascii():
            return self._letters(word)
        if word == "[" and (matrix := self._matrix(self._at + 1)) is not None:
            self._expect("]")
            return matrix
        if word in ("(", "{"):
            self._at += 1
            return self._inside(_FENCES[word])
        if word == "[":
            self._at += 1
            return self._inside("]")
        if word in ("|", r"\|"):
            self._at += len(word)
            inner = self._inside(word)
            return Node("function", (inner,), name="det" if inner.kind == "matrix" else "abs")
        if word.startswith("\\"):
            return self._command(word)
        raise self._refusal()

    def _number(self, word: str) -> Node:
        self._at += len(word)
        text = word.replace(",", "").replace(" ", "")
        if match := _SCIENTIFIC.match(self._text, self._at):
            if abs(int(match[1][:8])) > MAX_EXPONENT:
                raise UnreadableError(f"a power of ten beyond 10^{MAX_EXPONENT}")
            self._at = match.end()
            return Node("number", value=_decimal(text) * Fraction(10) ** int(match[1]))
        if "." in text and (match := _CYCLE.match(self._text, self._at)):
            self._at = match.end()
            self._cycle_end = self._at
            cycle = match[1] or match[2]
            places = len(text.partition(".")[2])
            return Node("number", value=_decimal(text) + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10**places))
        if text.isdigit() and (match := _BASE.match(self._text, self._at)):
            self._at = match.end()
            base = int((match[1] or match[2])[:4])
            if not 2 <= base <= 36 or any(int(digit) >= base for digit in text):
                raise UnreadableError("a numeral whose digits its base does not have")
            return Node("number", value=Fraction(int(text, base)))
        value = _decimal(text)
        if text.isdigit() and self._peek() == r"\frac" and (part := self._proper_fraction()) is not None:
            return Node("number", value=value + part, name="mixed")
        return Node("number", value=value)

    def _proper_fraction(self) -> Fraction | None:
        match = _PROPER.match(self._text, self._at)
        if match is None or not 0 < int(match[1]) < int(match[2]):
            return None
        self._at = match.end()
        return Fraction(int(match[1]), int(match[2]))

    def _letters(self, run: str) -> Node:
        """One letter of a run, or the function whose name begins there."""
        if len(run) > 2 and _is_word(run, self._text[self._at + len(run) :]):
            raise WordsError(f"a word in an expression: {run!r}")
        for word in _WORDS:
            if run.startswith(word):
                after = self._text[self._at + len(word) :].lstrip()[:1]
                if word in _CALLED_ONLY and after != "(":
                    continue
                if not after or after in "+-*/)],=":
                    continue
                self._at += len(word)
                return self._root() if word == "sqrt" else self._function(_ALIASES.get(word, word))
        self._at += 1
        letter = run[0]
        if letter in _APPLIED and self._text[self._at : self._at + 1] == "(":
            self._at += 1
            return Node("applied", self._arguments(")"), name=letter)
        return self._named(letter)

    def _named(self, name: str) -> Node:
        """A variable with its subscript and primes, or the constant of that name."""
        if self._text[self._at : self._at + 1] == "_":
            self._at += 1
            name += "_" + self._script()
        primes = 0
        while self._text[self._at : self._at + 1] == "'":
            self._at += 1
            primes += 1
        name += "'" * primes
        if name in ("e", "i"):
            return Node("constant", name=name)
        return Node("variable", name=name)

    def _script(self) -> str:
        """The text of a subscript, without its braces."""
        if self._text[self._at : self._at + 1] != "{":
            match = _SCRIPT.match(self._text, self._at)
            if match is None:
                raise self._refusal()
            self._at = match.end()
            return match[0]
        return self._braced()

    def _braced(self) -> str:
        """The text between the braces at the position."""
        depth = 0
        for index in range(self._at, len(self._text)):
            depth += {"{": 1, "}": -1}.get(self._text[index], 0)
            if depth == 0:
                inner = self._text[self._at + 1 : index]
                self._at = index + 1
                return inner.replace(" ", "")
        raise self._refusal()

    def _command(self, word: str) -> Node:
        name = word[1:]
        if word == r"\begin":
            return self._environment()
        self._at += len(word)
        if word in _GREEK:
            return self._named(word)
        if name in FUNCTIONS or name in _ALIASES:
            return self._function(_ALIASES.get(name, name))
        if word == r"\pi":
            return Node("constant", name="pi")
        if word == r"\frac":
            top, bottom = self._group(), self._group()
            return Node("quotient", (top, bottom))
        if word == r"\binom":
            top, bottom = self._group(), self._group()
            return Node("binomial", (top, bottom))
        if word == r"\sqrt":
            return self._root()
        if word in (r"\lfloor", r"\lceil"):
            inner = self._inside(_FENCES[word])
            return Node("function", (inner,), name="floor" if word == r"\lfloor" else "ceil")
        if word in _MARKS:
            self._peek()
            return self._named(f"{word}{{{self._script()}}}")
        if word == r"\text":
            return self._text_word()
        if word in (r"\sum", r"\prod"):
            return self._series("summation" if word == r"\sum" else "multiplication")
        raise UnreadableError(f"no expression knows {word}")

    def _text_word(self) -> Node:
        self._peek()
        word = self._braced()
        if word in FUNCTIONS:
            return self._function(word)
        if len(word) == 1 and word.isalpha() and word.isascii():
            return self._named(word)
        raise WordsError(f"words in an expression: {word!r}")

    def _group(self) -> Node:
        self._expect("{")
        return self._inside("}")

    def _root(self) -> Node:
        degree = Node("number", value=Fraction(2))
        if self._take("["):
            degree = self._inside("]")
        if self._take("{"):
            return Node("root", (degree, self._inside("}")))
        if self._take("("):
            return Node("root", (degree, self._inside(")")))
        self._deepen()
        inside = self._operand()
        self._depth -= 1
        return Node("root", (degree, inside))

    def _function(self, name: str) -> Node:
        """A function whose name has been read: its base and power, then its argument."""
        base = power = None
        while True:
            if name in ("log", "lg", "ln") and base is None and self._take("_"):
                base = _Reader(self._script(), self._depth).whole()
            elif power is None and self._peek() == "^":
                self._at += 1
                power = self._inside("}") if self._take("{") else self._small()
            else:
                break
        if power == _negative(ONE) and name in _INVERSES:
            name, power = _INVERSES[name], None
        name = _INVERSES.get(name, name) if name in ("asin", "acos", "atan") else name
        arguments = self._argument(name)
        if base is not None:
            arguments = (*arguments, base)
        node = Node("function", arguments, name=name)
        return node if power is None else Node("power", (node, power))

    def _argument(self, name: str) -> tuple[Node, ...]:
        for opening in ("(", "{", "["):
            if self._take(opening):
                return self._arguments(_FENCES[opening])
        if self._take("|"):
            return (Node("function", (self._inside("|"),), name="abs"),)
        factors = [self._signed_power()]
        while True:
            word = self._peek()
            if not self._begins_factor(word, factors[-1]) or self._is_function(word):
                break
            if word in ("(", "[", "|") and any(factor.kind != "number" for factor in factors):
                break
            factors.append(self._power())
        node = factors[0]
        for factor in factors[1:]:
            node = _times(node, factor)
        if self._peek() == "/" and name not in ("ln", "log", "lg") and uses(node, frozenset(("constant",))):
            raise UnreadableError("a slash that may belong to a function's argument or not")
        return (node,)

    def _is_function(self, word: str) -> bool:
        return word[1:] in FUNCTIONS if word.startswith("\\") else word.startswith(_WORDS)

    def _arguments(self, closing: str) -> tuple[Node, ...]:
        self._fences.append(closing)
        found = [self._sum()]
        while self._take(","):
            found.append(self._sum())
        self._fences.pop()
        self._expect(closing)
        return tuple(found)

    def _series(self, kind: str) -> Node:
        """``\\sum_{k=1}^{5}k``: parts (first index, last index, body)."""
        lower = upper = ""
        while (word := self._peek()) in ("_", "^"):
            self._at += 1
            script = self._script()
            lower, upper = (script, upper) if word == "_" else (lower, script)
        name, equals, start = lower.partition("=")
        if not equals or not upper or not re.fullmatch("[A-Za-z]", name):
            raise UnreadableError("a sum or product without finite bounds")
        body = self._product()
        bounds = [_Reader(text, self._depth).whole() for text in (start, upper)]
        return Node(kind, (*bounds, as_variable(body, name)), name=name)

    def _environment(self) -> Node:
        node = self._matrix(self._at)
        if node is None:
            raise UnreadableError("an environment that is no matrix")
        return node

    def _matrix(self, start: int) -> Node | None:
        match = _MATRIX.match(self._text, start)
        if match is None:
            return None
        cells, columns = matrix_cells(match["body"])
        if not cells:
            raise UnreadableError("a matrix without rows")
        self._at = match.end()
        node = Node("matrix", tuple(_Reader(cell, self._depth).whole() for cell in cells), columns=columns)
        return Node("function", (node,), name="det") if match["env"].startswith("v") else node


def _is_word(run: str, after: str) -> bool:
    """Whether a run of letters is a word: it comments (``not``), is long, or has another word after it."""
    if run.lower() in NOT_UNITS:
        return True
    if any(word in run for word in _WORDS):
        return False
    return len(run) > 4 or re.match(r" [A-Za-z]{2}", after) is not None


def _decimal(text: str) -> Fraction:
    if text == ".":
        raise UnreadableError("a point without digits")
    return Fraction(text if not text.endswith(".") else text[:-1])


def _negative(node: Node) -> Node:
    if node.kind == "number":
        return Node("number", value=-node.value)
    return Node("negative", (node,))


def _times(first: Node, second: Node) -> Node:
    if first.kind == "product":
        return Node("product", (*first.parts, second))
    return Node("product", (first, second))
