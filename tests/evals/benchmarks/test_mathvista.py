"""MathVista: queries as the set builds them, letters for option texts, precision, and the official normalisation."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.mathvista import BENCHMARK, distance, extract
from vision_sets import DATA, added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write

METADATA = {
    "category": "general-vqa", "context": "bar chart", "grade": "daily life", "language": "english",
    "skills": ["statistical reasoning", "arithmetic reasoning"], "source": "FigureQA",
    "task": "figure question answering",
}  # fmt: skip


def row(**columns: Any) -> dict[str, Any]:
    plain = {
        "pid": "7", "question": "How many bars?", "image": "images/7.jpg", "choices": None, "unit": None,
        "precision": None, "answer": "3", "question_type": "free_form", "answer_type": "integer", "metadata": METADATA,
    }  # fmt: skip
    return plain | columns


def item(folder: Path, **columns: Any) -> Item:
    return BENCHMARK.load(write(folder / "testmini.json", {"7": row(**columns)}))[0]


def chosen(folder: Path, *choices: str, answer: str) -> Item:
    return item(folder, choices=list(choices), answer=answer, question_type="multi_choice", answer_type="text")


def of_float(folder: Path, precision: float, answer: str) -> Item:
    return item(folder, precision=precision, answer=answer, answer_type="float")


def test_a_row_becomes_its_query_and_a_letter(tmp_path: Path) -> None:
    found = chosen(tmp_path, "97", "Yes", answer="Yes")
    assert found.problem.id == "7"
    assert found.problem.question == (
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: How many bars?\nChoices:\n(A) 97\n(B) Yes"
    )
    assert (found.problem.answer, found.problem.kind, found.problem.choices) == ("B", "choice", ("97", "Yes"))
    assert found.meta["skills"] == METADATA["skills"]


def test_images_are_named_whether_they_are_there_or_not(tmp_path: Path) -> None:
    absent = item(tmp_path)
    assert str(absent.problem.images[0]).endswith("images/7.jpg")
    there = draw(tmp_path / "images" / "7.jpg")
    assert item(tmp_path).problem.images == (str(there),)


def test_parquet_of_the_hub_with_pictures_inside(tmp_path: Path) -> None:
    encoded = draw(tmp_path / "x.png").read_bytes()
    held = row(query="As written?", decoded_image={"bytes": encoded, "path": None}, precision=1.0, answer_type="float")
    found = BENCHMARK.load(write(tmp_path / "testmini.parquet", [held]))[0]
    assert (found.problem.question, found.problem.images) == ("As written?", (encoded,))
    assert found.meta["precision"] == 1


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"answer": "maybe", "choices": ["yes", "no"]}, "row 7: answer 'maybe' is none of the 2 options"),
        ({"answer": ""}, "row 7: no 'answer'"),
        ({"image": ""}, "row 7: no image"),
        ({"metadata": 3}, "'metadata' is no object"),
        ({"image": "https://example.org/7.jpg"}, "addresses are not fetched"),
    ],
)
def test_unusable_rows_are_one_line(columns: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in fails(BENCHMARK, write(tmp_path / "testmini.json", {"7": row(**columns)}))


def test_a_missing_column_and_a_repeated_id_are_one_line(tmp_path: Path) -> None:
    without = {name: value for name, value in row().items() if name != "choices"}
    assert "row 1: no column 'choices'" in fails(BENCHMARK, write(tmp_path / "testmini.json", [without]))
    assert "the id '7' is taken" in fails(BENCHMARK, write(tmp_path / "testmini.json", [row(), row()]))


def test_reference_takes_the_letter_and_the_text_of_the_option(tmp_path: Path) -> None:
    found = chosen(tmp_path, "97", "12", answer="12")
    responses = (r"\boxed{B}", r"\boxed{12}", r"\boxed{A}", r"\boxed{97}", "B")
    assert [grade.score for grade in graded(BENCHMARK, [found] * 5, responses, "reference")] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("precision", "gold", "answer", "expected"),
    [
        (1, "1.2", "1.2", 1.0), (1, "1.2", "1.23", 1.0), (1, "1.2", "1.26", 0.0), (2, "0.33", r"\frac{1}{3}", 1.0),
        (2, "14.14", r"10\sqrt{2}", 1.0), (1, "1.2", r"1.2 \text{ m}", 1.0), (1, "0.0", "0.04", 1.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["rule", "official"])
def test_decimals_are_met_at_their_precision(
    protocol: str, precision: int, gold: str, answer: str, expected: float, tmp_path: Path
) -> None:
    assert score(BENCHMARK, of_float(tmp_path, precision, gold), rf"so \boxed{{{answer}}}", protocol) == expected


def test_integers_have_no_tolerance_under_rule(tmp_path: Path) -> None:
    found = item(tmp_path, answer="3")
    assert score(BENCHMARK, found, r"\boxed{3.4}") == 0.0
    assert score(BENCHMARK, found, r"\boxed{3.4}", "official") == 1.0, "the official scorer cuts integers off"


def test_official_letters_options_and_the_nearest_option(tmp_path: Path) -> None:
    found = chosen(tmp_path, "red", "blue", "green", answer="blue")
    said = (
        "The answer is (B).",
        r"\boxed{\text{blue}}",
        r"\boxed{bleu}",
        r"\boxed{(A)}",
        r"\boxed{}",
        "",
        r"\boxed{C}",
    )
    assert [grade.score for grade in graded(BENCHMARK, [found] * 7, said, "official")] == [1, 1, 1, 0, 0, 0, 0]
    empty = graded(BENCHMARK, [found] * 2, (r"\boxed{}", r"\boxed{\text{}}"), "official")
    assert {grade.score for grade in empty} == {0.0}, "nothing said is not the nearest option"


def test_official_numbers_and_lists(tmp_path: Path) -> None:
    years = item(tmp_path, answer="1000", unit="years")
    assert "(Unit: years)" in years.problem.question
    said = ("so it is\nThe answer is 1,000 years.", r"\boxed{1000 \text{ years}}", r"\boxed{about 1000}", "no idea")
    assert [grade.score for grade in graded(BENCHMARK, [years] * 4, said, "official")] == [1, 1, 1, 0]
    listed = item(tmp_path, answer="[2014, 2016]", answer_type="list")
    assert score(BENCHMARK, listed, r"\boxed{[2014, 2016]}", "official") == 1.0
    assert score(BENCHMARK, listed, r"\boxed{[2016, 2014]}", "official") == 0.0


def test_extraction_prefers_the_box_then_the_phrase_then_the_last_line() -> None:
    assert extract(r"the answer is 3, no: \boxed{4}") == "4"
    assert extract("The answer is: 3\nAnswer: 5.\nDone") == "5"
    assert extract("one\ntwo") == "two"
    assert extract("") == ""


def test_levenshtein() -> None:
    assert (distance("kitten", "sitting"), distance("", "abc"), distance("same", "same")) == (3, 3, 0)


def test_hostile_responses_score_nothing(tmp_path: Path) -> None:
    found, number = chosen(tmp_path, "red", "blue", answer="blue"), of_float(tmp_path, 1, "1.2")
    for said in (r"\boxed{" + "x" * 100_000 + "}", r"\boxed{9^{9^{9^{9}}}}", "(" * 50_000, r"\boxed{1e400}"):
        assert [g.score for g in graded(BENCHMARK, [found, number], [said, said], "official")] == [0.0, 0.0]


def test_breakdowns_count_every_skill(tmp_path: Path) -> None:
    found = added(BENCHMARK, [item(tmp_path), chosen(tmp_path, "a b", "c d", answer="c d")], [1.0, 0.0], "rule")
    assert found["score"] == 0.5
    assert (found["skills/arithmetic reasoning"], found["question_type/free_form"]) == (0.5, 1.0)


@real_rows
def test_all_golds_of_the_real_rows_are_right() -> None:
    items = real_items(BENCHMARK)
    kinds = Counter((i.meta["question_type"], i.meta["answer_type"], i.meta.get("precision")) for i in items)
    assert kinds == {
        ("multi_choice", "text", None): 540, ("free_form", "integer", None): 418, ("free_form", "float", 1): 20,
        ("free_form", "float", 2): 20, ("free_form", "list", None): 2,
    }  # fmt: skip
    options = Counter(len(i.problem.choices) for i in items if i.problem.choices)
    assert options == {2: 185, 3: 18, 4: 273, 5: 51, 6: 9, 7: 3, 8: 1}
    assert Counter(i.meta["language"] for i in items) == {"english": 936, "chinese": 62, "persian": 2}
    for protocol in BENCHMARK.protocols:
        grades = graded(BENCHMARK, items, gold_boxed(items), protocol)
        assert [i.problem.id for i, grade in zip(items, grades, strict=True) if grade.score != 1] == []


@real_rows
def test_rebuilt_queries_are_the_published_ones() -> None:
    published = json.loads((DATA / "vlm/mathvista/query.json").read_text())
    pairs = [(i.problem.question, published[i.problem.id]) for i in real_items(BENCHMARK)]
    assert [one for one, other in pairs if one.split() != other.split()] == []
    assert sum(one != other.strip() for one, other in pairs) == 6, "spaces around a question or an option"


@real_rows
def test_always_a_scores_its_share() -> None:
    items = real_items(BENCHMARK)
    grades = graded(BENCHMARK, items, [r"\boxed{A}"] * len(items))
    share = sum(i.problem.answer == "A" for i in items) / len(items)
    assert math.isclose(added(BENCHMARK, items, [g.score for g in grades], "rule")["score"], share)


def test_a_precision_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    assert item(tmp_path, precision="9" * 5000).meta.get("precision") is None
