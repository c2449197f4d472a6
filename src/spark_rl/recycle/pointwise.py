"""Eq. 5: is this response correct? The label is the verdict the response got."""

from __future__ import annotations

import random

from spark_rl.problem import Group, Problem, Rollout
from spark_rl.recycle.candidate import Form
from spark_rl.recycle.templates import Labels, Templates, render_judge


def pointwise(
    group: Group, rollout: Rollout, *, form: Form, templates: Templates, rng: random.Random, k: int = 0
) -> tuple[Problem, Labels]:
    """One judgement problem about ``rollout``, number ``k`` of its parent, and the labels its template chose.

    The answer is ``labels.correct`` if the verifier called the rollout correct, else ``labels.wrong``.
    """
    parent = group.problem
    prompt, labels = render_judge(templates, parent.question, rollout.text, rng, form)
    problem = Problem(
        id=f"{parent.id}/pointwise-{form}-{k}",
        question=parent.question,
        answer=labels.correct if rollout.verdict.status == "correct" else labels.wrong,
        kind="verdict",
        task="pointwise",
        prompt=prompt,
        images=parent.images,
        choices=parent.choices,
        source=parent.source,
        parent=parent.id,
        pseudo=parent.pseudo,
    )
    return problem, labels
