"""SPARK: one model learns to solve and to judge, from its own recycled rollouts.

``SparkTrainer`` trains a model from a script (docs/trainer.md), ``train`` does what the command line does. ``solve``
and ``judge`` ask a model, ``verify`` grades a response, ``recycle`` makes new problems out of finished ones.
``Problem``, ``Completion``, ``Rollout``, ``Group`` and ``Verdict`` are the records that flow between them, ``Config``
and ``load_config`` the settings. Whatever is the user's to mend is raised as a ``UserError``, one of ``ConfigError``,
``DataError`` and ``ChatError``, in one line.

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
    from spark_rl.errors import ChatError as ChatError
    from spark_rl.errors import ConfigError as ConfigError
    from spark_rl.errors import DataError as DataError
    from spark_rl.errors import EngineError as EngineError
    from spark_rl.errors import Stopped as Stopped
    from spark_rl.errors import UserError as UserError
    from spark_rl.given import Given as Given
    from spark_rl.inference import Judgement as Judgement
    from spark_rl.inference import Trace as Trace
    from spark_rl.inference import judge as judge
    from spark_rl.inference import solve as solve
    from spark_rl.problem import Completion as Completion
    from spark_rl.problem import Group as Group
    from spark_rl.problem import Problem as Problem
    from spark_rl.problem import Rollout as Rollout
    from spark_rl.problem import Verdict as Verdict
    from spark_rl.run import train as train
    from spark_rl.trainer import SparkTrainer as SparkTrainer
    from spark_rl.version import __version__ as __version__

__all__ = [
    "ChatError", "Completion", "Config", "ConfigError", "DataError", "EngineError", "Given", "Group", "Judgement",
    "Problem", "Rollout", "SparkTrainer", "Stopped", "Trace", "UserError", "Verdict", "__version__", "judge",
    "load_config", "recycle", "solve", "train", "verify",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {"Config": "config", "load_config": "config", "ChatError": "errors", "ConfigError": "errors", "DataError": "errors",
     "UserError": "errors", "EngineError": "errors", "Stopped": "errors", "Given": "given", "Judgement": "inference",
     "Trace": "inference", "judge": "inference", "solve": "inference", "Completion": "problem", "Group": "problem",
     "Problem": "problem", "Rollout": "problem", "Verdict": "problem", "train": "run", "SparkTrainer": "trainer",
     "__version__": "version"},
)  # fmt: skip
