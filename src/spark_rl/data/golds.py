r"""Gold answers as data sets write them, and the accepted answers that they are (Eq. 1).

=================================== ===================================================================================
gold                                accepted
=================================== ===================================================================================
``["1/2", "0.5"]``, a list          any of its members
``'["34"]'``                        the same, written as text: a list of quoted texts
``1, 2`` or ``[1, 2]``, a text      one answer, which is a list (or an interval)
``8.0``, a number                   8
``\boxed{3}``                       3; a box that never closes is an error
``\textbf{(B)}\ 3``, ``(B) 3``      3 and B
``9 (apples)``                      9: a word in brackets behind a number is its unit
``proof``, ``notfound``, ``N/A``    none: the row is left out and counted
=================================== ===================================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from spark_rl.data.literal import read_literal
from spark_rl.data.values import RowError, text_of
from spark_rl.verify.boxed import extract_boxed, last_box_span

_SENTINEL = re.compile(
    r"(?:the |a )?(?:proof|proofs)(?: (?:above|below|omitted|attached|required|needed|only))?|proved|proven|q\.?e\.?d"
    r"|see (?:the )?(?:proof|solutions?|explanation|above|below|attached|figure)(?: (?:above|below))?"
    r"|(?:the )?(?:solution|explanation) (?:above|below|omitted|attached)"
    r"|not ?found|not ?available|not ?applicable|not ?provided|not ?given|unanswered"
    r"|no ?(?:final ?)?answer(?: (?:provided|given|available|found|needed))?"
    r"|n/a|n\.a|null|nan|tbd|todo|unavailable|[-\u2013\u2014?.\s]+|\[\]|\{\}|\"\"|''",
    re.IGNORECASE,
)
_EXACT = frozenset(("None", "NA"))
"""What Python and R write for nothing. In small letters ``none`` and ``Na`` are answers."""

_QUOTED_LIST = re.compile(r"\[\s*['\"]")
_WITH_UNIT = re.compile(
    r"(-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?)\s?\((?!(?:mod|base|in base|modulo)\b)"
    r"((?:[A-Za-z][a-z]*[ .]){0,5}(?:[A-Za-z]{3,24}|cm|mm|km|kg|mg|ml|ft|in|lb|oz|hr|mi)[.]?)\)"
)
_OPERATOR = r"(?!\s*[=+*/^<>])"
_TEX_OPTION = re.compile(
    r"\$?\s*\\(?:textbf|text|textrm|mathrm|mathbf|bf|rm)\s?\{\s?\(?([A-J])\)?[.:]?\s?(?:\\ )?\}"
    r"(?:\\[ ,;:!]|\\q?quad|\\hspace\*?\{[^{}]{0,20}\}|[\s~:.])*+(.*)",
    re.DOTALL,
)
_PLAIN_OPTION = re.compile(
    rf"\(([A-J])\)(?:\\ |[\s~:.])*+{_OPERATOR}(?!-)(\S.*)|([A-J])\)\s++{_OPERATOR}(\S.*)"
    r"|([A-J])[.:]\s*+(?=[-$\\\d(])(\S.*)",
    re.DOTALL,
)


def gold_texts(value: Any) -> tuple[str, ...]:
    """The accepted answers of a value, as texts, the first one first; none where it holds nothing.

    Raises:
        RowError: the value is no answer: a mapping, a list of lists, a sentinel, a box that never closes.
    """
    members = _members(value)
    if any(isinstance(member, list | tuple) for member in members):
        raise RowError("the answer is a list of lists, not text or a number")
    texts = [_unwrap(text_of(member, "answer")) for member in members]
    golds = list(dict.fromkeys(text for text in texts if text))
    for gold in golds:
        if is_sentinel(gold):
            raise RowError(f"the answer is {gold[:20]!r}, which stands for none")
    return tuple(_without_unit(gold) for gold in golds)


def is_sentinel(text: str) -> bool:
    """Whether the text only says that there is no answer that can be compared."""
    return text in _EXACT or _SENTINEL.fullmatch(text.strip(" .:*$()")) is not None or not text.strip(" .$-?")


def printed_option(gold: str) -> tuple[str, str] | None:
    r"""(letter, text) of a gold that is an option as it was printed: ``\textbf{(B)}\ 3``; the text may be empty."""
    found = _TEX_OPTION.fullmatch(gold)
    if found is not None:
        text = found[2].strip()
        return found[1], (text.removesuffix("$") if text.count("$") % 2 else text).strip()
    found = _PLAIN_OPTION.fullmatch(gold)
    if found is None:
        return None
    letter, text = next((found[at], found[at + 1]) for at in (1, 3, 5) if found[at])
    return letter, text.strip()


def _members(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        try:
            value = json.loads(text)
        except ValueError:
            return [text]
        return [value] if isinstance(value, str) else [text]
    if _QUOTED_LIST.match(text):
        listed = read_literal(text)
        if isinstance(listed, list) and all(isinstance(member, str) for member in listed):
            return listed
    if text.startswith("{") and isinstance(read_literal(text), Mapping) and text != "{}":
        raise RowError("the answer is a mapping written as text, not an answer")
    return [value]


def _unwrap(answer: str) -> str:
    """An answer that is one box and nothing else, without the box."""
    bare = answer.strip("$ ")
    if last_box_span(bare) == (0, len(bare)):
        return (extract_boxed(bare) or "").strip()
    braces = re.sub(r"\\[\\{}]", "", answer)
    if answer.startswith("\\boxed") and braces.count("{") != braces.count("}"):
        raise RowError("unbalanced braces in the box of the answer")
    return answer


def _without_unit(gold: str) -> str:
    found = _WITH_UNIT.fullmatch(gold)
    return gold if found is None else found[1]
