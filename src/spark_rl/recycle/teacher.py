"""``objective.distil``: what the model would say to its own wrong response if it had a right one in view.

From SDPO (https://arxiv.org/abs/2601.20802): a right response of the group is shown to the same model, which gives the
tokens of the wrong ones other probabilities then; the policy is pulled towards these, token by token, so that it learns
where a response went wrong and not only that it did. No token is sampled for it; the teacher costs one pass without
gradients over the wrong responses.

Departures: the teacher's prompt is that of a reflection (Eq. 7) with a right response in place of a wrong one, a prompt
that recycling trains, and like all of them it does not say whether the response is right. The pull is a term beside the
surrogate of Eq. 4 and does not replace it. Only wrong responses are pulled. The divergence is KL(policy || teacher) of
the sampled tokens; the paper compares the likeliest tokens of each place by the Jensen-Shannon divergence, and its
teacher is a moving average of the model's weights, while here it is the model as it is when the update begins.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from spark_rl.chat import Prompt
from spark_rl.config import Config
from spark_rl.problem import Group, Problem
from spark_rl.recycle.candidate import answered
from spark_rl.recycle.reflection import reflection
from spark_rl.recycle.templates import load_templates


def taught(
    groups: Iterable[Group], config: Config, encode: Callable[[Problem], Prompt], rng: random.Random
) -> Iterator[Group]:
    """The groups, with a teacher's prompt in those of the policy that have right and other responses, if it has
    ``rollout.max_prompt_tokens`` at most. Which right response it shows, and in which wording, is drawn with ``rng``.
    """
    templates = load_templates(config.recycle.templates, config.verify.thinking)
    for group in groups:
        right = answered(group, templates.thinking)[0] if group.problem.task == "policy" else []
        ids: tuple[int, ...] = ()
        if right and any(rollout.verdict.status != "correct" for rollout in group.rollouts):
            shows = reflection(group, rng.choice(right), form="cot", templates=templates, rng=rng)
            ids = tuple(encode(shows).token_ids)
        yield replace(group, teacher_ids=ids) if 0 < len(ids) <= config.rollout.max_prompt_tokens else group
