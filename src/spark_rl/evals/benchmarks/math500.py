"""MATH-500: 500 competition problems of seven subjects and five levels (paper Table 2; specification Sec. 3).

Rows: ``problem``, ``answer`` in LaTeX, ``subject``, ``level`` from 1 to 5, ``unique_id``.
"""

from __future__ import annotations

from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import read_entries
from spark_rl.evals.score.scorers import by, reference, rule
from spark_rl.problem import Problem


def load(path: Path) -> list[Item]:
    """One item for each row of the file, named by its ``unique_id``, else by its number from 1."""
    return [
        Item(
            Problem(
                id=entry.id,
                question=entry.text("problem", "question"),
                answer=entry.text("answer"),
                source="math500",
            ),
            {"subject": entry.optional("subject") or None, "level": entry.optional("level") or None},
        )
        for entry in read_entries(path, "unique_id")
    ]


_ADD_UP = by("subject", "level")

BENCHMARK = Benchmark(
    name="math500",
    title="MATH-500",
    group="math-llm",
    source="https://huggingface.co/datasets/HuggingFaceH4/MATH-500",
    licence="MIT",
    files=("llm/math500.jsonl", "llm/math500.parquet"),
    load=load,
    protocols={"reference": Protocol(reference, _ADD_UP), "rule": Protocol(rule, _ADD_UP)},
    published=500,
)
