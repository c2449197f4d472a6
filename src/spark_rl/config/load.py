"""From YAML files, nested mappings and dotted overrides to a validated :class:`~spark_rl.config.schema.Config`.

``load_config("configs/tiny.yaml", ["rollout.samples=4"])`` reads a YAML file, applies dotted overrides and validates
everything. Nothing here imports torch, so a wrong key or a contradiction is reported in a fraction of a second, before
anything loads. Unknown keys name the nearest known one (:mod:`spark_rl.config.names`); a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from spark_rl.config.method import PRESETS
from spark_rl.config.names import hint
from spark_rl.config.schema import Config
from spark_rl.config.section import Section, one_line
from spark_rl.errors import ConfigError
from spark_rl.files import DuplicateKeyError, check_regular, parse_json, read_yaml

RECIPE_FOLDERS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[3] / "configs")
"""Where recipes lie: inside an installed package, or at the top of a checkout."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = (), **settings: Any) -> Config:
    """The configuration from a YAML file, then ``settings`` (nested mappings), then dotted ``key=value`` overrides.

    ``path`` is a file, or the name of a recipe that ships with the project (``tiny``); null starts from the defaults.
    Values are read as YAML, so ``optimiser.lr=1e-5`` is a number and ``chat.stop=["\\n\\n"]`` a list; where a setting
    is text, so is ``run_dir=2024`` or ``chat.policy={question}``.

    Raises:
        ConfigError: one line that says what is wrong, where, and how to mend it.
    """
    tree: dict[str, Any] = {}
    overrides = [overrides] if isinstance(overrides, str) else overrides
    if not isinstance(path, str | Path | None) or not all(isinstance(override, str) for override in overrides):
        raise ConfigError("load_config takes a path or a recipe's name, and a list of key=value texts")
    if path is not None:
        tree = _read_yaml(recipe_path(path))
    merge_settings(tree, settings)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"override {override!r} is not of the form key=value, e.g. rollout.samples=4")
        node = tree
        *parents, leaf = keys = key.strip().split(".")
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = _value(text, keys)
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """A validated :class:`Config` from nested mappings, presets applied. Raises :class:`ConfigError`."""
    _check_keys(tree, Config)
    tree = dict(tree)
    recycle = tree.get("recycle")
    if isinstance(recycle, Mapping):
        preset = recycle.get("preset", "paper")
        if isinstance(preset, str) and preset in PRESETS:
            tree["recycle"] = {**PRESETS[preset], **recycle}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None


def saved_settings(run_dir: Path) -> dict[str, Any]:
    """The resolved settings that a run was made with.

    Raises:
        ConfigError: there is no such run.
        UserError: there is a pipe or a device in it.
    """
    path = check_regular(run_dir) / "config.json"
    try:
        settings = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{run_dir} holds no run to resume; start one without --resume") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read ({error}); restore it or start a new run") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold a mapping of settings; restore it or start a new run")
    if isinstance(settings.get("model"), dict):
        settings["model"].setdefault("freeze", [])  # runs from before this setting trained everything
    try:
        parse_config(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; restore it or start a new run") from None
    return settings


def recipe_path(name: str | Path) -> Path:
    """The file for a configuration given by path or by recipe name. Raises :class:`ConfigError` if there is none."""
    path = Path(name)
    if path.is_file():
        return path
    recipes = {recipe.stem: recipe for folder in RECIPE_FOLDERS for recipe in folder.glob("*.yaml")}
    if str(name) in recipes:
        return recipes[str(name)]
    known = ", ".join(sorted(recipes))
    raise ConfigError(f"no configuration file {str(name)!r}; give a path to a YAML file or one of the recipes: {known}")


def settings_table() -> Iterator[tuple[str, str, Any, str]]:
    """(dotted key, type, default, docstring) for every setting, in order: the source of ``--help`` and the docs."""
    yield from _walk(Config(), "")


def _walk(section: Section, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            kind = info.annotation.__name__ if isinstance(info.annotation, type) else str(info.annotation)
            kind = re.sub(r"typing\.|spark_rl\.config\.\w+\.", "", kind)
            yield f"{prefix}{name}", kind, value, " ".join((info.description or "").split())


def _value(text: str, keys: Sequence[str]) -> Any:
    """What an override's text means to the setting at ``keys``."""
    try:
        value = read_yaml(text)
    except DuplicateKeyError as error:
        raise ConfigError(f"{'.'.join(keys)}: {error}") from None
    except yaml.YAMLError:
        return text
    annotation: Any = Config
    for name in keys:
        field = next((s.model_fields[name] for s in _sections(annotation) if name in s.model_fields), None)
        entries = (get_args(member)[1] for member in get_args(annotation) if get_origin(member) is dict)
        annotation = next(entries, None) if field is None else field.annotation
    members = {annotation, *get_args(annotation)}
    is_text = get_origin(annotation) not in {tuple, dict} and str in members
    if isinstance(value, list) and any(get_origin(member) is tuple for member in members):
        return value
    if isinstance(value, dict) and text.lstrip().startswith("{") and any(get_origin(m) is dict for m in members):
        return value
    return text if is_text and not isinstance(value, str | None) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except DuplicateKeyError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not a {type(tree).__name__}")
    return tree


def merge_settings(tree: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with the nested settings of ``other`` put into it."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            merge_settings(tree[key], value)
        else:
            tree[key] = deepcopy(value)
    return tree


def _sections(annotation: Any) -> list[type[Section]]:
    candidates = (annotation, *get_args(annotation))
    return [c for c in candidates if isinstance(c, type) and issubclass(c, Section)]


def _check_keys(tree: Mapping[str, Any], section: type[Section], prefix: str = "") -> None:
    for key, value in tree.items():
        field = section.model_fields.get(str(key))
        if field is None and "." in str(key):
            first, _, rest = str(key).partition(".")
            raise ConfigError(f"unknown setting {prefix}{key}; in a mapping settings are nested: "
                              f"{{{first!r}: {{{rest!r}: ...}}}}")  # fmt: skip
        if field is None:
            name = _first_setting(f"{prefix}{key}", value)
            raise ConfigError(f"unknown setting {name}; {hint(name, section.model_fields, tuple(_names(Config)))}")
        inner = _sections(field.annotation)
        free = any(get_origin(member) is dict for member in (field.annotation, *get_args(field.annotation)))
        if isinstance(value, Mapping) and not free:
            if not inner:
                raise ConfigError(f"{prefix}{key} is a single value, not a group of settings")
            _check_keys(value, inner[0], f"{prefix}{key}.")
        elif inner and not (value is None and type(None) in get_args(field.annotation)):
            raise ConfigError(f"{prefix}{key} is a group of settings; set one of them, e.g. {prefix}{key}."
                              f"{next(iter(inner[0].model_fields))}")  # fmt: skip


def _first_setting(name: str, value: Any) -> str:
    """The dotted name of the first setting in a group, or of the value itself."""
    if not isinstance(value, Mapping) or not value:
        return name
    inside, inner = next(iter(value.items()))
    return _first_setting(f"{name}.{inside}", inner)


def _names(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Every dotted setting, those of groups that are null by default too."""
    for name, field in section.model_fields.items():
        inner = [one for one in _sections(field.annotation) if get_origin(field.annotation) is not tuple]
        if inner:
            yield from _names(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
