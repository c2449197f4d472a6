r"""Letters of options as answers state them, in whatever dress, and what keeps a way out beside one (Eq. 2)."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass

from spark_rl.verify.notation import MAX_LENGTH

_WRAPPERS = (
    "text[a-z]*", "math[a-z]*", "boldsymbol", "bm", "pmb", "[mhf]box", "boxed", "framebox", "underline", "uline",
    "emph", "operatorname", "circled", "ensuremath", "tag", "rm", "bf", "it", "sf", "tt", "cal", "scr", "frak",
    "bfseries", "itshape", "(?:display|script|scriptscript)style", "tiny", "small", "normalsize", "[lL]arge", "LARGE",
    "nolimits", "[hH]uge", "left", "right", "[bB]igg?[lrm]?", "quad", "qquad", "space", "enspace", "checkmark",
    "limits",
)  # fmt: skip
_MARKUP = (
    rf"(?:\\f?colorbox *(?:\{{[^{{}}]*\}}){{1,2}}(?=\{{)|\\(?:text)?color *\{{[^{{}}]*\}}"
    rf"|\\(?:{'|'.join(_WRAPPERS)})(?![A-Za-z])\*?"
    r"|(?-i:</?(?:b|i|u|em|p|code|mark|span|strong)>)|\\[,;:!> ()\[\]{}\\]|[{}$*_`\"'~✓✔☑✅]|\s)"
)
"""One piece of what stands around letters and says nothing: LaTeX formatting, Markdown, quotes, space."""

_PREFIX = (
    r"(?:(?:so|thus|hence|therefore|the|my|final|correct|right|best|answer|ans|option|choice|letter|is|would be|"
    r"it is|(?:i )?(?:choose|pick|select))(?![A-Za-z])|\\(?:therefore|to|implies|[rR]ightarrow)(?![A-Za-z])|[•→⇒∴]"
    r"|正确|答案|选项|选择|选|应|为|是|故|[:=,])"
)
_OPENING = re.compile(rf"(?:{_MARKUP}|{_PREFIX}|[(\[<])*+", re.IGNORECASE)
_LETTER = re.compile(r"([A-Za-z])(?![A-Za-z0-9^]|_[{A-Za-z0-9])")
_CLOSING = re.compile(rf"(?:{_MARKUP}|[)\]>:;,!、]|\.(?!\d)|(?<=[A-Za-z)\]}}*])\.|[-–—→](?=\s))*+")
_FIRM = re.compile(r"[)\]:.、]")
"""What marks the letter before it as a label, so that any text may follow."""
_BRACKETED = re.compile(r"\((?=[^()]*(?:[0-9]|[A-Za-z]{3}))[^()]*\)")
"""A text that marks the letter before it as a label by its brackets, and is no argument of a function."""
_AFFIRMED = re.compile(
    r"(?:is )?(?:the )?(?:(?:correct|right|best|true|only|final)(?: (?:answer|option|choice|one))?|answer|option"
    r"|choice)|正确|项",
    re.IGNORECASE,
)
_LABEL_BEHIND = re.compile(
    rf"(?s:(.*?[^\s,;:\\]))(?:{_MARKUP}|[,;:])*+[(\[](?:{_MARKUP})*+([A-Za-z])(?:{_MARKUP})*+[)\]](?:{_MARKUP}|\.)*+"
)
_SEVERAL = re.compile(
    r"[(\[]*[A-Z](?![A-Za-z])[)\].]*(?:(?: ?(?:,|;|&|、|和|and\b) ?(?:and )?| )[(\[]*[A-Z](?![A-Za-z])[)\].]*)*"
    r"|[A-Z]{2,26}"
)

_WAY_OUT = re.compile(
    r"\b(?:or|nor|either|neither|maybe|perhaps|possibly|probably not|but|however|unless|except|vs|versus|incorrect|"
    r"wrong|not)\b|n't\b|[?？]|或|不|错",
    re.IGNORECASE,
)
"""Beside a letter, where the option's own text is not known."""
_ANOTHER = re.compile(
    r"(?:^|[,;/|&、<>=~]|\b(?:and|also|then|plus|with|option|choice|answer|letter|is|be)\b)[\s(\[]*[A-I](?![A-Za-z0-9'^_])"
    r"|(?<![A-Za-z0-9])[A-I] ?[.:)](?![A-Za-z])|(?<![A-Za-z_^])[(\[][A-I][)\]]|^[(\[][a-i][)\]]"
)
"""Beside a letter: another one, where labels stand."""
_WRAPPED = re.compile(rf"\\(?:{'|'.join(_WRAPPERS)}) *\{{")


@dataclass(frozen=True, slots=True)
class Label:
    """One letter, and what stands beside it: ``B: 8`` is ``Label("B", "8", firm=True)``."""

    letter: str
    beside: str = ""
    firm: bool = True
    """Whether punctuation marks the letter as a label; a loose one counts beside its own text only."""


def read_letters(text: str, *, several: bool = True) -> frozenset[str] | None:
    """The option letters that ``text`` states, or ``None``. With ``several``, also ``A, C`` and ``AC``.

    A text may stand beside one letter if it neither names another one nor keeps a way out.
    """
    if len(text) > MAX_LENGTH:
        return None
    label = label_of(text)
    if label is not None and not label.beside:
        return frozenset(label.letter)
    letters = letters_listed(text) if several else None
    if letters is not None:
        return letters
    if label is not None and label.firm and not hedges(label.beside):
        return frozenset(label.letter)
    return None


def label_of(text: str) -> Label | None:
    """The letter that begins a text, if one does."""
    text = _in_ascii(text)
    opening = _OPENING.match(text)
    assert opening is not None
    letter = _LETTER.match(text, opening.end())
    if letter is None or (text.startswith("'", letter.end()) and "'" not in opening[0]):  # a prime
        return None
    closing = _CLOSING.match(text, letter.end())
    assert closing is not None
    beside = text[closing.end() :]
    if not beside or _AFFIRMED.fullmatch(_unformatted(beside)):
        return Label(letter[1].upper())
    marks = re.sub(r"\\.", "", closing[0])
    firm = _FIRM.search(marks) is not None or (
        closing[0] != "" and _BRACKETED.fullmatch(beside.rstrip("}$* \t\n")) is not None
    )
    if text[: closing.end()].count("$") % 2:  # the formula began before the letter
        beside = beside.replace("$", "", 1)
    if not firm and letter[1].islower():  # ``a quarter``, ``d = 8``
        return None
    return Label(letter[1].upper(), _balanced(beside), firm)


def label_behind(text: str) -> Label | None:
    """The bracketed letter that ends a text: ``8 (B)``."""
    found = _LABEL_BEHIND.fullmatch(_in_ascii(bare(text)))
    return None if found is None or found[2].islower() else Label(found[2], _balanced(found[1]), firm=False)


def letters_listed(text: str) -> frozenset[str] | None:
    """Several letters and nothing else, none of them twice."""
    text = _in_ascii(text)
    opening = re.match(rf"(?:{_MARKUP}|{_PREFIX}|(?:options|choices|answers|are)(?![A-Za-z]))*+", text, re.IGNORECASE)
    assert opening is not None
    plain = " ".join(re.sub(_MARKUP, " ", text[opening.end() :]).split()).rstrip(".,; ")
    plain = re.sub(r" (?=[,;.)\]])|(?<=[(\[]) ", "", plain)
    if not _SEVERAL.fullmatch(plain):
        return None
    letters = re.findall("[A-Z]", plain)
    return frozenset(letters) if len(set(letters)) == len(letters) else None


def hedges(beside: str) -> bool:
    """Whether a text beside a letter names another letter or keeps a way out."""
    plain = _unformatted(beside)
    return _WAY_OUT.search(plain) is not None or _ANOTHER.search(plain) is not None


def _unformatted(text: str) -> str:
    return " ".join(re.sub(_MARKUP, " ", text).split()).rstrip(".,; ")


def _balanced(text: str) -> str:
    """Without the closing marks of what opened before it: ``12}`` of ``\\text{B. 12}``, ``12**`` of ``**B. 12**``."""
    text = text.strip()
    while text.endswith("}") and not text.endswith(r"\}") and text.count("{") < text.count("}"):
        text = text[:-1].rstrip()
    text = text.rstrip("*`").rstrip()
    if text.startswith("(") and text.endswith(")") and _closes(text, 0) == len(text) - 1:
        text = text[1:-1]
    return text.strip()


def _closes(text: str, start: int) -> int:
    """Where the bracket or brace that stands at ``start`` closes; -1 if it does not."""
    opening = text[start]
    closing = ")" if opening == "(" else "}"
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == opening) - (text[place] == closing)
        if not depth:
            return place
    return -1


def bare(text: str) -> str:
    r"""Without ``\text{}`` or another wrapper around the whole of it."""
    text = text.strip()
    while (wrapper := _WRAPPED.match(text)) is not None and _closes(text, wrapper.end() - 1) == len(text) - 1:
        text = text[wrapper.end() : -1].strip()
    return text


def _in_ascii(text: str) -> str:
    """Letters, brackets and colons in ASCII, however they are drawn: full-width, circled, squared, bold."""
    return text if text.isascii() else "".join(char if char.isascii() else _drawn(char) for char in text)


def _drawn(char: str) -> str:
    code = ord(char)
    if 0x1F150 <= code <= 0x1F169 or 0x1F170 <= code <= 0x1F189:  # white on black, which Unicode doesn't decompose
        return string.ascii_uppercase[(code - (0x1F150 if code < 0x1F170 else 0x1F170))]
    if 0x1F1E6 <= code <= 0x1F1FF:  # the letters that flags are made of
        return string.ascii_uppercase[code - 0x1F1E6]
    if char in _BRACKETS:
        return _BRACKETS[char]
    if 0xFF00 <= code <= 0xFF5E or 0x2460 <= code <= 0x24FF or 0x1D400 <= code <= 0x1F149 or 0x2100 <= code <= 0x214F:
        plain = unicodedata.normalize("NFKC", char)
        return plain if re.fullmatch(r"\(?[A-Za-z]\)?|[().:,;\[\]!?]", plain) else char
    return char


_BRACKETS = {
    "【": "(", "】": ")", "「": "(", "」": ")", "『": "(", "』": ")", "〔": "(", "〕": ")", "《": "(", "》": ")",
    "“": '"', "”": '"', "‘": "'", "’": "'", "。": ".", "．": ".", "：": ":", "，": ",", "；": ";", "\u3000": " ",
    "\u00a0": " ", "\u2061": "", "\u200b": "", "\u200d": "", "\ufe0f": "",
}  # fmt: skip
