"""Parquet files, read in batches of bounded size; one that is a bomb is refused before its rows are made (Sec. 3.1).

A column of one long text, a million times, takes a few kilobytes in a Parquet file and gigabytes in memory. What the
values of a file take when they are read is known before any row exists: numbers and plain texts from the footer, and
texts that are stored once and referred to from their lengths and how often each is referred to.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spark_rl.data.values import Number
from spark_rl.errors import DataError

MOST_BYTES = 4 * 2**30
"""What a file may expand to, whatever its own size."""
MOST_TIMES = 20
"""How many times its own size a larger file may expand to: text compresses five- to tenfold, pictures hardly."""

_FOOTER = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import pyarrow.parquet as pq
with pq.ParquetFile(sys.argv[2]) as file:
    found = file.metadata
    for group in range(found.num_row_groups):
        for index in range(found.num_columns):
            found.row_group(group).column(index)
"""
_FOOTER_SECONDS = 120
VALUE_BYTES = 32
"""What the smallest value takes as a Python object."""
_BATCH_ROWS = 1024
_BATCH_BYTES = 64 * 2**20
CACHE_BYTES = 128 * 2**20
"""Of the columns that single values were read from."""

DAMAGE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RuntimeError, ArithmeticError,
    AssertionError, MemoryError, ImportError, EOFError, struct.error,
)  # fmt: skip
"""What pyarrow and datasets raise on damaged files, and on values that Python has no object for (a date in the year
30,000, a time zone that nobody knows)."""

_checked: set[tuple[str, int, int]] = set()
"""Files with size and time whose footer can be read."""


def read_parquet(path: Path) -> Iterator[tuple[Number, Any]]:
    """(row number, row) of a file; numbers start at 1.

    Raises:
        DataError: it is no Parquet file, is damaged, or would expand to more than :data:`MOST_BYTES` and
            :data:`MOST_TIMES` its size.
    """
    # heavy, and only this format needs it; no stubs
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

    _check_footer(path)
    numbers = itertools.count(1)
    try:
        with pq.ParquetFile(path) as file:
            expanded = _expanded(file, path)
            mean = expanded / max(1, file.metadata.num_rows)
            rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1.0, mean))))
            for batch in _batches(file, rows):
                for row in batch.to_pylist():
                    yield next(numbers), row
    except DataError:
        raise
    except DAMAGE as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path} is not a readable Parquet file ({lines[0][:200]})") from None


def group_rows(path: str) -> list[int]:
    """The first row of each row group, from 0."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        found = file.metadata
        counts = [found.row_group(group).num_rows for group in range(found.num_row_groups)]
    return list(itertools.accumulate(counts[:-1], initial=0))


def group_bytes(path: str, column: str) -> list[int]:
    """The bytes of a column in each row group, uncompressed."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        found = file.metadata
        places = [
            index for index in range(found.num_columns)
            if f"{found.schema.column(index).path}.".startswith(f"{column}.")
        ]  # fmt: skip
        return [
            sum(found.row_group(group).column(index).total_uncompressed_size for index in places)
            for group in range(found.num_row_groups)
        ]


def value_at(path: str, group: int, row: int, column: str) -> Any:
    """One value of a file, by its row group and its row in that.

    All of the group's column is read for it, and kept while there is room (:data:`CACHE_BYTES`).

    Raises:
        OSError: the file is gone or can't be read.
        ValueError, LookupError: it is another file than it was: there is no such place.
        DataError: its footer is damaged.
    """
    return _columns.column(path, group, column)[row].as_py()


class _Columns:
    """Columns of row groups that were read last, of files as they are now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._bytes = 0

    def column(self, path: str, group: int, column: str) -> Any:
        found = os.stat(path)  # noqa: PTH116  # paths are kept as text
        key = (path, found.st_size, found.st_mtime_ns, group, column)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            values = self._read(path, group, column)
            self._held[key] = values
            self._bytes += values.nbytes
            while self._bytes > CACHE_BYTES and self._held:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
            return values

    @staticmethod
    def _read(path: str, group: int, column: str) -> Any:
        import pyarrow.parquet as pq

        _check_footer(Path(path))
        with pq.ParquetFile(path) as file:
            if not 0 <= group < file.metadata.num_row_groups:
                raise LookupError(group)
            texts = _texts(file.metadata.row_group(group), column)
        # what is stored once and referred to stays so: expanded, some kilobytes would be gigabytes
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            return file.read_row_group(group, columns=[column], use_threads=False).column(column)


_columns = _Columns()


def _check_footer(path: Path) -> None:
    """Look at the footer in a process of its own first.

    Of some damaged footers pyarrow ends the whole process, by an exception in C++ that nothing catches. It takes half a
    second. Errors that Python can catch are left to the reading here.
    """
    found = path.stat()
    seen = (str(path.absolute()), found.st_size, found.st_mtime_ns)
    if seen in _checked:
        return
    look = [sys.executable, "-c", _FOOTER, json.dumps(sys.path), str(path)]
    try:
        ended = subprocess.run(look, capture_output=True, check=False, timeout=_FOOTER_SECONDS).returncode  # noqa: S603
    except subprocess.TimeoutExpired:
        ended = -1
    if ended < 0:
        raise DataError(f"{path} is not a readable Parquet file (its footer is damaged)")
    _checked.add(seen)


def _texts(group: Any, column: str) -> list[str]:
    """The parts of a column that hold texts or bytes and are stored once for all who refer to them."""
    parts = [group.column(index) for index in range(group.num_columns)]
    return [
        part.path_in_schema for part in parts
        if f"{part.path_in_schema}.".startswith(f"{column}.") and part.physical_type == "BYTE_ARRAY"
        and any("DICTIONARY" in encoding for encoding in part.encodings)
    ]  # fmt: skip


def _expanded(file: Any, path: Path) -> int:
    """The bytes that the values of a file take. Raises :class:`DataError` for a bomb."""
    most = max(MOST_BYTES, MOST_TIMES * path.stat().st_size)
    total, repeated = 0, set[str]()
    for group in range(file.metadata.num_row_groups):
        for index in range(file.metadata.num_columns):
            column = file.metadata.row_group(group).column(index)
            plain = column.total_uncompressed_size
            total += max(plain, VALUE_BYTES * column.num_values)
            texts = "BYTE_ARRAY" in column.physical_type
            shared = any("DICTIONARY" in encoding for encoding in column.encodings)
            if texts and shared and plain * column.num_values > most:
                repeated.add(column.path_in_schema)
    if total <= most and repeated:
        total += _repeated(path, sorted(repeated), most)
    if total > most:
        raise DataError(
            f"{path}: {path.stat().st_size / 1e6:,.1f} MB that expand to {total / 1e9:,.1f} GB or more, over "
            f"{MOST_BYTES / 1e9:.1f} GB and {MOST_TIMES} times the file; if it is meant to be so, write it as .jsonl"
        )
    return total


def _batches(file: Any, rows: int, columns: list[str] | None = None) -> Iterator[Any]:
    """The rows in batches. Over the ends of row groups pyarrow would hold several of them, or all, at the same time."""
    for group in range(file.metadata.num_row_groups):
        yield from file.iter_batches(batch_size=rows, row_groups=[group], columns=columns)


def _repeated(path: Path, columns: list[str], most: int) -> int:
    """The bytes of columns of texts, each text counted as often as it is referred to; stops where it is too much."""
    import pyarrow.parquet as pq

    total = 0
    with pq.ParquetFile(path, read_dictionary=columns) as file:
        for batch in _batches(file, _BATCH_ROWS, columns):
            total += sum(expanded_bytes(column) for column in batch.columns)
            if total > most:
                break
    return total


def expanded_bytes(array: Any) -> int:
    """The bytes of a column as values of its own, what is stored once and referred to counted each time."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import compute  # type: ignore[import-untyped, unused-ignore]

    if pa.types.is_struct(array.type):
        return sum(expanded_bytes(member) for member in array.flatten())
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return expanded_bytes(array.flatten())
    if not pa.types.is_dictionary(array.type):
        return int(array.nbytes)
    held = array.dictionary
    if not (pa.types.is_binary(held.type) or pa.types.is_string(held.type)):
        return int(expanded_bytes(held) / max(1, len(held)) * len(array))
    lengths = compute.binary_length(held)
    return int(compute.sum(compute.take(lengths.cast(pa.int64()), array.indices)).as_py() or 0)
