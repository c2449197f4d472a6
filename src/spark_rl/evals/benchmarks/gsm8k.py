r"""GSM8K: grade-school word problems with a number for an answer (paper Table 2; specification Sec. 3).

Rows: ``question``, and ``answer``, a worked solution that ends in ``#### 1,234``. Items are named by their row, from 1.
"""

from __future__ import annotations

from pathlib import Path

from spark_rl.evals.benchmark import Benchmark, Item, Protocol
from spark_rl.evals.benchmarks.entries import Entry, read_entries
from spark_rl.evals.score.scorers import reference, rule
from spark_rl.problem import Problem


def load(path: Path) -> list[Item]:
    """One item for each row of the file; the gold is what stands after the last ``####``, commas removed."""
    return [
        Item(Problem(id=str(entry.number), question=entry.text("question"), answer=_gold(entry), source="gsm8k"))
        for entry in read_entries(path)
    ]


def _gold(entry: Entry) -> str:
    _, hashes, gold = entry.text("answer").rpartition("####")
    gold = gold.strip().replace(",", "")
    if not hashes or not gold or "\n" in gold:
        raise entry.wrong("the answer does not end in '#### ' and a number")
    return gold


BENCHMARK = Benchmark(
    name="gsm8k",
    title="GSM8K",
    group="math-llm",
    source="https://huggingface.co/datasets/openai/gsm8k",
    licence="MIT",
    files=("llm/gsm8k_test.jsonl", "llm/gsm8k_test.parquet"),
    load=load,
    protocols={"reference": Protocol(reference), "rule": Protocol(rule)},
    published=1319,
)
