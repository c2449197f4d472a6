"""Reading the values of one untrusted row: text, numbers, chats, images, and where images stand in a question.

What a row holds as an image is read or refused, never dropped: a path, bytes, base64, a ``data:`` string, a picture, or
a mapping with one of these under :data:`IMAGE_KEYS`. A mapping of anything else is :class:`UnreadableError`.

Nothing here evaluates, unpickles or opens what a row names.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from spark_rl.data.literal import read_literal
from spark_rl.problem import Kind

DEEPEST = 8
"""Lists and mappings in each other in which an image is looked for."""

Row = Mapping[str, Any]
Number = int | str
"""Where a row stands: its number, counted from 1, or its key."""

MARKER = "<image>"
"""Where an image stands in a question."""

IMAGES = (
    "images", "image", "image_path", "image_paths", "image_urls", "image_url", "image_file", "image_file_name",
    "image_filename", "image_name", "image_base64", "image_b64", "image_bytes", "image_data", "img", "imgs", "img_path",
    "picture", "pictures", "pic",
)  # fmt: skip
"""The usual names of image columns; ``image_1``, ``image_2``, ... are read where none of them is there."""
IMAGE_KEYS = (
    "bytes", "base64", "b64", "data", "image", "image_url", "image_path", "url", "uri", "path", "file_path",
    "file_name", "filename", "file", "img", "src",
)  # fmt: skip
"""What a mapping may hold its image under, the first that holds something counts: encoded bytes before paths, for the
hub's copies of sets name files that nobody has."""
PROMPT_CHATS = ("message", "conversations", "messages")
"""The usual names of columns that hold a whole chat."""

_CONTEXT = (
    "body",
    "context",
    "passage",
    "paragraph",
    "article",
    "story",
    "scenario",
    "table",
    "premise",
    "instruction",
)
_NUMBERED = re.compile(r"(?:image|img)[_ ]?(\d{1,2})", re.IGNORECASE)
_USERS = ("user", "human")
_LEADING = re.compile(r"^(?:<image>\s*)+")


MORE = "(more)"
"""Where the cells of a row are that no column has a name for."""


class RowError(ValueError):
    """Why one row is not usable, as a short phrase. The loader counts it and goes on."""


class UnreadableError(RowError):
    """A row holds options or images in a shape that is not known. The loader stops, or the problem would be asked
    without them."""


class UnreadableImageError(UnreadableError):
    """The same of images: ``data.images.broken`` decides."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What every layout must find in a row."""

    question: str
    answer: str
    images: tuple[Any, ...] = ()
    choices: tuple[str, ...] = ()
    kind: Kind | None = None
    """Null: ``choice`` where there are options, else ``math``."""
    alternatives: tuple[str, ...] = ()
    """Further answers, each as right as ``answer``."""
    notes: tuple[tuple[str, str], ...] = ()
    """(what was assumed or taken off, an example) for the one line that a source says of it."""


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


def without_surrogates(text: str) -> str:
    """The text with pairs of surrogates as what they stand for, and lone ones, which are legal in JSON and fatal in
    every tokenizer, as the mark of what can't be shown."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_of(value: Any, what: str) -> str:
    """A scalar as stripped text: ``27.0`` is ``27``, null and NaN are empty, a list of scalars is joined by commas."""
    if value is None:
        return ""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if isinstance(value, str):
        return without_surrogates(value.replace("\0", "")).strip()  # NUL ends texts in C
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):  # as Parquet stores money
        return f"{value.normalize():f}" if value.is_finite() else ""
    if isinstance(value, list | tuple) and not any(isinstance(item, list | tuple) for item in value):
        return ", ".join(text_of(item, what) for item in value)
    raise RowError(f"the {what} is a {type(value).__name__}, not text or a number")


def whole_question(row: Row, question: str, named: str | None) -> str:
    """The question with the text that stands in a column of its own in front: SVAMP's ``Body``, a ``context``.

    Raises:
        RowError: that column holds no text.
    """
    before = text_of(pick(row, named, _CONTEXT), "context")
    if not before or before in question:
        return question
    if not question and named is None and usual_name(row, _CONTEXT) != "instruction":
        return ""  # a story without its question
    return f"{before}\n{question}".strip()


def images_of(value: Any, depth: int = 0) -> tuple[Any, ...]:
    """Images as paths, bytes, ``data:`` strings or image objects, out of lists and mappings.

    Raises:
        UnreadableImageError: a mapping without any of :data:`IMAGE_KEYS`, base64 that is none, or lists and mappings in
            each other beyond :data:`DEEPEST`.
    """
    if depth > DEEPEST:
        raise UnreadableImageError("lists or mappings nested too deeply")
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, float) and math.isnan(value):
        return ()  # an empty cell
    if isinstance(value, list | tuple):
        return tuple(image for item in value for image in images_of(item, depth + 1))
    if not isinstance(value, Mapping):
        return _written_images(value, depth) if isinstance(value, str) else (value,)
    known = [key for key in IMAGE_KEYS if key in value]
    if not known:
        names = ", ".join(str(key)[:20] for key in list(value)[:5])
        raise UnreadableImageError(f"a mapping of {names or 'nothing'}, none of which is known")
    key = next((key for key in known if value[key] is not None), None)
    if key is None:
        return ()  # the hub's way to write that there is no image
    held = value[key]
    if key in {"base64", "b64"} or (key == "bytes" and isinstance(held, str)):
        return (_from_base64(held),)
    if key in {"bytes", "data"} and isinstance(held, list) and held:
        return (_from_numbers(held),)
    return images_of(held, depth + 1)


def row_images(row: Row, named: str | None = None) -> tuple[Any, ...]:
    """The images of the named column, else of ``decoded_image`` (where the hub's copy of a set has one, its ``image``
    is a path that leads nowhere), else of the first usual column that holds one, else of ``image_1``, ``image_2``, ...
    """
    if named is not None:
        return images_of(row.get(named))
    columns = {str(key).lower(): value for key, value in row.items()}
    for name in ("decoded_image", *IMAGES):
        found = images_of(columns.get(name))
        if found:
            return found
    numbered = sorted((int(n[1]), key) for key in columns if (n := _NUMBERED.fullmatch(key)))
    return tuple(image for _, key in numbered for image in images_of(columns[key]))


def chat_or_text(value: Any) -> tuple[str, tuple[Any, ...]]:
    """(text, images) of a question given as text or as a chat with one user turn of text and image parts.

    A chat may be written as JSON, and its turns have ``role`` and ``content``, or ``from`` and ``value``. Every image
    part leaves a :data:`MARKER` where it stood, unless the text parts have markers of their own. A part without an
    image in it, ``{"type": "image"}``, is a place for one of the row's image column.
    """
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        try:
            written = json.loads(value)
        except (ValueError, RecursionError):
            written = None
        if isinstance(written, list) and all(isinstance(turn, Mapping) and _role(turn) for turn in written):
            value = written
    if not isinstance(value, list | tuple):
        return text_of(value, "question"), ()
    turns = [turn for turn in value if isinstance(turn, Mapping) and _role(turn) in _USERS]
    if len(turns) != 1:
        raise RowError(f"the chat has {len(turns)} user turns, not one")
    content = turns[0].get("content", turns[0].get("value"))
    if not isinstance(content, list | tuple):
        return text_of(content, "question"), ()
    texts: list[str] = []
    mixed: list[str] = []
    images: list[Any] = []
    for part in content:
        kind = str(part.get("type")) if isinstance(part, Mapping) else None
        if kind in {"text", "input_text"}:
            texts.append(text_of(part.get("text"), "question"))
            mixed.append(texts[-1])
        elif kind in {"image", "image_url", "input_image"}:
            held = {key: part[key] for key in IMAGE_KEYS if part.get(key) is not None}
            found = images_of(held) if held else ()
            images.extend(found)
            mixed.extend([MARKER] * max(1, len(found)))
        else:
            raise RowError(f"the chat has a part of type {kind!r}, neither text nor image")
    pieces = texts if any(MARKER in text for text in texts) else mixed
    return "\n".join(piece for piece in pieces if piece), tuple(images)


def _role(turn: Mapping[Any, Any]) -> Any:
    return turn.get("role", turn.get("from"))


def _written_images(text: str, depth: int) -> tuple[Any, ...]:
    """A text that spells a list or a mapping of images, as CSV files have them; any other text is one image."""
    if text.lstrip()[:1] not in {"[", "{"}:
        return (text,)
    value = read_literal(text)
    return (text,) if value is None else images_of(value, depth + 1)


def _from_base64(value: Any) -> Any:
    """Bytes of a base64 text; a text with a scheme, ``data:`` for one, is left to who opens it."""
    if not isinstance(value, str):
        return value
    if re.match(r"\s*[A-Za-z]+:", value):
        return value.strip()
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError:
        raise UnreadableImageError("base64 that is not valid") from None


def _from_numbers(value: list[Any]) -> bytes:
    """Bytes that JSON has as numbers."""
    try:
        return bytes(value)
    except (TypeError, ValueError):
        raise UnreadableImageError("bytes that are a list of something else") from None


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
