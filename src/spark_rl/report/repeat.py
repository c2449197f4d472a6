"""The commands that repeat a run and ask its model, as short as can be said: a recipe, and what differs from it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from spark_rl.config import IN_MEMORY, RECIPE_FOLDERS, load_config, parse_config, settings_table
from spark_rl.errors import ConfigError
from spark_rl.model.places import EMBEDDED

DEFAULT = "tiny"
"""The recipe of a command that names neither a recipe nor a model."""
_HERE = {"run_dir", "model.threads", "model.device", "verify.workers"}
"""Settings of the machine and the place, not of the run."""
_ASKED = ("chat.", "recycle.templates", "inference.")
"""Beginnings of the settings that say how a model is asked to answer, judge and correct."""


def repeating_command(settings: Mapping[str, Any]) -> str | None:
    """``spark-rl train ...``, which makes a run of these settings; ``None`` if it was given data or a model in Python.

    Paths below the current directory are written relative to it.

    Args:
        settings: what ``config.json`` of a run holds.
    """
    tree = {key: value for key, value in settings.items() if key != "run_dir"}
    if IN_MEMORY in json.dumps(tree) or (wanted := _wanted(tree)) is None:
        return None
    recipes = _recipes()
    if wanted["model"]["path"] not in EMBEDDED:  # which bring their own recipe
        recipes.append(None)
    recipe, changed = min(((name, _differences(name, wanted)) for name in recipes), key=lambda one: len(one[1]))
    words = ["spark-rl", "train"]
    if recipe is not None and recipe != DEFAULT:
        words += ["--config", recipe]
    if recipe is None:
        words += ["--model", near(changed.pop("model.path"))]
    words += [f"{key}={_text(value)}" for key, value in changed.items()]
    return shlex.join(words)


def asking_command(settings: Mapping[str, Any]) -> str:
    """``spark-rl solve QUESTION --model PATH ...``, which asks the model of a run as the run asked it, from wherever
    its folder lies.

    Args:
        settings: what ``config.json`` of the run holds.
    """
    words = ["spark-rl", "solve", "QUESTION", "--model", "PATH"]
    if (wanted := _wanted(settings)) is None:
        return shlex.join(words)
    differ = {name: _differences(name, wanted) for name in (None, *_recipes())}
    asked = {name: {key: one[key] for key in one if key.startswith(_ASKED)} for name, one in differ.items()}
    recipe = min(asked, key=lambda name: (len(asked[name]), len(differ[name])))
    words += [] if recipe is None else ["--config", recipe]
    return shlex.join([*words, *(f"{key}={_text(value)}" for key, value in asked[recipe].items())])


def _wanted(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """All settings, those among them that are not said; ``None`` if another version wrote them."""
    try:
        return parse_config(settings).model_dump(mode="json")
    except ConfigError:
        return None


def _recipes() -> list[str | None]:
    return [*sorted({path.stem for folder in RECIPE_FOLDERS for path in folder.glob("*.yaml")})]


def _differences(recipe: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of what has to be said beside a recipe, the preset of the recycling first."""
    preset = wanted["recycle"]["preset"]
    plain = load_config(recipe).model_dump(mode="json")
    told = {} if plain["recycle"]["preset"] == preset else {"recycle.preset": preset}
    base = load_config(recipe, [f"{key}={value}" for key, value in told.items()]).model_dump(mode="json")
    keys = [key for key, *_ in settings_table() if key not in _HERE]
    return told | {key: _at(wanted, key) for key in keys if _at(wanted, key) != _at(base, key)}


def _at(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for name in key.split("."):
        node = node[name]
    return node


def _text(value: Any) -> str:
    """A value as it is written behind ``KEY=``."""
    value = near(value)
    if isinstance(value, str):
        try:
            if yaml.safe_load(value) == value:
                return value
        except yaml.YAMLError:
            pass
    return json.dumps(value, ensure_ascii=False)


def near(value: Any) -> Any:
    """A setting with absolute paths below the current directory made relative to it."""
    if isinstance(value, Mapping):
        return {key: near(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [near(inner) for inner in value]
    if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_relative_to(Path.cwd()):
        return str(Path(value).relative_to(Path.cwd()))
    return value
