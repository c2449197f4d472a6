r"""Verdicts of a judge: Yes or No, A or B (Eq. 5 and 6), read strictly and in any usual wording.

Departure from the authors' release, which reads every verdict it does not understand as "wrong": contradictory or
foreign content is ``unparsable`` here, because a judge that says nothing has not said No.
"""

from __future__ import annotations

import re

from spark_rl.config import THINKING, Thinking
from spark_rl.problem import Status
from spark_rl.verify.boxed import answer_part, extract_boxed

Labels = tuple[str, str]
YES_NO: Labels = ("Yes", "No")
A_B: Labels = ("A", "B")

MAX_VERDICT = 200
"""A verdict is a word or a short sentence; longer content is not one."""

_POLARITY = {
    **dict.fromkeys(("yes", "correct", "right", "true"), "Yes"),
    **dict.fromkeys(("no", "incorrect", "wrong", "false"), "No"),
}
_NEGATED = {"Yes": "No", "No": "Yes"}
_FILLER = frozenset(
    ("the", "this", "that", "it", "it's", "is", "final", "answer", "response", "solution", "verdict", "judgment")
)
_NAMES = frozenset(
    (
        "the",
        "answer",
        "response",
        "solution",
        "option",
        "choice",
        "candidate",
        "is",
        "correct",
        "better",
        "right",
        "one",
    )
)
_MARKUP = re.compile(r"\\[A-Za-z]+|\\.|[{}$*_`\"()\[\].,:;!]")
_WORD = re.compile(r"[A-Za-z']+")


def read_verdict(response: str, labels: Labels = YES_NO, thinking: Thinking = THINKING) -> str | None:
    r"""The label in the last box of ``response``, spelled as in ``labels``; ``None`` if there is none to read.

    A box between the tags of ``thinking`` is none.

    ``read_verdict(r"... \boxed{\text{yes}.}")`` is ``"Yes"``; ``\boxed{Yes and No}`` is ``None``.

    Raises:
        ValueError: for labels other than Yes/No and A/B, in either order.
    """
    boxed = extract_boxed(answer_part(response, thinking))
    return None if boxed is None else read_label(boxed, labels)


def read_label(content: str, labels: Labels = YES_NO) -> str | None:
    """The same for the content of a box."""
    spelling = {label.casefold(): label for label in labels}
    if set(spelling) not in ({"yes", "no"}, {"a", "b"}):
        raise ValueError(f"verdict labels {labels!r} are unknown; use ('Yes', 'No') or ('A', 'B')")
    if len(content) > MAX_VERDICT:
        return None
    plain = _MARKUP.sub(" ", content)
    words = [word.casefold() for word in plain.split()]
    if not all(_WORD.fullmatch(word) for word in words):
        return None
    found = _stances(words) if "yes" in spelling else _letters(words)
    return spelling[found.casefold()] if found is not None else None


def labels_of(gold: str) -> Labels:
    """Which pair of labels a gold verdict belongs to. Raises ``ValueError`` for any other gold."""
    known = gold.strip().casefold()
    if known in ("yes", "no"):
        return YES_NO
    if known in ("a", "b"):
        return A_B
    raise ValueError(f"gold verdict {gold!r} must be Yes, No, A or B")


def compare_verdict(gold: str, answer: str) -> Status:
    """``correct``, ``wrong`` or ``unparsable`` for a non-empty boxed ``answer``. Raises like :func:`labels_of`."""
    found = read_label(answer, labels_of(gold))
    if found is None:
        return "unparsable"
    return "correct" if found.casefold() == gold.strip().casefold() else "wrong"


def _stances(words: list[str]) -> str | None:
    """Yes or No if every stance taken is the same one, and nothing else is said."""
    found: set[str] = set()
    negated = False
    for word in words:
        stance = _POLARITY.get(word)
        if word in ("not", "isn't"):
            negated = True
        elif stance is not None:
            found.add(_NEGATED[stance] if negated else stance)
            negated = False
        elif negated or word not in _FILLER:
            return None
    return found.pop() if len(found) == 1 and not negated else None


def _letters(words: list[str]) -> str | None:
    found = {word for word in words if word in ("a", "b")}
    if any(word not in _NAMES for word in words if word not in found):
        return None
    return found.pop() if len(found) == 1 else None
