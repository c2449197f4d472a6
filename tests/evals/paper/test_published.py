"""The paper's numbers: averages and differences recomputed, and every number against the specification's own copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import SHARED
from spark_rl.evals.benchmarks import find
from spark_rl.evals.paper.published import ANY_JUDGE, TABLES, PaperTable

from .lookup import row_mean, row_of, table

SPECIFICATION = SHARED.parent / "benchmarks.md"
NUMBERS = pytest.mark.parametrize("paper", TABLES, ids=lambda paper: f"table {paper.number}")


def test_there_are_six_tables() -> None:
    assert [paper.number for paper in TABLES] == [1, 2, 3, 4, 5, 6]
    assert [len(paper.rows) for paper in TABLES] == [10, 9, 6, 4, 5, 3]


@NUMBERS
def test_rows_fit_their_columns_and_hold_percent(paper: PaperTable) -> None:
    for row in paper.rows:
        assert row.table == paper.number
        assert (len(row.scores), len(row.averages)) == (len(paper.columns), len(paper.averages))
        assert all(0 < score < 100 for score in (*row.scores, *row.averages) if score is not None)
    assert len({row.model for row in paper.rows}) == len(paper.rows)


def test_all_averages_but_one_are_the_means_of_their_rows() -> None:
    odd = [
        (paper.number, row.model, average.title, printed, mean)
        for paper in TABLES
        for row in paper.rows
        for average, printed in zip(paper.averages, row.averages, strict=True)
        if (mean := row_mean(paper, row, average)) is not None and printed is not None and abs(printed - mean) > 0.05001
    ]
    # By hand: 73.1 + 28.7 + 67.5 + 51.9 + 57.7 + 48.9 + 68.9 = 396.7, and 396.7 / 7 = 56.67.
    mean = pytest.approx(396.7 / 7)
    assert odd == [(5, "Qwen2.5-VL-7B + GRPO Policy-Only + TTS", "Average", 56.6, mean)]


@NUMBERS
def test_an_average_is_printed_exactly_where_all_its_members_are(paper: PaperTable) -> None:
    for row in paper.rows:
        for average, printed in zip(paper.averages, row.averages, strict=True):
            assert (printed is None) == (row_mean(paper, row, average) is None)


def test_the_reward_average_counts_the_mathematics_subsets_as_full_members() -> None:
    one, two = row_of(1, "SPARK-VL-7B"), row_of(2, "SPARK-7B")
    assert one.averages[1] == pytest.approx((49.3 + 39.2 + 62.7 + 65.1) / 4, abs=0.05)
    assert two.averages[1] == pytest.approx((58.8 + 55.7) / 2, abs=0.051)
    assert [len(average.of) for average in table(1).averages] == [7, 4, 11]
    assert [len(average.of) for average in table(2).averages] == [6, 2, 8]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_printed_differences_are_differences_of_printed_numbers(number: int) -> None:
    paper = table(number)
    assert paper.base is not None
    last, base = paper.rows[-1], row_of(number, paper.base)
    assert last.model.startswith("SPARK")
    pairs = zip(last.scores + last.averages, base.scores + base.averages, strict=True)
    computed = [after - before for after, before in pairs if after is not None and before is not None]
    assert paper.differences == pytest.approx(computed, abs=1e-6)


def test_rows_that_two_tables_print_are_the_same_in_both() -> None:
    for model in ("Qwen2.5-VL-7B", "Qwen2.5-VL-7B + GRPO Policy-Only", "SPARK-VL-7B"):
        assert row_of(5, model).scores == row_of(1, model).scores[:7]
    assert row_of(6, "SPARK + Ans&CoT").scores == row_of(1, "SPARK-VL-7B").scores


def test_test_time_scaling_is_known_only_where_table_5_tells() -> None:
    assert [row.tts for row in table(5).rows] == [False, True, False, True, None]
    assert row_of(1, "SPARK-VL-7B").tts is None
    assert {row.tts for row in table(2).rows} == {None}


def test_every_column_is_one_of_our_benchmarks_under_a_protocol_that_it_has() -> None:
    for paper in TABLES:
        for column in paper.columns:
            benchmark = find(column.benchmark)
            assert benchmark.name == column.benchmark
            assert column.part is not None or benchmark.title == column.title
            used = [column.instead.get(sheet, sheet) for sheet in paper.protocols]
            assert ANY_JUDGE in used or set(used) <= set(benchmark.protocols)


@pytest.mark.shared
@pytest.mark.skipif(not SPECIFICATION.exists(), reason="the specification is not at hand")
def test_every_row_of_the_specification_is_here() -> None:
    """Its Sec. 0.4 was typed from the paper by somebody else."""
    assert _specified(SPECIFICATION) <= _ours()
    assert len(_specified(SPECIFICATION)) == 19


def _specified(path: Path) -> set[tuple[float, ...]]:
    section = path.read_text(encoding="utf-8").split("### 0.4")[1].split("### 0.5")[0]
    rows = [line.split("|")[2:-1] for line in section.splitlines() if re.match(r"\| [*\w]", line)]
    return {tuple(float(cell) for cell in row if cell.strip()) for row in rows}


def _ours() -> set[tuple[float, ...]]:
    """Numbers in the specification's order: each average behind its own columns."""
    found = set()
    for paper in TABLES:
        for row in paper.rows:
            numbers = list(row.scores)
            if len(row.averages) == 1:
                numbers.append(row.averages[0])
            else:
                maths = len(paper.averages[0].of)
                numbers = [*numbers[:maths], row.averages[0], *numbers[maths:], *row.averages[1:]]
            found.add(tuple(number for number in numbers if number is not None))
    return found
