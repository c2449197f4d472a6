"""Asking one model all problems of one or more sets, row by row, safe to kill (paper Sec. 4.1 and 4.4).

An :class:`Exam` is a named list of problems, wherever they come from. :class:`Examiner` asks it in batches: the model
answers, judges its own answer (Eq. 10) and, with test-time scaling on, reflects (Eq. 11); the verifier grades. Every
problem becomes one :data:`Row`, and all numbers are computed from rows, so they can be computed again without a model.
:class:`RowFile` keeps them, one JSON object a line.

A batch is the same problems whatever was done before, and sampling is seeded by exam and batch, so a run that was
killed and continued writes the rows of one that was not, but for ``seconds``. (A kill in the middle of writing a batch
leaves its first rows; the others are then asked without them, which changes nothing while decoding is greedy.)

Departures from the authors' scripts: a problem whose prompt is too long is counted apart, not counted as wrong; no
answer, an unreadable one and a wrong one are three things; every share comes with its interval.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from spark_rl.chat import policy_prompt
from spark_rl.config import Config
from spark_rl.data.images import open_image
from spark_rl.errors import UserError
from spark_rl.inference import Reasoner, Round, Trace
from spark_rl.problem import STATUSES, Problem, Verdict
from spark_rl.report.intervals import wilson
from spark_rl.report.metrics import write_atomically
from spark_rl.rollout import stream_seed
from spark_rl.verify import Verifier

BATCH = 32
"""Problems asked together."""

Row = dict[str, Any]
r"""One problem, asked::

    {"settings": "5c2f...", "source": "test.jsonl", "id": "test-3", "prompt": "How many ...", "label": "5",
     "prompt_tokens": 312, "images": 1, "image_sizes": [[640, 480]], "response": "... \\boxed{5}", "extracted": "5",
     "status": "correct", "reward": 1.0, "tokens": 88, "judgement": "... \\boxed{Yes}", "accepted": true,
     "judge_tokens": 40, "final": {"response": ..., "extracted": "5", "status": "correct", "reward": 1.0, "answers": 1,
     "tokens": 128}, "seconds": 0.7}

``accepted`` is null if the verdict was unreadable; ``final``, what test-time scaling ends with, is null without it;
``seconds`` is a row's share of its batch's time. A problem whose prompt is too long has ``"status": "skipped"`` and
nulls from ``response`` on.
"""

SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Exam:
    """A set of problems under one name."""

    name: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Examiner:
    """One model, ready to be asked whole sets of problems."""

    reasoner: Reasoner
    """``reasoner.config.rounds`` is the number of judge-and-reflect rounds; 0 only judges the first answer."""
    verifier: Verifier
    max_prompt_tokens: int
    """Problems with longer prompts are skipped."""
    settings: str = ""
    """Written into every row: :func:`fingerprint`."""

    def ask(self, exam: Exam, done: Collection[str] = ()) -> Iterator[list[Row]]:
        """The rows of the problems whose ids are not ``done``, a batch at a time, in order."""
        for number, start in enumerate(range(0, len(exam.problems), BATCH)):
            batch = [problem for problem in exam.problems[start : start + BATCH] if problem.id not in done]
            if batch:
                yield self._rows(exam.name, batch, stream_seed(self.reasoner.seed, "exam", exam.name, number))

    def _rows(self, name: str, problems: Sequence[Problem], seed: int) -> list[Row]:
        started = time.perf_counter()
        reasoner = replace(self.reasoner, seed=seed)
        lengths = [len(reasoner.chat.encode(problem).token_ids) for problem in problems]
        asked = [p for p, length in zip(problems, lengths, strict=True) if length <= self.max_prompt_tokens]
        answered = iter(self._answers(reasoner, asked))
        rows = [
            {
                "settings": self.settings, "source": name, "id": problem.id,
                "prompt": policy_prompt(problem, reasoner.chat.config), "label": problem.answer,
                "prompt_tokens": length, "images": len(problem.images),
                "image_sizes": [list(open_image(image).size) for image in problem.images],
                **(next(answered) if length <= self.max_prompt_tokens else _UNASKED),
            }
            for problem, length in zip(problems, lengths, strict=True)
        ]  # fmt: skip
        seconds = (time.perf_counter() - started) / len(rows)
        return [row | {"seconds": round(seconds, 4)} for row in rows]

    def _answers(self, reasoner: Reasoner, problems: Sequence[Problem]) -> list[Row]:
        """What the model said to each problem and of its own answer, and what the verifier thinks."""
        first = reasoner.answer(problems)
        finals: list[Row | None] = [None] * len(problems)
        if reasoner.config.rounds:
            traces = reasoner.solve(problems, first)
            judged = [trace.rounds[0] for trace in traces]
            finals = [
                {**_graded(trace.response, verdict), "answers": len(trace.rounds),
                 "tokens": sum(turn.tokens for turn in trace.rounds)}
                for trace, verdict in zip(traces, self._verdicts(problems, traces), strict=True)
            ]  # fmt: skip
        else:
            said = reasoner.judge(problems, [turn.response for turn in first])
            judged = [
                replace(turn, judgement=text, accepted=accepted, tokens=turn.tokens + tokens)
                for turn, (text, accepted, tokens) in zip(first, said, strict=True)
            ]
        verdicts = self._verdicts(problems, first)
        return [
            {
                **_graded(turn.response, verdict), "tokens": turn.tokens, "judgement": own.judgement,
                "accepted": own.accepted, "judge_tokens": own.tokens - turn.tokens, "final": final,
            }
            for turn, verdict, own, final in zip(first, verdicts, judged, finals, strict=True)
        ]  # fmt: skip

    def _verdicts(self, problems: Sequence[Problem], answered: Sequence[Round | Trace]) -> list[Verdict]:
        items = [(a.response, p.answer, p.kind, p.choices) for p, a in zip(problems, answered, strict=True)]
        return self.verifier.verify_many(items)


def _graded(response: str, verdict: Verdict) -> Row:
    return {
        "response": response, "extracted": verdict.extracted, "status": verdict.status, "reward": verdict.reward,
    }  # fmt: skip


_UNASKED: Row = {
    "response": None, "extracted": None, "status": SKIPPED, "reward": None, "tokens": 0, "judgement": None,
    "accepted": None, "judge_tokens": 0, "final": None,
}  # fmt: skip


def batches(exam: Exam, done: Collection[str] = ()) -> tuple[int, int]:
    """(batches, problems) that :meth:`Examiner.ask` has left to do."""
    left = [start // BATCH for start, problem in enumerate(exam.problems) if problem.id not in done]
    return len(set(left)), len(left)


def fingerprint(config: Config, weights: Path | None = None) -> str:
    """Twelve hex digits that stand for the model and every setting that a row depends on, the problems left out."""
    parts = {
        "model": config.model.model_dump(mode="json", exclude={"device", "threads", "gradient_checkpointing"}),
        "weights": None if weights is None else str(weights.resolve()),
        "chat": config.chat.model_dump(mode="json"),
        "inference": config.inference.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json", include={"split", "layout", "columns", "kind", "images"}),
        "templates": config.recycle.templates,
        "max_prompt_tokens": config.rollout.max_prompt_tokens,
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class RowFile:
    """Rows as JSON lines, appended batch by batch.

    Raises:
        UserError: the file holds rows and ``resume`` is false, or rows of other settings; or it can't be written.
    """

    def __init__(self, path: Path, settings: str, *, resume: bool = False) -> None:
        self.path = path
        self.rows: list[Row] = []
        """Those of earlier sessions and of this one."""
        self._file: BinaryIO | None = None
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
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or not {"settings", "source", "id", "status"} <= row.keys():
                raise UserError(f"{self.path} line {number} is no row of an evaluation; name another file")
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
        """Write rows at once, and flush. The file is made with its first rows."""
        self.rows.extend(rows)
        with self._writing():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
            # ASCII escapes keep lone surrogates, which a byte-level tokeniser can produce, from breaking the file.
            self._file.write(b"".join(json.dumps(row, allow_nan=False).encode("ascii") + b"\n" for row in rows))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None


def results(exam: Exam, rows: Sequence[Row]) -> dict[str, Any]:
    """What an exam's rows add up to: shares with 95 % Wilson intervals, and what was asked.

    ::

        {"rule": {"score": 0.41, "n": 60, "low": 0.29, "high": 0.53},      first answers, by the verifier
         "rule+tts": {...} or None,                                        final answers
         "judge": {...},                                                   own verdicts on first answers that are right
         "about": {"skipped": 0, "statuses": {"correct": 25, ...}, "unreadable": 3, "images": 60, "smallest": [84, 90],
                   "largest": [1200, 800], "prompt_tokens": {"mean": 310.2, "max": 1544}, "tokens": 9120,
                   "seconds": 84.1}}

    An unreadable verdict is a wrong one. Scores are ``None`` where nothing was asked.
    """
    wanted = {problem.id for problem in exam.problems}
    rows = [row for row in rows if row["source"] == exam.name and row["id"] in wanted]
    asked = [row for row in rows if row["status"] != SKIPPED]
    scaled = [row["final"]["status"] == "correct" for row in asked if row["final"] is not None]
    statuses = Counter(row["status"] for row in asked)
    sizes = sorted((size for row in rows for size in row["image_sizes"]), key=lambda size: (size[0] * size[1], size))
    lengths = [row["prompt_tokens"] for row in rows]
    return {
        "rule": share([row["status"] == "correct" for row in asked]),
        "rule+tts": share(scaled) if scaled else None,
        "judge": share([row["accepted"] is (row["status"] == "correct") for row in asked]),
        "about": {
            "skipped": len(rows) - len(asked),
            "statuses": {status: statuses[status] for status in STATUSES},
            "unreadable": sum(row["accepted"] is None for row in asked),
            "images": len(sizes),
            "smallest": sizes[0] if sizes else None,
            "largest": sizes[-1] if sizes else None,
            "prompt_tokens": {"mean": sum(lengths) / max(1, len(lengths)), "max": max(lengths, default=0)},
            "tokens": sum(_tokens(row) for row in asked),
            "seconds": sum(row["seconds"] for row in rows),
        },
    }


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """The share of hits with its 95 % Wilson interval; ``None`` of nothing."""
    low, high = wilson(sum(hits), len(hits))
    return {"score": sum(hits) / len(hits) if hits else None, "n": len(hits), "low": low, "high": high}


def _tokens(row: Mapping[str, Any]) -> int:
    """All tokens generated for a row."""
    return int(row["final"]["tokens"] if row["final"] is not None else row["tokens"] + row["judge_tokens"])
