"""AMC 2023: 40 problems with a number for an answer (paper Table 2; specification Sec. 3).

Rows: ``problem`` or ``question``, and ``answer``, written ``27.0`` for 27; read as :mod:`.aime24` is. (AI-MO's
validation set of 83 problems is another one.)
"""

from __future__ import annotations

from spark_rl.evals.benchmark import Benchmark, Protocol
from spark_rl.evals.benchmarks.aime24 import competition
from spark_rl.evals.benchmarks.entries import Entry
from spark_rl.evals.score.scorers import reference, rule


def _gold(entry: Entry) -> str:
    return entry.text("answer").removesuffix(".0")


BENCHMARK = Benchmark(
    name="amc23",
    title="AMC23",
    group="math-llm",
    source="https://huggingface.co/datasets/math-ai/amc23",
    licence="none stated",
    files=("llm/amc23.jsonl", "llm/amc23.parquet"),
    load=competition("amc23", _gold),
    protocols={"reference": Protocol(reference), "rule": Protocol(rule)},
    published=40,
)
