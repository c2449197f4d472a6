"""The entries of a benchmark's own files: their rows, read strictly (Sec. 4.1).

A training row that can't be used is skipped and counted; a benchmark's row is an error, because a score over the rest
would be a score of another benchmark. Images are named or held, never opened. Nothing here evaluates what a row holds.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spark_rl.data.images import ImageError, stored_image
from spark_rl.data.load import read_file
from spark_rl.data.source import unique
from spark_rl.data.values import RowError, images_of, text_of, without_surrogates
from spark_rl.errors import DataError

ABSENT = frozenset(("", "nan"))
"""What files made with pandas write for an empty cell."""
LETTERS = string.ascii_uppercase


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a file, and where it stands.

    Every method but ``get`` raises ``DataError``, which names the row and the column.
    """

    path: Path
    number: int | str
    """Counted from 1, or the row's key."""
    id: str
    """Unique in the file."""
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """The value as it is, ``None`` without one."""
        return self.values.get(name)

    def wrong(self, why: str) -> DataError:
        """The error to raise about this row."""
        return DataError(f"{self.path}, row {self.number}: {why}")

    def optional(self, *names: str) -> str:
        """The first of these columns that holds something, as stripped text; empty if none does."""
        for name in names:
            try:
                text = text_of(self.get(name), name)
            except RowError as error:
                raise self.wrong(str(error)) from None
            if text.casefold() not in ABSENT:
                return text
        return ""

    def text(self, *names: str) -> str:
        """The first of these columns that holds something, as stripped text; an error if none does."""
        found = self.optional(*names)
        if not found:
            raise self.wrong(f"no {' or '.join(map(repr, names))}")
        return found

    def whole(self, value: object, what: str) -> str:
        """A text exactly as written, where spaces belong to what is judged."""
        if not isinstance(value, str):
            raise self.wrong(f"the {what} is a {type(value).__name__}, not text")
        return without_surrogates(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, each exactly as written."""
        values = self.get(name)
        if not isinstance(values, list | tuple):
            raise self.wrong(f"{name!r} is not a list")
        return tuple(self.whole(value, f"member of {name!r}") for value in values)

    def options(self, *names: str) -> tuple[str, ...]:
        """Option texts from columns of their own, up to the first that holds none."""
        found = (self.optional(name) for name in names)
        options = tuple(itertools.takewhile(bool, found))
        if len(options) < 2:
            raise self.wrong(f"fewer than two options in {', '.join(names)}")
        return options

    def letter(self, name: str, options: Sequence[object] = LETTERS) -> str:
        """A gold letter, one of as many as there are options."""
        letter = self.text(name).upper()
        if letter not in LETTERS[: len(options)] or len(letter) != 1:
            raise self.wrong(f"{name!r} is {letter[:20]!r}, no letter of one of {len(options)} options")
        return letter

    def images(self, *names: str) -> tuple[str | bytes, ...]:
        """The images of the columns, in order, as :attr:`spark_rl.problem.Problem.images` keeps them."""
        found = (image for name in names for image in images_of(self.get(name)))
        try:
            return tuple(stored_image(image, self.path.parent) for image in found)
        except (ImageError, RowError) as error:
            raise self.wrong(f"image {error}") from None

    def image(self, name: str = "image") -> tuple[str | bytes, ...]:
        """The images of a column that must hold at least one."""
        found = self.images(name)
        if not found:
            raise self.wrong(f"no image in {name!r}")
        return found


def read_entries(path: Path, *ids: str, prefix: str = "") -> list[Entry]:
    """All rows of a ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file.

    Args:
        ids: columns that may hold a row's id; without any, ids are the row's key or number. An id that appears again
            gets a number.
        prefix: in front of every id.

    Raises:
        DataError: the file can't be read, has no rows, or one is not an object.
    """
    entries: list[Entry] = []
    taken: dict[str, int] = {}
    for number, values in read_file(path):
        if not isinstance(values, Mapping):
            raise DataError(f"{path}, row {number}: not an object with named columns")
        entry = Entry(path, number, "", values)
        entries.append(replace(entry, id=unique(prefix + (entry.optional(*ids) or str(number)), taken)))
    if not entries:
        raise DataError(f"{path} has no rows")
    return entries


def listed(options: Sequence[str]) -> str:
    """Options below each other: ``A. left``."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
