"""What ``spark-rl eval`` was told to ask or to score, and where its results go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spark_rl.commands.checks import ROWS, check_outputs, file_kind
from spark_rl.commands.terminal import quiet_libraries, say, waiting
from spark_rl.config import Config
from spark_rl.errors import UserError

if TYPE_CHECKING:
    from spark_rl.evals.ask.exam import Exam

DATA_ROOT = "SPARK_RL_DATA_ROOT"
"""Environment variable for ``--data-root``."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where ``--out`` leads: rows always as JSON lines, and beside them what the name asks for."""

    rows: Path
    parquet: Path | None = None
    results: Path | None = None


def output(path: Path | None) -> Output | None:
    """``NAME.parquet`` writes Parquet at the end, from ``NAME.jsonl`` beside it; a folder, which any other name without
    the suffix of a file is, holds rows and results.
    """
    if path is None:
        return None
    kind, is_dir = file_kind(path), os.path.isdir(path)  # noqa: PTH112 - of a name that is too long it says no
    if kind == ".parquet" and not is_dir:
        return Output(path.with_suffix(".jsonl"), parquet=path)
    if is_dir or (kind is None and not os.path.isfile(path)):  # noqa: PTH113
        return Output(path / "rows.jsonl", results=path / "results.json")
    return Output(path)


def check_output(path: Path | None) -> None:
    """Whether the rows and results of ``--out`` can be written. Raises :class:`UserError`."""
    out = output(path)
    if path is None or out is None:
        return
    if out.results is None and file_kind(path) not in {None, ".parquet", *ROWS}:
        known = ", ".join((*ROWS, ".parquet"))
        raise UserError(f"cannot write {path}: rows are written as {known}, or into a folder; name it so")
    check_outputs(out.rows, out.parquet, out.results)


def exams_of(arguments: argparse.Namespace, config: Config, *, show: bool = True) -> list[Exam]:
    """The benchmarks and sets to ask, in the order given; without any, what the configuration holds out.

    Args:
        arguments: ``bench``, ``data_root``, ``data``, ``limit`` and ``protocol`` are read.
        config: how data is read.
        show: whether a model is about to see the images, so that they must be there.

    Raises:
        UserError: nothing is named, or something can't be read.
    """
    twice = next((spec for place, spec in enumerate(arguments.data) if spec in arguments.data[:place]), None)
    if twice is not None:
        raise UserError(f"--data {twice} is given twice")
    exams = [*_benchmarks(arguments, show=show), *_sets(arguments, config)]
    protocols = words(arguments.protocol)
    scorable = [exam for exam in exams if not protocols or exam.protocols.keys() & set(protocols)]
    for exam in exams if scorable else ():
        if exam not in scorable:
            say(f"left out {exam.name}: it has no protocol {' or '.join(protocols)}")
    return [exam.first(arguments.limit).only(protocols) for exam in scorable or exams]


def _sets(arguments: argparse.Namespace, config: Config) -> list[Exam]:
    specs = arguments.data
    if not specs and not arguments.bench:
        if config.data.heldout is None or config.data.heldout.startswith("split:"):
            raise UserError(
                "give --bench, names of benchmarks, or --data, the problems to ask: a file, a hub data set or "
                "procedural:FAMILY"
            )
        specs = [config.data.heldout]
    if not specs:
        return []
    with waiting("loading the libraries"):
        quiet_libraries()
        from spark_rl.data import load_problems
    from spark_rl.evals.ask.exam import exam_of_problems

    return [exam_of_problems(spec, load_problems(spec, config.data, "heldout")) for spec in specs]


def _benchmarks(arguments: argparse.Namespace, *, show: bool) -> list[Exam]:
    """One exam a benchmark. Of a group, those without data are left out and named."""
    if not arguments.bench:
        return []
    from spark_rl.evals.ask.exam import data_file, exam_of_benchmark, missing_images
    from spark_rl.evals.benchmarks import find

    wanted = words(arguments.bench)
    if not wanted:
        raise UserError("--bench names no benchmark; give names or groups, comma-separated: gsm8k,math-vlm")
    by_group = grouped(arguments)
    place = arguments.data_root or os.environ.get(DATA_ROOT)
    if place is None:
        raise UserError(f"--bench needs --data-root, the folder of the benchmarks' files (or {DATA_ROOT})")
    root = Path(place)
    if not root.is_dir():
        raise UserError(f"--data-root {root} is no folder")
    exams = []
    for name in dict.fromkeys(names_of(wanted)):
        benchmark = find(name)
        if name in by_group and data_file(benchmark, root) is None:
            say(f"left out {name}: there is no {' or '.join(benchmark.files)} below {root}")
            continue
        exam = exam_of_benchmark(benchmark, root)
        missing, images, first = missing_images(exam.first(arguments.limit)) if show else (0, 0, "")
        if missing:
            why = f"{name}: {missing:,} of {images:,} images are not there, the first is {first}"
            if name not in by_group:
                raise UserError(f"{why}; --responses scores without images")
            say(f"left out {why}")
            continue
        exams.append(exam)
    if not exams:
        raise UserError(f"there is no data of {', '.join(wanted)} below {root}")
    return exams


def grouped(arguments: argparse.Namespace) -> set[str]:
    """The benchmarks that are asked only because a group has them: one that can't be asked is left out and named."""
    from spark_rl.evals.benchmarks import members

    wanted = words(arguments.bench)
    alone = names_of([word for word in wanted if not members(word)])
    return set(names_of(wanted)).difference(alone)


def names_of(wanted: Sequence[str]) -> list[str]:
    """The benchmarks that words of ``--bench`` stand for. Raises :class:`UserError` for an unknown one."""
    from spark_rl.evals.benchmarks import find, members

    return [find(name).name for word in wanted for name in members(word) or (word,)]


def words(lists: Sequence[str]) -> list[str]:
    """The words of comma-separated lists."""
    return [word.strip() for text in lists for word in text.split(",") if word.strip()]
