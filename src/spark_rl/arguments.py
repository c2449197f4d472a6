"""What :class:`spark_rl.trainer.SparkTrainer` is handed, as the settings of a run and what it is given beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from spark_rl.config import IN_MEMORY, Config, load_config, merge_settings, parse_config
from spark_rl.data import load_problems
from spark_rl.data.batches import Streamed
from spark_rl.data.memory import MemorySource, check_data, in_memory, is_dataset_dict
from spark_rl.errors import ConfigError
from spark_rl.model.adapters import lora_settings
from spark_rl.model.load import load_model, model_in_memory
from spark_rl.model.loaded import LoadedModel, unwrapped
from spark_rl.model.places import RECIPES
from spark_rl.problem import Problem
from spark_rl.rewards import WeightedReward, load_function, needs_of_rows
from spark_rl.runs import new_run_dir

EXAMS = ("heldout", "transfer")
"""What a run calls the first and the second set of problems that it evaluates."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """Settings and data of a run that a script describes."""

    config: Config
    names: Mapping[str, str]
    """Exam -> the name that its problems were given under."""
    train: tuple[Problem, ...] | None = None
    stream: Streamed | None = None
    heldout: tuple[Problem, ...] | None = None
    transfer: tuple[Problem, ...] | None = None
    rewards: tuple[WeightedReward, ...] = ()
    names_run_dir: bool = False
    """Whether the run's directory was named here, and not by whoever made the trainer."""


def read_arguments(
    model: Any, args: Any, train_dataset: Any, eval_dataset: Any, reward_funcs: Any, reward_weights: Any,
    peft_config: Any,
) -> Arguments:  # fmt: skip
    """All of a trainer's arguments but the model itself, checked. See :class:`spark_rl.trainer.SparkTrainer`.

    Raises:
        UserError: the first that can't be used, in one line.
    """
    rewards = weighted(reward_funcs, reward_weights)
    tree = _settings(args, model, own_data=train_dataset is not None)
    _describe_model(tree, model, peft_config)
    names, sets = named_sets(eval_dataset) if eval_dataset is not None else ({}, {})
    data = {"train": train_dataset, **sets}
    for key, value in data.items():
        if value is not None:
            check_given(value, _argument(key))
            tree.setdefault("data", {})[key] = value if isinstance(value, str) else f"{IN_MEMORY}{_argument(key)}"
    unnamed = tree.get("run_dir") is None
    if unnamed:
        tree["run_dir"] = new_run_dir(tree.get("seed", 0))
    config = parse_config(tree)
    train, stream = _training(train_dataset, config, rewards)
    exams = {key: exam_of(value, config, rewards) for key, value in sets.items() if not isinstance(value, str)}
    for key, problems in {"train": train, **exams}.items():
        if problems is not None:
            tree["data"][key] = in_memory(_argument(key), problems)
    if stream is not None:
        tree["data"]["train"] = in_memory("train_dataset")
    return Arguments(parse_config(tree), names, train, stream, exams.get("heldout"), exams.get("transfer"), rewards,
        unnamed,
    )  # fmt: skip


def _argument(key: str) -> str:
    return "train_dataset" if key == "train" else "eval_dataset"


def check_given(data: Any, name: str) -> None:
    """Like :func:`spark_rl.data.memory.check_data`, but a text may name a source too."""
    if not isinstance(data, str):
        check_data(data, name)


def _training(
    data: Any, config: Config, rewards: Sequence[WeightedReward]
) -> tuple[tuple[Problem, ...] | None, Streamed | None]:
    """(problems, stream): one of them, or neither where the settings name the data."""
    if data is None or isinstance(data, str):
        return None, None
    source = _source(data, "train_dataset", config, rewards)
    if not source.streams:
        return source.problems(), None
    if config.train.steps is None and config.train.tokens is None:
        raise ConfigError("train_dataset is a stream, which has no end to be counted to; say with train.steps how many "
                          "steps to train")  # fmt: skip
    if config.data.sample is not None:
        raise ConfigError("data.sample needs all rows at once, and train_dataset is a stream; use data.limit")
    return None, Streamed(source.once, config.rollout.problems)


def exam_of(data: Any, config: Config, rewards: Sequence[WeightedReward]) -> tuple[Problem, ...]:
    """Problems to evaluate; of a stream the first ones. ``rewards`` say what rows must have."""
    if isinstance(data, str):
        needs = needs_of_rows(config.reward, rewards)
        return load_problems(data, config.data, "heldout", columns=needs.columns, golds=needs.golds)
    source = _source(data, "eval_dataset", config, rewards)
    every = {"limit": None, "sample": None, "ranges": None}
    source = replace(source, config=config.data.model_copy(update=every))
    return tuple(islice(source.once(), config.evaluation.problems)) if source.streams else source.problems()


def _source(data: Any, name: str, config: Config, rewards: Sequence[WeightedReward]) -> MemorySource:
    needs = needs_of_rows(config.reward, rewards)
    golds = needs.golds and not (name == "train_dataset" and config.reward.self is not None)
    return MemorySource(data, name, config.data, columns=needs.columns, golds=golds)


def load_described(model: Any, processing_class: Any, config: Config, peft_config: Any) -> tuple[LoadedModel, Config]:
    """The model, checked, and the settings that describe it.

    Raises:
        ConfigError: it can't be loaded or trained.
    """
    said = peft_config is not None and config.model.lora is not None
    adapters = None if said else peft_config
    if not isinstance(model, str | Path | None):
        return model_in_memory(model, processing_class, config, adapters), config
    if processing_class is not None:
        raise ConfigError("processing_class goes with a loaded model; a model that is named brings its own")
    loaded = load_model(config)
    if adapters is None:
        return loaded, config
    loaded = model_in_memory(loaded.model, loaded.processor or loaded.tokenizer, config, adapters)
    section = config.model.model_copy(
        update={"path": f"{IN_MEMORY}{config.model.path}"}
    )  # settings can't make it again
    return loaded, config.model_copy(update={"model": section})


def _settings(args: Any, model: Any, *, own_data: bool) -> dict[str, Any]:
    """The settings as nested mappings, those alone that somebody set: an embedded base brings its recipe."""
    if isinstance(args, Config):
        return args.model_dump(mode="json", exclude_unset=True)
    if args is not None and not isinstance(args, Mapping):
        raise ConfigError(f"args is a {type(args).__name__}; it must be a Config, as load_config() returns it, or a "
                          "dict of settings")  # fmt: skip
    given = parse_config(args or {})
    tree = given.model_dump(mode="json", exclude_unset=True)
    name = given.model.path if model is None else str(model) if isinstance(model, str | Path) else ""
    if name not in RECIPES:
        return tree
    base = load_config(RECIPES[name]).model_dump(mode="json", exclude_unset=True)
    if own_data:  # the recipe's exams are about other data
        base["data"] |= {"heldout": None, "transfer": None}
    return merge_settings(base, tree)


def _describe_model(tree: dict[str, Any], model: Any, peft_config: Any) -> None:
    """Write into the settings which model is trained, and the adapters where settings can say them."""
    section: dict[str, Any] = tree.setdefault("model", {})
    if isinstance(model, str | Path):
        section["path"] = str(model)
    elif model is not None:
        section["path"] = f"{IN_MEMORY}{type(unwrapped(model)).__name__}"
        dtype = str(getattr(unwrapped(model), "dtype", "")).removeprefix("torch.")
        section |= {"dtype": dtype} if dtype in {"float32", "bfloat16"} else {}
    if peft_config is None:
        return
    if section.get("lora") is not None:
        raise ConfigError("args has model.lora, and there is a peft_config beside it; give one of them")
    if not hasattr(peft_config, "peft_type"):
        raise ConfigError(f"peft_config is a {type(peft_config).__name__}; it must be a configuration of peft, such as "
                          "LoraConfig")  # fmt: skip
    if (found := lora_settings(peft_config)) is not None and not hasattr(model, "peft_config"):
        section["lora"] = found


def weighted(functions: Any, weights: Sequence[float] | None) -> tuple[WeightedReward, ...]:
    """The reward functions with their weights.

    Raises:
        ConfigError: one is neither a function nor ``file.py:name``, or the weights are not one each.
    """
    listed = () if functions is None else tuple(functions) if isinstance(functions, list | tuple) else (functions,)
    for function in listed:
        if isinstance(function, str) and not function.rpartition(":")[0].endswith(".py"):
            raise ConfigError(f"reward_funcs has {function!r}; a text must be file.py:name (reward models are no "
                              "rewards here: the model judges itself)")  # fmt: skip
        if not isinstance(function, str) and (not callable(function) or hasattr(function, "parameters")):
            raise ConfigError(f"reward_funcs has a {type(function).__name__}; it must be a function of the completions "
                              "and the columns of their rows, or file.py:name")  # fmt: skip
    if weights is None:
        weights = [1.0] * len(listed)
    if not isinstance(weights, list | tuple) or len(weights) != len(listed):
        raise ConfigError(f"reward_weights must be a list of one number for each of the {len(listed)} reward_funcs")
    if not all(isinstance(weight, int | float) and 0 <= weight < float("inf") for weight in weights):
        raise ConfigError("reward_weights must be numbers of at least 0")
    return tuple(
        WeightedReward(load_function(function) if isinstance(function, str) else function, float(weight))
        for function, weight in zip(listed, weights, strict=True)
    )


def named_sets(data: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """(exam -> the name it was given, exam -> its data) of one data set or of several by name."""
    if not isinstance(data, Mapping) or is_dataset_dict(data):
        return {}, {"heldout": data}
    if not 0 < len(data) <= len(EXAMS):
        raise ConfigError(f"eval_dataset has {len(data)} sets ({', '.join(map(str, data))}); give one or two")
    return dict(zip(EXAMS, map(str, data), strict=False)), dict(zip(EXAMS, data.values(), strict=False))
