"""SEED-Bench, the part with pictures: nine kinds of multiple-choice questions (paper Table 4).

Data: ``lmms-lab/SEED-Bench``, split ``test``, as ``general/seedbench/test.parquet`` or ``.jsonl`` with the columns
``question_id``, ``question``, ``choice_a`` to ``choice_d``, ``answer``, ``data_type``, ``question_type_id`` and
``image``. Rows whose ``data_type`` is ``video`` are left out. How many are left (about 14,200) is not stated anywhere
we could read, so a part can't be told from the whole.

The headline is the share right; ``question_type_id/...`` are its kinds. The paper cites another set of a similar name,
about seeds of plants; its numbers fit this one.

Departure: the question is followed by the answer format of ``chat.policy``, not by one of the harnesses' own, which
ask for the option's letter: one without a box counts.
"""

from __future__ import annotations

from pathlib import Path

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry, listed, read_entries
from spark_rl.evals.score.scorers import by, rule, unboxed
from spark_rl.problem import Problem


def load(path: Path) -> list[Item]:
    """One item for each row about a picture."""
    items = [
        _item(entry)
        for entry in read_entries(path, "question_id")
        if entry.optional("data_type").casefold() in {"image", ""}
    ]
    if not items:
        raise DataError(f"{path}: no row has the data_type 'image'")
    return items


def _item(entry: Entry) -> Item:
    choices = entry.options("choice_a", "choice_b", "choice_c", "choice_d")
    problem = Problem(
        id=entry.id, question=f"{entry.text('question')}\n{listed(choices)}", answer=entry.letter("answer", choices),
        kind="choice", images=entry.image(), choices=choices,
    )  # fmt: skip
    return Item(problem, {"question_type_id": entry.optional("question_type_id") or None})


BENCHMARK = Benchmark(
    name="seedbench",
    title="SEED-Bench",
    group="general",
    source="https://github.com/AILab-CVC/SEED-Bench; https://huggingface.co/datasets/lmms-lab/SEED-Bench",
    licence="CC BY-NC 4.0",
    files=("general/seedbench/test.parquet", "general/seedbench/test.jsonl"),
    load=load,
    protocols={"rule": Protocol(unboxed(rule), by("question_type_id"))},
    unboxed=True,
)
