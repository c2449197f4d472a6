r"""Answers in words, of any language, and words before a number.

Words are equal without regard to case, punctuation and plural (``No solutions``); ``\emptyset`` is ``no solution``. A
word before a value is a label if it says so (``Answer: 3``, ``Rs. 20``, ``答案是3``), and dropped.
"""

from __future__ import annotations

import re

from spark_rl.verify.units import NOT_UNITS

_LETTER = r"[^\W\d_]"
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
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
_LETTERED = re.compile(r"\\text\{\(([A-J])\)[.:]?\} ?(?=.)|\(([A-J])\) ?(?=[-0-9\\.])")
_NOTHING = frozenset(
    ("no solution", "empty set", "no real solution exist", "no solution exist", "there are no solution")
)


def read_words(text: str) -> str | None:
    """The words that canonical ``text`` consists of, in one spelling; ``None`` if it is more than words."""
    if not _WORDS.fullmatch(text):
        return None
    plain = _TEXT.sub(r" \1 ", text).lower()
    kept = "".join(char if char.isalnum() or char in "'-" else " " for char in plain)
    words = " ".join(word.removesuffix("s") if len(word) >= 5 else word for word in kept.split())
    if words in _NOTHING:
        return "no solution"
    return words if any(char.isalpha() for char in words) else None


def is_text(text: str) -> bool:
    r"""Whether words are meant, not a product of variables: two letters in ``\text{}``, four in a row, or ``Yes``."""
    return _TEXTUAL.search(text) is not None


def same_text(gold: str, answer: str) -> bool:
    """Whether two texts are the same but for markup and case."""
    return is_text(gold) and _TEXT.sub(r"\1", gold).casefold() == _TEXT.sub(r"\1", answer).casefold()


def without_label(text: str) -> str:
    r"""The value after a label (``\text{Rs. }20`` is ``20``), or ``text`` itself."""
    if text[:1].isdigit() or text[:1] == "-":
        return text
    whole = _TEXT.fullmatch(text)
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
    each = [word.strip(".:,").casefold() for word in plain.split()]
    if not each or any(word in NOT_UNITS and word not in _INTRODUCTIONS for word in each):
        return False
    if any(part in plain for part in ("不", "非", "错", "没", "大于", "小于", "至少", "至多", "超过")):
        return False
    if plain[-1] in ":." or all(word in _CURRENCIES for word in each):
        return True
    return all(word in _INTRODUCTIONS for word in each) or not plain.isascii()
