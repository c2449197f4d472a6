"""From the rows of one source to problems d = (q, a, I) (Sec. 3.1): parsed, chosen, their images opened once.

Every row ends in one of four places: a problem, ``unusable`` (no question, no gold answer the verifier can use),
``outside`` of ``data.ranges``, or ``broken`` (an image can't be opened). Each is counted and reported in one line, the
unusable ones by reason, each with an example. Options of an unknown shape stop the loading: without them another
question would be asked. What was assumed of rows that are used (:data:`.layouts.INDEX`, :data:`.layouts.FORMAT`) is
said once too.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spark_rl.config import DataConfig
from spark_rl.data.columns import other_columns
from spark_rl.data.images import ImageError, check_images, stored_image
from spark_rl.data.layouts import (
    UNKNOWN,
    Layout,
    Numbers,
    check_columns,
    detect_layout,
    number_rule,
)
from spark_rl.data.rowimages import ParquetPlaces, Places, RowImage, placed
from spark_rl.data.rows import read_row, read_row_without_gold
from spark_rl.data.values import MORE, Number, RowError, UnreadableError, UnreadableImageError, within_ranges
from spark_rl.errors import DataError
from spark_rl.files import user_path
from spark_rl.problem import Problem

HEAD = 100
"""Rows looked at to find the layout and the columns."""
MOST_REASONS = 8
"""Reasons that are said one by one."""
CHUNK = 256
"""Problems whose images are opened together."""
MOST_BETWEEN = 65_536
"""Rows of a stream between two reports at most."""

logger = logging.getLogger(__name__)


@dataclass
class Source:
    """Reads the rows of one source, and counts what becomes of them."""

    spec: str
    """Where the rows come from, for messages."""
    stem: str
    """What ids begin with."""
    folder: Path
    """Where relative image paths start, unless ``data.images.root`` says otherwise."""
    config: DataConfig
    keeps_columns: bool = False
    """Whether problems get the other columns of their rows."""
    needs_golds: bool = True
    """Whether a row without a gold answer that the verifier can use is unusable."""
    quiet: bool = False
    """Whether what was left out and assumed is only counted, for a caller who shows it, and not said."""
    layout: Layout = "columns"
    numbers: Numbers = UNKNOWN
    read: int = 0
    outside: int = 0
    unusable: list[tuple[Number, str]] = field(default_factory=list)
    broken: list[tuple[Number, str]] = field(default_factory=list)
    notes: dict[str, list[tuple[Number, str]]] = field(default_factory=dict)
    """What was assumed of rows, or taken off them -> where, with an example."""
    places: Places | None = None
    """Where the rows are in a file that images can be read from again."""
    _opened: dict[object, ImageError | None] = field(default_factory=dict, repr=False)

    def problems(self, rows: Iterator[tuple[Number, Any]]) -> tuple[Problem, ...]:
        """Usable rows as problems, as many as ``ranges``, ``sample`` and ``limit`` ask for, in the order of the source.

        Raises:
            DataError: there is no usable row, a column is missing, or an image is broken and may not be.
        """
        settings, head = self.config, self._begun(rows)
        parsed = self._parsed(itertools.chain(head, rows))
        if settings.sample is None:
            found = list(itertools.islice(self._sighted(parsed), settings.limit))
        else:
            everything = list(parsed)
            order = random.Random(settings.sample_seed).sample(range(len(everything)), len(everything))
            place = {everything[position][1].id: position for position in order}
            drawn = itertools.islice(self._sighted(everything[position] for position in order), settings.sample)
            found = sorted(drawn, key=lambda problem: place[problem.id])
            if len(found) < settings.sample:
                logger.warning("data.sample asks for %d problems; %s has %d", settings.sample, self.spec, len(found))
            found = found[: settings.limit]
        self._report(len(found))
        return tuple(found)

    def stream(self, rows: Iterator[tuple[Number, Any]]) -> Iterator[Problem]:
        """Usable rows as problems, one after the other and as many as ``limit``, none of them kept.

        Rows that are left out are reported after a chunk, and then each time as many rows again have been read.

        Raises:
            DataError: as :meth:`problems`; there is no usable row before the first report.
        """
        rows = itertools.chain(self._begun(rows), rows)
        found, window = 0, CHUNK
        while chunk := list(itertools.islice(rows, CHUNK)):
            for problem in self._sighted(self._parsed(chunk)):
                yield problem
                found += 1
                if found == self.config.limit:
                    self._report(found)
                    return
            self._opened.clear()
            if self.read >= window:
                self._report(found)
                self.read, self.outside, window = 0, 0, min(2 * window, MOST_BETWEEN)
                self.unusable, self.broken, self.notes = [], [], {}
        self._report(found)

    def _begun(self, rows: Iterator[tuple[Number, Any]]) -> list[tuple[Number, Any]]:
        """The first rows, which tell how all are read.

        Raises:
            DataError: there are none, or a column is missing.
        """
        head = list(itertools.islice(rows, HEAD))
        objects = [row for _, row in head if isinstance(row, Mapping)]
        if not objects:
            raise DataError(
                f"{self.spec}: rows must be objects with named columns" if head else f"{self.spec} has no rows"
            )
        settings = self.config
        self.layout = settings.layout if settings.layout != "auto" else detect_layout(objects, settings.columns)
        check_columns(objects, self.layout, settings.columns, self.spec, answer=self.needs_golds)
        self._check_ranges(objects)
        self.numbers = number_rule(objects, self.layout, settings.columns)
        return head

    def _check_ranges(self, head: Sequence[Mapping[Any, Any]]) -> None:
        for name in self.config.ranges or ():
            if not any(name in row for row in head):
                there = ", ".join(str(key) for key in head[0])
                raise DataError(f"{self.spec}: data.ranges names {name!r}, which is no column; there are: {there}")

    def _parsed(self, rows: Iterable[tuple[Number, Any]]) -> Iterator[tuple[Number, Problem]]:
        """(number, problem) of the rows with a question and a gold answer, their images as they stand in the row."""
        settings, ids = self.config, dict[str, int]()
        for number, row in rows:
            self.read += 1
            if isinstance(row, Mapping) and not within_ranges(row, settings.ranges or {}):
                self.outside += 1
                continue
            try:
                said: list[tuple[str, str]] = []
                if isinstance(row, Mapping) and MORE in row:
                    raise RowError(f"{len(row[MORE])} more cells than there are columns")
                read = read_row if self.needs_golds else read_row_without_gold
                problem = read(row, self.layout, settings.columns, settings.kind, self.spec, self.numbers, said)
            except UnreadableImageError as error:
                self._leave_out(number, ImageError(str(error)))
                continue
            except UnreadableError as error:
                raise DataError(
                    f"{self.spec}, row {number}: {error}; mend the row, or name the right column with "
                    "data.columns.choices"
                ) from None
            except RowError as error:
                self.unusable.append((number, str(error)))
                continue
            for what, example in said:
                self.notes.setdefault(what, []).append((number, example))
            own = row.get(settings.columns.id) if settings.columns.id is not None else None
            if own is None:
                own = number if isinstance(number, str) else f"{self.stem}-{number}"
            kept = other_columns(row, settings.columns) if self.keeps_columns else {}
            images = problem.images
            if images and self.places is not None and isinstance(number, int):
                images = tuple(placed(image, row, number, self.places) for image in images)
            yield number, replace(problem, id=unique(str(own), ids), columns=kept, images=images)

    def _sighted(self, problems: Iterable[tuple[Number, Problem]]) -> Iterator[Problem]:
        """The problems whose images can all be opened, each image in the form that is kept.

        Raises:
            DataError: one can't, and ``data.images.broken`` is ``error``.
        """
        settings = self.config
        size = min(CHUNK, settings.sample or CHUNK, settings.limit or CHUNK)
        remaining = iter(problems)
        while chunk := list(itertools.islice(remaining, size)):
            resolved = [self._resolved(problem) for _, problem in chunk]
            images = (image for problem in resolved if isinstance(problem, Problem) for image in problem.images)
            new = {key: image for image in images if (key := _key(image)) not in self._opened}
            if new:
                self._opened.update(zip(new, check_images(list(new.values()), settings.images), strict=True))
            for (number, _), problem in zip(chunk, resolved, strict=True):
                if isinstance(problem, ImageError):
                    self._leave_out(number, problem)
                    continue
                errors = (error for image in problem.images if (error := self._opened[_key(image)]) is not None)
                bad = next(errors, None)
                if bad is None:
                    yield problem
                else:
                    self._leave_out(number, bad)

    def _resolved(self, problem: Problem) -> Problem | ImageError:
        root = self.config.images.root
        folder = self.folder if root is None else user_path(root)
        try:
            confined = self.config.images.confined
            return replace(problem, images=tuple(
                image if isinstance(image, RowImage) else stored_image(image, folder, confined)
                for image in problem.images
            ))  # fmt: skip
        except ImageError as error:
            return error

    def _leave_out(self, number: Number, error: ImageError) -> None:
        if self.config.images.broken == "error":
            raise DataError(
                f"{self.spec}, row {number}: image {error}; mend it, set data.images.root to the folder that paths "
                "start from, or data.images.broken to skip"
            )
        self.broken.append((number, " ".join(str(error).splitlines())))

    def _report(self, found: int) -> None:
        """One line for each kind of row that was left out.

        Raises:
            DataError: no row is left.
        """
        for lost, how in (
            (self.unusable, f"usable as {self.layout}"),
            (self.broken, "usable with its images"),
        ):
            if lost:
                number, why = lost[0]
                if not found and (len(lost) + self.outside == self.read or lost is self.broken):
                    raise DataError(f"{self.spec}: none of {self.read} rows is {how}: first is row {number}, {why}")
        if self.outside and not found:
            raise DataError(f"{self.spec}: none of {self.read} rows is within data.ranges; widen them")
        if not self.quiet:
            for line in self.said():
                logger.warning("%s", line)
            if self.outside:
                logger.info("data.ranges leaves out %d of %d rows of %s", self.outside, self.read, self.spec)

    def said(self) -> Iterator[str]:
        """One line for each kind of row that was left out, and for what was assumed of rows that are used."""
        for lost, of_what in ((self.unusable, ""), (self.broken, " for their images")):
            if lost:
                yield f"skipped {len(lost)} of {self.read} rows of {self.spec}{of_what}: {_by_reason(lost)}"
        largest = self.places.largest if isinstance(self.places, ParquetPlaces) else 0
        if largest:
            yield (f"images of {self.spec} are kept in memory, because for one of them all of its row group is read, "
                   f"up to {largest / 1e6:,.0f} MB; write the file with row groups of some 100 rows")  # fmt: skip
        for what, rows in self.notes.items():
            number, example = rows[0]
            yield (f"{len(rows)} of {self.read} rows of {self.spec} {what}: first is row {number}, {example[:80]!r}")


def unique(wanted: str, taken: dict[str, int]) -> str:
    """``wanted``, or with ``-2``, ``-3``, ... behind it, and now taken.

    ``taken`` holds the next number to try behind each name, so that a column of one value does not take for ever.
    """
    name = wanted
    while name in taken:
        name, taken[wanted] = f"{wanted}-{taken[wanted]}", taken[wanted] + 1
    taken[name] = 2
    return name


def _key(image: object) -> object:
    """What pictures that were opened before are known by."""
    return image.digest if isinstance(image, RowImage) else image


def _by_reason(lost: Sequence[tuple[Number, str]]) -> str:
    """How many rows were lost for what, each reason with its first row: reasons that differ in what they quote are one.

    ``first is row 3, empty answer`` for one reason, ``2 like row 3, empty answer; 1 like row 7, no question`` for two.
    """
    reasons: dict[str, list[tuple[Number, str]]] = {}
    for number, why in lost:
        reasons.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|\d+|\S*/\S*", "", why), []).append((number, why))
    if len(reasons) == 1:
        return f"first is row {lost[0][0]}, {lost[0][1]}"
    largest = sorted(reasons.values(), key=len, reverse=True)
    said = [f"{len(rows)} like row {rows[0][0]}, {rows[0][1]}" for rows in largest[:MOST_REASONS]]
    others = sum(len(rows) for rows in largest[MOST_REASONS:])
    return "; ".join([*said, *([f"{others} for other reasons"] if others else [])])
