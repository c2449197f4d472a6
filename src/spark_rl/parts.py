"""The parts of a run that lie outside its directory: model, data, templates. Where they are, and whether they moved.

A run stores where each part was, as an absolute path, and a digest of what was there (``parts.json``). It can be
resumed from any directory, and after a part has moved: whoever resumes says where it is now with the same setting
(``model.path=NEW``), and what is found there must be what it was. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spark_rl.config import Config, parse_config
from spark_rl.errors import ConfigError
from spark_rl.model.places import EMBEDDED, find_model
from spark_rl.plugins import absolute, is_file_and_name
from spark_rl.runs import placed

PARTS = (
    "model.path", "data.train", "data.heldout", "data.transfer", "data.images.root", "chat.template",
    "recycle.templates", "reward.function", "engine.name",
)  # fmt: skip
"""Settings that may name a file or a directory."""

NAMES_FIRST = {"chat.template": (".jinja",), "recycle.templates": (".yaml", ".yml")}
"""Settings that hold a text or a name unless they end like a file."""

ENDS = 2**20
"""Bytes read at either end of a file: enough to tell two files of one size apart without reading gigabytes."""
READ = 64
"""Files of a directory that are read so; of the others, thousands of images say, name and size count."""


def with_resolved_paths(config: Config) -> Config:
    """The configuration with every part that is on this disk named by its absolute path.

    A model is followed to where its weights are: of a run to the run's model. Names (of an embedded base, a hub id, a
    family of puzzles, a set of templates) stay names, and so does a path where nothing is.
    """
    tree = config.model_dump(mode="json", exclude_unset=True)  # what was not set names nothing on this disk
    for key in PARTS:
        *sections, leaf = key.split(".")
        node = part(tree, ".".join(sections))
        if not isinstance(node, dict) or leaf not in node:
            continue
        if key == "model.path":
            node[leaf] = _model(node[leaf])
        elif key == "engine.name" and not is_file_and_name(node[leaf]):
            continue
        elif key not in NAMES_FIRST or str(node[leaf]).endswith(NAMES_FIRST[key]):
            node[leaf] = _resolved(node[leaf])
    return parse_config(tree)


def digests(config: Config) -> dict[str, str]:
    """Path of a part on this disk -> digest of what is there."""
    flat = [value for key in PARTS for value in texts(part(config.model_dump(mode="json"), key))]
    return {value: digest(place) for value in flat if (place := _place(value)) is not None}


def is_the_same_part(before: Any, now: Any, recorded: Mapping[str, str]) -> bool:
    """Whether a setting that names parts names the same ones, which lie elsewhere now.

    Args:
        before: the setting a run was made with.
        now: the setting it is to go on with.
        recorded: what :func:`digests` returned when the run began.
    """
    old, new = list(texts(before)), list(texts(now))
    if len(old) != len(new) or _skeleton(before) != _skeleton(now):
        return False
    return all(was == is_ or _same(was, is_, recorded) for was, is_ in zip(old, new, strict=True))


def part(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, ``None`` where there is none."""
    node: Any = settings
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def gone(config: Config, keys: Iterable[str]) -> tuple[str, str] | None:
    """The first of ``keys`` that names an absolute path where nothing is, with the path; ``None`` if all are there."""
    settings = config.model_dump(mode="json")
    named = ((key, text) for key in keys for text in texts(part(settings, key)))
    return next((pair for pair in named if Path(pair[1]).is_absolute() and _place(pair[1]) is None), None)


def digest(place: Path) -> str:
    """A digest of a file or a directory: names, sizes, and the bytes at both ends of every file."""
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    summed = hashlib.sha256()
    for number, path in enumerate(files):
        size = path.stat().st_size
        summed.update(f"{path.relative_to(place).as_posix()}\0{size}\0".encode(errors="surrogateescape"))
        if number >= READ:
            continue
        with path.open("rb") as file:
            summed.update(file.read(ENDS))
            if size > ENDS:
                file.seek(max(ENDS, size - ENDS))
                summed.update(file.read())
    return summed.hexdigest()[:32]


def _same(was: str, now: str, recorded: Mapping[str, str]) -> bool:
    there, before = _place(now), recorded.get(was)
    if before is None and (old := _place(was)) is not None:  # of a run that recorded nothing
        before = digest(old)
    named_alike = _file_and_name(was)[1] == _file_and_name(now)[1]
    return named_alike and there is not None and before is not None and digest(there) == before


def _model(name: str) -> str:
    try:
        return name if name in EMBEDDED or _place(str(placed(name))) is None else find_model(name)
    except ConfigError:  # whoever loads it says so
        return name


def _resolved(value: Any) -> Any:
    """``value`` with every text in it that names something on this disk made absolute."""
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item) for item in value]
    if not isinstance(value, str) or _place(value) is None:
        return value
    path, name = _file_and_name(value)
    return f"{absolute(path)}{name}"


def _place(text: str) -> Path | None:
    """The file or directory that a text names, or ``None``."""
    if text in EMBEDDED:
        return EMBEDDED[text]
    try:
        path = absolute(_file_and_name(text)[0])
        return path if path.exists() else None
    except (OSError, ValueError):  # too long to be a path, or with a NUL: a template's text
        return None


def _file_and_name(text: str) -> tuple[str, str]:
    """``("mine.py", ":format")`` of ``mine.py:format``, a setting that names what a file defines; other texts whole."""
    path, colon, name = text.rpartition(":")
    return (path, colon + name) if is_file_and_name(text) else (text, "")


def texts(value: Any) -> Iterator[str]:
    """All texts in a setting, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def _skeleton(value: Any) -> Any:
    """A setting without its texts: what must be equal however its parts moved."""
    if isinstance(value, Mapping):
        return {key: _skeleton(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_skeleton(item) for item in value]
    return str if isinstance(value, str) else value
