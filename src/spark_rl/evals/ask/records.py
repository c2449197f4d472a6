r"""The rows of an evaluation and the files that keep them: one JSON object a line, written as a batch is asked.

A row holds all that scoring needs, so that every number can be computed again without a model and without the data::

    {"settings": "5c2f...", "source": "math500", "benchmark": true, "id": "test-3", "question": "How many ...",
     "prompt": "How many ...\nPlease first ...", "system": null, "label": "5", "alternatives": [], "kind": "math",
     "choices": [], "meta": {"subject": "algebra"}, "prompt_tokens": 312, "images": 1, "image_sizes": [[640, 480]],
     "response": "... \\boxed{5}", "extracted": "5", "status": "correct", "reward": 1.0, "tokens": 88,
     "grades": {"reference": {"score": 1.0, "extracted": "5", "status": "correct"}, "rule": {...}},
     "samples": [], "judgement": "... \\boxed{Yes}", "accepted": true, "judge_tokens": 40, "rounds": 2,
     "final": {"response": ..., "extracted": "5", "status": "correct", "reward": 1.0, "tokens": 128, "grades": {...},
     "answers": 1}, "seconds": 0.7}

``alternatives`` are the gold answers that are as right as ``label``; rows of versions before it have none.
``extracted``, ``status`` and ``reward`` are those of the protocol that tables show first. ``samples`` are the further
responses where several were drawn, with the same fields as ``final``, what test-time scaling ends with after at most
``rounds`` rounds and ``answers`` answers. ``final`` and ``judgement`` are null where nobody asked for them;
``accepted`` is null too if the verdict was unreadable. Where a language model graded, ``replies`` holds what it said of
a response, by protocol. ``seconds`` is a row's share of its batch's time. A problem whose prompt is too long has
``"status": "skipped"`` and no response; one without a response in a file of responses ``"no_answer"``. A response that
a server refused to give is null, has ``"status": "refused"`` and the server's words as ``error``.

Parquet files hold the same rows, with lists and objects as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from spark_rl.errors import UserError
from spark_rl.evals.benchmark import Item
from spark_rl.files import write_atomically
from spark_rl.problem import Kind, Problem

Row = dict[str, Any]

SKIPPED = "skipped"
REFUSED = "refused"
"""Statuses of rows that nobody answered: the prompt was too long to ask, or a server refused the request."""

_ANSWER: Mapping[str, Any] = {"response": str | None, "grades": dict, "tokens": int}
_COLUMNS: Mapping[str, Any] = {
    "settings": str, "source": str, "benchmark": bool, "id": str, "question": str, "prompt": str | None, "label": str,
    "kind": str, "choices": list, "meta": dict, "prompt_tokens": int | None, "images": int, "image_sizes": list,
    "status": str, **_ANSWER, "samples": list, "judgement": str | None, "accepted": bool | None, "judge_tokens": int,
    "rounds": int, "final": dict | None, "seconds": float | int,
}  # fmt: skip
"""What scoring and adding up read, and as what."""
_NESTED = ("alternatives", "choices", "meta", "image_sizes", "grades", "replies", "samples", "final")
"""Columns that Parquet files hold as JSON: their shape differs from row to row."""


def item_of(row: Mapping[str, Any]) -> Item:
    """What was asked, without its images: all that scoring and adding up read."""
    problem = Problem(
        id=row["id"], question=row["question"], answer=row["label"], kind=row["kind"], prompt=row["prompt"],
        choices=tuple(row["choices"]), alternatives=tuple(row.get("alternatives", ())),
    )  # fmt: skip
    return Item(problem, row["meta"])


class RowFile:
    """Rows as JSON lines, appended batch by batch.

    Raises:
        UserError: the file holds rows and ``resume`` is false, rows of other settings, or what is no row; or it can't
            be written.
    """

    def __init__(self, path: Path, settings: str, *, resume: bool = False) -> None:
        self.path = path
        self.rows: list[Row] = []
        """Those of earlier sessions and of this one."""
        with self._writing():
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a directory")
            if path.exists() and path.stat().st_size:
                if not resume:
                    raise UserError(f"{path} holds results already; continue them with --resume, or name another file")
                self._read(settings)

    def _read(self, settings: str) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, row in _checked(self.path, "line", _lines(whole)):
            if row["settings"] != settings:
                raise UserError(
                    f"{self.path} line {number} was made with another model or other settings; repeat those, or name "
                    "another file"
                )
            self.rows.append(row)
        if whole != content:  # the line that a kill tore
            write_atomically(self.path, whole)

    def done(self, exam: str) -> set[str]:
        """Ids of the exam's problems that have a row."""
        return {row["id"] for row in self.rows if row["source"] == exam}

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows at once. The file is made with its first rows."""
        self.rows.extend(rows)
        # ASCII escapes keep lone surrogates, which a byte-level tokeniser can produce, from breaking the file.
        lines = b"".join(json.dumps(row, allow_nan=False).encode("ascii") + b"\n" for row in rows)
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(lines)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None


def read_rows(path: Path) -> list[Row]:
    """All rows of a JSONL or Parquet file that an evaluation wrote; a torn last line is left out.

    Raises:
        UserError: it can't be read, something in it is no such row, or a problem has two rows.
    """
    try:
        if path.suffix == ".parquet":
            numbered: Iterator[tuple[int, Row | None]] = enumerate(_parquet_rows(path), start=1)
        else:
            content = path.read_bytes()
            numbered = _lines(content[: content.rfind(b"\n") + 1])
        rows = [row for _, row in _checked(path, "row", numbered)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def _checked(path: Path, what: str, numbered: Iterable[tuple[int, Row | None]]) -> Iterator[tuple[int, Row]]:
    """The rows, each of them one that can be scored, and the only one of its problem."""
    seen: set[tuple[str, str]] = set()
    for number, row in numbered:
        fault = "no JSON object" if row is None else _fault(row)
        if row is None or fault is not None:
            raise UserError(f"{path} {what} {number} is no row of an evaluation ({fault}); name another file")
        if (row["source"], row["id"]) in seen:
            raise UserError(f"{path} {what} {number} is a second row of {row['id']!r} of {row['source']}; keep one")
        seen.add((row["source"], row["id"]))
        yield number, row


def _fault(row: Row) -> str | None:
    """Why a row can't be scored, or ``None``."""
    wrong = next((name for name, kind in _COLUMNS.items() if not isinstance(row.get(name, ...), kind)), None)
    if wrong is not None:
        return f"{wrong!r} is missing or not what it should be"
    golds = row.get("alternatives", [])
    if not isinstance(golds, list) or not all(isinstance(gold, str) for gold in golds):
        return "'alternatives' is no list of texts"
    if row["kind"] not in get_args(Kind):
        return f"'kind' is none of {', '.join(get_args(Kind))}"
    answers = (*row["samples"], *(() if row["final"] is None else (row["final"],)))
    whole = all(
        isinstance(answer, dict) and all(isinstance(answer.get(name, ...), kind) for name, kind in _ANSWER.items())
        for answer in answers
    )
    return None if whole else "an answer in 'samples' or 'final' is not whole"


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """The rows as a Parquet file, replaced as a whole."""
    # heavy, and only this format needs it
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

    columns = {
        name: [_clean(json.dumps(row.get(name, {})) if name in _NESTED else row.get(name)) for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    try:
        write_atomically(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

    try:
        rows: list[Row] = pq.read_table(path).to_pylist()
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0][:200]})") from None
    for row in rows:
        yield row | {name: json.loads(row[name]) for name in _NESTED if isinstance(row.get(name), str)}


def _lines(content: bytes) -> Iterator[tuple[int, Row | None]]:
    """(line number, row) of every line; ``None`` for what is no JSON object."""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else None


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which Parquet can't hold."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value
