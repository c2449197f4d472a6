"""Eq. 7: judge this response and, if it is wrong, solve again. The label is the gold answer of the parent.

The response shown is always a wrong one, as in the paper; the templates never say so, or the model would learn to
repair without learning to judge.
"""

from __future__ import annotations

import random

from spark_rl.problem import Group, Problem, Rollout
from spark_rl.recycle.candidate import Form
from spark_rl.recycle.templates import Templates, render_reflection


def reflection(
    group: Group, wrong: Rollout, *, form: Form, templates: Templates, rng: random.Random, k: int = 0
) -> Problem:
    """One second attempt after a wrong rollout, number ``k`` of its parent, graded exactly as the parent is."""
    parent = group.problem
    return Problem(
        id=f"{parent.id}/reflection-{form}-{k}",
        question=parent.question,
        answer=parent.answer,
        alternatives=parent.alternatives,
        kind=parent.kind,
        task="reflection",
        prompt=render_reflection(templates, parent.question, wrong.text, rng, form),
        images=parent.images,
        choices=parent.choices,
        source=parent.source,
        parent=parent.id,
        pseudo=parent.pseudo,
        columns=parent.columns,
    )
