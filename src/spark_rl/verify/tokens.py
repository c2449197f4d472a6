r"""The words of expressions: what functions, marks and numerals look like, and a position that moves over them.

:mod:`spark_rl.verify.expression` holds the grammar, which says how they go together.
"""

from __future__ import annotations

import re
from fractions import Fraction

from spark_rl.verify.notation import GREEK_NAMES, MAX_DEPTH, UnreadableError
from spark_rl.verify.number import MAX_EXPONENT
from spark_rl.verify.units import NOT_UNITS

_FUNCTION_NAMES = """
sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot asin acos atan ln log lg exp abs sgn
max min gcd lcm Re Im arg det
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "asin": "arcsin", "acos": "arccos",
             "atan": "arctan"}  # fmt: skip
FUNCTION_WORDS = tuple(
    sorted((FUNCTIONS - {"arg", "det", "Re", "Im", "sgn"}) | {"sqrt", "tg", "ctg"}, key=len, reverse=True)
)
"""Functions that are read without a backslash too, the longest first."""
ALIASES = {"tg": "tan", "ctg": "cot", "cosec": "csc", "arctg": "arctan", "lb": "log"}
CALLED_ONLY = frozenset(("abs", "max", "min", "gcd", "lcm", "exp", "sec"))
"""Plain words that are functions only before a bracket: ``5 min`` and ``5 sec`` are units."""
_MARK_NAMES = r"""
\vec \hat \bar \overline \overrightarrow \widehat \tilde \dot \underline \mathcal
"""
MARKS = frozenset(_MARK_NAMES.split())
LETTER_COMMANDS = frozenset("\\" + name for name in GREEK_NAMES | {"varepsilon", "Omega", "ell"})
"""Commands that stand for a letter, which is a variable."""
FENCES = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil",
           r"\|": r"\|"}  # fmt: skip
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_TOKEN = re.compile(
    rf"(?P<number>{_NUMBER})|(?P<command>\\(?:[A-Za-z]+|.))|(?P<letters>[A-Za-z]+)|(?P<space> +)|(?P<char>.)", re.DOTALL
)
_SCIENTIFIC = re.compile(r"[eE]([0-9]+|[+-][0-9]+(?![A-Za-z\\]))(?![0-9.])")
"""But ``2e+8e`` is a sum."""
_CYCLE = re.compile(r"\\overline\{([0-9]+)\}|(?<=\.)\(([0-9]+)\)")
_BASE = re.compile(r"_(?:\{([0-9]+)\}|([0-9]))")
_PROPER = re.compile(r" ?\\frac\{([0-9]+)\}\{([0-9]+)\}")
_SCRIPT = re.compile(r"\\[A-Za-z]+|[A-Za-z0-9]")
"""A subscript without braces."""


class Tokens:
    """A text with the position ``at`` which it is read; ``depth`` counts the groups that are open there."""

    def __init__(self, text: str, depth: int = 0) -> None:
        self.text = text
        self.at = 0
        self.depth = depth
        self.cycle_end = -1
        """Where the last repeating decimal ended, whose bracket is no product's."""

    def refusal(self) -> UnreadableError:
        """What is raised where the text goes on as no expression does."""
        return UnreadableError(f"no expression at {self.text[self.at : self.at + 20]!r}")

    def peek(self) -> str:
        """The next word, without spaces before it; "" at the end. Letters come one run at a time."""
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1
        match = _TOKEN.match(self.text, self.at)
        return match[0] if match else ""

    def take(self, word: str) -> bool:
        """Whether ``word`` comes next; the position moves behind it then."""
        if self.peek() != word:
            return False
        self.at += len(word)
        return True

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.refusal()

    def deepen(self) -> None:
        """Open a group. Whoever closes it counts ``depth`` down."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError(f"an expression nested deeper than {MAX_DEPTH} groups")

    def numeral(self, word: str) -> tuple[Fraction, bool]:
        """The value of the numeral that begins with ``word``, and whether it is a mixed number."""
        self.at += len(word)
        text = word.replace(",", "").replace(" ", "")
        if match := _SCIENTIFIC.match(self.text, self.at):
            if abs(int(match[1][:8])) > MAX_EXPONENT:
                raise UnreadableError(f"a power of ten beyond 10^{MAX_EXPONENT}")
            self.at = match.end()
            return _decimal(text) * Fraction(10) ** int(match[1]), False
        if "." in text and (match := _CYCLE.match(self.text, self.at)):
            self.at = match.end()
            self.cycle_end = self.at
            cycle = match[1] or match[2]
            places = len(text.partition(".")[2])
            return _decimal(text) + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10**places), False
        if text.isdigit() and (match := _BASE.match(self.text, self.at)):
            self.at = match.end()
            base = int((match[1] or match[2])[:4])
            if not 2 <= base <= 36 or any(int(digit) >= base for digit in text):
                raise UnreadableError("a numeral whose digits its base does not have")
            return Fraction(int(text, base)), False
        value = _decimal(text)
        if text.isdigit() and self.peek() == r"\frac" and (part := self._proper_fraction()) is not None:
            return value + part, True
        return value, False

    def _proper_fraction(self) -> Fraction | None:
        match = _PROPER.match(self.text, self.at)
        if match is None or not 0 < int(match[1]) < int(match[2]):
            return None
        self.at = match.end()
        return Fraction(int(match[1]), int(match[2]))

    def script(self) -> str:
        """The text of a subscript, without its braces."""
        if self.text[self.at : self.at + 1] != "{":
            match = _SCRIPT.match(self.text, self.at)
            if match is None:
                raise self.refusal()
            self.at = match.end()
            return match[0]
        return self.braced()

    def braced(self) -> str:
        """The text between the braces at the position."""
        depth = 0
        for index in range(self.at, len(self.text)):
            depth += {"{": 1, "}": -1}.get(self.text[index], 0)
            if depth == 0:
                inner = self.text[self.at + 1 : index]
                self.at = index + 1
                return inner.replace(" ", "")
        raise self.refusal()


def is_word(run: str, after: str) -> bool:
    """Whether a run of letters is a word: it comments (``not``), is long, or has another word after it."""
    if run.lower() in NOT_UNITS:
        return True
    if any(word in run for word in FUNCTION_WORDS):
        return False
    return len(run) > 4 or re.match(r" [A-Za-z]{2}", after) is not None


def _decimal(text: str) -> Fraction:
    if text == ".":
        raise UnreadableError("a point without digits")
    return Fraction(text if not text.endswith(".") else text[:-1])
