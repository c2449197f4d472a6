"""The files that users hand to commands and get from them: JSON lines, with images named relative to the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn

from spark_rl.commands.terminal import console, say
from spark_rl.data.values import without_surrogates
from spark_rl.errors import UserError
from spark_rl.files import resolved


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not empty.

    Raises:
        UserError: the file can't be read, something in it is no JSON object, or it has no lines.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON strings may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not any(map(str.strip, lines)):
        raise UserError(f"{path} is empty; give a file with one JSON object a line")
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


class LineFile:
    """One JSON object a line, written as rows are made, so that a stop keeps those that are done::

        with LineFile(path, total=200) as file:
            file.write(rows)    # a batch

    Without a path nothing is written. A file that is there is replaced with the first rows. How many rows are done is
    shown on a terminal while it goes on, and said when it is stopped.

    Args:
        path: the file.
        total: how many rows there will be; 0 where nobody knows.
        what: says on a terminal what goes on.
        whole: whether rows are of no use without the others: the file is there when all of them are, and is not
            touched by a stop. A device or a pipe gets them as they are made.
    """

    def __init__(self, path: Path | None, total: int, what: str, *, whole: bool = False) -> None:
        self.path, self.total, self.done = path, total, 0
        self._final = resolved(path) if whole and path is not None and (path.is_file() or not path.exists()) else None
        self._place = path if self._final is None else self._final.with_name(f".{self._final.name}.{os.getpid()}.tmp")
        self._progress: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal and total > 1:
            columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        try:
            if self.path is not None and kind is None:
                self.write(())  # of no rows an empty file
                if self._final is not None and self._place is not None:
                    self._place.replace(self._final)
                say(f"wrote   {self.path}")
            elif self.path is not None and self.done and self._final is None:
                say(f"wrote   {self.path}: {self.done:,}{f' of {self.total:,}' if self.total else ''} rows")
        except OSError as failed:
            raise UserError(f"cannot write {self.path}: {failed.strerror}") from None
        finally:
            if self._final is not None and self._place is not None:
                self._place.unlink(missing_ok=True)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of a batch at once. Raises :class:`UserError` if that can't be done."""
        if self._place is not None:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            try:
                self._place.parent.mkdir(parents=True, exist_ok=True)
                with self._place.open("ab" if self.done else "wb") as file:
                    file.write(lines.encode("utf-8", errors="replace"))
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error.strerror}") from None
        self.done += len(rows)
        if self._progress is not None:
            self._progress.update(self._task, completed=self.done)


def encodable(value: Any) -> Any:
    """Text without lone surrogates, which JSON and command lines may hold and no tokenizer takes."""
    if isinstance(value, list):
        return [encodable(item) for item in value]
    return without_surrogates(value) if isinstance(value, str) else value
