"""We-Math: letters only, composites, and the four classes against the specification's golden values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Graded, Item
from spark_rl.evals.benchmarks.wemath import BENCHMARK, extract, four_classes
from vision_sets import added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write


def row(composite: str, part: str, **columns: Any) -> dict[str, Any]:
    plain = {
        "ID": composite, "split": "testmini", "knowledge concept": "Area of Squares", "question": "How large?",
        "option": "A. 1; B. 2; C. 3; D. No correct answer", "answer": "B", "image_path": f"2steps/image/{part}.png",
        "key": f"2steps_{part}", "question number": 1, "knowledge concept description": "...",
    }  # fmt: skip
    return plain | columns


def items(folder: Path, composites: int = 1) -> list[Item]:
    rows = [row(f"2steps_{number}", part) for number in range(composites) for part in ("1", "2", "multi")]
    return BENCHMARK.load(write(folder / "testmini.json", rows))


GOLDEN = [1, 1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0]
"""Four composites: all and the whole, all but not the whole, some and the whole, none (specification Sec. 2.3)."""


def test_a_row_becomes_the_question_and_its_options(tmp_path: Path) -> None:
    picture = draw(tmp_path / "2steps" / "image" / "1.png")
    found = items(tmp_path)
    assert [i.problem.id for i in found] == ["2steps_0/1", "2steps_0/2", "2steps_0/multi"]
    assert found[0].problem.question == "How large?\nA. 1; B. 2; C. 3; D. No correct answer"
    assert found[0].problem.images == (str(picture),)
    assert found[0].meta["letters"] == "ABCD"
    assert [i.meta["step"] for i in found] == ["S1", "S1", "S2"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"key": "4steps_1"}, "the key '4steps_1' is none of"),
        ({"key": "2steps_3"}, "the key '2steps_3' is none of"),
        ({"answer": "12"}, "'answer' is '12', no letter"),
        ({"image_path": ""}, "no image"),
    ],
)
def test_unusable_rows_are_one_line(columns: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in fails(BENCHMARK, write(tmp_path / "testmini.json", [row("2steps_1", "1", **columns)]))


def test_the_golden_check(tmp_path: Path) -> None:
    found = added(BENCHMARK, items(tmp_path, 4), GOLDEN, "official")
    assert (found["score"], found["strict/score"], found["loose/score"]) == (0.375, 0.375, 0.625)
    assert (found["strict/CM"], found["strict/IG"], found["strict/IK"], found["strict/RM"]) == (0.25, 0.25, 0.25, 0.5)
    assert (found["loose/CM"], found["loose/RM"]) == (0.5, 0.0)


def test_accuracy_is_the_headline_of_the_other_protocols(tmp_path: Path) -> None:
    for protocol in ("reference", "rule"):
        found = added(BENCHMARK, items(tmp_path, 4), GOLDEN, protocol)
        assert (found["score"], found["step/S1"], found["step/S2"]) == (7 / 12, 5 / 8, 0.5)
        assert (found["strict/score"], found["loose/score"]) == (0.375, 0.625)


def test_a_composite_drawn_twice_counts_twice(tmp_path: Path) -> None:
    found = items(tmp_path, 2)
    pairs = list(zip(found, [1, 1, 1, 0, 0, 0], strict=True))
    drawn = pairs[:3] + pairs[:3] + pairs[3:]
    grades = [Graded(float(value)) for _, value in drawn]
    assert four_classes([i for i, _ in drawn], grades, "strict")["score"] == pytest.approx(2 / 3)


def test_cut_composites_are_left_out_of_the_classes_only(tmp_path: Path) -> None:
    found = items(tmp_path, 2)[:5]
    assert added(BENCHMARK, found, [1, 1, 1, 0, 0], "rule")["strict/score"] == 1.0
    assert added(BENCHMARK, found, [1, 1, 1, 0, 0], "rule")["score"] == 0.6
    assert added(BENCHMARK, found[:2], [1, 1], "official") == {}
    assert added(BENCHMARK, found[:2], [1, 1], "rule") == {"score": 1.0, "step/S1": 1.0}


def test_nothing_mastered_and_nothing_remembered_is_no_division_by_zero(tmp_path: Path) -> None:
    assert four_classes(items(tmp_path), [Graded(0.0)] * 3, "loose") == {
        "score": 0.0, "IK": 1.0, "IG": 0.0, "CM": 0.0, "RM": 0.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("<Thought process>: <<so>> <Answer>: <<B>>", "B"), ("Answer: B. 2", "B"), (r"\boxed{B}", "B"),
        ("Answer: 2", None),
        (r"The Answer is \boxed{\text{B. } 2}", "B"), ("B", "B"), ("", None), (r"\boxed{2}", None), ("Answer: I", None),
        ("Because of it", "B"), ("Answer: Both", "B"), ("<Answer>: <<b>>", None), ("Answer: (B)", None),
        ("answer: B", None), ("Answer: A. No, Answer: C", "C"), (r"Because \boxed{C}", "C"), ("Answer: <<::.D", "D"),
        (r"\boxed{C} <Answer>: <<D>>", "D"), (r"\boxed{B or C}", None),
    ],
)  # fmt: skip
def test_official_extraction(response: str, letter: str | None) -> None:
    assert extract(response) == letter


def test_rule_reads_letters_also_without_a_box(tmp_path: Path) -> None:
    found = items(tmp_path)[0]
    said = (r"\boxed{B}", r"\boxed{B. 2}", "The answer is B.", r"\boxed{D}", "I do not know", r"\boxed{2}")
    assert [grade.score for grade in graded(BENCHMARK, [found] * 6, said)] == [1, 1, 1, 0, 0, 0]
    assert score(BENCHMARK, found, "The answer is B.", "reference") == 0.0


@real_rows
def test_all_golds_of_the_real_rows_are_right() -> None:
    found = real_items(BENCHMARK)
    assert len(found) == 66
    assert Counter(i.meta["step"] for i in found) == {"S1": 46, "S2": 14, "S3": 6}
    assert len({i.meta["composite"] for i in found}) == 20
    assert all(Path(str(i.problem.images[0])).is_file() for i in found)
    for protocol in BENCHMARK.protocols:
        grades = graded(BENCHMARK, found, gold_boxed(found), protocol)
        assert {grade.score for grade in grades} == {1.0}
        scores = added(BENCHMARK, found, [grade.score for grade in grades], protocol)
        assert (scores["score"], scores["strict/score"], scores["loose/score"]) == (1.0, 1.0, 1.0)
    templated = [f"<Thought process>: <<...>> <Answer>: <<{i.problem.answer}>>" for i in found]
    assert {grade.score for grade in graded(BENCHMARK, found, templated, "official")} == {1.0}
