"""MathVerse: versions, options inside questions, and dirty golds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.mathverse import BENCHMARK, cleaned, gold_letters
from vision_sets import added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write

IMAGED = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")


def row(**columns: Any) -> dict[str, Any]:
    plain = {
        "sample_index": "1", "problem_index": "1", "problem_version": "Text Lite",
        "question": "How large is CED?\nChoices:\nA:40°\nB:60°\nC:120°", "image": "images_version_1-4/image_1.png",
        "answer": "C", "question_type": "multi-choice",
        "metadata": {"split": "testmini", "source": "GeoQA", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_wo": "...", "query_cot": "According to the question shown in the image, ...",
        "question_for_eval": "How large is CED?\nChoices:\nA:40°\nB:60°\nC:120°",
    }  # fmt: skip
    return plain | columns


def load(folder: Path, *rows: dict[str, Any]) -> list[Item]:
    return BENCHMARK.load(write(folder / "testmini.json", list(rows)))


def free(folder: Path, gold: str) -> Item:
    return load(folder, row(question="How much?", question_type="free-form", answer=gold))[0]


def test_a_row_with_options_inside(tmp_path: Path) -> None:
    picture = draw(tmp_path / "images" / "images_version_1-4" / "image_1.png")
    found = load(tmp_path, row())[0]
    assert found.problem.question == row()["question"]
    assert (found.problem.answer, found.problem.kind, found.problem.choices) == ("C", "choice", ("40°", "60°", "120°"))
    assert found.problem.images == (str(picture),)


def test_vision_only_asks_by_its_query_and_knows_its_options(tmp_path: Path) -> None:
    found = load(tmp_path, row(problem_version="Vision Only", question=""))[0]
    assert found.problem.question == "According to the question shown in the image, ..."
    assert found.problem.choices == ("40°", "60°", "120°")
    assert score(BENCHMARK, found, r"\boxed{120^\circ}") == 1.0


def test_only_text_only_rows_may_lack_an_image(tmp_path: Path) -> None:
    assert load(tmp_path, row(problem_version="Text Only", image=""))[0].problem.images == ()
    assert "no image" in fails(BENCHMARK, write(tmp_path / "testmini.json", [row(image="")]))


def test_the_score_is_over_the_five_versions_with_images(tmp_path: Path) -> None:
    versions = [*IMAGED, "Text Only"]
    found = load(tmp_path, *(row(sample_index=str(n), problem_version=v) for n, v in enumerate(versions)))
    added_up = added(BENCHMARK, found, [1, 1, 0, 0, 0, 1], "rule")
    assert (added_up["score"], added_up["version/Text Only"], added_up["version/Vision Only"]) == (0.4, 1.0, 0.0)
    assert added(BENCHMARK, found[5:], [1], "rule")["score"] == 1.0
    assert {BENCHMARK.protocols["rule"].unit(i) for i in found} == {"1"}


@pytest.mark.parametrize(
    ("gold", "clean"),
    [
        ("118掳T", "118°"), (r"315^\circT", r"315^\circ"), ("4.4 m", "4.4 m"), ("(-2,1]", "(-2,1]"), ("-1\n2", "-1, 2"),
        (r"Surface Area $=12 \mathrm{~cm}^{2}$", r"12 \mathrm{~cm}^{2}"), ("y=-2 x+5", "y=-2 x+5"), ("24 units", "24"),
        (r"$\mathrm{SA}=3298.67$", "3298.67"), ("S.A. $=1209.84$", "1209.84"),
        (r"$x^{2}+y^{2}=49$", r"$x^{2}+y^{2}=49$"),
        ("When x<=3 $f(x)=-x+1$, when x>3, $f(x)=x-5$", "When x<=3 $f(x)=-x+1$, when x>3, $f(x)=x-5$"),
    ],
)  # fmt: skip
def test_dirty_golds_become_values(gold: str, clean: str) -> None:
    assert cleaned(gold) == clean


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        (r"315^\circT", "315", 1.0), (r"315^\circT", r"315^\circ T", 1.0), (r"315^\circT", "314", 0.0),
        (r"Area $=9 \pi \mathrm{cm}^{2}$", r"9\pi", 1.0), (r"Area $=9 \pi \mathrm{cm}^{2}$", r"A = 9\pi", 1.0),
        ("(-2,1]", "(-2, 1]", 1.0), ("(-2,1]", "(-2, 1)", 0.0), ("118掳T", "118°", 1.0),
    ],
)  # fmt: skip
def test_rule_on_dirty_golds(gold: str, answer: str, expected: float, tmp_path: Path) -> None:
    assert score(BENCHMARK, free(tmp_path, gold), rf"\boxed{{{answer}}}") == expected


def test_reference_compares_with_the_gold_as_written(tmp_path: Path) -> None:
    found = free(tmp_path, r"Slope $=\frac{1}{5}$")
    assert score(BENCHMARK, found, r"\boxed{\frac{1}{5}}") == 1.0
    assert score(BENCHMARK, found, r"\boxed{\frac{1}{5}}", "reference") == 0.0
    assert score(BENCHMARK, found, r"\boxed{Slope $=\frac{1}{5}$}", "reference") == 1.0


def test_gold_letters() -> None:
    assert gold_letters("(C)", ()) == "C"
    assert gold_letters("C\nA", ()) == "A, C"
    assert gold_letters("False", ("True", "False")) == "B"
    assert gold_letters("something", ("True", "False")) is None


@real_rows
def test_all_golds_of_the_real_rows_are_right() -> None:
    found = real_items(BENCHMARK)
    assert len(found) == 788
    assert Counter(i.meta["question_type"] for i in found) == {"multi-choice": 436, "free-form": 352}
    assert Counter(i.meta["subject"] for i in found) == {
        "Plane Geometry": 510, "Functions": 159, "Solid Geometry": 119
    }  # fmt: skip
    assert Counter(i.problem.kind for i in found) == {"choice": 436, "math": 352}
    without_options = [i.problem.id for i in found if i.problem.kind == "choice" and not i.problem.choices]
    assert len(without_options) == 1, "one row has two options without a text"
    grades = graded(BENCHMARK, found, gold_boxed(found))
    assert [i.problem.id for i, grade in zip(found, grades, strict=True) if grade.score != 1] == []
    written = [rf"\boxed{{{i.meta['raw_gold']}}}" for i in found]
    for protocol in BENCHMARK.protocols:
        grades = graded(BENCHMARK, found, written, protocol)
        assert [i.problem.id for i, grade in zip(found, grades, strict=True) if grade.score != 1] == []
