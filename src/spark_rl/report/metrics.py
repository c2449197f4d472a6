"""metrics.jsonl: one strict JSON object per training step, safe to kill at any byte and to resume.

Appending is one write, so a killed run loses at most the line it was writing; the torn line is dropped
when the log is opened again. ``rollouts.jsonl`` has the same shape (records with a step) and the same class serves it.
Departure from the paper's release, which only logs to a tracker: the file is the record, trackers are copies of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spark_rl.errors import UserError
from spark_rl.files import parse_json, write_atomically


class MetricsLog:
    """Appends records to a JSON Lines file::

        with MetricsLog(run_dir / "metrics.jsonl") as log:
            log.truncate(resumed_step)  # a resumed run forgets what came after its checkpoint
            log.append({"step": 11, "reward/policy": 0.62, "kl": float("nan")})  # NaN is written as null

    Raises:
        ValueError: on opening, if a line other than the last is not a JSON object; one line that names it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            before = self.path.read_bytes()
            lines = _encode(_parse(before, self.path))
            if lines != before:
                write_atomically(self.path, lines)
        self._open()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, to the operating system.

        Raises:
            OSError: it can't be written; a part of it may be, and is dropped when the log is opened again.
            ValueError: without a whole-number ``step``, which :meth:`truncate` and the report need.
        """
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, Integral):
            raise ValueError(f"a record of {self.path.name} needs a whole-number 'step', got {step!r}")
        left = memoryview(_encode([dict(record)]))
        while left:  # a disk that fills up takes a part
            left = left[self._file.write(left) :]

    def truncate(self, step: int) -> None:
        """Drop every record after ``step``: what a resumed run is about to do again."""
        self.remove(lambda record: (finite(record.get("step")) or 0) > step)

    def remove(self, is_gone: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the records of which this is true."""
        records = read_metrics(self.path)
        kept = [record for record in records if not is_gone(record)]
        if len(kept) == len(records):
            return
        self._file.close()
        write_atomically(self.path, _encode(kept))
        self._open()

    def _open(self) -> None:
        """Without a buffer, whose rest would be written, and fail, once more when the file is closed."""
        self._file = self.path.open("ab", buffering=0)

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

    Raises:
        ValueError: if another line is not a JSON object; one line that names it.
        FileNotFoundError: if there is no such file.
    """
    return _parse(Path(path).read_bytes(), Path(path))


def finite(value: object) -> float | None:
    """``value`` as a float if it is a finite number, else ``None``. Booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _encode(records: list[dict[str, Any]]) -> bytes:
    # ASCII escapes keep lone surrogates, which a byte-level tokeniser can produce, from breaking the file.
    return b"".join(json.dumps(_strict(record), allow_nan=False).encode("ascii") + b"\n" for record in records)


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


def _parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    # Not splitlines(): it would also split at characters that are legal inside a JSON string.
    lines = content.split(b"\n")
    records: list[dict[str, Any]] = []
    last = max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, parse_constant=lambda _name: None)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number != last:
            raise UserError(f"{path}, line {number} is not a JSON object; remove the line or restore the file")
    return records
