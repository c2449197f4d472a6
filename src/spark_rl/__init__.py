"""SPARK: one model learns to solve and to judge, from its own recycled rollouts.

Names are imported when first used, so ``import spark_rl`` costs nothing and the command line answers before torch
loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spark_rl.lazy import lazily
from spark_rl.recycle import recycle  # beside the packages of these names, so they are there from the start
from spark_rl.verify import verify

if TYPE_CHECKING:
    from spark_rl.config import Config as Config
    from spark_rl.config import load_config as load_config
    from spark_rl.inference import solve as solve
    from spark_rl.problem import Completion as Completion
    from spark_rl.problem import Group as Group
    from spark_rl.problem import Problem as Problem
    from spark_rl.problem import Rollout as Rollout
    from spark_rl.problem import Verdict as Verdict
    from spark_rl.run import train as train

__all__ = [
    "Completion", "Config", "Group", "Problem", "Rollout", "Verdict", "load_config", "recycle", "solve", "train",
    "verify",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {"Config": "config", "load_config": "config", "solve": "inference", "Completion": "problem", "Group": "problem",
     "Problem": "problem", "Rollout": "problem", "Verdict": "problem", "train": "run"},
)  # fmt: skip
