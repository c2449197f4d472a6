"""An exam: the items of a benchmark, or of any problems, with the protocols that score them (Sec. 4.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spark_rl.errors import UserError
from spark_rl.evals.benchmark import PICTURE, Benchmark, Item, Protocol, by_picture
from spark_rl.evals.score.scorers import rule
from spark_rl.problem import Problem

RULE = "rule"

JUDGED_BY = "judged-by-"
"""How the names of protocols begin that a language model grades by; the rest names it."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The items that a model is asked under one name, and the protocols that score its responses."""

    name: str
    items: tuple[Item, ...]
    protocols: Mapping[str, Protocol]
    benchmark: Benchmark | None = None

    @property
    def main(self) -> str:
        """The protocol whose verdict stands at the front of a row: ``rule``, else the first."""
        return RULE if RULE in self.protocols else next(iter(self.protocols))

    def first(self, rows: int | None) -> Exam:
        """The first rows only; items that are one row to the first protocol stay together.

        Questions about one picture are rows of their own.
        """
        if rows is None:
            return self
        unit = next(iter(self.protocols.values())).unit
        if unit is by_picture:
            return replace(self, items=self.items[:rows])
        kept = set(list(dict.fromkeys(unit(item) for item in self.items))[:rows])
        return replace(self, items=tuple(item for item in self.items if unit(item) in kept))

    def only(self, names: Sequence[str]) -> Exam:
        """With the named protocols only, in the benchmark's order; empty means all of them.

        Raises:
            UserError: it has none of them.
        """
        kept = {name: protocol for name, protocol in self.protocols.items() if name in names or not names}
        if not kept:
            raise UserError(f"{self.name} has no protocol {' or '.join(names)}; it has {', '.join(self.protocols)}")
        return replace(self, protocols=kept)

    def judged_by(self, labels: Sequence[str]) -> Exam:
        """With every protocol that needs a judge once for each judge, named so; without judges there are none."""
        protocols: dict[str, Protocol] = {}
        for name, protocol in self.protocols.items():
            if protocol.ask_judge is None:
                protocols[name] = protocol
            else:
                protocols |= {f"{JUDGED_BY}{label}": protocol for label in labels}
        if not protocols:
            raise UserError(f"{self.name} has a score by {', '.join(self.protocols)} only with --grader URL or self")
        return replace(self, protocols=protocols)


def exam_of_problems(name: str, problems: Iterable[Problem]) -> Exam:
    """Problems from anywhere, scored by ``rule``."""
    return Exam(name, _with_pictures([Item(problem) for problem in problems]), {RULE: Protocol(rule)})


def exam_of_benchmark(benchmark: Benchmark, root: Path) -> Exam:
    """A benchmark's items from its file below the data root.

    Raises:
        UserError: there is no such file, or it can't be used, or two items have one id.
    """
    path = data_file(benchmark, root)
    if path is None:
        raise UserError(f"{benchmark.name}: there is no {' or '.join(benchmark.files)} below {root}")
    items = _with_pictures(benchmark.load(path))
    twice = next((name for name, count in Counter(item.problem.id for item in items).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two items have the id {twice!r}; rows are told apart by it")
    return Exam(benchmark.name, items, benchmark.protocols, benchmark)


def _with_pictures(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items, each that shows the same pictures as others with :data:`PICTURE` in its ``meta``."""
    shown: dict[tuple[str | bytes, ...], list[str]] = {}
    for item in items:
        if item.problem.images and all(isinstance(image, str | bytes) for image in item.problem.images):
            shown.setdefault(item.problem.images, []).append(item.problem.id)
    first = {name: names[0] for names in shown.values() if len(names) > 1 for name in names}
    return tuple(
        replace(item, meta={**item.meta, PICTURE: first[item.problem.id]}) if item.problem.id in first else item
        for item in items
    )


def data_file(benchmark: Benchmark, root: Path) -> Path | None:
    """The first of the benchmark's files that is there."""
    return next((root / file for file in benchmark.files if (root / file).exists()), None)


def missing_images(exam: Exam) -> tuple[int, int, str]:
    """(images that are no file, all images, the first of those missing). Nothing is opened."""
    images = [image for item in exam.items for image in item.problem.images]
    paths = [image for image in images if isinstance(image, str) and image[:5].lower() != "data:"]
    missing = [path for path in paths if not Path(path).exists()]
    return len(missing), len(images), missing[0] if missing else ""
