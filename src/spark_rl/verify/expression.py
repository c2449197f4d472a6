r"""A bounded reader of expressions as answers write them, in LaTeX or plain text: from canonical text to a tree.

``read_expression(r"2\sin^2x")`` is the tree of 2 (sin x)^2. Nothing is simplified or evaluated here (that is done in
:mod:`spark_rl.verify.evaluation`), so a power tower costs as much as its text. What is not listed is refused:

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
from fractions import Fraction

from spark_rl.verify.notation import UnreadableError
from spark_rl.verify.structure import matrix_cells
from spark_rl.verify.tokens import (
    ALIASES,
    CALLED_ONLY,
    FENCES,
    FUNCTION_WORDS,
    FUNCTIONS,
    INVERSES,
    LETTER_COMMANDS,
    MARKS,
    Tokens,
    is_word,
)
from spark_rl.verify.tree import ONE, Node, as_variable, negative, times, uses

_APPLIED = frozenset("fgh")
"""Letters that are functions before a bracket."""
_MATRIX = re.compile(
    r"\\begin\{(?P<env>[pbBvV]?(?:small)?matrix|array)\}(?:\{[^{}]*\})?(?P<body>.*?)\\end\{(?P=env)\}", re.DOTALL
)


class WordsError(UnreadableError):
    """Mathematics with words or marks beside it: readable, but no value (``12 or more``, ``5'``)."""


def read_expression(text: str) -> Node:
    """The tree of canonical ``text``. Raises :class:`UnreadableError` for what is no expression."""
    return _Reader(text).whole()


class _Reader(Tokens):
    """Recursive descent: a method for each rule of the grammar."""

    def __init__(self, text: str, depth: int = 0) -> None:
        super().__init__(text, depth)
        self._fences: list[str] = []
        """The closing brackets that are waited for."""

    def whole(self) -> Node:
        node = self._sum()
        if self.take(r"\choose"):
            node = Node("binomial", (node, self._sum()))
        if self.peek():
            raise self.refusal()
        return node

    def _sum(self) -> Node:
        terms: list[Node] = []
        sign = self._signs(first=True)
        while sign:
            term = self._product()
            terms.append(negative(term) if sign < 0 else term)
            sign = self._signs(first=False)
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def _signs(self, *, first: bool) -> int:
        """1 or -1 for the signs at the position; 0 where a further term does not begin."""
        sign = 1 if first else 0
        while (word := self.peek()) in ("+", "-"):
            self.at += 1
            sign = (sign or 1) * (-1 if word == "-" else 1)
        return sign

    def _product(self) -> Node:
        node = self._signed_power()
        while True:
            word = self.peek()
            if word in (r"\times", r"\cdot", "*", r"\bullet"):
                self.at += len(word)
                node = times(node, self._signed_power())
            elif word == "/":
                self.at += 1
                node = Node("quotient", (node, self._signed_power()))
            elif self._begins_factor(word, node):
                node = times(node, self._power())
            else:
                return node

    def _begins_factor(self, word: str, before: Node) -> bool:
        """Whether a product goes on without a sign. Digits may follow a bracket, never another number or a letter."""
        if not word or (self._fences and word == self._fences[-1]):
            return False
        if word[0].isdigit() or word[0] == ".":
            end = self.text[: self.at].rstrip()
            bracket = end[-1:] in (")", "]") and len(end) != self.cycle_end
            return bracket or (end[-1:] in ("}", "|", "!") and before.kind != "number")
        if word[0].isalpha() and word.isascii():
            return True
        if word in ("(", "[", "{", "|"):
            return True
        return word.startswith("\\") and self._is_operand(word)

    def _is_operand(self, word: str) -> bool:
        return (
            word in LETTER_COMMANDS
            or word in MARKS
            or word[1:] in FUNCTIONS
            or word[1:] in ALIASES
            or word
            in (r"\pi", r"\frac", r"\sqrt", r"\binom", r"\lfloor", r"\lceil", r"\text", r"\begin", r"\sum", r"\prod")
        )

    def _signed_power(self) -> Node:
        sign = self._signs(first=True)
        node = self._power()
        return negative(node) if sign < 0 else node

    def _power(self) -> Node:
        """An operand with everything that is written after it: powers, factorials, degrees, percent."""
        self.deepen()
        node = self._operand()
        while True:
            word = self.peek()
            if word == "^":
                self.at += 1
                node = self._raised(node)
            elif word == "!":
                self.at += 1
                double = self.take("!")
                node = Node("double factorial" if double else "factorial", (node,))
            elif word == "%":
                self.at += 1
                node = Node("quotient", (node, Node("number", value=Fraction(100))))
            elif word == "'":
                raise WordsError("a number with a prime")
            else:
                self.depth -= 1
                return node

    def _raised(self, base: Node) -> Node:
        if self.take(r"\circ"):
            return Node("degrees", (base,))
        if self.take("{"):
            if self.peek() == r"\circ":
                self.at += len(r"\circ")
                self.expect("}")
                return Node("degrees", (base,))
            if self.peek() in ("T", r"\top") and base.kind in ("matrix", "variable"):
                return self._transposed(base, closing=True)
            exponent = self._inside("}")
        elif self.peek() in ("T", r"\top") and base.kind == "matrix":
            return self._transposed(base, closing=False)
        else:
            exponent = self._small()
        return Node("power", (base, exponent))

    def _transposed(self, base: Node, *, closing: bool) -> Node:
        self.at += len(self.peek())
        if closing:
            self.expect("}")
        if base.kind != "matrix":
            return Node("variable", name=base.name + "^T")
        width = base.columns
        cells = tuple(
            base.parts[row * width + column] for column in range(width) for row in range(len(base.parts) // width)
        )
        return Node("matrix", cells, columns=len(base.parts) // width)

    def _small(self) -> Node:
        """An exponent without braces: a sign, then one operand, itself perhaps raised (``2^3^2``)."""
        self.deepen()
        sign = self._signs(first=True)
        node = self._operand()
        if self.peek() == "^":
            self.at += 1
            node = self._raised(node)
        self.depth -= 1
        return negative(node) if sign < 0 else node

    def _inside(self, closing: str) -> Node:
        self._fences.append(closing)
        node = self._sum()
        if closing == "}" and self.take(r"\choose"):
            node = Node("binomial", (node, self._sum()))
        self._fences.pop()
        self.expect(closing)
        return node

    def _operand(self) -> Node:
        word = self.peek()
        if not word:
            raise UnreadableError("an unfinished expression")
        if word[0].isdigit() or word[0] == ".":
            value, mixed = self.numeral(word)
            return Node("number", value=value, name="mixed" if mixed else "")
        if word[0].isalpha() and word.isascii():
            return self._letters(word)
        if word == "[" and (matrix := self._matrix(self.at + 1)) is not None:
            self.expect("]")
            return matrix
        if word in ("(", "{"):
            self.at += 1
            return self._inside(FENCES[word])
        if word == "[":
            self.at += 1
            return self._inside("]")
        if word in ("|", r"\|"):
            self.at += len(word)
            inner = self._inside(word)
            return Node("function", (inner,), name="det" if inner.kind == "matrix" else "abs")
        if word.startswith("\\"):
            return self._command(word)
        raise self.refusal()

    def _letters(self, run: str) -> Node:
        """One letter of a run, or the function whose name begins there."""
        if len(run) > 2 and is_word(run, self.text[self.at + len(run) :]):
            raise WordsError(f"a word in an expression: {run!r}")
        for word in FUNCTION_WORDS:
            if run.startswith(word):
                after = self.text[self.at + len(word) :].lstrip()[:1]
                if word in CALLED_ONLY and after != "(":
                    continue
                if not after or after in "+-*/)],=":
                    continue
                self.at += len(word)
                return self._root() if word == "sqrt" else self._function(ALIASES.get(word, word))
        self.at += 1
        letter = run[0]
        if letter in _APPLIED and self.text[self.at : self.at + 1] == "(":
            self.at += 1
            return Node("applied", self._arguments(")"), name=letter)
        return self._named(letter)

    def _named(self, name: str) -> Node:
        """A variable with its subscript and primes, or the constant of that name."""
        if self.text[self.at : self.at + 1] == "_":
            self.at += 1
            name += "_" + self.script()
        primes = 0
        while self.text[self.at : self.at + 1] == "'":
            self.at += 1
            primes += 1
        name += "'" * primes
        if name in ("e", "i"):
            return Node("constant", name=name)
        return Node("variable", name=name)

    def _command(self, word: str) -> Node:
        name = word[1:]
        if word == r"\begin":
            return self._environment()
        self.at += len(word)
        if word in LETTER_COMMANDS:
            return self._named(word)
        if name in FUNCTIONS or name in ALIASES:
            return self._function(ALIASES.get(name, name))
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
            inner = self._inside(FENCES[word])
            return Node("function", (inner,), name="floor" if word == r"\lfloor" else "ceil")
        if word in MARKS:
            self.peek()
            return self._named(f"{word}{{{self.script()}}}")
        if word == r"\text":
            return self._text_word()
        if word in (r"\sum", r"\prod"):
            return self._series("summation" if word == r"\sum" else "multiplication")
        raise UnreadableError(f"no expression knows {word}")

    def _text_word(self) -> Node:
        self.peek()
        word = self.braced()
        if word in FUNCTIONS:
            return self._function(word)
        if len(word) == 1 and word.isalpha() and word.isascii():
            return self._named(word)
        raise WordsError(f"words in an expression: {word!r}")

    def _group(self) -> Node:
        self.expect("{")
        return self._inside("}")

    def _root(self) -> Node:
        degree = Node("number", value=Fraction(2))
        if self.take("["):
            degree = self._inside("]")
        if self.take("{"):
            return Node("root", (degree, self._inside("}")))
        if self.take("("):
            return Node("root", (degree, self._inside(")")))
        self.deepen()
        inside = self._operand()
        self.depth -= 1
        return Node("root", (degree, inside))

    def _function(self, name: str) -> Node:
        """A function whose name has been read: its base and power, then its argument."""
        base = power = None
        while True:
            if name in ("log", "lg", "ln") and base is None and self.take("_"):
                base = _Reader(self.script(), self.depth).whole()
            elif power is None and self.peek() == "^":
                self.at += 1
                power = self._inside("}") if self.take("{") else self._small()
            else:
                break
        if power == negative(ONE) and name in INVERSES:
            name, power = INVERSES[name], None
        name = INVERSES.get(name, name) if name in ("asin", "acos", "atan") else name
        arguments = self._argument(name)
        if base is not None:
            arguments = (*arguments, base)
        node = Node("function", arguments, name=name)
        return node if power is None else Node("power", (node, power))

    def _argument(self, name: str) -> tuple[Node, ...]:
        for opening in ("(", "{", "["):
            if self.take(opening):
                return self._arguments(FENCES[opening])
        if self.take("|"):
            return (Node("function", (self._inside("|"),), name="abs"),)
        factors = [self._signed_power()]
        while True:
            word = self.peek()
            if not self._begins_factor(word, factors[-1]) or self._is_function(word):
                break
            if word in ("(", "[", "|") and any(factor.kind != "number" for factor in factors):
                break
            factors.append(self._power())
        node = factors[0]
        for factor in factors[1:]:
            node = times(node, factor)
        if self.peek() == "/" and name not in ("ln", "log", "lg") and uses(node, frozenset(("constant",))):
            raise UnreadableError("a slash that may belong to a function's argument or not")
        return (node,)

    def _is_function(self, word: str) -> bool:
        return word[1:] in FUNCTIONS if word.startswith("\\") else word.startswith(FUNCTION_WORDS)

    def _arguments(self, closing: str) -> tuple[Node, ...]:
        self._fences.append(closing)
        found = [self._sum()]
        while self.take(","):
            found.append(self._sum())
        self._fences.pop()
        self.expect(closing)
        return tuple(found)

    def _series(self, kind: str) -> Node:
        """``\\sum_{k=1}^{5}k``: parts (first index, last index, body)."""
        lower = upper = ""
        while (word := self.peek()) in ("_", "^"):
            self.at += 1
            script = self.script()
            lower, upper = (script, upper) if word == "_" else (lower, script)
        name, equals, start = lower.partition("=")
        if not equals or not upper or not re.fullmatch("[A-Za-z]", name):
            raise UnreadableError("a sum or product without finite bounds")
        body = self._product()
        bounds = [_Reader(text, self.depth).whole() for text in (start, upper)]
        return Node(kind, (*bounds, as_variable(body, name)), name=name)

    def _environment(self) -> Node:
        node = self._matrix(self.at)
        if node is None:
            raise UnreadableError("an environment that is no matrix")
        return node

    def _matrix(self, start: int) -> Node | None:
        match = _MATRIX.match(self.text, start)
        if match is None:
            return None
        cells, columns = matrix_cells(match["body"])
        if not cells:
            raise UnreadableError("a matrix without rows")
        self.at = match.end()
        node = Node("matrix", tuple(_Reader(cell, self.depth).whole() for cell in cells), columns=columns)
        return Node("function", (node,), name="det") if match["env"].startswith("v") else node
