r"""Answers in words, of any language, and words before a number.

Words are equal without regard to case, punctuation and plural (``No solutions``); ``\emptyset`` is ``no solution``. A
word before a value is a label if it says so (``Answer: 3``, ``Rs. 20``, ``答案是3``), and dropped.
"""

from __future__ import annotations

import re

from spark_rl.verify.notation import TEXT
from spark_rl.verify.units import CURRENCY_SIGNS, NOT_UNITS, denies

_LETTER = r"[^\W\d_]"
_WORDS = re.compile(rf"(?:\\text\{{[^{{}}]*\}}|{_LETTER}++|['\-]| )++")
_TEXTUAL = re.compile(rf"\\text\{{[^{{}}]*{_LETTER}{{2}}|(?<![\\A-Za-z])(?:[A-Za-z]{{4}}|[A-Z][a-z]+)|[^\x00-\x7f]")
_VALUE = r"(?=[-+]? ?(?:[0-9.(\[|$]|\\(?!text)|[A-Za-z](?![A-Za-z]{2})))"
_WRAPPED_LABEL = re.compile(rf"\\text\{{([^{{}}]*)\}} ?{_VALUE}")
_BARE_LABEL = re.compile(
    rf"((?:{_LETTER}{{2,}}(?: {_LETTER}+)*)[:.]|[A-Z]{{2,3}}(?= ?[0-9])|[A-Za-z]+(?: [A-Za-z]+)*(?= )|[^\x00-\x7f]+:?)"
    r" ?(?=[-+]?[0-9.\\(\[])"
)
_CURRENCY_NAMES = """
rs inr usd eur gbp rm php hk us sgd cad aud nt r rmb cny krw jpy chf pkr ngn kes zar
"""
_CURRENCIES = frozenset(_CURRENCY_NAMES.split())
_INTRODUCTION_WORDS = """
answer ans answers about approximately approx exactly is total value result equals the final so thus hence
therefore gives equal to
"""
_INTRODUCTIONS = frozenset(_INTRODUCTION_WORDS.split())
_SAYS = re.compile(r"(?:答案|答|解|得|为|為|是|于|於|共|总|總|即|故|约合|合计)$|[" + CURRENCY_SIGNS + "]$")
"""How a label of another script ends that has no colon."""
_LETTERED = re.compile(r"\\text\{\(([A-J])\)[.:]?\} ?(?=.)|\(([A-J])\) ?(?=[-0-9\\.])")
_NOTHING = frozenset(
    (
        "no solution", "empty set", "the empty set", "no real solution", "no real solution exist", "no solution exist",
        "there are no solution", "there is no solution", "there are no real solution", "无解", "無解", "нет решений",
    )
)  # fmt: skip
_SPELLED = {
    "infinity": r"\infty", "negative infinity": r"-\infty", "all real": r"\mathbb{R}", "real number": r"\mathbb{R}",
    "all real number": r"\mathbb{R}", "the real number": r"\mathbb{R}", "any real number": r"\mathbb{R}",
    "the set of all real number": r"\mathbb{R}", "set of all real number": r"\mathbb{R}",
    "every real number": r"\mathbb{R}", "all the real number": r"\mathbb{R}",
}  # fmt: skip
_WRAPPED_INFINITY = re.compile(r"\\text\{ ?(-?\\infty) ?\}")
_DENIAL_WORDS = """
no not never wrong false incorrect except unless without but neither nor minus plus half twice double negative
positive instead otherwise invalid impossible times squared cubed least most
"""
_DENIALS = frozenset(_DENIAL_WORDS.split())


def spelled(text: str) -> str:
    """The sign for words that stand for one: ``\\infty`` for ``infinity``; other text as it is."""
    if r"\infty" in text and (sign := _WRAPPED_INFINITY.fullmatch(text)):
        return sign[1]
    words = read_words(text) if "l" in text or "inf" in text else None
    return _SPELLED.get(words, text) if words else text


def denying(text: str) -> bool:
    r"""Whether words in ``\text{}`` deny or change what they stand before: ``\text{not }x``."""
    found = " ".join(TEXT.findall(text))
    return bool(_DENIALS.intersection(found.casefold().split())) or (not found.isascii() and denies(found))


def read_words(text: str) -> str | None:
    """The words that canonical ``text`` consists of, in one spelling; ``None`` if it is more than words."""
    if not _WORDS.fullmatch(text):
        return None
    plain = TEXT.sub(r" \1 ", text).lower()
    kept = "".join(char if char.isalnum() or char in "'-" else " " for char in plain)
    words = " ".join(word.removesuffix("s") if len(word) >= 5 else word for word in kept.split())
    if words in _NOTHING:
        return "no solution"
    if words == "does not exist":
        return "dne"
    return words if any(char.isalpha() for char in words) else None


def is_text(text: str) -> bool:
    r"""Whether words are meant, not a product of variables: two letters in ``\text{}``, four in a row, or ``Yes``."""
    return _TEXTUAL.search(text) is not None


def same_text(gold: str, answer: str) -> bool:
    """Whether two texts are the same but for markup and case."""
    return is_text(gold) and TEXT.sub(r"\1", gold).casefold() == TEXT.sub(r"\1", answer).casefold()


def without_label(text: str) -> str:
    r"""The value after a label (``\text{Rs. }20`` is ``20``), or ``text`` itself."""
    if text[:1].isdigit() or text[:1] == "-":
        return text
    whole = TEXT.fullmatch(text)
    if whole and any(char.isdigit() for char in whole[1]):
        inner = without_label(whole[1].strip())
        return text if inner == whole[1].strip() else inner
    lettered = _LETTERED.match(text)
    if lettered:
        return text[lettered.end() :]
    found = _WRAPPED_LABEL.match(text) or _BARE_LABEL.match(text)
    if found is None or not _is_label(found[1]):
        return text
    return text[found.end() :]


def _is_label(words: str) -> bool:
    plain = words.strip()
    if not any(char.isalpha() for char in plain):
        return False
    each = [word.strip(".:,").casefold() for word in plain.split()]
    if not each or any(word in NOT_UNITS | _DENIALS and word not in _INTRODUCTIONS for word in each):
        return False
    if not plain.isascii() and denies(plain):
        return False
    if plain[-1] in ":." or all(word in _CURRENCIES for word in each):
        return True
    return all(word in _INTRODUCTIONS for word in each) or _SAYS.search(plain) is not None
