"""Eq. 6: which of these two responses is correct? One of them is, so the label is its letter."""

from __future__ import annotations

import random

from spark_rl.problem import Group, Problem, Rollout
from spark_rl.recycle.candidate import Form
from spark_rl.recycle.templates import Templates, render_pairwise


def pairwise(
    group: Group, right: Rollout, wrong: Rollout, *, form: Form, templates: Templates, rng: random.Random, k: int = 0
) -> Problem:
    """One comparison of a right and a wrong rollout of the same group in the same form, in random order.

    Number ``k`` of its parent; the answer is ``A`` if the right one comes first, else ``B``.
    """
    parent = group.problem
    right_first = rng.random() < 0.5
    first, second = (right, wrong) if right_first else (wrong, right)
    return Problem(
        id=f"{parent.id}/pairwise-{form}-{k}",
        question=parent.question,
        answer="A" if right_first else "B",
        kind="verdict",
        task="pairwise",
        prompt=render_pairwise(templates, parent.question, first.text, second.text, rng, form),
        images=parent.images,
        choices=parent.choices,
        source=parent.source,
        parent=parent.id,
        pseudo=parent.pseudo,
    )
