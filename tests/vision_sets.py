"""What the tests of the vision-language benchmarks share: where real rows are, rows of one's own, and scoring them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark, Graded, Item
from spark_rl.verify.pool import default_verifier

DATA = Path(os.environ.get("SPARK_RL_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))


def real_rows(marked: Callable[..., None]) -> Any:
    """Marks a test that reads the real files."""
    there = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}; set SPARK_RL_DATA_ROOT")
    return pytest.mark.shared(there(marked))


def draw(path: Path) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "white").save(path)
    return path


def write(path: Path, rows: Any) -> Path:
    """Rows as JSON, or as JSON lines under ``.jsonl``, or as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows) if path.suffix == ".jsonl" else json.dumps(rows)
        path.write_text(text, encoding="utf-8")
    return path


def real_items(benchmark: Benchmark) -> list[Item]:
    """The items of the real file."""
    return benchmark.load(next(DATA / file for file in benchmark.files if (DATA / file).exists()))


def graded(
    benchmark: Benchmark, items: Sequence[Item], responses: Sequence[str], protocol: str = "rule"
) -> list[Graded]:
    """What one protocol says of the responses."""
    return benchmark.protocols[protocol].score(items, responses, default_verifier())


def score(benchmark: Benchmark, item: Item, response: str, protocol: str = "rule") -> float:
    """The score of one response."""
    return graded(benchmark, [item], [response], protocol)[0].score


def gold_boxed(items: Sequence[Item]) -> list[str]:
    """Responses that box the gold answer."""
    return [f"Therefore \\boxed{{{item.problem.answer}}}." for item in items]


def added(benchmark: Benchmark, items: Sequence[Item], scores: Sequence[float], protocol: str) -> Mapping[str, float]:
    """What scores add up to."""
    return benchmark.protocols[protocol].add_up(items, [Graded(value) for value in scores])


def fails(benchmark: Benchmark, path: Path) -> str:
    """The one line that loading the file fails with."""
    with pytest.raises(DataError) as error:
        benchmark.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)
