"""MMStar: 1,500 questions that can't be answered without the picture (paper Table 4).

Data: ``Lin-Chen/MMStar``, split ``val``, as ``general/mmstar/val.parquet`` or ``.jsonl`` with the columns ``index``,
``question`` (its options inside), ``image``, ``answer`` (A to D), ``category`` and ``l2_category``.

The headline is the plain mean, as in VLMEvalKit; ``category/...`` are the six capabilities, ``l2_category/...`` the 18
axes and ``axes`` their mean, which lmms-eval calls the average.

Departure: the question is followed by the answer format of ``chat.policy``. Options are not taken out of the question:
letters count as answers, option texts don't. Harnesses ask for the option's letter, so one without a box counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Graded, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.evals.score.scorers import by, mean_of_means, rule, unboxed
from spark_rl.problem import Problem

_LETTERS = "ABCD"


def load(path: Path) -> list[Item]:
    """One item for each row of the file."""
    return [_item(entry) for entry in read_entries(path, "index")]


def add_up(items: Sequence[Item], grades: Sequence[Graded]) -> Mapping[str, float]:
    """The plain mean, capabilities, axes, and the mean of the axes."""
    axes = mean_of_means("l2_category")(items, grades)
    return {**by("category", "l2_category")(items, grades), **({"axes": axes["score"]} if axes else {})}


def _item(entry: Entry) -> Item:
    problem = Problem(
        id=entry.id, question=entry.text("question"), answer=entry.letter("answer", _LETTERS), kind="choice",
        images=entry.image(),
    )  # fmt: skip
    meta = {"category": entry.optional("category") or None, "l2_category": entry.optional("l2_category") or None}
    return Item(problem, {**meta, "letters": _LETTERS})


BENCHMARK = Benchmark(
    name="mmstar",
    title="MMStar",
    group="general",
    source="https://github.com/MMStar-Benchmark/MMStar; https://huggingface.co/datasets/Lin-Chen/MMStar",
    licence="not stated",
    files=("general/mmstar/val.parquet", "general/mmstar/val.jsonl"),
    load=load,
    protocols={"rule": Protocol(unboxed(rule), add_up)},
    published=1500,
    unboxed=True,
)
