r"""From a response to its verdict (Eq. 2), as far as that takes no symbolic algebra.

``r = 1`` if the last box of the response equals a gold answer, else 0. No box or an empty one is ``no_answer``, and so
is one inside the model's thinking (:func:`spark_rl.verify.boxed.answer_part`); a box that cannot be read is
``unparsable``; both are counted apart from ``wrong`` and earn nothing. Of several gold answers any is right; a response
that equals none of them gets the status of the comparison that says least against it: ``timeout`` (never compared to
its end), then ``unparsable`` (never compared), then ``wrong``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spark_rl.config import THINKING, Thinking
from spark_rl.problem import Kind, Status, Verdict
from spark_rl.verify.boxed import answer_part, extract_boxed
from spark_rl.verify.choice import compare_choice
from spark_rl.verify.equivalence import compare
from spark_rl.verify.verdict import compare_verdict

_BEST_FIRST: tuple[Status | None, ...] = ("correct", None, "timeout", "unparsable", "wrong")


def verdict_of(status: Status, extracted: str | None) -> Verdict:
    """The verdict with the reward of Eq. 2: 1 for ``correct``, else 0."""
    return Verdict(reward=1.0 if status == "correct" else 0.0, status=status, extracted=extracted)


def best_of(statuses: Iterable[Status | None]) -> Status | None:
    """What the comparisons with several gold answers come to; ``None`` while an undecided one can still be right."""
    found = set(statuses)
    return next((status for status in _BEST_FIRST if status in found), "no_answer")


def grade(
    response: str,
    answer: str | Sequence[str],
    kind: Kind = "math",
    choices: Sequence[str] = (),
    thinking: Thinking = THINKING,
) -> tuple[Status | None, str | None]:
    """(status, content of the last box) of one response; the status is ``None`` if only symbolic algebra can tell.

    Args:
        response: the model's text.
        answer: the gold answer, or several of which any is right.
        kind: how the two are compared, see :func:`spark_rl.verify.verify`.
        choices: option texts for the kind ``choice``.
        thinking: the tags between which a box is no answer.

    Raises:
        ValueError: for an empty or unusable gold answer, or an unknown kind.
    """
    found, content = grade_each(response, answer, kind, choices, thinking)
    return best_of(found.values()), content


def grade_each(
    response: str, answer: str | Sequence[str], kind: Kind, choices: Sequence[str], thinking: Thinking
) -> tuple[dict[str, Status | None], str | None]:
    """(the status against each gold answer, content of the last box); arguments and errors as for :func:`grade`."""
    golds = (answer,) if isinstance(answer, str) else tuple(answer)
    if not golds or not all(gold.strip(" \t\r\n$") for gold in golds):
        raise ValueError("the gold answer is empty; drop the problem or give it an answer")
    content = extract_boxed(answer_part(response, thinking))
    if content is None or not content.strip(" \t\r\n$"):
        for gold in golds:  # one that is unusable raises whatever the response says
            _compare("?", gold, kind, choices)
        return dict.fromkeys(golds, "no_answer"), content
    return {gold: _compare(content, gold, kind, choices) for gold in golds}, content


def _compare(content: str, answer: str, kind: Kind, choices: Sequence[str]) -> Status | None:
    if kind == "math":
        return compare(answer, content)
    if kind == "choice":
        return compare_choice(answer, content, choices)
    if kind == "verdict":
        return compare_verdict(answer, content)
    if kind == "exact":
        return "correct" if _stripped(content) == _stripped(answer) else "wrong"
    raise ValueError(f"unknown kind of answer {kind!r}; use math, choice, verdict or exact")


def _stripped(text: str) -> str:
    text = text.strip().strip("$").strip()
    if text.startswith(r"\text{") and text.endswith("}") and "}" not in text[6:-1] and "{" not in text[6:-1]:
        text = text[6:-1].strip()
    return text
