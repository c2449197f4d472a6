r"""One spelling for the many ways LaTeX writes the same thing: the first step of every comparison.

``canonical(r"$\dfrac12\,\mathrm{cm}$")`` is ``r"\frac{1}{2}\text{cm}"``. Purely textual and bounded: nothing is
evaluated, and text over :data:`MAX_LENGTH` characters or nested over :data:`MAX_DEPTH` groups is refused.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

MAX_LENGTH = 2000
"""Longer answers are not read. It also keeps every numeral far below Python's limit for ``int``."""
MAX_DEPTH = 64
"""Deeper nesting is not read: LaTeX parsers recurse."""


class UnreadableError(ValueError):
    """Text that no rule can read as an answer."""


_DASHES = dict.fromkeys("−–—‐‑‒―﹣－", "-")
_SYMBOLS = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ",
    "∞": r"\infty ", "°": r"^\circ ", "√": "sqrt ", "℃": r"^\circ C", "\u03a9": r"\Omega ", "\u2126": r"\Omega ",
    "∠": r"\angle ", "△": r"\triangle ", "ℝ": r"\mathbb{R}", "∖": r"\setminus ", "≤": r"\leq ", "≥": r"\geq ",
    "≠": r"\neq ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ",
    "∶": ":", "∨": r"\text{ or }", "⋃": r"\cup ", "￥": "¥",
    "：": ":", "，": ", ", "；": ";", "、": ", ", "。": ".", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"',
}  # fmt: skip
_GREEK_IN_ORDER = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega
Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi epsilon vartheta varphi
"""
_GREEK = dict(zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨϵϑϕ", _GREEK_IN_ORDER.split(), strict=True))
"""Letters that are variables, and the names of their commands. Ω is not here: as a character it is the unit ohm."""
GREEK_NAMES = frozenset(_GREEK.values())
TEXT = re.compile(r"\\text\{([^{}]*)\}")
r"""``\text{...}`` with its words as the group."""
_FOLD = _DASHES | _SYMBOLS | {letter: rf"\{name} " for letter, name in _GREEK.items()}
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")

_COMMAND = re.compile(r"(?P<size>\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?)|\\(?:[A-Za-z]+|.)", re.DOTALL)
_RENAMED = (
    dict.fromkeys((r"\!", r"\,", r"\thinspace", r"\(", r"\)", r"\[", r"\]", r"\displaystyle", r"\textstyle"), "")
    | dict.fromkeys((r"\operatorname", r"\operatorname*"), r"\text")
    | dict.fromkeys((r"\limits", r"\nolimits", r"\therefore", r"\boxed", r"\bf", r"\it", r"\mathop"), "")
    | dict.fromkeys((r"\boldsymbol", r"\bm", r"\pmb", r"\emph", r"\fbox", r"\ensuremath", r"\underline"), "")
    | dict.fromkeys((r"\tiny", r"\small", r"\normalsize", r"\large", r"\Large", r"\LARGE", r"\huge", r"\Huge"), "")
    | dict.fromkeys((r"\;", r"\:", r"\ ", "\\\n", "\\\t", r"\quad", r"\qquad", r"\enspace", r"\space"), " ")
    | dict.fromkeys((r"\dfrac", r"\tfrac", r"\cfrac"), r"\frac")
    | dict.fromkeys((r"\mathrm", r"\mbox", r"\textrm", r"\textbf", r"\textit", r"\textsf", r"\texttt"), r"\text")
    | dict.fromkeys((r"\mathbf", r"\mathsf", r"\mathit", r"\hbox", r"\textnormal", r"\textup", r"\rm"), r"\text")
    | dict.fromkeys((r"\dbinom", r"\tbinom"), r"\binom")
    | dict.fromkeys((r"\le", r"\leqslant"), r"\leq")
    | dict.fromkeys((r"\ge", r"\geqslant"), r"\geq")
    | dict.fromkeys((r"\lvert", r"\rvert", r"\vert"), "|")
    | {r"\lt": "<", r"\gt": ">", r"\ne": r"\neq", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\varnothing": r"\emptyset"}
    | {r"\%": "%", r"\#": "#", r"\&": "&", r"\_": "_"}
    | {r"\degree": r"^\circ", r"\lor": r"\text{or}", r"\vee": r"\text{or}", r"\bigcup": r"\cup"}
    | {r"\Vert": r"\|", r"\mid": "|", r"\lb": r"\log", r"\tg": r"\tan", r"\ctg": r"\cot", r"\cosec": r"\csc"}
    | {r"\ohm": r"\Omega", r"\upOmega": r"\Omega", r"\smallsetminus": r"\setminus", r"\thickapprox": r"\approx"}
    | {r"\doteq": r"\approx", r"\approxeq": r"\approx", r"\newline": r"\\"}
    | {r"\div": "/", r"\ast": "*", r"\infin": r"\infty", r"\langle": "(", r"\rangle": ")", r"\simeq": r"\approx"}
)
_SPACED_THOUSANDS = re.compile(r",\s*\\!\s*(?=[0-9])")
_SPACED = frozenset(name for name in _RENAMED.values() if name.startswith("\\") and name[-1].isalpha())
_TYPED_RELATIONS = ((">=", r"\geq "), ("<=", r"\leq "), ("==", "="))
_UNEQUAL = re.compile(r"(?<![0-9n)}])!=|<>")
"""``x!=2``; but ``5!=120`` is a factorial."""
_WRAPPERS = ("**", "__", "`", '"', "'", "$$", "$")
_STARS = re.compile(r" ?\*\* ?")
_TYPED_TIMES = re.compile(r"(?<=[0-9]) ?x ?(?=10\^)")
_LONG_SCRIPT = re.compile(r"([\^_]) ?(-?[0-9]{2,}|-[0-9])")
_TYPED_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt ?(?:([0-9]+(?:\.[0-9]+)?)|\{)")
_LISTED = re.compile(r"\\(begin|end)\{(?:cases|aligned|align\*?|gathered|split|array)\}(?:\[[a-z]\])?(?:\{[lcr| ]*\})?")
_LINE_BREAK = re.compile(r",?\s*\\\\(?:\[[^\]]*\])?,?")
_ASIDE = re.compile(
    r"(.+)\((\\approx|=|\\text\{(?:about|approximately|approx\.?|or about|or approximately)\})([^()]+)\)"
)
_GROUP_BREAK = re.compile(r";|(?<![A-Za-z\\])or(?![A-Za-z])|\\text ?\{[, ]*or[, ]*\}")
_NAMED = re.compile(r"(?<![A-Za-z\\])(?:pi|infinity|infty|inf)(?![A-Za-z])")
_ARGUMENTS = re.compile(r"\\(frac|binom|sqrt)(?![A-Za-z])")
_CONSTANT = re.compile(r"\\(?:pi|alpha|beta|gamma|theta|lambda|mu|phi|omega|infty)(?![A-Za-z])")
_SINGLE = re.compile(r"([\^_])\{([A-Za-z0-9])\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])\s*)")
_CONNECTOR = re.compile(
    r"(?:, ?)?(?:\\text ?\{[, ]*(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))|;|\\text ?\{[^{}]*\}"
)
_NEW_LINE = re.compile(r"(?<=[0-9)}])[ \t]*\n+\s*(?=-?[0-9]|[a-z](?:_[0-9])? ?=)")
"""A line break in a list of values."""
_UNEQUAL_SIGN = re.compile(r"[<>]|\\[gl]eq(?![A-Za-z])")
_JOINING = re.compile(r" ?,? ?(?:\\text ?\{[, ]*(and|or)[, ]*\}|(?<![A-Za-z\\])(and|or)(?![A-Za-z])) ?")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_RELATION = re.compile(r"[<>=]|\\(?:[gl]eq|neq)(?![A-Za-z])")
_FOREIGN_CONNECTOR = re.compile(r"(?<=[0-9})]) ?(?:和|或|与|及|или|и) ?(?=[-0-9\\(])")
_UNSEEN = re.compile(
    r"\\(?:text)?color ?\{[A-Za-z]+\}|\\(?:tag|label|[hv]?phantom)\*? ?\{[^{}]*\}|\\[hv]space\*? ?\{[^{}]*\}"
)
"""Colours and what prints nothing or no part of the answer."""
_PUNCTUATION = re.compile(r"\\text ?\{((?:[ .,;:]|\\\$)*-?)\}")
"""Signs in text mode: ``1\\text{ , }2``."""
_THOUSANDS_AFTER = re.compile(r",[0-9]{3}(?![0-9])")
_CYCLE_DIGIT = re.compile(r"(?<=[0-9.])\\overline ?([0-9])")
_DOTTED = re.compile(
    r"(?<=\.)([0-9]*)\\dot ?(?:\{([0-9])\}|([0-9]))(?:([0-9]*)\\dot ?(?:\{([0-9])\}|([0-9])))?(?![0-9]|\\dot)"
)
"""A repeating decimal whose cycle has a dot on its first and last digit."""
_END_PUNCTUATION = re.compile(r"(?<![\\.,;])[.,;]+$")
_AFTER_COMMAND = re.compile(r"(\\[A-Za-z]+) +(?![A-Za-z])")
_LOOSE_SPACE = re.compile(r"(?<=[^A-Za-z0-9,]) +| +(?=[^A-Za-z0-9])|(?<=,) +(?![0-9])|(?<=[^0-9],) +")
_MIXED_SPACE = re.compile(r"(?<=[0-9]) (?=[A-Za-z])|(?<=[A-Za-z]) (?=[0-9])|(?<=,) ")


def canonical(text: str, *, stated: bool = False) -> str:
    """The one spelling of ``text``. Raises :class:`UnreadableError` when it is too long, too deep or unbalanced.

    Spaces survive only where they may carry meaning: between two letters, two digits, a digit and a letter
    (``1 1/2``, ``5 m``), and after a comma between digits (``1, 000`` is a list, ``1,000`` a number). ``1 or 2``,
    ``1 and 2`` and ``1; 2`` become ``1, 2``. Inequalities that "or" joins are united; "and" intersects
    them in an answer (``stated``), but not in a gold, whose writer may have meant either.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError(f"an answer of {len(text)} characters is longer than {MAX_LENGTH}")
    if not text.isascii():
        text = _fold(text)
    text = _dollars(_unwrap(text))
    if "\\" in text:
        text = _SPACED_THOUSANDS.sub(",", text).replace(r",\,", ", ")
        text = _COMMAND.sub(_rename, _UNSEEN.sub("", text))
        text = _PUNCTUATION.sub(r" \1 ", text)
        text = _DEGREES.sub(lambda _: r"^\circ ", text)
        text = _lines(text)
    text = _typed(text)
    for typed, command in _TYPED_RELATIONS:
        text = text.replace(typed, command)
    if "!=" in text or "<>" in text:
        text = _UNEQUAL.sub(r"\\neq ", text)
    text = text.replace("{,}", ",").replace("{:}", ":").replace("~", " ")
    if "{" in text or "}" in text or "\\" in text:
        text = _SINGLE.sub(r"\1\2", _groups(text))
        if r"\dot" in text or r"\overline" in text:
            text = _DOTTED.sub(_cycle, _CYCLE_DIGIT.sub(r"\\overline{\1}", text))
    if "\n" in text and r"\begin" not in text:
        text = _NEW_LINE.sub(", ", text)
    text = " ".join(text.split())
    if ("and" in text or "or" in text) and _UNEQUAL_SIGN.search(text):
        text = _conditions(text, stated=stated)
    if not text.isascii():
        text = _FOREIGN_CONNECTOR.sub(", ", text)
    if ";" in text or "and" in text or "or" in text:
        text = _CONNECTOR.sub(_as_comma, _grouped(text))
    text = _LOOSE_SPACE.sub("", _AFTER_COMMAND.sub(r"\1", text))
    text = text.rstrip(".,;: ").lstrip("+ ")
    text = text.removeprefix("=").removeprefix(r"\approx").strip()
    aside = _ASIDE.fullmatch(text) if text.endswith(")") else None
    return aside[1] + (aside[2] if aside[2] == "=" else r"\approx") + aside[3] if aside else text


def tight(text: str) -> str:
    """Canonical text without the spaces between digits and letters and after commas: for equality of strings only."""
    return _MIXED_SPACE.sub("", text) if " " in text else text


def _cycle(dotted: re.Match[str]) -> str:
    """``0.\\dot{1}4285\\dot{7}`` as ``0.\\overline{142857}``."""
    fixed, *cycle = (group or "" for group in dotted.groups())
    return rf"{fixed}\overline{{{''.join(cycle)}}}"


def _lines(text: str) -> str:
    r"""Lists that are written in lines: ``x=1 \\ x=2`` and ``\begin{cases}``; rows of a matrix stay.

    A row ``x & x>0`` of cases becomes ``(x, x>0)``.
    """
    if r"\begin" not in text:
        return _LINE_BREAK.sub(", ", text) if r"\\" in text else text
    listed = _LISTED.search(text)
    if listed is None or listed[1] != "begin" or text.count(r"\begin") != 1:
        return text
    end = _LISTED.search(text, listed.end())
    if end is None:
        return text
    body = text[listed.end() : end.start()]
    if "array" in listed[0] and not any(sign in body for sign in "=<>"):
        return text
    rows = [row.strip().rstrip(",") for row in _LINE_BREAK.split(body) if row.strip()]
    if "cases" in listed[0]:
        rows = ["(" + row.replace("&", ", ").replace(", ,", ",") + ")" if "&" in row else row for row in rows]
    before = text[: listed.start()].rstrip()
    return before.removesuffix(r"\{") + ", ".join(row.replace("&", "") for row in rows) + text[end.end() :]


def _conditions(text: str, *, stated: bool) -> str:
    r"""``x<2 or x>3`` as ``x<2\cup x>3``: inequalities in one variable, whose connectors mean what they say."""
    joints = list(_JOINING.finditer(text))
    pieces = _JOINING.sub("\n", text).split("\n")
    names = {frozenset(_VARIABLE.findall(re.sub(r"\\mathbb ?\{?R\}?|\bR\b", "", piece))) for piece in pieces}
    if len(pieces) < 2 or len(names) != 1 or len(next(iter(names))) != 1:
        return text
    if not all(_RELATION.search(piece) for piece in pieces):
        return text
    words = [joint[1] or joint[2] for joint in joints]
    signs = {"or": r"\cup ", "and": r"\cap " if stated else ", "}
    if len(set(words)) > 1:
        return text
    return pieces[0] + "".join(signs[word] + piece for word, piece in zip(words, pieces[1:], strict=True))


def _grouped(text: str) -> str:
    """``p=5,q=2; p=7,q=2`` as ``(p=5,q=2), (p=7,q=2)``: what is separated twice is a list of lists."""
    depths = _depths(text)
    breaks = [found for found in _GROUP_BREAK.finditer(text) if depths[found.start()] == 0]
    if not breaks:
        return text
    starts, ends = [0, *(found.end() for found in breaks)], [*(found.start() for found in breaks), len(text)]
    pieces = [text[start:end].strip(" ,") for start, end in zip(starts, ends, strict=True)]
    commas = {_commas(piece) for piece in pieces}
    return ", ".join(f"({piece})" for piece in pieces) if len(commas) == 1 and commas != {0} else text


def _depths(text: str) -> list[int]:
    """How many brackets are open before each character."""
    return list(accumulate(((char in "([{") - (char in ")]}") for char in text), initial=0))


def _commas(text: str) -> int:
    """Commas outside of brackets that do not separate thousands."""
    return sum(
        char == "," and depth == 0 and not _THOUSANDS_AFTER.match(text, index)
        for index, (char, depth) in enumerate(zip(text, _depths(text), strict=False))
    )


def _typed(text: str) -> str:
    """Plain-text habits as LaTeX: ``x**2``, ``2^10`` (in TeX a 2^1 and a 0), ``pi``, ``infinity``."""
    if "*" in text:
        text = _STARS.sub("^", text)
    if "10^" in text and "x" in text:
        text = _TYPED_TIMES.sub(r"\\times ", text)
    if "^" in text or "_" in text:
        text = _LONG_SCRIPT.sub(r"\1{\2}", text)
    if "sqrt" in text:
        text = _TYPED_ROOT.sub(lambda root: rf"\sqrt{{{root[1]}}}" if root[1] else r"\sqrt{", text)
    if "pi" in text or "inf" in text:
        text = _NAMED.sub(lambda name: r"\pi " if name[0] == "pi" else r"\infty ", text)
    return text


def match_groups(text: str) -> dict[int, int]:
    """Index of each opening brace -> index of its closing brace. Raises :class:`UnreadableError` when unbalanced."""
    pairs: dict[int, int] = {}
    stack: list[int] = []
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char == "{":
            stack.append(position)
            if len(stack) > MAX_DEPTH:
                raise UnreadableError(f"an answer nested deeper than {MAX_DEPTH} groups")
        elif char == "}":
            if not stack:
                raise UnreadableError("an answer with a closing brace too many")
            pairs[stack.pop()] = position
        position += 1
    if stack:
        raise UnreadableError("an answer with an opening brace too many")
    return pairs


def _fold(text: str) -> str:
    """ASCII LaTeX for the typographic characters that models write; other characters stay."""
    text = _SUPERSCRIPTS.sub(lambda run: "^{" + run[0].translate(_LOWERED) + "}", text)
    return "".join(char if char.isascii() else _fold_char(char) for char in text)


def _fold_char(char: str) -> str:
    """ASCII for one character, or the character itself."""
    known = _FOLD.get(char)
    if known is not None:
        return known
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    if "！" <= char <= "～":  # full-width ASCII
        return chr(ord(char) - 0xFEE0)
    if char.isspace():
        return " "
    parts = unicodedata.decomposition(char).split()
    if parts[:1] == ["<fraction>"]:
        numerator, _, denominator = "".join(chr(int(part, 16)) for part in parts[1:]).partition("⁄")
        return rf"\frac{{{numerator}}}{{{denominator}}}"
    return char


def _unwrap(text: str) -> str:
    """Without the markup around the whole answer: Markdown emphasis, quotes, dollar signs."""
    before = None
    while before != text:
        before = text
        text = _END_PUNCTUATION.sub("", text.strip())
        for mark in _WRAPPERS:
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark) and text[-2] != "\\":
                text = text[len(mark) : -len(mark)]
                break
    return text


def _dollars(text: str) -> str:
    r"""Single dollars before an amount become ``\$``, all the others (which delimit mathematics) vanish."""
    if "$" not in text:
        return text
    pieces = re.split(r"(?<!\\)\$", text)
    if len(pieces) % 2 == 0 and re.match(r"\s*-?[0-9.]", pieces[1]):
        return pieces[0] + r"\$" + "".join(pieces[1:])
    return "".join(pieces)


def _rename(command: re.Match[str]) -> str:
    """The one spelling of a command; nothing for one that only sets sizes."""
    if command["size"] is not None:
        return ""
    name = command[0]
    renamed = _RENAMED.get(name, name)
    return renamed + " " if renamed in _SPACED and renamed != name else renamed


_BEFORE_OPERAND = ("", "=", ",", "+", "(", "<", ">")


def _groups(text: str) -> str:
    r"""Braces around every argument (``\frac12``, ``\sqrt3``), and none around whole operands (``x={5}``)."""
    text = _brace_arguments(text)
    drop: set[int] = set()
    closing = match_groups(text)
    for start, end in closing.items():
        if text[:start].rstrip()[-1:] in _BEFORE_OPERAND or closing.get(start - 1) == end + 1:
            drop |= {start, end}
    return "".join(char for index, char in enumerate(text) if index not in drop) if drop else text


def _as_comma(match: re.Match[str]) -> str:
    """``", "`` for a connector; in other words of a ``\\text{}`` only its "and" and "or" become commas."""
    words = match[0].strip(", ;").removeprefix(r"\text{").removesuffix("}").strip(", ")
    if words in ("", "and", "or"):
        return ", "
    return match[0].replace(" and ", ", ").replace(" or ", ", ")


def _brace_arguments(text: str) -> str:
    r"""Braces around the arguments of fractions, binomials and roots that are one character or constant."""
    if not _ARGUMENTS.search(text):
        return text
    closing = match_groups(text)
    opening_after: dict[int, str] = {}
    for command in _ARGUMENTS.finditer(text):
        position = command.end()
        for _ in range(1 if command[1] == "sqrt" else 2):
            while position < len(text) and text[position] == " ":
                position += 1
            if position >= len(text):
                break
            if text[position] == "{":
                position = closing[position] + 1
            elif text[position].isalnum():
                opening_after[position] = "{" + text[position] + "}"
                position += 1
            elif constant := _CONSTANT.match(text, position):
                opening_after[position] = "{" + constant[0][0]
                opening_after[constant.end() - 1] = constant[0][-1] + "}"
                position = constant.end()
            else:  # \sqrt[3]{...} and other spellings stay for the parser
                break
    return "".join(opening_after.get(index, char) for index, char in enumerate(text))
