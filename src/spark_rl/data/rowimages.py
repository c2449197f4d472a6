"""Images that lie in the rows of a file: a problem keeps where, and the bytes are read when they are needed.

So are images in Parquet files and in JSON lines, as bytes or in base64, so that a data set of 50,000 pictures does not
fill the memory. What is read has to have the digest of what was there when the data was loaded: of another file nothing
is trained on. An image of a row group of more than :data:`MOST_GROUP` bytes stays in memory, as
all of the group would be read for it; so does what stands in a shape that :func:`_forms` does not know.

To another process the bytes travel, for the file need not be there.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spark_rl.data.decode import ImageError
from spark_rl.data.encoded import base64_bytes, data_bytes, is_base64_picture, is_data
from spark_rl.data.parquet import group_bytes, group_rows, value_at
from spark_rl.errors import DataError

MOST_GROUP = 128 * 2**20
"""Bytes of a column of a row group, above which its images stay in memory."""

Place = tuple[int, int]
"""Of a Parquet file a row group and a row of it, from 0; of JSON lines the first byte of a line, and 0."""


class RowImageError(ImageError, DataError):
    """An image can't be read from its row any more: a whole sentence, with the row."""


@dataclass(frozen=True, slots=True)
class RowImage:
    """An image of a :class:`~spark_rl.problem.Problem` that lies in a row of a file."""

    path: str
    number: int
    """The row's number, as messages have it."""
    place: Place
    column: str
    digest: bytes
    """SHA-256 of the encoded picture."""

    def read(self) -> str | bytes:
        """The bytes, or the ``data:`` string, that the row holds.

        Raises:
            RowImageError: the file is gone, or the row has another image now.
        """
        where = f"row {self.number} of {self.path}"
        try:
            value = value_at(self.path, *self.place, self.column) if _is_parquet(self.path) else self._of_a_line()
        except FileNotFoundError:
            raise RowImageError(f"the file of the image in {where} is gone; put it back") from None
        except (OSError, ValueError, TypeError, LookupError, RuntimeError, DataError):
            value = None  # whatever is there now
        for form in _forms(value):
            if _digest(form) == self.digest:
                return form
        raise RowImageError(f"the image in {where} is not the one that was loaded; put the file back as it was")

    def _of_a_line(self) -> Any:
        with Path(self.path).open("rb") as file:
            file.seek(self.place[0])
            return json.loads(file.readline())[self.column]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(read := self.read()), (read,)


class Places(Protocol):
    """Where the rows of a file are."""

    path: str

    def place(self, number: int, column: str) -> Place | None:
        """The place of a row, ``None`` if its image is better kept in memory."""
        ...


class LinePlaces:
    """Those of JSON lines: whoever reads them adds where each begins."""

    def __init__(self, path: Path) -> None:
        self.path = str(path.absolute())
        self.begins = array("Q")

    def place(self, number: int, column: str) -> Place:
        del column
        return self.begins[number - 1], 0


class ParquetPlaces:
    """Those of a Parquet file, by its row groups."""

    def __init__(self, path: Path) -> None:
        self.path = str(path.absolute())
        self.largest = 0
        """Bytes of the largest column of a row group that was too large."""
        self._starts: list[int] = []
        self._bytes: dict[str, list[int]] = {}

    def place(self, number: int, column: str) -> Place | None:
        if not self._starts:
            self._starts = group_rows(self.path)
        if column not in self._bytes:
            self._bytes[column] = group_bytes(self.path, column)
        group = bisect_right(self._starts, number - 1) - 1
        size = self._bytes[column][group]
        if size > MOST_GROUP:
            self.largest = max(self.largest, size)
            return None
        return group, number - 1 - self._starts[group]


def placed(image: Any, row: Mapping[Any, Any], number: int, places: Places) -> Any:
    """The image as its place in the row of a file, if it is found there; else as it is: a path, for one."""
    held = _held(image)
    if held is None:
        return image
    for column, value in row.items():
        if isinstance(column, str) and any(form == held for form in _forms(value)):
            place = places.place(number, column)
            return image if place is None else RowImage(places.path, number, place, column, _digest(held))
    return image


def _held(image: Any) -> str | bytes | None:
    """The image in the form of :func:`_forms`, unless it is no bytes and no base64."""
    if isinstance(image, bytes):
        return image
    return next(_forms(image), None) if isinstance(image, str) else None


def _forms(value: Any) -> Iterator[str | bytes]:
    """Everything in a value that may be an encoded picture: bytes, ``data:`` strings, base64, also in written JSON."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, bytes):
            yield found
        elif isinstance(found, Mapping):
            left.extend(found.values())
        elif isinstance(found, list):
            left.extend(found)
        elif isinstance(found, str):
            if is_data(found):
                yield found
            elif is_base64_picture(found):
                try:
                    yield base64_bytes(found)
                except ImageError:
                    continue
            elif found[:1] in {"[", "{"}:
                try:
                    left.append(json.loads(found))
                except (ValueError, RecursionError):
                    continue


def _digest(form: str | bytes) -> bytes:
    """As :func:`spark_rl.data.images.image_digest` has it; of base64 that is damaged that of its text."""
    try:
        data = form if isinstance(form, bytes) else data_bytes(form)
    except ImageError:
        data = form.encode(errors="replace") if isinstance(form, str) else form
    return hashlib.sha256(data).digest()


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")
