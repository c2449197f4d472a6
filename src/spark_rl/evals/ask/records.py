r"""The records of an evaluation and the files that keep them: one JSON object a line, written as a batch is asked.

A record is one row of ``rows.jsonl``: an item, what a model said to it, and its grades. It holds all that scoring
needs, so that every number can be computed again without a model and without the data::

    {"settings": "5c2f...", "source": "math500", "benchmark": true, "id": "test-3", "question": "How many ...",
     "prompt": "How many ...\nPlease first ...", "system": null, "label": "5", "alternatives": [], "kind": "math",
     "choices": [], "meta": {"subject": "algebra"}, "prompt_tokens": 312, "images": 1, "image_sizes": [[640, 480]],
     "response": "... \\boxed{5}", "extracted": "5", "status": "correct", "reward": 1.0, "tokens": 88,
     "grades": {"reference": {"score": 1.0, "extracted": "5", "status": "correct"}, "rule": {...}},
     "samples": [], "judgement": "... \\boxed{Yes}", "accepted": true, "judge_tokens": 40,
     "verdict_probability": 0.98, "rounds": 2,
     "final": {"response": ..., "extracted": "5", "status": "correct", "reward": 1.0, "tokens": 128, "grades": {...},
     "answers": 1}, "seconds": 0.7}

``alternatives`` are the gold answers that are as right as ``label``; records of versions before it have none.
``extracted``, ``status`` and ``reward`` are those of the protocol that tables show first. ``samples`` are the further
responses where several were drawn, with the same fields as ``final``, what test-time scaling ends with after at most
``rounds`` rounds and ``answers`` answers. ``final`` and ``judgement`` are null where nobody asked for them;
``accepted`` is null too if the verdict was unreadable, and ``verdict_probability``, the model's own P(Yes), where the
engine tells no log-probabilities. Where a language model graded, ``replies`` holds what it said of
a response, by protocol. ``seconds`` is a record's share of its batch's time. A problem whose prompt is too long has
``"status": "skipped"`` and no response; one without a response in a file of responses ``"no_answer"``. A response that
a server refused to give is null, has ``"status": "refused"`` and the server's words as ``error``.

Parquet files hold the same columns, with lists and objects as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from spark_rl.data.values import without_surrogates
from spark_rl.errors import UserError
from spark_rl.evals.benchmark import Item
from spark_rl.files import write_atomically
from spark_rl.problem import Kind, Problem

Record = dict[str, Any]
"""Column -> value, as above."""

SKIPPED = "skipped"
REFUSED = "refused"
"""Statuses of records that nobody answered: the prompt was too long to ask, or a server refused the request."""

_ANSWER: Mapping[str, Any] = {"response": str | None, "grades": dict, "tokens": int}
_COLUMNS: Mapping[str, Any] = {
    "settings": str, "source": str, "benchmark": bool, "id": str, "question": str, "prompt": str | None, "label": str,
    "kind": str, "choices": list, "meta": dict, "prompt_tokens": int | None, "images": int, "image_sizes": list,
    "status": str, **_ANSWER, "samples": list, "judgement": str | None, "accepted": bool | None, "judge_tokens": int,
    "rounds": int, "final": dict | None, "seconds": float | int,
}  # fmt: skip
"""What scoring and adding up read, and as what."""
_NESTED = ("alternatives", "choices", "meta", "image_sizes", "grades", "replies", "samples", "final")
"""Columns that Parquet files hold as JSON: their shape differs from record to record."""


def item_of(record: Mapping[str, Any]) -> Item:
    """What was asked, without its images: all that scoring and adding up read."""
    problem = Problem(
        id=record["id"], question=record["question"], answer=record["label"], kind=record["kind"],
        prompt=record["prompt"], choices=tuple(record["choices"]), alternatives=tuple(record.get("alternatives", ())),
    )  # fmt: skip
    return Item(problem, record["meta"])


class RecordFile:
    """Records as JSON lines, appended batch by batch.

    Raises:
        UserError: the file holds records and ``resume`` is false, records of other settings, or what is no record; or
            it can't be written.
    """

    def __init__(self, path: Path, settings: str, *, resume: bool = False) -> None:
        self.path = path
        self.records: list[Record] = []
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
        for number, record in _checked(self.path, "line", _lines(whole)):
            if record["settings"] != settings:
                raise UserError(
                    f"{self.path} line {number} was made with another model or other settings; repeat those, or name "
                    "another file"
                )
            self.records.append(record)
        if whole != content:  # the line that a kill tore
            write_atomically(self.path, whole)

    def done(self, exam: str) -> set[str]:
        """Ids of the exam's problems that have a record."""
        return {record["id"] for record in self.records if record["source"] == exam}

    def append(self, records: Sequence[Record]) -> None:
        """Write records at once. The file is made with its first records."""
        self.records.extend(records)
        # ASCII escapes keep lone surrogates, which a byte-level tokeniser can produce, from breaking the file.
        lines = b"".join(json.dumps(record, allow_nan=False).encode("ascii") + b"\n" for record in records)
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


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL or Parquet file that an evaluation wrote; a torn last line is left out.

    Raises:
        UserError: it can't be read, something in it is no such record, or a problem has two records.
    """
    try:
        if path.suffix == ".parquet":
            numbered: Iterator[tuple[int, Record | None]] = enumerate(_parquet_records(path), start=1)
        else:
            content = path.read_bytes()
            numbered = _lines(content[: content.rfind(b"\n") + 1])
        records = [record for _, record in _checked(path, "row", numbered)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if not records:
        raise UserError(f"{path} holds no rows")
    return records


def _checked(path: Path, what: str, numbered: Iterable[tuple[int, Record | None]]) -> Iterator[tuple[int, Record]]:
    """The records, each of them one that can be scored, and the only one of its problem."""
    seen: set[tuple[str, str]] = set()
    for number, record in numbered:
        fault = "no JSON object" if record is None else _fault(record)
        if record is None or fault is not None:
            raise UserError(f"{path} {what} {number} is no row of an evaluation ({fault}); name another file")
        if (record["source"], record["id"]) in seen:
            raise UserError(
                f"{path} {what} {number} is a second row of {record['id']!r} of {record['source']}; keep one"
            )
        seen.add((record["source"], record["id"]))
        yield number, record


def _fault(record: Record) -> str | None:
    """Why a record can't be scored, or ``None``."""
    wrong = next((name for name, kind in _COLUMNS.items() if not isinstance(record.get(name, ...), kind)), None)
    if wrong is not None:
        return f"{wrong!r} is missing or not what it should be"
    golds = record.get("alternatives", [])
    if not isinstance(golds, list) or not all(isinstance(gold, str) for gold in golds):
        return "'alternatives' is no list of texts"
    if record["kind"] not in get_args(Kind):
        return f"'kind' is none of {', '.join(get_args(Kind))}"
    answers = (*record["samples"], *(() if record["final"] is None else (record["final"],)))
    whole = all(
        isinstance(answer, dict) and all(isinstance(answer.get(name, ...), kind) for name, kind in _ANSWER.items())
        for answer in answers
    )
    return None if whole else "an answer in 'samples' or 'final' is not whole"


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """The records as a Parquet file, replaced as a whole."""
    # heavy, and only this format needs it
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

    columns = {
        name: [_clean(json.dumps(record.get(name, {})) if name in _NESTED else record.get(name)) for record in records]
        for name in dict.fromkeys(name for record in records for name in record)
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    try:
        write_atomically(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _parquet_records(path: Path) -> Iterator[Record]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

    try:
        records: list[Record] = pq.read_table(path).to_pylist()
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0][:200]})") from None
    for record in records:
        yield record | {name: json.loads(record[name]) for name in _NESTED if isinstance(record.get(name), str)}


def _lines(content: bytes) -> Iterator[tuple[int, Record | None]]:
    """(line number, record) of every line; ``None`` for what is no JSON object."""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        yield number, record if isinstance(record, dict) else None


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which Parquet can't hold."""
    return without_surrogates(value) if isinstance(value, str) else value
