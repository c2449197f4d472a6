"""Reward functions from files, ``file.py:name``, and from Python, as one list with weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from spark_rl.config import RewardConfig, RewardFunction
from spark_rl.errors import ConfigError
from spark_rl.plugins import check_file, load_object
from spark_rl.rewards.base import Reward, WeightedReward


def load_rewards(config: RewardConfig, given: Sequence[Reward | WeightedReward] = ()) -> tuple[WeightedReward, ...]:
    """The functions of ``reward.function``, then those given from Python, each under a name of its own.

    Raises:
        ConfigError: a function can't be loaded or called, or nothing has a weight.
    """
    modules: dict[Path, ModuleType] = {}
    rewards = [WeightedReward(load_function(entry.path, modules), entry.weight) for entry in _entries(config)]
    for function in given:
        rewards.append(function if isinstance(function, WeightedReward) else WeightedReward(function))
        _check(rewards[-1])
    verifier = config.verifier if config.verifier is not None else float(not rewards)
    if not verifier and not any(reward.weight for reward in rewards):
        if not rewards:
            raise ConfigError("reward.verifier is 0 and there is no reward.function, so nothing would earn a reward")
        raise ConfigError("every weight of reward.function is 0, and so is reward.verifier; raise one of them")
    taken: dict[str, int] = {}
    for place, reward in enumerate(rewards):
        count = taken[reward.called] = taken.get(reward.called, 0) + 1
        rewards[place] = replace(reward, name=reward.called if count == 1 else f"{reward.called}-{count}")
    return tuple(rewards)


class Needs(NamedTuple):
    """What is asked of the rows of the data, as :func:`spark_rl.data.load_problems` takes it."""

    columns: bool
    """Whether problems keep the other columns of their rows."""
    golds: bool
    """Whether each row must have an answer that the verifier can use."""


def needs_of_rows(config: RewardConfig, given: Sequence[Reward | WeightedReward] = ()) -> Needs:
    """What the rewards need of the data."""
    own = bool(config.function) or bool(given)
    return Needs(columns=own, golds=not own or bool(config.verifier))


def check_files(config: RewardConfig) -> None:
    """Whether the files of ``reward.function`` are there, before anything heavy loads; runs none of them.

    Raises:
        ConfigError: one is not, or is not written as ``file.py:name``.
    """
    for entry in _entries(config):
        check_file(entry.path, "reward.function")


def load_function(spec: str, modules: dict[Path, ModuleType] | None = None) -> Reward:
    """The function that ``file.py:name`` means. ``modules`` keeps files that several functions come from.

    Raises:
        ConfigError: there is no such file or function, or the file can't be run.
    """
    function = load_object(spec, "reward.function", modules)
    if not callable(function):
        name = spec.rpartition(":")[2]
        raise ConfigError(f"reward.function {spec!r}: {name} is no function but a value of type "
                          f"{type(function).__name__}")  # fmt: skip
    loaded: Reward = function
    _check(WeightedReward(loaded))
    return loaded


def _entries(config: RewardConfig) -> list[RewardFunction]:
    """``reward.function`` as a list, each with its weight."""
    named = config.function or ()
    return [
        RewardFunction(path=entry) if isinstance(entry, str) else entry
        for entry in ([named] if isinstance(named, str) else named)
    ]


def _check(reward: WeightedReward) -> None:
    """Raises :class:`ConfigError` if a reward can't be called with keyword arguments or has no sensible weight."""
    if not callable(reward.function):
        raise ConfigError(f"a reward must be a function, not a value of type {type(reward.function).__name__}")
    if not math.isfinite(reward.weight) or reward.weight < 0:
        raise ConfigError(f"the weight of the reward {reward.called} must be a number of at least 0")
    try:
        parameters = inspect.signature(reward.function).parameters.values()
    except (TypeError, ValueError):  # of functions written in C
        return
    fixed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    if fixed:
        raise ConfigError(f"the reward {reward.called} must take {fixed[0]!r} by its name; remove the '/' behind it")
