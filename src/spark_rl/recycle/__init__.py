"""Recycling (Sec. 3.2): finished groups become problems that teach the model to judge and to reflect.

``recycle(groups, config, rng)`` makes them, :class:`Pool` holds them until the second period of a step. The renderers
write the same prompts for test-time scaling. Nothing here needs torch or a model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spark_rl.lazy import lazily

if TYPE_CHECKING:
    from spark_rl.config import Config, RecycleConfig, Thinking
    from spark_rl.problem import Group, Problem
    from spark_rl.recycle.candidate import FORMS as FORMS
    from spark_rl.recycle.candidate import Form as Form
    from spark_rl.recycle.candidate import shown as shown
    from spark_rl.recycle.pool import Pool as Pool
    from spark_rl.recycle.pool import problem_from_dict as problem_from_dict
    from spark_rl.recycle.pool import problem_to_dict as problem_to_dict
    from spark_rl.recycle.templates import Labels as Labels
    from spark_rl.recycle.templates import TemplateError as TemplateError
    from spark_rl.recycle.templates import Templates as Templates
    from spark_rl.recycle.templates import load_templates as load_templates
    from spark_rl.recycle.templates import parse_templates as parse_templates
    from spark_rl.recycle.templates import render_judge as render_judge
    from spark_rl.recycle.templates import render_pairwise as render_pairwise
    from spark_rl.recycle.templates import render_reflection as render_reflection

__all__ = [
    "FORMS", "Form", "Labels", "Pool", "TemplateError", "Templates", "load_templates", "parse_templates",
    "problem_from_dict", "problem_to_dict", "recycle", "render_judge", "render_pairwise", "render_reflection", "shown",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        **dict.fromkeys(("FORMS", "Form", "shown"), "candidate"),
        **dict.fromkeys(("Pool", "problem_from_dict", "problem_to_dict"), "pool"),
        **dict.fromkeys(
            ("Labels", "TemplateError", "Templates", "load_templates", "parse_templates", "render_judge",
             "render_pairwise", "render_reflection"), "templates",
        ),
    },
)  # fmt: skip


def recycle(
    groups: Sequence[Group], config: RecycleConfig | Config, rng: random.Random, thinking: Thinking | None = None
) -> list[Problem]:
    """Finished groups as new problems with free labels (Eq. 5 to 8): pure, no model, and the groups stay as they are.

    Only groups of task ``policy`` are recycled. Ids are unique within one call; a parent that is sampled again in a
    later step gives the same ids again.

    Args:
        groups: problems with their verified responses.
        config: what is made of them, and how many; of a whole configuration its section ``recycle``.
        rng: the source of every choice.
        thinking: the tags between which a model thinks; ``None`` stands for those of the families in use.

    Raises:
        ValueError: the template set is missing or malformed.
    """
    from spark_rl.config import THINKING, Config
    from spark_rl.recycle.mixture import recycled

    config = config.recycle if isinstance(config, Config) else config
    return recycled(groups, config, rng, THINKING if thinking is None else thinking)
