"""Problems from data that is in memory: lists of rows or of problems, data sets, and streams of either.

Rows go through the same reader as those of a file (:class:`spark_rl.data.source.Source`): layouts, columns, options and
images are found in the same way, and what can't be used is counted and said. ``datasets`` is not imported here: whoever
hands over a data set has imported it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spark_rl.config import IN_MEMORY, DataConfig, ImagesConfig
from spark_rl.data.images import ImageError, check_images, image_digest, stored_image
from spark_rl.data.load import stored_rows
from spark_rl.data.source import HEAD, Source, unique
from spark_rl.data.values import Number, RowError, place_images, without_surrogates
from spark_rl.errors import DataError, UserError
from spark_rl.files import user_path
from spark_rl.plugins import said
from spark_rl.problem import Problem

Rows = Iterator[tuple[Number, Any]]

_TAKEN = "a datasets.Dataset, a list of dicts or of Problem, an iterable, or a function that returns one"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Data as someone hands it over from Python, with the name of the argument that it came in."""

    data: Any
    name: str
    """``train_dataset``, say: what messages call it and ids begin with."""
    config: DataConfig
    columns: bool = False
    """Whether problems keep the other columns of their rows, for reward functions."""
    golds: bool = True
    """Whether every row needs a gold answer that the verifier can use."""

    @property
    def streams(self) -> bool:
        """Whether the data can only be gone through from the beginning, and not counted."""
        return not _is_counted(self._data)

    @property
    def _data(self) -> Any:
        return _split(self.data, self.config.split, self.name)

    def problems(self) -> tuple[Problem, ...]:
        """All problems of data that can be counted.

        Raises:
            DataError: like :func:`spark_rl.data.load_problems`, or the data is of no kind that is known.
        """
        if self.streams:
            raise DataError(f"{self.name} is a {_kind(self.data)}, which can't be counted; give a list or a Dataset")
        rows = _guarded(lambda: _rows_of(self._data), self.name)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{self.name} has no rows")
        rows = itertools.chain([first], rows)
        if isinstance(first[1], Problem):
            return tuple(self._as_given(rows))
        return self._source().problems(_noticed(rows, self.name))

    def once(self) -> Iterator[Problem]:
        """The problems of one pass over a stream, in its order.

        Raises:
            DataError: like :meth:`problems`, and for what can be gone through once only.
        """
        data = _called(self._data, self.name) if callable(self._data) else self._data
        if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
            raise DataError(f"{self.name} returned a {_kind(data)}, where rows were expected; it must be {_TAKEN}")
        if data is self.data and isinstance(data, Iterator):
            raise _once_only(data, self.name)
        rows = _guarded(lambda: _rows_of(data), self.name)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{self.name} has no rows")
        rows = itertools.chain([first], rows)
        if isinstance(first[1], Problem):
            return itertools.islice(self._as_given(rows), self.config.limit)
        return self._source().stream(_noticed(rows, self.name))

    def _source(self) -> Source:
        return Source(
            self.name, self.name, Path(), self.config, keeps_columns=self.columns, needs_golds=self.golds
        )  # fmt: skip

    def _as_given(self, rows: Rows) -> Iterator[Problem]:
        taken: dict[str, int] = {}
        for number, problem in rows:
            if not isinstance(problem, Problem):
                raise DataError(f"{self.name}, row {number}: a {_kind(problem)} among Problem records; give one or the "
                                "other")  # fmt: skip
            if not problem.question.strip():
                raise DataError(f"{self.name}, row {number}: the Problem has no question")
            yield replace(problem, id=unique(problem.id or f"{self.name}-{number}", taken))


def check_data(data: Any, name: str) -> None:
    """Whether something can be a data set at all.

    Raises:
        DataError: it can't; one line that says what can.
    """
    if data is None or isinstance(data, str | bytes | int | float):
        raise DataError(f"{name} is a {_kind(data)}; it must be {_TAKEN}")
    if hasattr(data, "to_dict") and hasattr(data, "iloc"):
        raise DataError(f"{name} is a {_kind(data)}; give datasets.Dataset.from_pandas of it")
    if isinstance(data, Mapping) and not is_dataset_dict(data):
        raise DataError(f"{name} is a {_kind(data)}; it must be {_TAKEN}")
    if not isinstance(data, Mapping | Iterable) and not callable(data) and not _is_counted(data):
        raise DataError(f"{name} is a {_kind(data)}; it must be {_TAKEN}")
    if isinstance(data, Iterator):
        raise _once_only(data, name)
    if isinstance(data, type):
        raise DataError(f"{name} is the class {data.__name__}; it must be {_TAKEN}")


def in_memory(name: str, problems: Sequence[Problem] | None = None) -> str:
    """What stands in a run's configuration in place of a source: which argument it was, and a digest of what it held.

    ``memory:train_dataset (10 problems, 1f3c9a2b)``, or ``memory:train_dataset (a stream)`` without problems.
    """
    if problems is None:
        return f"{IN_MEMORY}{name} (a stream)"
    summed = hashlib.sha256()
    for p in problems:
        images = [image_digest(image) for image in p.images]
        summed.update(repr((p.question, p.prompt, p.golds, p.kind, p.choices, images)).encode(errors="replace"))
    return f"{IN_MEMORY}{name} ({len(problems):,} problems, {summed.hexdigest()[:8]})"


def asked(question: str | Problem, images: Any, settings: ImagesConfig) -> Problem:
    """A question with its image or images as a problem without a gold answer; a problem stays as it is.

    Raises:
        DataError: it is no text, an image can't be opened, or its markers are not one for each image.
    """
    given = (images,) if isinstance(images, str | bytes) or not isinstance(images, Iterable) else tuple(images)
    if isinstance(question, Problem):
        if given:
            raise DataError("a Problem has its own images; give images beside a question only")
        return question
    if not isinstance(question, str) or not question.strip():
        what = "empty" if isinstance(question, str) else f"a {_kind(question)}"
        raise DataError(f"a question must be text or a Problem, and this one is {what}")
    root = Path() if settings.root is None else user_path(settings.root)
    try:
        stored = tuple(stored_image(image, root, settings.confined) for image in given)
        broken = next((error for error in check_images(stored, settings) if error is not None), None)
        if broken is not None:
            raise broken
        text = without_surrogates(question)
        return Problem(id="question", question=place_images(text, stored), answer="", images=stored)
    except ImageError as error:
        raise DataError(f"image {error}") from None
    except RowError as error:
        raise DataError(f"{error}; give one for each, or none") from None


def _is_counted(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def is_dataset_dict(data: Any) -> bool:
    """Whether something holds the splits of a data set."""
    return isinstance(data, Mapping) and bool(data) and type(data).__name__ in {"DatasetDict", "IterableDatasetDict"}


def _split(data: Any, split: str, name: str) -> Any:
    """The split of a ``DatasetDict``; anything else as it is."""
    if not is_dataset_dict(data):
        return data
    if split not in data:
        raise DataError(f"{name} has no split {split!r}; set data.split to one of: {', '.join(data)}, or give that one")
    return data[split]


def _called(make: Callable[[], Any], name: str) -> Any:
    """What a function of the user's returns. Raises :class:`DataError` if it raises."""
    try:
        return make()
    except UserError:
        raise
    except Exception as error:  # the user's own code, which may raise anything
        raise DataError(f"{name} raised {said(error)}") from error


def _guarded(rows: Callable[[], Rows], name: str) -> Rows:
    """The rows of data that may be a user's own code; what it raises is a :class:`DataError`."""
    given = _called(rows, name)
    while (row := _called(lambda: next(given, None), name)) is not None:
        yield row


def _rows_of(data: Any) -> Rows:
    """(row number, row), counted from 1. Of a plain ``Dataset`` as they are stored: images encoded."""
    if hasattr(data, "with_format") and _is_counted(data) and data.format.get("type") != "custom":
        return stored_rows(data)
    if _is_counted(data) and not isinstance(data, Iterable):
        return enumerate((data[at] for at in range(len(data))), start=1)
    return enumerate(data, start=1)


def _noticed(rows: Rows, name: str) -> Rows:
    """The rows; a system turn in the first of them, which is not asked, is said."""
    head = list(itertools.islice(rows, HEAD))
    with_system = sum(any(_has_system(value) for value in row.values()) for _, row in head if isinstance(row, Mapping))
    if with_system:
        logger.warning("%s: the system turns of its chats are left out; chat.system is asked of every problem", name)
    return itertools.chain(head, rows)


def _has_system(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(turn, Mapping) and turn.get("role") == "system" for turn in value)


def _once_only(data: Any, name: str) -> DataError:
    return DataError(f"{name} is a {_kind(data)}, which can be gone through once only; give the function that makes "
                     "it, so that it can be read again when it is through")  # fmt: skip


def _kind(value: Any) -> str:
    return type(value).__name__
