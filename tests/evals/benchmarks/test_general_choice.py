"""Multiple choice about pictures without rotations: MMStar, ScienceQA, SEED-Bench, RealWorldQA."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spark_rl.errors import DataError
from spark_rl.evals.benchmark import Benchmark, Item
from spark_rl.evals.benchmarks import mmstar, realworldqa, scienceqa, seedbench
from spark_rl.verify import Verifier

VERIFIER = Verifier()

STAR: Mapping[str, Any] = {
    "index": 4, "question": "Which shape?\nOptions: A: round, B: square, C: flat, D: none", "image": "4.png",
    "answer": "B", "category": "fine-grained perception", "l2_category": "attribute", "meta_info": {"source": "x"},
}  # fmt: skip
SCIENCE: Mapping[str, Any] = {
    "image": "1.png", "question": "Which is a force?", "choices": ["a push", "a colour", "a name"], "answer": 0,
    "hint": "A force moves things.", "subject": "natural science", "grade": "grade3", "lecture": "LECTURE",
    "solution": "SOLUTION",
}  # fmt: skip
SEED: Mapping[str, Any] = {
    "question_id": "101669", "question": "How many towels?", "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
    "choice_d": "Four", "answer": "A", "data_type": "image", "data_id": "1", "question_type_id": 5, "image": ["1.png"],
}  # fmt: skip
DIRECT = "Please answer directly with only the letter of the correct option and nothing else."
WORLD: Mapping[str, Any] = {
    "image": "0.webp", "question": f"Where does it go?\n\nA. Left\nB. Straight on\nC. Right\n{DIRECT}", "answer": "B",
}  # fmt: skip


def read(benchmark: Benchmark, folder: Path, *rows: Mapping[str, Any]) -> list[Item]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return benchmark.load(path)


def results(benchmark: Benchmark, items: list[Item], *responses: str) -> dict[str, float]:
    protocol = benchmark.protocols["rule"]
    return dict(protocol.add_up(items, protocol.score(items, responses, VERIFIER)))


def test_mmstar(tmp_path: Path) -> None:
    other = {**STAR, "category": "math", "answer": "D"}
    items = read(mmstar.BENCHMARK, tmp_path, STAR, {**other, "index": 5}, {**other, "index": 6, "l2_category": "sums"})
    assert [item.problem.id for item in items] == ["4", "5", "6"]
    assert items[0].problem.question == STAR["question"]
    assert (items[0].problem.answer, items[0].problem.choices, items[0].problem.prompt) == ("B", (), None)
    found = results(mmstar.BENCHMARK, items, r"\boxed{B}", r"\boxed{A}", "The answer is D")
    assert found == pytest.approx(
        {
            "score": 2 / 3, "category/fine-grained perception": 1, "category/math": 0.5, "l2_category/attribute": 0.5,
            "l2_category/sums": 1, "axes": 0.75,
        }
    )  # fmt: skip


def test_scienceqa_shows_the_hint_and_no_lecture(tmp_path: Path) -> None:
    (item,) = read(scienceqa.BENCHMARK, tmp_path, SCIENCE, {**SCIENCE, "image": None})
    assert (
        item.problem.question == "Context: A force moves things.\nWhich is a force?\nA. a push\nB. a colour\nC. a name"
    )
    assert (item.problem.answer, item.problem.choices) == ("A", ("a push", "a colour", "a name"))
    found = results(scienceqa.BENCHMARK, [item], r"\boxed{a push}")
    assert found == {"score": 1.0, "subject/natural science": 1.0, "grade/grade3": 1.0}


def test_scienceqa_without_a_hint(tmp_path: Path) -> None:
    (item,) = read(scienceqa.BENCHMARK, tmp_path, {**SCIENCE, "hint": ""})
    assert item.problem.question.startswith("Which is a force?\n")


def test_seedbench_leaves_videos_out(tmp_path: Path) -> None:
    video = {**SEED, "question_id": "v1", "data_type": "video", "image": None}
    (item,) = read(seedbench.BENCHMARK, tmp_path, video, SEED)
    assert item.problem.id == "101669"
    assert item.problem.question == "How many towels?\nA. One\nB. Two\nC. Three\nD. Four"
    assert results(seedbench.BENCHMARK, [item], "A.") == {"score": 1.0, "question_type_id/5": 1.0}
    with pytest.raises(DataError, match="no row has the data_type 'image'"):
        read(seedbench.BENCHMARK, tmp_path, video)


def test_realworldqa_takes_the_instruction_off(tmp_path: Path) -> None:
    (item,) = read(realworldqa.BENCHMARK, tmp_path, WORLD)
    assert item.problem.question == "Where does it go?\n\nA. Left\nB. Straight on\nC. Right"
    assert item.problem.choices == ("Left", "Straight on", "Right")


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("B", r"\boxed{B}", True),
        ("B", r"\boxed{Straight on}", True),
        ("B", "B", True),
        ("B", r"\boxed{C}", False),
        ("3", r"\boxed{3}", True),
        ("3", "Three.", True),
        ("three", r"\boxed{\text{3}}", True),
        ("3", "I see quite a lot, maybe 3", False),
        ("Yes", "yes.", True),
        ("Yes", r"\boxed{No}", False),
        ("Stop", "", False),
    ],
)
def test_realworldqa_scores_letters_and_words(tmp_path: Path, answer: str, response: str, right: bool) -> None:
    question = WORLD["question"] if answer == "B" else "How many?\nPlease answer directly with a single word or number."
    items = read(realworldqa.BENCHMARK, tmp_path, {**WORLD, "question": question, "answer": answer})
    assert results(realworldqa.BENCHMARK, items, response)["score"] == float(right)
    assert "Please" not in items[0].problem.question


def test_realworldqa_grades_stay_in_order(tmp_path: Path) -> None:
    items = read(realworldqa.BENCHMARK, tmp_path, {**WORLD, "answer": "4"}, WORLD, {**WORLD, "answer": "no"})
    found = results(realworldqa.BENCHMARK, items, "four", r"\boxed{A}", "No")
    assert found == pytest.approx({"score": 2 / 3, "type/short": 1, "type/choice": 0})


@pytest.mark.parametrize(
    ("benchmark", "bad"),
    [
        (mmstar.BENCHMARK, {**STAR, "answer": "E"}),
        (mmstar.BENCHMARK, {**STAR, "image": None}),
        (scienceqa.BENCHMARK, {**SCIENCE, "answer": 3}),
        (scienceqa.BENCHMARK, {**SCIENCE, "answer": "A"}),
        (scienceqa.BENCHMARK, {**SCIENCE, "choices": "a push"}),
        (seedbench.BENCHMARK, {**SEED, "answer": "E"}),
        (seedbench.BENCHMARK, {**SEED, "choice_b": None}),
        (realworldqa.BENCHMARK, {**WORLD, "answer": ""}),
        (realworldqa.BENCHMARK, {**WORLD, "image": ""}),
    ],
)
def test_unusable_rows_are_named(tmp_path: Path, benchmark: Benchmark, bad: Mapping[str, Any]) -> None:
    with pytest.raises(DataError, match="row 1: "):
        read(benchmark, tmp_path, bad)
