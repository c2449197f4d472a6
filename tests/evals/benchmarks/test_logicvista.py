"""LogicVista: sets of letters, and the one row without a gold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.logicvista import BENCHMARK
from vision_sets import added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write


def row(**columns: Any) -> dict[str, Any]:
    plain = {
        "imagename": "v1_0.png", "question": "Which? Select from A, B, C, and D.", "answer": "B", "reasoning": "...",
        "skill": ["inductive"], "broad_capability": ["diagram"], "specific_capability": ["rule"],
    }  # fmt: skip
    return plain | columns


def item(folder: Path, **columns: Any) -> Item:
    return BENCHMARK.load(write(folder / "dataset.json", {"v1_0": row(**columns)}))[0]


def test_rows_of_github_and_of_the_hub(tmp_path: Path) -> None:
    picture = draw(tmp_path / "images" / "v1_0.png")
    found = item(tmp_path)
    assert (found.problem.id, found.problem.images, found.meta["skill"]) == ("v1_0", (str(picture),), ["inductive"])
    hub = {"id": "v1_9", "image": {"bytes": picture.read_bytes(), "path": None}, "question": "?", "answer": "A, C",
           "skill": ["spatial"]}  # fmt: skip
    held = BENCHMARK.load(write(tmp_path / "test.parquet", [hub]))[0]
    assert (held.problem.id, held.problem.answer, held.problem.kind) == ("v1_9", "A, C", "choice")


def test_a_row_without_an_image_is_one_line(tmp_path: Path) -> None:
    assert "row v1_0: no image" in fails(BENCHMARK, write(tmp_path / "dataset.json", {"v1_0": row(imagename="")}))


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"\boxed{B}", "B"), (r"\boxed{C, A}", "A, C"), (r"\boxed{AC}", "A, C"), (r"\boxed{A and C}", "A, C"),
        (r"\boxed{\text{B. Set B}}", "B"), ("The answer is B because A is wrong.", "B"), (r"\boxed{3}", "3"),
        ("The correct answers are (B) and (D).", "B, D"), ("<answer>D</answer>", "D"), ("It must be C.", "C"),
        ("The answer is **E**.", "E"), (r"\boxed{I}", "I"), ("The answers are B, D", "B, D"), ("(B) and (D)", "B, D"),
    ],
)  # fmt: skip
def test_letters_of_a_response(response: str, gold: str, tmp_path: Path) -> None:
    assert score(BENCHMARK, item(tmp_path, answer=gold), response) == 1.0
    assert score(BENCHMARK, item(tmp_path, answer="F"), response) == 0.0


@pytest.mark.parametrize(
    "response", ["nothing", "", r"\boxed{}", "B or D", r"\boxed{B or C}", "(B) and (D)", "Not B", "It lies on line B"]
)
def test_what_states_no_letter(response: str, tmp_path: Path) -> None:
    assert score(BENCHMARK, item(tmp_path), response) == 0.0


def test_all_letters_must_match(tmp_path: Path) -> None:
    found = item(tmp_path, answer="B, D")
    said = (r"\boxed{D, B}", r"\boxed{BD}", r"\boxed{B}", r"\boxed{B, C, D}", "")
    assert [grade.score for grade in graded(BENCHMARK, [found] * 5, said)] == [1, 1, 0, 0, 0]


def test_reference_wants_letters_in_order(tmp_path: Path) -> None:
    found = item(tmp_path, answer="A, C")
    said = (r"\boxed{A, C}", r"\boxed{AC}", r"\boxed{A,C}", r"\boxed{C, A}")
    assert [grade.score for grade in graded(BENCHMARK, [found] * 4, said, "reference")] == [1, 1, 1, 0]


def test_a_gold_digit(tmp_path: Path) -> None:
    found = item(tmp_path, answer="3")
    assert (score(BENCHMARK, found, r"\boxed{3}"), score(BENCHMARK, found, r"\boxed{C}")) == (1.0, 0.0)


def test_the_row_without_a_gold_stays_and_is_wrong(tmp_path: Path) -> None:
    empty = item(tmp_path, answer="", question="")
    pair = [item(tmp_path), empty]
    for protocol in BENCHMARK.protocols:
        for said in ("", r"\boxed{}", r"\boxed{A}", r"\boxed{$}"):
            assert score(BENCHMARK, empty, said, protocol) == 0.0
        grades = graded(BENCHMARK, pair, [r"\boxed{B}"] * 2, protocol)
        found = added(BENCHMARK, pair, [grade.score for grade in grades], protocol)
        assert (found["score"], found["with_gold"], found["skill/inductive"]) == (0.5, 1.0, 0.5)


@real_rows
def test_all_golds_of_the_real_rows_are_right() -> None:
    items = real_items(BENCHMARK)
    assert len(items) == 60
    assert Counter(i.meta["skill"][0] for i in items).total() == 60
    assert all(Path(str(i.problem.images[0])).is_file() for i in items)
    for protocol in BENCHMARK.protocols:
        grades = graded(BENCHMARK, items, gold_boxed(items), protocol)
        assert [i.problem.id for i, grade in zip(items, grades, strict=True) if grade.score != 1] == []
    others = [r"\boxed{A}" if i.problem.answer != "A" else r"\boxed{B}" for i in items]
    assert {grade.score for grade in graded(BENCHMARK, items, others)} == {0.0}
