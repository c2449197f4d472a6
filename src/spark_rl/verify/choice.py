r"""Multiple choice: the boxed letter or option text against the gold one (Eq. 2).

Read as letters: ``B``, ``b``, ``(B)``, ``B.``, ``B: text``, ``\text{B}``, ``Option B``, and ``B, D`` when the gold has
several. A letter beside the text of another option contradicts itself and is ``unparsable``, as is everything that is
neither a letter of an option nor the text of exactly one.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from spark_rl.problem import Status
from spark_rl.verify.notation import MAX_LENGTH, UnreadableError, canonical, tight
from spark_rl.verify.number import equal_numbers, read_number

_FORMATTING = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|mbox|textrm|rm|bf)(?![A-Za-z])|[{}$*`\"]|\\[!,;: ]"
)
_LETTER = re.compile(
    r"(?:(?:the )?(?:option|answer|choice)(?: is)?:? ?)?\(?([A-Z])(?:[).:]+(?: ?(.*))?)?", re.IGNORECASE
)
_SEVERAL = re.compile(r"\(?[A-Z]\)?(?:(?:, ?(?:and )?| and | ?& ?| )\(?[A-Z]\)?)*|[A-Z]+")


def read_letters(text: str, *, several: bool = True) -> frozenset[str] | None:
    """The option letters that ``text`` states, or ``None``. With ``several``, also ``A, C`` and ``AC``."""
    if len(text) > MAX_LENGTH:
        return None
    plain = " ".join(_FORMATTING.sub("", text).split()).rstrip(".,; ")
    one = _LETTER.fullmatch(plain)
    if one:
        return frozenset(one[1].upper())
    if several and _SEVERAL.fullmatch(plain):
        letters = re.findall("[A-Z]", plain)
        return frozenset(letters) if len(set(letters)) == len(letters) else None
    return None


def compare_choice(gold: str, answer: str, choices: Sequence[str] = ()) -> Status:
    """``correct``, ``wrong`` or ``unparsable`` for a non-empty boxed ``answer``.

    Args:
        gold: a letter, several letters, or the text of an option.
        answer: the content of the box.
        choices: option texts in order A, B, C, ...; without them, letters only.

    Raises:
        ValueError: if the gold is neither a letter of an option nor an option's text.
    """
    wanted = _read(gold, choices, several=True)
    if wanted is None:
        raise ValueError(
            f"gold answer {gold!r} is neither a letter nor the text of one of the {len(choices)} choices; "
            "mend the data, or use kind 'exact'"
        )
    found = _read(answer, choices, several=len(wanted) > 1)
    if found is None:
        return "unparsable"
    return "correct" if found == wanted else "wrong"


def _read(text: str, choices: Sequence[str], *, several: bool) -> frozenset[str] | None:
    letters = read_letters(text, several=several)
    labels = string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase
    option = _option(text, choices)
    if letters is None or not letters <= set(labels):
        return frozenset(option) if option else None
    if len(letters) == 1:
        beside = _LETTER.fullmatch(" ".join(_FORMATTING.sub("", text).split()))
        stated = _option(beside[2], choices) if beside and beside[2] else None
        if stated is not None and stated not in letters:
            return None
    return letters


def _option(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the one option whose text this is: the same words first, then the same number."""
    try:
        wanted = canonical(text)
        options = [canonical(choice) for choice in choices]
    except UnreadableError:
        return None
    same = [index for index, option in enumerate(options) if _plain(option) == _plain(wanted)]
    if not same:
        number = read_number(wanted)
        if number is not None:
            same = [
                index
                for index, option in enumerate(options)
                if (value := read_number(option)) is not None and equal_numbers(value, number)
            ]
    return string.ascii_uppercase[same[0]] if len(same) == 1 else None


def _plain(text: str) -> str:
    return tight(re.sub(r"\\text\{([^{}]*)\}", r"\1", text)).casefold().rstrip(".")
