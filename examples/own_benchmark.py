"""A benchmark of your own: one file that says how its questions are read and its answers scored.

    spark-rl eval --bench examples/own_benchmark.py --data-root DIR        # DIR/capitals.jsonl

Each line of the file: {"country": "France", "capital": "Paris"}.
"""

from __future__ import annotations

from pathlib import Path

from spark_rl import Problem
from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import read_entries
from spark_rl.evals.score.scorers import by, rule


def load(path: Path) -> list[Item]:
    return [
        Item(
            Problem(entry.id, f"What is the capital of {entry.text('country')}?", entry.text("capital"), kind="exact"),
            {"length": "short" if len(entry.text("capital")) < 6 else "long"},
        )
        for entry in read_entries(path, prefix="capital-")
    ]


BENCHMARK = Benchmark(
    name="capitals", title="Capitals", group="general", source="my own", licence="mine", files=("capitals.jsonl",),
    load=load, protocols={"rule": Protocol(rule, by("length"))},
)  # fmt: skip
