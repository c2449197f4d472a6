r"""AIME 2024: 30 problems whose answers are integers from 0 to 999 (paper Table 2; specification Sec. 3).

Rows: ``problem`` or ``question``, and ``answer``, written ``25``, ``025`` or ``25.0``; without one, the box of
``solution``. Items are named by ``id``, else by their row, from 1. :mod:`.aime25` and :mod:`.amc23` read alike.

``rule`` is the shared one, and takes a box such as ``m+n=25`` for 25. One greedy answer to 30 problems moves in steps
of 3.3 points; the interval says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.evals.score.scorers import reference, value_of, within
from spark_rl.problem import Problem
from spark_rl.verify import extract_boxed


def competition(source: str, gold: Callable[[Entry], str]) -> Callable[[Path], list[Item]]:
    """A loader of competition problems, one item a row."""

    def load(path: Path) -> list[Item]:
        return [
            Item(
                Problem(
                    id=entry.id,
                    question=entry.text("problem", "question", "Problem"),
                    answer=gold(entry),
                    source=source,
                )
            )
            for entry in read_entries(path, "id", "ID")
        ]

    return load


def integer_gold(entry: Entry) -> str:
    """The gold as an integer from 0 to 999 without leading zeros. Raises ``DataError`` for any other."""
    stated = entry.optional("answer", "Answer") or extract_boxed(entry.text("solution", "Solution")) or ""
    value = value_of(stated)
    if value is None or not value.is_integer() or not 0 <= value <= 999:
        raise entry.wrong(f"the answer {stated[:40]!r} is no integer from 0 to 999")
    return str(int(value))


def same_integer(item: Item, boxed: str) -> bool:
    """Whether a box states the gold behind an equals sign, and nothing else."""
    return "," not in boxed and value_of(boxed) == int(item.problem.answer)


AIME = {"reference": Protocol(reference), "rule": Protocol(within(same_integer))}

BENCHMARK = Benchmark(
    name="aime24",
    title="AIME24",
    group="math-llm",
    source="https://huggingface.co/datasets/HuggingFaceH4/aime_2024",
    licence="none stated",
    files=("llm/aime24.jsonl", "llm/aime24.parquet"),
    load=competition("aime24", integer_gold),
    protocols=AIME,
    published=30,
)
