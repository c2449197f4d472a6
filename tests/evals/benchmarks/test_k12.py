"""K12: dirty free-form golds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.k12 import BENCHMARK, cleaned
from vision_sets import added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write


def item(folder: Path, **columns: Any) -> Item:
    row = {"id": "a-1", "question": "Find $$x$$.", "answer": "$$x=3$$", "image_path": "images/a-1.png", **columns}
    return BENCHMARK.load(write(folder / "k12.json", [row]))[0]


def test_rows_of_github_and_of_the_hub(tmp_path: Path) -> None:
    picture = draw(tmp_path / "images" / "a-1.png")
    assert item(tmp_path).problem.images == (str(picture),)
    hub = {"id": "1", "question": "?", "answer": "3", "image": {"bytes": picture.read_bytes(), "path": None}}
    assert BENCHMARK.load(write(tmp_path / "test.parquet", [hub]))[0].problem.images == (picture.read_bytes(),)


@pytest.mark.parametrize(
    ("gold", "clean"),
    [
        ("8\n4", "8, 4"), (r"$$\dfrac{35}{4}$$(or fill in $$8.75$$)", r"$$\dfrac{35}{4}$$"), ("$$f(2)$$", "$$f(2)$$"),
        ("$$y=x$$ (not unique)", "$$y=x$$"), ("(1)$$-2$$ (2)$$3$$", "(1)$$-2$$ (2)$$3$$"),
    ],
)  # fmt: skip
def test_golds_are_cleaned(gold: str, clean: str) -> None:
    assert cleaned(gold) == clean


@pytest.mark.parametrize(
    ("gold", "answer", "rule", "reference"),
    [
        ("$$x=3$$", "3", 1, 1), ("8\n4", "8, 4", 1, 1), ("8\n4", "84", 0, 1),
        (r"$$\dfrac{35}{4}$$(or fill in $$8.75$$)", "8.75", 1, 1),
        ("67.5°", "67.5", 1, 1), ("3.", "3", 1, 1), ("$$[-4,3]$$", "(-4,3)", 0, 0), ("$9:10$", "9:10", 1, 1),
    ],
)  # fmt: skip
def test_golden_answers(gold: str, answer: str, rule: int, reference: int, tmp_path: Path) -> None:
    found = item(tmp_path, answer=gold)
    assert score(BENCHMARK, found, rf"\boxed{{{answer}}}") == rule
    assert score(BENCHMARK, found, rf"\boxed{{{answer}}}", "reference") == reference


def test_a_row_without_an_image_is_one_line(tmp_path: Path) -> None:
    row = {"id": "1", "question": "?", "answer": "3", "image_path": ""}
    assert "row 1: no image" in fails(BENCHMARK, write(tmp_path / "k12.json", [row]))


@real_rows
def test_all_golds_of_the_real_rows_are_right() -> None:
    items = real_items(BENCHMARK)
    assert len(items) == 60
    assert all(Path(str(i.problem.images[0])).is_file() for i in items)
    grades = graded(BENCHMARK, items, gold_boxed(items))
    assert [i.problem.id for i, grade in zip(items, grades, strict=True) if grade.score != 1] == []
    assert added(BENCHMARK, items, [grade.score for grade in grades], "rule") == {"score": 1.0}
    written = [rf"\boxed{{{i.meta['raw_gold']}}}" for i in items]
    grades = graded(BENCHMARK, items, written, "reference")
    assert [i.problem.id for i, grade in zip(items, grades, strict=True) if grade.score != 1] == []
