"""SPARK: one model learns to solve and to judge, from its own recycled rollouts.

Names are imported when first used, so ``import spark_rl`` costs nothing and the command line answers before
torch loads.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spark_rl.config import Config as Config
    from spark_rl.config import load_config as load_config
    from spark_rl.inference import solve as solve
    from spark_rl.problem import Completion as Completion
    from spark_rl.problem import Group as Group
    from spark_rl.problem import Problem as Problem
    from spark_rl.problem import Rollout as Rollout
    from spark_rl.problem import Verdict as Verdict
    from spark_rl.train import train as train

_HOME = {
    "Config": "config", "load_config": "config", "solve": "inference", "Completion": "problem", "Group": "problem",
    "Problem": "problem", "Rollout": "problem", "Verdict": "problem", "train": "train",
}  # fmt: skip

__all__ = ["Completion", "Config", "Group", "Problem", "Rollout", "Verdict", "load_config", "solve", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spark_rl' has no attribute {name!r}")
    value = getattr(import_module(f"spark_rl.{_HOME[name]}"), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Importing a submodule sets it on its package, which would hide the function ``train`` behind its module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
