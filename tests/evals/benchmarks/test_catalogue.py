"""The documented table of benchmarks is the one of the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    blocks = PAGE.with_name("extending.md").read_text(encoding="utf-8").split("```python\n")
    (tmp_path / "mine.py").write_text(next(block for block in blocks if "BENCHMARK = " in block).split("```")[0])
    benchmark = find(str(tmp_path / "mine.py"))
    (tmp_path / benchmark.files[0]).write_text('{"country": "France", "capital": "Paris"}\n')
    items = benchmark.load(tmp_path / benchmark.files[0])
    assert [item.problem.question for item in items] == ["What is the capital of France?"]
    for protocol in benchmark.protocols.values():
        right, wrong = (protocol.score(items, [f"\\boxed{{{city}}}"], Verifier()) for city in ("Paris", "Rome"))
        assert protocol.add_up(items, right) == {"score": 1.0}
        assert protocol.add_up(items, wrong)["score"] == 0.0


def test_a_table_is_put_between_the_marks_again_and_again() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = filled(page, "| a |\n")
    assert once == f"before\n{BEGIN}\n| a |\n{END}\nafter\n"
    assert filled(once, "| a |\n") == once
    with pytest.raises(ValueError, match="needs the lines"):
        filled("nothing", "")
