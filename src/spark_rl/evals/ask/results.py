"""Result files, what ``spark-rl eval --json`` writes, read back for tables (paper Sec. 4).

``{benchmark: {protocol: {"score", "n", "low", "high", ...}, "judge": ..., "about": ...}}``, as
:func:`spark_rl.evals.score.totals.results` makes it; ``of`` is the size of the whole benchmark, ``breakdown`` its
parts, such as ``subset/math``. What is there is read leniently, as other tools may have written it; what
is missing stays unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from spark_rl.errors import UserError
from spark_rl.files import parse_json, resolved

RESULT_FILE = "results.json"
"""The result file of a folder, unless it holds only one."""
OFF, ON = "off", "on"
_NOT_PROTOCOLS = frozenset(("about", "judge"))
_NOT_PARTS = frozenset(("score", "n", "low", "high", "samples", "of", "tts", "units"))


@dataclass(frozen=True, slots=True)
class Cell:
    """One number: 0.759 of 60 questions, of which the benchmark has more, or one of the paper's."""

    score: float
    """0 to 1, or the difference of two such."""
    n: int | None = None
    low: float | None = None
    high: float | None = None
    whole: bool | None = True
    """False: only a part of the benchmark was asked; ``None``: its size is not known."""
    samples: int = 1
    """Responses an item, of which the score is the mean."""


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's number under one protocol."""

    benchmark: str
    protocol: str
    tts: str
    """Test-time scaling: ``off``, ``on`` or a number of rounds."""
    cell: Cell
    parts: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Model:
    """A model as result files know it: a label, its results and its scores as a judge."""

    label: str
    results: tuple[Result, ...]
    judging: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    """Benchmark -> name -> what :func:`spark_rl.evals.judge_accuracy.judge_accuracy` says."""


def read_results(specs: Iterable[str]) -> list[Model]:
    """Models from ``LABEL=PATH`` or ``PATH``: result files, or folders that hold a ``results.json`` or one JSON file.

    Several files with one label are one model, such as one file a benchmark group. Without a label a file is named by
    its stem, a folder by its name.

    Raises:
        UserError: a file can't be read, isn't a result file, or repeats a number that the model has already.
    """
    models: dict[str, Model] = {}
    for spec in specs:
        label, path = _label_and_path(spec)
        known, new = models.get(label, Model(label, ())), _read(path, label)
        twice = {_key(one) for one in known.results} & {_key(one) for one in new.results}
        if twice:
            benchmark, protocol, _ = min(twice)
            raise UserError(f"{path}: {label!r} already has {benchmark} by {protocol}; give the files different labels")
        models[label] = Model(label, known.results + new.results, {**known.judging, **new.judging})
    return list(models.values())


def _key(result: Result) -> tuple[str, str, str]:
    return result.benchmark, result.protocol, result.tts


def _label_and_path(spec: str) -> tuple[str, Path]:
    label, equals, rest = spec.partition("=")
    whole = not equals or Path(spec).exists()
    path = Path(spec if whole else rest)
    label = (resolved(path).name if path.is_dir() else path.stem) if whole else label.strip()
    if not label:
        raise UserError(f"{spec!r} has an empty label; write LABEL=FILE")
    if path.is_dir():
        files = [path / RESULT_FILE] if (path / RESULT_FILE).exists() else sorted(path.glob("*.json"))
        if len(files) != 1:
            raise UserError(f"{path} holds no {RESULT_FILE}; name the file that --json wrote")
        path = files[0]
    return label, path


def _read(path: Path, label: str) -> Model:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        content = None
    results: list[Result] = []
    judging: dict[str, dict[str, Cell]] = {}
    for benchmark, found in content.items() if isinstance(content, dict) else ():
        protocols = {name: told for name, told in found.items() if isinstance(told, dict)} if _is_map(found) else {}
        own = [
            _result(benchmark, name, told)
            for name, told in protocols.items()
            if name not in _NOT_PROTOCOLS and _is_scored(told)
        ]
        whole = own[0].cell.whole if own else None
        judging[benchmark] = {
            name: _cell(told, whole) for name, told in protocols.get("judge", {}).items() if _is_scored(told)
        }
        results += own
    if not results:
        raise UserError(f"{path} holds no results of spark-rl eval; give it what --json wrote")
    return Model(label, tuple(results), {name: told for name, told in judging.items() if told})


def _result(benchmark: str, protocol: str, told: Mapping[str, Any]) -> Result:
    name, scaled, _ = protocol.partition("+tts")
    of, n, tts = _number(told.get("of")), _number(told.get("n")), told.get("tts")
    whole = n >= of if of is not None and n is not None else None
    inner = {**told, **(told["breakdown"] if _is_map(told.get("breakdown")) else {})}
    parts = {
        part: _cell(value if _is_map(value) else {"score": value}, whole)
        for part, value in inner.items()
        if part not in _NOT_PARTS and (_number(value) is not None or _is_scored(value))
    }
    return Result(benchmark, name, str(tts) if tts else ON if scaled else OFF, _cell(told, whole), parts)


def _cell(told: Mapping[str, Any], whole: bool | None) -> Cell:
    n, samples = _number(told.get("n")), _number(told.get("samples"))
    return Cell(
        _number(told["score"]) or 0.0, None if n is None else int(n), _number(told.get("low")),
        _number(told.get("high")), whole, 1 if samples is None else int(samples),
    )  # fmt: skip


def _is_map(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_scored(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and _number(value.get("score")) is not None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
