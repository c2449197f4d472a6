"""metrics.jsonl: one strict JSON object per training step, safe to kill at any byte and to resume.

Appending is one write, so a killed run loses at most the line it was writing; the torn line is dropped
when the log is opened again. The other ``.jsonl`` files of a run have the same shape (records with a step), and the
same class serves them. A row that can't be read is left out by every reader, and said; it stays in the file, unless it
is after the checkpoint that a run goes on from.
Departure from the paper's release, which only logs to a tracker: the file is the record, trackers are copies of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from spark_rl.files import parse_json, resolved, write_atomically

logger = logging.getLogger(__name__)

LONGEST = 2**26
"""Bytes of a row at most; a longer one is damage, and is not held in memory."""
_SHOWN = 5
_told: set[tuple[Path, tuple[int, ...]]] = set()
"""What has been said in this process."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows of a file that can't be read: not a JSON object with a whole-number ``step``.

    ``str(Damage(Path("runs/a/metrics.jsonl"), (17, 203), 300))`` is ``"runs/a/metrics.jsonl: 2 of 300 rows are damaged
    and left out (lines 17, 203)"``.
    """

    path: Path
    lines: tuple[int, ...]
    """Counted from 1."""
    rows: int
    """How many there are, damaged or not."""

    def __str__(self) -> str:
        one = len(self.lines) == 1
        shown = ", ".join(map(str, self.lines[:_SHOWN])) + (", ..." if len(self.lines) > _SHOWN else "")
        return (
            f"{self.path}: {len(self.lines):,} of {self.rows:,} rows {'is' if one else 'are'} damaged and left out "
            f"({'line' if one else 'lines'} {shown})"
        )

    def tell(self, say: Callable[[str], None], *, again: bool = False) -> None:
        """Say it, unless it has been said in this process."""
        key = (resolved(self.path), self.lines)
        if again or key not in _told:
            _told.add(key)
            say(str(self))


class MetricsLog:
    """Appends records to a JSON Lines file::

    with MetricsLog(run_dir / "metrics.jsonl") as log:
        log.truncate(resumed_step)  # a resumed run forgets what came after its checkpoint
        log.append({"step": 11, "reward/policy": 0.62, "kl": float("nan")})  # NaN is written as null
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    @property
    def held(self) -> dict[str, Any]:
        """Size and SHA-256 of the file, as :func:`spark_rl.manifest.held` returns them, without reading it."""
        return {"bytes": self._size, "sha256": self._sum.hexdigest()}

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, to the operating system.

        Raises:
            OSError: it can't be written; a part of it may be, and is dropped when the log is opened again.
            ValueError: without a whole-number ``step``, which :meth:`truncate` and the report need.
        """
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, Integral):
            raise ValueError(f"a record of {self.path.name} needs a whole-number 'step', got {step!r}")
        self._write(_encode(dict(record)))

    def truncate(self, step: int, kept: int = 0) -> Damage | None:
        """Drop every record after ``step``: what a resumed run is about to do again.

        The step of a damaged row is not known. It stays if it is one of the first ``kept`` bytes, which the file had at
        that step, or stands before a record that stays.

        Returns:
            The damaged rows that stay.
        """
        return self._drop(lambda record: record["step"] > step, kept)

    def remove(self, is_gone: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the records of which this is true."""
        self._drop(is_gone, self._size)

    def _drop(self, is_gone: Callable[[Mapping[str, Any]], bool], kept: int) -> Damage | None:
        rows = [(row.number, row.start, row.end, row.record and is_gone(row.record)) for row in _rows(self.path)]
        kept = max([kept, *(end for _, _, end, gone in rows if gone is False)])
        dropped = [(start, end) for _, start, end, gone in rows if gone or (gone is None and start >= kept)]
        if dropped:
            self._file.close()
            content = self.path.read_bytes()
            starts, ends = [0, *(end for _, end in dropped)], [*(start for start, _ in dropped), len(content)]
            write_atomically(self.path, b"".join(content[a:b] for a, b in zip(starts, ends, strict=True)))
            self._open()
        left = [number for number, start, _, gone in rows if gone is None and start < kept]
        return _damage(self.path, left, len(rows) - len(dropped))

    def _open(self) -> None:
        """Without a buffer, whose rest would be written, and fail, once more when the file is closed."""
        self._sum, self._size = hashlib.sha256(), 0
        torn = None
        if self.path.exists():
            with self.path.open("rb") as file:
                for line in _lines(file, self._sum.update):
                    self._size = line.end
                    torn = None if line.is_ended else line
        if torn is not None and _record(torn) is None:
            os.truncate(self.path, torn.start)
            self._open()
            return
        self._file = self.path.open("ab", buffering=0)
        if torn is not None:
            self._write(b"\n")

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:  # a disk that fills up takes a part
            written = self._file.write(left)
            self._sum.update(left[:written])
            self._size += written
            left = left[written:]

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file in order; a torn last line is left out. Safe while a run is still writing.

    Damaged rows are left out, and logged as a warning once a process.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    records, damage = read_rows(Path(path))
    if damage is not None:
        damage.tell(logger.warning)
    return records


def read_rows(path: Path) -> tuple[list[dict[str, Any]], Damage | None]:
    """The records of :func:`read_metrics`, and the damaged rows among them, for whoever has a way to say it.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    rows = [(row.number, row.record) for row in _rows(path)]
    records = [record for _, record in rows if record is not None]
    return records, _damage(path, [number for number, record in rows if record is None], len(rows))


def finite(value: object) -> float | None:
    """``value`` as a float if it is a finite number, else ``None``. Booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number with hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _encode(record: dict[str, Any]) -> bytes:
    # ASCII escapes keep lone surrogates, which a byte-level tokeniser can produce, from breaking the file.
    return json.dumps(_strict(record), allow_nan=False).encode("ascii") + b"\n"


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity, and numpy's numbers are not JSON's."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    raise ValueError(f"cannot write a {type(value).__name__} as JSON; convert it to a number, text, list or mapping")


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    """Where it lies in the file, with its line break."""
    text: bytes
    """All of it, or the beginning of one that is longer than :data:`LONGEST`."""
    is_ended: bool
    """Whether it has a line break; only the last may have none."""


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    start: int
    end: int
    record: dict[str, Any] | None
    """``None`` of a damaged one."""


def _rows(path: Path) -> Iterator[_Row]:
    """The lines of a file that are not blank, but for a last one that is not finished."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                record = _record(line)
                if record is not None or (line.is_ended and line.text.strip()):
                    yield _Row(number, line.start, line.end, record)
    except OSError as error:
        error.filename = error.filename or str(path)  # reading names none
        raise


def _lines(file: BinaryIO, hear: Callable[[bytes], object] = len) -> Iterator[_Line]:
    """The lines of a file; ``hear`` is given all its bytes in order."""
    # Not splitlines(): it would also split at characters that are legal inside a JSON string.
    start = 0
    while text := file.readline(LONGEST):
        hear(text)
        end, last = start + len(text), text
        while not last.endswith(b"\n") and (more := file.readline(LONGEST)):
            hear(more)
            end, last = end + len(more), more
        yield _Line(start, end, text, last.endswith(b"\n"))
        start = end


def _record(line: _Line) -> dict[str, Any] | None:
    """What a line holds, if it is what :meth:`MetricsLog.append` writes."""
    if line.end - line.start > len(line.text):
        return None
    try:
        record = parse_json(line.text.decode("utf-8"), parse_constant=lambda _name: None)
    except ValueError:
        return None
    step = record.get("step") if isinstance(record, dict) else None
    is_step = isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53
    return record if is_step else None


def _damage(path: Path, lines: Sequence[int], rows: int) -> Damage | None:
    return Damage(path, tuple(lines), rows) if lines else None
