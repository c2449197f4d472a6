"""Reading the values of one untrusted row: text, numbers, chats, images, and where images stand in a question.

Nothing here evaluates, unpickles or opens what a row names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_rl.problem import Kind

Row = Mapping[str, Any]

MARKER = "<image>"
"""Where an image stands in a question."""

IMAGES = ("images", "image", "image_path")
"""The usual names of image columns."""

_LEADING = re.compile(r"^(?:<image>\s*)+")


class RowError(ValueError):
    """Why one row is not usable, as a short phrase. The loader counts it and goes on."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What every layout must find in a row."""

    question: str
    answer: str
    images: tuple[Any, ...] = ()
    choices: tuple[str, ...] = ()
    kind: Kind | None = None
    """Null: ``choice`` where there are options, else ``math``."""


def pick(row: Row, named: str | None, usual: Sequence[str]) -> Any:
    """The value of the named column, or of the first usual one that is there, whatever its case."""
    if named is not None:
        return row.get(named)
    name = usual_name(row, usual)
    return next((value for key, value in row.items() if str(key).lower() == name), None) if name else None


def usual_name(row: Row, usual: Sequence[str]) -> str | None:
    """The first of the usual names that is a column of the row, in lower case."""
    lowered = {str(key).lower() for key in row}
    return next((name for name in usual if name in lowered), None)


def text_of(value: Any, what: str) -> str:
    """A scalar as stripped text: ``27.0`` is ``27``, null and NaN are empty, a list of scalars is joined by commas."""
    if value is None:
        return ""
    if isinstance(value, str):
        # lone surrogates are legal in JSON and fatal in every tokenizer
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple) and not any(isinstance(item, list | tuple) for item in value):
        return ", ".join(text_of(item, what) for item in value)
    raise RowError(f"the {what} is a {type(value).__name__}, not text or a number")


def images_of(value: Any) -> tuple[Any, ...]:
    """Images as paths, bytes or image objects; a Hugging Face image column holds ``{"bytes": ..., "path": ...}``."""
    if value is None or (isinstance(value, str) and not value):
        return ()
    if isinstance(value, list | tuple):
        return tuple(image for item in value for image in images_of(item))
    if isinstance(value, Mapping):
        encoded = value.get("bytes")
        return images_of(value.get("path") if encoded is None else encoded)
    return (value,)


def row_images(row: Row, named: str | None = None) -> tuple[Any, ...]:
    """The images of the named column, else of ``decoded_image`` (where the hub's copy of a set has one, its ``image``
    is a path that leads nowhere), else of the first usual column."""
    if named is not None:
        return images_of(row.get(named))
    return images_of(row.get("decoded_image")) or images_of(pick(row, None, IMAGES))


def chat_or_text(value: Any) -> tuple[str, tuple[Any, ...]]:
    """(text, images) of a question given as text or as a chat with one user turn of text and image parts.

    Every image part leaves a :data:`MARKER` where it stood, unless the text parts have markers of their own. A part
    without an image in it, ``{"type": "image"}``, is a place for one of the row's image column.
    """
    if not isinstance(value, list | tuple):
        return text_of(value, "question"), ()
    turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
    if len(turns) != 1:
        raise RowError(f"the chat has {len(turns)} user turns, not one")
    content = turns[0].get("content")
    if not isinstance(content, list | tuple):
        return text_of(content, "question"), ()
    texts: list[str] = []
    mixed: list[str] = []
    images: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(text_of(part.get("text"), "question"))
            mixed.append(texts[-1])
        elif kind == "image":
            found = images_of(part.get("image"))
            images.extend(found)
            mixed.extend([MARKER] * max(1, len(found)))
        else:
            raise RowError(f"the chat has a part of type {kind!r}, neither text nor image")
    pieces = texts if any(MARKER in text for text in texts) else mixed
    return "\n".join(piece for piece in pieces if piece), tuple(images)


def place_images(question: str, images: Sequence[Any]) -> str:
    """The question with its markers checked; markers that all stand before the text are taken off.

    Raises:
        RowError: there are markers, but not one for each image.
    """
    markers = question.count(MARKER)
    if markers not in {0, len(images)}:
        raise RowError(f"{markers} {MARKER} markers in the question for {len(images)} images")
    text = _LEADING.sub("", question)
    return question if MARKER in text else text


def within_ranges(row: Row, ranges: Mapping[str, Sequence[float | None]]) -> bool:
    """Whether every named column holds a number from its low to its high bound, both included; null is no bound."""
    for name, (low, high) in ranges.items():
        value = row.get(name)
        if not isinstance(value, int | float) or math.isnan(value):
            return False
        if (low is not None and value < low) or (high is not None and value > high):
            return False
    return True
