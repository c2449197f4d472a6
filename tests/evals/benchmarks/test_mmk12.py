"""MMK12: options inside questions, letters, subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.mmk12 import BENCHMARK
from vision_sets import added, draw, fails, gold_boxed, graded, write


def row(**columns: Any) -> dict[str, Any]:
    plain = {
        "id": "q-1", "question": "<image>What is the force?\nA. 10 N\nB. 20 N\nC. 30 N\nD. 40 N", "answer": "C",
        "subject": "physics", "image": "images/q-1.png",
    }  # fmt: skip
    return plain | columns


def load(folder: Path, *rows: dict[str, Any]) -> list[Item]:
    return BENCHMARK.load(write(folder / "test.jsonl", list(rows)))


@pytest.mark.parametrize("form", ["A. 1\nB. 2\nC. 3", "A.1\nB.2\nC.3", "A、1\nB、2\nC、3", "(A) . 1\nB: 2\nC．3"])
def test_options_in_every_form(form: str, tmp_path: Path) -> None:
    found = load(tmp_path, row(question=f"How many?\n{form}"))[0]
    assert (found.problem.choices, found.problem.answer, found.problem.kind) == (("1", "2", "3"), "C", "choice")


def test_parquet_with_the_picture_inside(tmp_path: Path) -> None:
    encoded = draw(tmp_path / "x.png").read_bytes()
    found = BENCHMARK.load(write(tmp_path / "test.parquet", [row(image={"bytes": encoded, "path": "1.png"})]))[0]
    assert found.problem.images == (encoded,)
    assert found.problem.question.startswith("What is the force?"), "a leading marker says only that there is an image"


def test_options_that_are_not_in_order_or_too_few_are_not_read(tmp_path: Path) -> None:
    found = load(tmp_path, row(question="How many?\nA. 1\nC. 3"), row(id="q-2", question="In the picture", answer="E"))
    assert [i.problem.choices for i in found] == [(), ()]
    assert [grade.score for grade in graded(BENCHMARK, found, gold_boxed(found))] == [1.0, 1.0]


def test_letters_and_option_texts(tmp_path: Path) -> None:
    found = load(tmp_path, row())[0]
    said = (
        r"\boxed{C}",
        r"\boxed{C. 30 N}",
        r"\boxed{30 \text{ N}}",
        "The answer is C.",
        r"\boxed{B}",
        "",
        r"\boxed{90}",
    )
    assert [grade.score for grade in graded(BENCHMARK, [found] * 7, said)] == [1, 1, 1, 0, 0, 0, 0]
    assert [g.score for g in graded(BENCHMARK, [found] * 7, said, "reference")] == [1, 0, 0, 0, 0, 0, 0]


def test_subjects_and_their_mean(tmp_path: Path) -> None:
    rows = [row(id=str(n), subject=subject) for n, subject in enumerate(("physics", "physics", "physics", "Biology"))]
    found = added(BENCHMARK, load(tmp_path, *rows), [1, 0, 0, 1], "rule")
    assert (found["score"], found["subject/Biology"]) == (0.5, 1.0)
    assert found["subject_mean"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"image": None}, "no image"), ({"answer": ""}, "no 'answer'"), ({"question": "<image><image>?"}, "2 <image>")],
)
def test_unusable_rows_are_one_line(columns: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in fails(BENCHMARK, write(tmp_path / "test.jsonl", [row(**columns)]))
