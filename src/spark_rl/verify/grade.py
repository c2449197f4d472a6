r"""From a response to its verdict (Eq. 2), as far as that takes no symbolic algebra.

``r = 1`` if the last box of the response equals the gold answer, else 0. No box or an empty one is ``no_answer``; a box
that cannot be read is ``unparsable``; both are counted apart from ``wrong`` and earn nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from spark_rl.problem import Kind, Status, Verdict
from spark_rl.verify.boxed import extract_boxed
from spark_rl.verify.choice import compare_choice
from spark_rl.verify.equivalence import compare
from spark_rl.verify.verdict import compare_verdict


def verdict_of(status: Status, extracted: str | None) -> Verdict:
    """The verdict with the reward of Eq. 2: 1 for ``correct``, else 0."""
    return Verdict(reward=1.0 if status == "correct" else 0.0, status=status, extracted=extracted)


def grade(
    response: str, answer: str, kind: Kind = "math", choices: Sequence[str] = ()
) -> tuple[Status | None, str | None]:
    """(status, content of the last box) of one response; the status is ``None`` if only symbolic algebra can tell.

    Args:
        response: the model's text.
        answer: the gold answer.
        kind: how the two are compared, see :func:`spark_rl.verify.verify`.
        choices: option texts for the kind ``choice``.

    Raises:
        ValueError: for an empty or unusable gold answer, or an unknown kind.
    """
    if not answer.strip(" \t\r\n$"):
        raise ValueError("the gold answer is empty; drop the problem or give it an answer")
    content = extract_boxed(response)
    if content is None or not content.strip(" \t\r\n$"):
        _check(answer, kind, choices)
        return "no_answer", content
    return _compare(content, answer, kind, choices), content


def _check(answer: str, kind: Kind, choices: Sequence[str]) -> None:
    """A gold that is unusable raises whatever the response says."""
    _compare("?", answer, kind, choices)


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
