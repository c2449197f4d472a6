"""AIME 2025, both papers: 30 problems whose answers are integers from 0 to 999 (paper Table 2; specification Sec. 3).

Rows: ``problem``, ``answer``, ``id``; read and scored as :mod:`.aime24` is.
"""

from __future__ import annotations

from spark_rl.evals.benchmark import Benchmark
from spark_rl.evals.benchmarks.aime24 import AIME, competition, integer_gold

BENCHMARK = Benchmark(
    name="aime25",
    title="AIME25",
    group="math-llm",
    source="https://huggingface.co/datasets/math-ai/aime25",
    licence="none stated",
    files=("llm/aime25.jsonl", "llm/aime25.parquet"),
    load=competition("aime25", integer_gold),
    protocols=AIME,
    published=30,
)
