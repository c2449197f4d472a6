"""The images that a line of a user's file names, found and looked at (docs/vision.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spark_rl.config import ImagesConfig
from spark_rl.data.images import ImageError, check_images, stored_image
from spark_rl.data.values import MARKER
from spark_rl.errors import UserError
from spark_rl.files import user_path

IMAGE_FIELDS = ("images", "image")
"""Where a line names its images: one, or a list."""


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
    root = folder if settings.root is None else user_path(settings.root)
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
