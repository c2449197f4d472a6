"""The documented table of benchmarks is the one of the records."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from spark_rl.evals.benchmark import Benchmark
from spark_rl.evals.benchmarks import MODULES, find
from spark_rl.evals.benchmarks.catalogue import BEGIN, END, all_benchmarks, benchmarks_markdown, filled
from spark_rl.verify import Verifier

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"


def test_the_table_has_a_row_for_each_benchmark() -> None:
    rows = benchmarks_markdown(all_benchmarks()).splitlines()
    names = [re.findall(r"`(.+?)`", row)[0] for row in rows[2:]]
    assert {find(module).name for module in MODULES} <= set(names)
    assert len(names) == len(set(names))
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}


def test_the_page_is_fresh() -> None:
    """After a change to a benchmark: python -m spark_rl.evals.benchmarks.catalogue docs/evaluation.md"""
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page, benchmarks_markdown(all_benchmarks()))


def test_the_benchmark_of_the_page_works(tmp_path: Path) -> None:
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "capitals.py").write_text(code)
    benchmark = runpy.run_path(str(tmp_path / "capitals.py"))["BENCHMARK"]
    assert isinstance(benchmark, Benchmark)
    row = {"id": "fr", "question": "The capital of France?", "capital": "Paris", "continent": "Europe"}
    (tmp_path / "capitals.jsonl").write_text(json.dumps(row))
    items = benchmark.load(tmp_path / "capitals.jsonl")
    for protocol in benchmark.protocols.values():
        right, wrong = (protocol.score(items, [f"\\boxed{{{city}}}"], Verifier()) for city in ("Paris", "Rome"))
        assert protocol.add_up(items, right) == {"score": 1.0, "part/Europe": 1.0}
        assert protocol.add_up(items, wrong)["score"] == 0.0


def test_a_table_is_put_between_the_marks_again_and_again() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = filled(page, "| a |\n")
    assert once == f"before\n{BEGIN}\n| a |\n{END}\nafter\n"
    assert filled(once, "| a |\n") == once
    with pytest.raises(ValueError, match="needs the lines"):
        filled("nothing", "")
