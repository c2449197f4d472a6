r"""Multiple choice: the boxed letter or option text against the gold one (Eq. 2).

Read as letters: ``B``, ``b``, ``(B)``, ``B.``, ``B: text``, ``\text{B}``, ``Option B``, and ``B, D`` when the gold has
several. A lone letter is always a label, even if it is also some option's text. A letter beside the text of another
option contradicts itself and is ``unparsable``, as is everything that is neither a label nor the text of exactly one
option.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from spark_rl.problem import Status
from spark_rl.verify.notation import MAX_LENGTH, UnreadableError, canonical, tight
from spark_rl.verify.number import Number, equal_numbers, read_number

_FORMATTING = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|mbox|textrm|rm|bf)(?![A-Za-z])|[{}$*`\"]|\\[!,;: ]"
)
_LETTER = re.compile(
    r"(?:(?:the )?(?:option|answer|choice)(?: is)?:? ?)?\(?([A-Z])(?:[).:]+(?: ?(?! ?(?:and\b|or\b|[,&]))(.*))?)?",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\(?[A-Z]\)?(?:(?:, ?(?:and )?| and | ?& ?| )\(?[A-Z]\)?)*|[A-Z]+")


def read_letters(text: str, *, several: bool = True) -> frozenset[str] | None:
    """The option letters that ``text`` states, or ``None``. With ``several``, also ``A, C`` and ``AC``."""
    if len(text) > MAX_LENGTH:
        return None
    plain = _unformatted(text)
    one = _LETTER.fullmatch(plain)
    if one:
        return frozenset(one[1].upper())
    if several and _SEVERAL.fullmatch(plain):
        letters = re.findall("[A-Z]", plain)
        return frozenset(letters) if len(set(letters)) == len(letters) else None
    return None


def compare_choice(
    gold: str,
    answer: str,
    choices: Sequence[str] = (),
    leaf: Callable[[str, str], bool | None] | None = None,  # noqa: ARG001
) -> Status | None:
    """``correct``, ``wrong`` or ``unparsable`` for a non-empty boxed ``answer``.

    Args:
        gold: a letter, several letters, or the text of an option.
        answer: the content of the box.
        choices: option texts in order A, B, C, ...; without them, letters only.
        leaf: how two expressions are compared.

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
    """A bare letter first, then the text of an option, then a letter with a text beside it."""
    letters = read_letters(text, several=several)
    if letters is not None and choices and not letters <= set(string.ascii_uppercase[: len(choices)]):
        letters = None
    one = _LETTER.fullmatch(_unformatted(text)) if letters is not None else None
    beside = one[2] if one is not None else None
    if letters is not None and not beside:
        return letters
    option = _option(text, choices)
    if option is not None:
        return frozenset(option)
    stated = _option(beside, choices) if beside else None
    return letters if letters is not None and (stated is None or stated in letters) else None


def _option(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the one option whose text this is: the same words, the same but for case, the same number."""
    for spelling in (_plain, lambda words: _plain(words).casefold()):
        wanted = spelling(text)
        same = [index for index, choice in enumerate(choices) if spelling(choice) == wanted]
        if same:
            break
    number = _number(text) if choices and not same else None
    if number is not None:
        values = [_number(choice) for choice in choices]
        same = [index for index, value in enumerate(values) if value is not None and equal_numbers(value, number)]
    return string.ascii_uppercase[same[0]] if len(same) == 1 else None


def _unformatted(text: str) -> str:
    return " ".join(_FORMATTING.sub("", text).split()).rstrip(".,; ")


def _number(text: str) -> Number | None:
    try:
        return read_number(canonical(text))
    except UnreadableError:
        return None


def _plain(text: str) -> str:
    try:
        text = canonical(text)
    except UnreadableError:
        return text
    return tight(re.sub(r"\\text\{([^{}]*)\}", r"\1", text)).rstrip(".")
