"""Recycling (Sec. 3.2): finished groups become problems that teach the model to judge and to reflect.

``recycle(groups, config, rng)`` makes them, :class:`Pool` holds them until the second period of a step. The renderers
write the same prompts for test-time scaling. Nothing here needs torch or a model.
"""

from spark_rl.recycle.candidate import FORMS, Form, shown
from spark_rl.recycle.mixture import Recycler, recycle
from spark_rl.recycle.pool import Pool, problem_from_dict, problem_to_dict
from spark_rl.recycle.templates import (
    Labels,
    TemplateError,
    Templates,
    load_templates,
    parse_templates,
    render_judge,
    render_pairwise,
    render_reflection,
)

__all__ = [
    "FORMS",
    "Form",
    "Labels",
    "Pool",
    "Recycler",
    "TemplateError",
    "Templates",
    "load_templates",
    "parse_templates",
    "problem_from_dict",
    "problem_to_dict",
    "recycle",
    "render_judge",
    "render_pairwise",
    "render_reflection",
    "shown",
]
