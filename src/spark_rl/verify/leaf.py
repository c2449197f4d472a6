"""The kinds of functions that compare two pieces of answers: yes, no, or undecided."""

from __future__ import annotations

from collections.abc import Callable

Equal = Callable[[str, str], bool | None]
"""(canonical gold, canonical answer) -> equal? ``None``: undecided. May raise
:class:`spark_rl.verify.notation.UnreadableError`."""
Leaf = Equal
"""The same for expressions without further structure, which only algebra can compare: :func:`undecided` in the
trainer's process, :func:`spark_rl.verify.symbolic.symbolically_equal` in a worker."""


def undecided(_gold: str, _answer: str) -> None:
    """The leaf comparison of the trainer's process: none."""
