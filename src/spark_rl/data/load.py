r"""Loading problems by specification, from files, saved data sets, the hub or the procedural families (Sec. 3.1).

=========================== =========================================================================================
specification               what is read
=========================== =========================================================================================
``procedural:FAMILY``       puzzles made on the spot (:mod:`spark_rl.data.procedural`)
a file                      ``.json`` (a list of rows, or ``{"data": [...]}``), ``.jsonl``, ``.csv`` or ``.parquet``
a directory                 a data set written by ``Dataset.save_to_disk`` (``data.split`` picks from a ``DatasetDict``)
anything else               a hub data set, ``name`` or ``name:config``, its split ``data.split`` or ``@split``
=========================== =========================================================================================

A specification that exists on disk is read from disk. ``openai/gsm8k:main@test`` names a split of its own, so that
training and held-out problems can come from one hub data set.

Held-out problems must never reach training. The procedural families are disjoint by construction; for files,
:func:`remove_overlap` takes from the training problems every one whose question is held out. Questions are compared as
text, images apart: with generic questions over many images this removes more than it must, never less.

Files are untrusted: JSON, CSV, Parquet and Arrow only, nothing is evaluated or unpickled, and a file that is malformed,
not UTF-8 or absurdly nested is one line of :class:`DataError`. Single bad rows are skipped, counted and reported once.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from spark_rl.config import DataConfig
from spark_rl.data.layouts import DataError, RowError, check_columns, detect_layout, read_row
from spark_rl.data.procedural import PREFIX, procedural_problems
from spark_rl.problem import Problem

Role = Literal["train", "heldout", "transfer"]

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
HEAD = 100
"""Rows looked at to find the layout and the columns."""

logger = logging.getLogger(__name__)


def load_problems(spec: str, config: DataConfig, role: Role = "train") -> tuple[Problem, ...]:
    """The problems of a specification, in the order of the source (procedural ones in a fixed shuffled order).

    ``layout``, ``columns``, ``kind`` and ``split`` of ``config`` apply to every role, ``limit`` to ``train`` only. Ids
    are unique: the stem of the source and the row number (the line number in a ``.jsonl`` file), or the id column.

    Raises:
        DataError: nothing can be read there, a column is missing, or no row is usable; one line with the mend.
    """
    limit = config.limit if role == "train" else None
    if spec.startswith(PREFIX):
        return procedural_problems(spec.removeprefix(PREFIX), "train" if role == "train" else "heldout", limit)
    path = Path(spec).expanduser()
    if path.exists():
        rows = _read_saved(path, config.split) if path.is_dir() else _read_file(path)
        return _problems(rows, spec, path.stem, config, limit)
    if path.suffix.lower() in SUFFIXES or spec.startswith((".", "/", "~")):
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        raise DataError(f"there is no file {spec}" + (f"; did you mean {path.parent / close[0]}?" if close else ""))
    name = spec.partition("@")[0].partition(":")[0]
    return _problems(_read_hub(spec, config.split), spec, name.rpartition("/")[2], config, limit)


def check_disjoint(train: Iterable[Problem], heldout: Iterable[Problem]) -> int:
    """How many questions the two share, white space apart; 0 is what a run needs."""
    return len({_question_key(p) for p in train} & {_question_key(p) for p in heldout})


def remove_overlap(train: Sequence[Problem], heldout: Iterable[Problem]) -> tuple[tuple[Problem, ...], int]:
    """(the training problems whose question is not held out, how many were removed); the count is logged.

    Raises:
        DataError: none is left.
    """
    held = {_question_key(problem) for problem in heldout}
    kept = tuple(problem for problem in train if _question_key(problem) not in held)
    removed = len(train) - len(kept)
    if train and not kept:
        raise DataError(
            f"all {removed} training problems of {train[0].source} are held out, {train[0].id} for one; "
            "give data.heldout another source or split, or null"
        )
    if removed:
        logger.warning("removed %d of %d training problems whose question is held out", removed, len(train))
    return kept, removed


def _question_key(problem: Problem) -> str:
    return " ".join(problem.question.split())


def _problems(
    rows: Iterator[tuple[int, Any]], spec: str, stem: str, config: DataConfig, limit: int | None
) -> tuple[Problem, ...]:
    """Usable rows as problems, at most ``limit``; the others are counted and reported in one line."""
    head = list(itertools.islice(rows, HEAD))
    objects = [row for _, row in head if isinstance(row, Mapping)]
    if not objects:
        raise DataError(f"{spec} has no rows" if not head else f"{spec}: rows must be objects with named columns")
    layout = config.layout if config.layout != "auto" else detect_layout(objects, config.columns)
    check_columns(objects, layout, config.columns, spec)
    problems: list[Problem] = []
    ids: set[str] = set()
    skipped: list[tuple[int, RowError]] = []
    for number, row in itertools.chain(head, rows):
        try:
            problem = read_row(row, layout, config.columns, config.kind, spec)
        except RowError as error:
            skipped.append((number, error))
            continue
        own = row.get(config.columns.id) if config.columns.id is not None else None
        problems.append(replace(problem, id=_unique(f"{stem}-{number}" if own is None else str(own), ids)))
        if len(problems) == limit:
            break
    if skipped:
        (first, why), read = skipped[0], len(skipped) + len(problems)
        if not problems:
            raise DataError(f"{spec}: none of {read} rows is usable as {layout}: first is row {first}, {why}")
        logger.warning("skipped %d of %d rows of %s: first is row %d, %s", len(skipped), read, spec, first, why)
    return tuple(problems)


def _unique(wanted: str, taken: set[str]) -> str:
    """``wanted``, or with ``-2``, ``-3``, ... behind it, and now taken."""
    names = itertools.chain((wanted,), (f"{wanted}-{i}" for i in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _read_file(path: Path) -> Iterator[tuple[int, Any]]:
    """(row number, row) of a file; numbers start at 1."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    readers = {".json": _read_json, ".jsonl": _read_lines, ".csv": _read_csv}
    if suffix not in readers:
        raise DataError(f"{path}: unknown kind of file {suffix!r}; convert it to one of {', '.join(SUFFIXES)}")
    try:
        # a byte order mark at the front is not part of the data
        return readers[suffix](path.read_text(encoding="utf-8-sig"), path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from None


def _read_json(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under the name .json, as POPE has them
            return _read_lines(text, path)
        raise DataError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not usable JSON ({_why(error)})") from None
    rows = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(rows, list):
        raise DataError(f'{path} must hold a list of rows, or an object with such a list under "data"')
    return enumerate(rows, start=1)


def _read_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    # not splitlines(): JSON strings may hold U+2028 and other separators unescaped
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}: not valid JSON ({_why(error)}); every line must be one JSON object"
                ) from None


def _read_csv(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(csv.DictReader(text.splitlines(keepends=True), restkey="(more)", strict=True), start=1)
    except csv.Error as error:
        raise DataError(f"{path}: not valid CSV ({error})") from None


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    # heavy, and only this format needs it; no stubs
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

    numbers = itertools.count(1)
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            yield from zip(numbers, batch.to_pylist(), strict=False)
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable Parquet file ({_why(error)})") from None


def _read_saved(path: Path, split: str) -> Iterator[tuple[int, Any]]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is a directory but no data set saved by datasets ({_why(error)}); name a file inside it"
        ) from None
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"{path} has no split {split!r}; set data.split to one of: {', '.join(saved)}")
        saved = saved[split]
    return enumerate(saved, start=1)


def _read_hub(spec: str, split: str) -> Iterator[tuple[int, Any]]:
    import datasets

    where, _, own_split = spec.partition("@")
    name, _, configuration = where.partition(":")
    try:
        loaded = datasets.load_dataset(name, configuration or None, split=own_split or split)
    except (OSError, ValueError) as error:  # not found, offline, no such configuration or split
        raise DataError(
            f"there is no file {spec}, and the hub data set could not be loaded ({_why(error)}); "
            "check the name and the connection"
        ) from None
    return enumerate(loaded, start=1)


def _why(error: BaseException) -> str:
    """The first line of an error's text, short enough for one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
