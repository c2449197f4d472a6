"""MathVision: options in the question, two decimals, and the official phrases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spark_rl.evals.benchmark import Item
from spark_rl.evals.benchmarks.mathvision import BENCHMARK, extract, is_equal, normalised
from vision_sets import added, draw, fails, gold_boxed, graded, real_items, real_rows, score, write


def row(**columns: Any) -> dict[str, Any]:
    plain = {
        "id": "12", "question": "What is $x$?\n<image1>", "options": [], "answer": "10", "solution": None, "level": 2,
        "subject": "algebra", "image": "images/12.jpg",
    }  # fmt: skip
    return plain | columns


def item(folder: Path, **columns: Any) -> Item:
    return BENCHMARK.load(write(folder / "test.jsonl", [row(**columns)]))[0]


def chosen(folder: Path, *options: str, answer: str) -> Item:
    return item(folder, options=list(options), answer=answer)


def test_a_row_keeps_its_markers_and_lists_its_options(tmp_path: Path) -> None:
    picture = draw(tmp_path / "images" / "12.jpg")
    found = chosen(tmp_path, "$1$", "$2$", answer="B")
    assert found.problem.question == "What is $x$?\n<image1>\n(A) $1$\n(B) $2$"
    assert (found.problem.answer, found.problem.kind, found.problem.images) == ("B", "choice", (str(picture),))
    assert found.meta == {"subject": "algebra", "level": "2"}


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    encoded = draw(tmp_path / "x.png").read_bytes()
    held = row(options=["1", "2"], answer="A", decoded_image={"bytes": encoded, "path": "images/12.jpg"})
    assert BENCHMARK.load(write(tmp_path / "test.parquet", [held]))[0].problem.images == (encoded,)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"answer": "F", "options": ["1", "2"]}, "gold answer 'F' is neither a letter"),
        ({"options": 3}, "the options are not a list"),
        ({"answer": None}, "no 'answer'"),
        ({"image": None}, "no image"),
    ],
)
def test_unusable_rows_are_one_line(columns: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in fails(BENCHMARK, write(tmp_path / "test.jsonl", [row(**columns)]))


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("10", "10", 1.0), ("10", "10.004", 1.0), ("10", "10.006", 0.0), ("3.14", r"\pi", 1.0), ("10", "x", 0.0),
        (r"\frac{1}{3}", "0.33", 1.0), (r"2\sqrt{3}", r"\sqrt{12}", 1.0), ("C", "C", 1.0), ("10", r"10\text{ cm}", 1.0),
    ],
)  # fmt: skip
def test_rule_with_two_decimals(gold: str, answer: str, expected: float, tmp_path: Path) -> None:
    assert score(BENCHMARK, item(tmp_path, answer=gold), rf"\boxed{{{answer}}}") == expected


def test_options_that_are_permuted_letters_are_read_as_labels(tmp_path: Path) -> None:
    found = chosen(tmp_path, "A", "C", "B", answer="B")
    assert score(BENCHMARK, found, r"\boxed{B}") == 1.0
    assert score(BENCHMARK, found, r"\boxed{C}") == 0.0


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("I think so. The answer is B.", 1.0), ("So it is (B).", 1.0), ("B\nbecause", 1.0), (r"\boxed{(B)}", 1.0),
        (r"\boxed{A} no \boxed{B}", 1.0), (r"so $\boxed{\frac{1}{2}}$", 1.0),
        ("Therefore the final answer is 0.5", 1.0), (r"\boxed{\text{(B)}}", 1.0), (r"\boxed{\textbf{B}}", 0.0),
        ("The answer is (street B)", 0.0), ("I live in (street B).", 0.0), ("I live in street B.", 1.0),
        ("the answer is 1/2\nmore words", 1.0), (r"\boxed{0.499}", 1.0), (r"\boxed{A}", 0.0), ("", 0.0),
        (r"\boxed{0.48}", 0.0), (r"\boxed{x = \frac{2}{4}}", 1.0),
    ],
)  # fmt: skip
def test_official_letter_or_value(response: str, expected: float, tmp_path: Path) -> None:
    found = chosen(tmp_path, "$0.25$", r"$\frac{1}{2}$", "$2$", answer="B")
    assert score(BENCHMARK, found, response, "official") == expected


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("5", "5.0", True), ("5.004", "5", True), ("5.006", "5", False), ("(1,2.001)", "(1,2)", False), ("", "", False),
        ("(1.0,2)", "(1,2)", True), (r"(\frac{4}{2},1)", "(2,1)", False), ("(2.001,1)", "(2.004,1)", True),
        (r"(a,\infty)", r"(A,\infty)", True), ("[1,2]", "(1,2)", False), ("1,2", "2,1", False), ("1,000", "1000", True),
        ("$\\frac{1}{2}$", "0.5", True), (r"\frac12", "0.5", False), (r"2\frac{1}{2}", "1", True), ("3cm", "3", False),
        (r"120^{\circ}", "120", False), ("1:2", "0.5", True), (r"\dfrac{3}{4}", "0.75", True), ("C", "c", True),
        ("2.675", "2.68", False), ("0.125", "0.12", True), (r"\frac{1}{2}}and{x", "0.5", True),
        ("(1,2)", "(2,1)", False), ("(1,2)", "[1,2]", False), (r"\frac{\sqrt{3}}{2}", "0.866", True), ("a", "b", False),
        (r"2\pi", "6.28", True), ("__import__('os')", "0", False), ("9^{9^{9^9}}", "1", False), ("1/0", "1", False),
    ],
)  # fmt: skip
def test_official_equality(one: str, other: str, equal: bool) -> None:
    assert is_equal(one, other) is equal
    assert is_equal(other, one) is equal


def test_official_extraction_and_normalisation() -> None:
    assert extract(r"first \boxed{1}, then \boxed{2}") == "2"
    assert extract("The correct answer is 4 apples. Or not.") == "4apples"
    assert extract("It is 12.") == "12"
    assert extract("the answer is 3\nThe answer is 5. But the final answer is 4") == "4"
    assert extract(r"\boxed{\text{(E)}}") == extract(r"\boxed{(E)}") == extract(r"\boxed{{E}}") == "e"
    assert extract(r"\boxed{\textbf{B}}") == "bfb", "only the name text goes, wherever it stands"
    assert extract(r"\boxed{5} and {x}") == "5", "to the last brace, cut at one that closes nothing"
    assert extract(r"$\boxed{\frac{1}{2}}$ and {x}") == r"\frac{1}{2}}and{x"
    assert extract("I prefer (street B).") == "i prefer (street b)".replace(" ", ""), (
        "brackets hold more than the letter"
    )
    assert extract("We go to street B.") == "b", "a letter before the last stop"
    assert extract("B\nbecause") == extract("(B)\nbecause") == extract("(B) B\nbecause") == "b"
    assert extract("so it is nan") == "nan"
    assert normalised(r"AB = 3\,\text{cm}") == "3{cm}"
    assert normalised(r"50^{\circ}") == "50"
    assert normalised(r"\frac34") == r"\frac34", "fractions are mended beside a root only"
    assert normalised(r"\frac{\sqrt3}2") == r"\frac{\sqrt{3}}2"
    assert normalised(r"\frac\sqrt{3}2") == r"\frac{\}{s}qrt{3}2", "as blindly as the script does"
    assert normalised("x=y=3") == "3"
    assert normalised(r"\begin{bmatrix}1\end{bmatrix}") == r"\begin{pmatrix}1\end{pmatrix}"
    assert normalised("3/4") == r"\frac{3}{4}"
    assert extract("x" * 5000) == "x" * 5000


def test_breakdowns(tmp_path: Path) -> None:
    found = added(BENCHMARK, [item(tmp_path), item(tmp_path, level=5, subject="counting")], [1.0, 0.0], "official")
    assert found == {
        "score": 0.5, "level/2": 1.0, "level/5": 0.0, "subject/algebra": 1.0, "subject/counting": 0.0
    }  # fmt: skip


@real_rows
def test_all_golds_of_the_real_rows_are_right_and_their_images_open() -> None:
    items = real_items(BENCHMARK)
    assert len(items) == 60
    assert Counter(i.problem.kind for i in items) == {"choice": 31, "math": 29}
    assert all(len(i.problem.choices) == 5 for i in items if i.problem.kind == "choice")
    for i in items:
        with Image.open(i.problem.images[0]) as picture:
            assert min(picture.size) > 0
    for protocol in BENCHMARK.protocols:
        grades = graded(BENCHMARK, items, gold_boxed(items), protocol)
        assert [i.problem.id for i, grade in zip(items, grades, strict=True) if grade.score != 1] == []


@real_rows
def test_wrong_answers_to_the_real_rows_are_wrong() -> None:
    items = real_items(BENCHMARK)
    letters = "ABCDEA"
    said = [
        rf"\boxed{{{letters[letters.index(i.problem.answer) + 1] if i.problem.choices else '98765'}}}" for i in items
    ]
    for protocol in ("reference", "rule"):
        assert {grade.score for grade in graded(BENCHMARK, items, said, protocol)} == {0.0}
