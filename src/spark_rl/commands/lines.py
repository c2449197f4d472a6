"""The files that users hand to commands and get from them: JSON lines, with images named relative to the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spark_rl.chat import MARKER
from spark_rl.commands.terminal import say
from spark_rl.config import ImagesConfig
from spark_rl.data.images import ImageError, check_images, stored_image
from spark_rl.errors import UserError

IMAGE_FIELDS = ("images", "image")
"""Where a line names its images: one, or a list."""


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON strings may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{path} line {number} is not JSON") from None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number} is not a JSON object")
        yield number, {key: encodable(value) for key, value in row.items()}


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, and a word about it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="replace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    say(f"wrote   {path}")


def encodable(value: Any) -> Any:
    """Text without lone surrogates, which JSON and command lines may hold and no tokenizer takes."""
    if isinstance(value, list):
        return [encodable(item) for item in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def named_images(row: Mapping[str, Any]) -> list[Any]:
    """What a line names as its images, as it stands there."""
    value: Any = next((row[name] for name in IMAGE_FIELDS if row.get(name) is not None), [])
    return value if isinstance(value, list) else [value]


def find_images(
    values: Sequence[Any], question: str, folder: Path, settings: ImagesConfig, where: str
) -> tuple[Any, ...]:
    """The images of one question in the form that problems keep, each of them opened once to see that it can be.

    Args:
        values: paths, ``data:`` strings or Hugging Face mappings.
        question: its ``<image>`` markers are counted.
        folder: where relative paths start, unless ``settings.root`` says otherwise.
        settings: which pictures are refused.
        where: how an error names the place, e.g. ``rollouts.jsonl line 3``.

    Raises:
        UserError: an image is missing or unusable, or the question has markers for another number of images.
    """
    root = folder if settings.root is None else Path(settings.root).expanduser()
    try:
        images = tuple(stored_image(value, root, settings.confined) for value in values)
        for error in check_images(images, settings):
            if error is not None:
                raise error
    except ImageError as error:
        raise UserError(f"{where}: image {' '.join(str(error).split())}") from None
    if question.count(MARKER) not in {0, len(images)}:
        raise UserError(
            f"{where}: {question.count(MARKER)} {MARKER} markers in the question for {len(images)} images; "
            "give one for each, or none"
        )
    return images
