r"""Loading problems by specification, from files, saved data sets, the hub or the procedural families (Sec. 3.1).

=========================== =========================================================================================
specification               what is read
=========================== =========================================================================================
``procedural:FAMILY``       puzzles made on the spot (:mod:`spark_rl.data.procedural`)
a file                      ``.json`` (a list of rows, ``{"data": [...]}``, or an object of rows, whose keys are their
                            ids), ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet``
a directory                 a data set written by ``Dataset.save_to_disk`` (``data.split`` picks from a ``DatasetDict``)
anything else               a hub data set, ``name`` or ``name:config``, its split ``data.split`` or ``@split``
=========================== =========================================================================================

A specification that exists on disk is read from disk. ``openai/gsm8k:main@test`` names a split of its own, so that
training and held-out problems can come from one hub data set. Several specifications are read one after the other.

Images are found and opened once while loading, so that a broken one shows before training starts, with its row
(``data.images.broken``). Decoded pictures are not kept; of encoded ones in Parquet files and JSON lines their places
are (:mod:`spark_rl.data.rowimages`), and of those from elsewhere the bytes.

Files are untrusted: JSON, CSV, Parquet and Arrow only, nothing is evaluated or unpickled, and a file that is malformed,
not UTF-8, absurdly nested or a bomb is one line of :class:`DataError`. Single bad rows are skipped, counted and
reported once.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from spark_rl.config import IN_MEMORY, DataConfig, TrainSource
from spark_rl.data.arrow import check_arrow
from spark_rl.data.parquet import DAMAGE, read_parquet
from spark_rl.data.procedural import PREFIX, procedural_problems
from spark_rl.data.rowimages import LinePlaces, ParquetPlaces
from spark_rl.data.source import Source, unique
from spark_rl.data.values import MORE, Number
from spark_rl.errors import DataError
from spark_rl.files import check_regular, user_path
from spark_rl.problem import Problem

Role = Literal["train", "heldout", "transfer"]

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")

WHOLE = DataConfig().split
"""The split of sources that have none: any other name for it is said to do nothing."""

logger = logging.getLogger(__name__)

_cells = threading.RLock()


def load_problems(
    spec: str | Sequence[str | TrainSource],
    config: DataConfig,
    role: Role = "train",
    *,
    columns: bool = False,
    golds: bool = True,
    readers: list[Source] | None = None,
) -> tuple[Problem, ...]:
    """The problems of a specification, in the order of the source (procedural ones in a fixed shuffled order).

    ``layout``, ``columns``, ``images``, ``kind`` and ``split`` of ``config`` apply to every role; ``ranges``,
    ``sample`` and ``limit`` to ``train`` only, and to each of several sources. Ids are unique, over all sources too:
    the id column, the key of the row, or the stem of the source and the row number (the line number in a ``.jsonl``
    file). Of several sources every problem has its specification as :attr:`~spark_rl.problem.Problem.source`.

    ``columns`` keeps the other columns of each row for a user's reward functions; without ``golds`` rows need no answer
    that the verifier can use, or none at all. What was left out of a source is said in lines of the log; into
    ``readers``, if it is given, goes for each source what read it instead, with its counts, and nothing is said.

    Raises:
        DataError: nothing can be read there, a column is missing, an image is broken while ``data.images.broken`` is
            ``error``, or no row is usable; one line with the mend.
    """
    if not isinstance(spec, str):
        taken: dict[str, int] = {}
        names = [entry if isinstance(entry, str) else entry.source for entry in spec]
        return tuple(
            replace(problem, id=unique(problem.id, taken), source=name)
            for name in names
            for problem in load_problems(name, config, role, columns=columns, golds=golds, readers=readers)
        )
    if role != "train":
        config = config.model_copy(update={"limit": None, "sample": None, "ranges": None})
    if spec.startswith(PREFIX):
        family = spec.removeprefix(PREFIX)
        return procedural_problems(family, "train" if role == "train" else "heldout", config.limit)
    path = user_path(spec)
    source, rows = _opened(spec, path, config)
    source.keeps_columns, source.needs_golds, source.quiet = columns, golds, readers is not None
    problems = source.problems(rows)
    if readers is not None:
        readers.append(source)
    return problems


def _opened(spec: str, path: Path, config: DataConfig) -> tuple[Source, Iterator[tuple[Number, Any]]]:
    """What reads a source that is not procedural, and its rows."""
    check_regular(path)
    # unlike those of Path, these two say no of a name that is too long
    if os.path.isdir(path):  # noqa: PTH112
        return Source(spec, path.stem, path, config), _read_saved(path, config.split)
    if os.path.exists(path):  # noqa: PTH110
        if config.split != WHOLE:
            logger.warning("data.split is %r, and the file %s has no splits: all of it is read", config.split, spec)
        suffix, source = path.suffix.lower(), Source(spec, path.stem, path.parent, config)
        if suffix == ".parquet":
            source.places = ParquetPlaces(path)
        elif suffix == ".jsonl":
            source.places = places = LinePlaces(path)
            return source, _read_jsonl(path, places)
        return source, read_file(path)
    check_place(spec)
    name = spec.partition("@")[0].partition(":")[0].rpartition("/")[2]
    return Source(spec, name, Path(), config), _read_hub(spec, config.split)


def check_place(spec: str) -> None:
    """Whether a specification that looks like a file is there, before anything heavy loads.

    Raises:
        DataError: it is not, and the line names the nearest file beside it; or it is empty.
    """
    if spec.startswith(IN_MEMORY):
        raise DataError(f"the data {spec!r} was given from Python and is in no file; name a source in its place, or go "
                        "on in the script that began the run: train(resume_from_checkpoint=True)")  # fmt: skip
    path = user_path(spec)
    like_a_file = path.suffix.lower() in SUFFIXES or spec.startswith((".", "/", "~"))
    if spec.startswith(PREFIX):
        return
    if os.path.exists(path):  # noqa: PTH110
        if path.is_file() and not path.stat().st_size:
            raise DataError(f"{spec} has no rows: it is empty")
        return
    place, at, _ = spec.partition("@")
    if at and os.path.exists(user_path(place)):  # noqa: PTH110
        mend = "choose one with data.split" if os.path.isdir(place) else f"give {place} alone"  # noqa: PTH112
        raise DataError(f"{spec}: only a hub data set has a split in its name; {mend}")
    if not like_a_file:
        return
    known = os.path.isdir(path.parent)  # noqa: PTH112
    siblings = path.parent.iterdir() if known else ()
    stems = {sibling.stem: sibling for sibling in siblings if sibling.suffix.lower() in SUFFIXES}
    close = difflib.get_close_matches(path.stem, stems, n=1)
    raise DataError(f"there is no file {spec}" + (f"; did you mean {stems[close[0]]}?" if close else ""))


def read_file(path: Path) -> Iterator[tuple[Number, Any]]:
    """(row number, row) of a file; numbers start at 1."""
    suffix = path.suffix.lower()
    check_regular(path)
    if suffix == ".parquet":
        return read_parquet(path)
    if suffix == ".jsonl":
        return _read_jsonl(path)
    readers = {".json": _read_json, ".csv": _read_csv, ".tsv": _read_tsv}
    if suffix not in readers:
        raise DataError(f"{path}: unknown kind of file {suffix!r}; convert it to one of {', '.join(SUFFIXES)}")
    try:
        # a byte order mark at the front is not part of the data, a line break inside of a cell is
        with path.open(encoding="utf-8-sig", newline="") as file:
            return readers[suffix](file.read(), path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from None


def _read_json(text: str, path: Path) -> Iterator[tuple[Number, Any]]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under the name .json, as POPE has them
            return _read_lines(text, path)
        raise DataError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not usable JSON ({_why(error)})") from None
    if isinstance(tree, dict) and tree and all(isinstance(row, dict) for row in tree.values()):
        return iter(tree.items())
    rows = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(rows, list):
        raise DataError(f'{path} must hold a list of rows, an object of rows, or one with a list under "data"')
    return enumerate(rows, start=1)


def _read_lines(text: str, path: Path) -> Iterator[tuple[Number, Any]]:
    # not splitlines(): JSON strings may hold U+2028 and other separators unescaped
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _line(line, number, path)


def _read_jsonl(path: Path, places: LinePlaces | None = None) -> Iterator[tuple[Number, Any]]:
    """The rows of a file, a line at a time; ``places`` is told where each line begins."""
    try:
        with path.open("rb") as file:
            begin = 0
            for number, line in enumerate(file, start=1):
                if places is not None:
                    places.begins.append(begin)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path} is not UTF-8 text (byte {begin + error.start}); convert it") from None
                begin += len(line)
                if text.strip():
                    yield number, _line(text, number, path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _line(text: str, number: int, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: not valid JSON ({_why(error)}); every line must be one JSON object"
        ) from None


def _read_csv(text: str, path: Path, delimiter: str = ",") -> Iterator[tuple[Number, Any]]:
    try:
        with _cells_of(len(text)):
            lines = io.StringIO(text, newline="")
            reader = csv.DictReader(lines, restkey=MORE, strict=True, delimiter=delimiter)
            twice = [name for name, count in Counter(reader.fieldnames or ()).items() if name and count > 1]
            if twice:
                raise DataError(f"{path} has {twice[0]!r} as the name of two columns; rename one of them")
            rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: not valid {'CSV' if delimiter == ',' else 'TSV'} ({error})") from None
    return enumerate(rows, start=1)


def _read_tsv(text: str, path: Path) -> Iterator[tuple[Number, Any]]:
    return _read_csv(text, path, "\t")


@contextmanager
def _cells_of(characters: int) -> Iterator[None]:
    """Cells as long as this are read: pictures in base64 are. The limit is the whole process's, so it is put back."""
    with _cells:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, characters + 1))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _read_saved(path: Path, split: str) -> Iterator[tuple[Number, Any]]:
    import datasets

    check_arrow(path)
    try:
        saved = datasets.load_from_disk(str(path))
    except DAMAGE as error:
        raise DataError(
            f"{path} is a directory but no data set saved by datasets ({_why(error)}); name a file inside it"
        ) from None
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"{path} has no split {split!r}; set data.split to one of: {', '.join(saved)}")
        saved = saved[split]
    elif split != WHOLE:
        logger.warning("data.split is %r, and the data set %s has no splits: all of it is read", split, path)
    return _undamaged(stored_rows(saved), path)


def _undamaged(rows: Iterator[tuple[Number, Any]], path: Path) -> Iterator[tuple[Number, Any]]:
    """The rows. Raises :class:`DataError` for a value that Python has no object for."""
    try:
        yield from rows
    except DAMAGE as error:
        raise DataError(f"{path}: a value in it can't be read ({_why(error)})") from None


def stored_rows(rows: Any) -> Iterator[tuple[Number, Any]]:
    """The rows of a ``datasets.Dataset`` as they are stored: images encoded, not decoded and encoded again."""
    tables = rows.with_format("arrow").iter(batch_size=100)
    return enumerate((row for table in tables for row in table.to_pylist()), start=1)


def _read_hub(spec: str, split: str) -> Iterator[tuple[Number, Any]]:
    import datasets

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the line below says what each of its retries would
    where, _, own_split = spec.partition("@")
    name, _, configuration = where.partition(":")
    try:
        loaded = datasets.load_dataset(name, configuration or None, split=own_split or split)
    except (OSError, ValueError) as error:  # not found, offline, no such configuration or split
        raise DataError(
            f"there is no file {spec}, and the hub data set could not be loaded ({_why(error)}); "
            "check the name and the connection"
        ) from None
    return stored_rows(loaded)


def _why(error: BaseException) -> str:
    """The first line of an error's text, short enough for one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
