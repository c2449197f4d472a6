r"""The rule-based verifier: from a response to a verdict (Eq. 2). Imports neither torch nor sympy.

``verify(r"... \boxed{\frac12}", "0.5")`` grades one response; :class:`Verifier` grades many, with its own workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spark_rl.lazy import lazily

if TYPE_CHECKING:
    from spark_rl.problem import Kind, Verdict
    from spark_rl.verify.boxed import answer_part as answer_part
    from spark_rl.verify.boxed import extract_boxed as extract_boxed
    from spark_rl.verify.boxed import last_box_span as last_box_span
    from spark_rl.verify.pool import Verifier as Verifier
    from spark_rl.verify.verdict import read_verdict as read_verdict

__all__ = ["Verifier", "answer_part", "extract_boxed", "last_box_span", "read_verdict", "verify"]

__getattr__ = lazily(
    __name__,
    {"Verifier": "pool", "answer_part": "boxed", "extract_boxed": "boxed", "last_box_span": "boxed",
     "read_verdict": "verdict"},
)  # fmt: skip


def verify(response: str, answer: str | Sequence[str], kind: Kind = "math", choices: Sequence[str] = ()) -> Verdict:
    r"""Grade one response: r = 1 if its last ``\boxed{}`` equals the gold answer, else 0 (Eq. 2).

    Args:
        response: the model's text.
        answer: the gold answer, bare or in ``$...$`` or ``\boxed{}``; of a sequence of answers any is right.
        kind: ``math`` (numbers, LaTeX, structure, symbolic equivalence), ``choice`` (a letter or an option's text),
            ``verdict`` (Yes/No, A/B) or ``exact`` (the same string).
        choices: option texts in order A, B, C, ... for ``choice``.

    Returns:
        A :class:`spark_rl.problem.Verdict`; ``verify(r"so \boxed{\frac12}", "0.5").reward`` is 1.0.

    Raises:
        ValueError: for an empty gold, a gold that its kind cannot be, or an unknown kind.
    """
    from spark_rl.errors import UserError
    from spark_rl.verify.pool import default_verifier

    golds = [answer] if isinstance(answer, str) else answer
    if (
        not isinstance(response, str)
        or not isinstance(golds, list | tuple)
        or not all(isinstance(g, str) for g in golds)
    ):
        raise UserError("verify takes a response as text, and an answer as text or a list of texts")

    return default_verifier().verify(response, answer, kind, choices)
