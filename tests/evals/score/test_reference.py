"""The authors' scoring, against the specification's golden table and facts about their functions."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.config import VerifyConfig
from spark_rl.evals.benchmark import Item
from spark_rl.evals.score.reference import (
    cleaned_for_math,
    cleaned_for_minerva,
    first_box,
    is_repetitive,
    same_text,
)
from spark_rl.evals.score.scorers import reference
from spark_rl.problem import Problem
from spark_rl.verify import Verifier

GOLDEN = [
    ("A", "A", True),
    (r"\text{A}", "A", True),
    (r"90^\circ", "90", True),
    ("90", "90°", True),
    ("1/2", "0.5", True),
    ("0.5", r"\frac{1}{2}", True),
    ("1000", "1,000", True),
    ("x=5", "5", True),
    ("5 cm", "5", True),
    (r"5\text{ cm}", "5", True),
    ("[0, 2]", "[0,2]", True),
    ("27", "27.0", True),
    ("025", "25", True),
    (r"$\frac{3}{4}$", "0.75", True),
    ("(A)", "A", False),
    ("A. 3/11", "A", False),
    ("3.14", "3.1416", False),
    (r"2\sqrt{3}", r"\sqrt{12}", False),
    (r"50\%", "0.5", False),
    ("50%", "50", True),
    ("1,2", "12", True),
    ("C, A", "A, C", False),
    ("AC", "A, C", True),
    ("Yes", "yes", False),
    ("B", "quarter", False),
    ("2.0944", r"\frac{2\pi}{3}", False),
    (r"4 \pi", r"$4 \pi$", True),
    ("", "5", False),
]
"""(prediction, gold, right?), row by row as Sec. 7.1 of the specification has them."""


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=1, timeout=20.0)) as one:
        yield one


def scored(rows: list[tuple[str, str]], verifier: Verifier) -> list[bool]:
    """Whether each (content of the box, gold) is right."""
    items = [Item(Problem(id=str(number), question="q", answer=gold)) for number, (_, gold) in enumerate(rows)]
    responses = [f"so $\\boxed{{{content}}}$." for content, _ in rows]
    return [grade.score == 1.0 for grade in reference(items, responses, verifier)]


def test_the_golden_table(verifier: Verifier) -> None:
    found = scored([(content, gold) for content, gold, _ in GOLDEN], verifier)
    wrong = [(row, got) for row, got in zip(GOLDEN, found, strict=True) if row[2] != got]

    assert len(GOLDEN) == 28
    assert wrong == []


@pytest.mark.parametrize(
    ("content", "gold", "why"),
    [
        (r"2\sqrt{5}", "2", "math-verify reads LaTeX without dollars up to the first command"),
        ("10,", "10", "all commas go"),
        ("the answer is 12", "12", "math-verify finds the number in a sentence"),
        (r"\frac12", r"\frac{1}{2}", "bare fractions are mended"),
    ],
)
def test_what_the_reference_lets_pass(verifier: Verifier, content: str, gold: str, why: str) -> None:
    assert scored([(content, gold)], verifier) == [True], why


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (r"\boxed{1} then \boxed{2}", "1"),
        (r"\boxed{\frac{1}{2}} x}", r"\frac{1}{2}"),
        (r"\boxed{ 7 }", "7"),
        (r"\boxed{1 and then cut off", "1 and then cut off"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", None),
        (r"\boxed{}\boxed{4}", None),
        ("no box", None),
        (r"\boxed 5", None),
    ],
)
def test_the_first_box(response: str, content: str | None) -> None:
    assert first_box(response) == content


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("1,000\n", "1000"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\left(1, 2\right)", "(12)"),
        (r"30^{\circ}", "30"),
        (r"\$5", "5"),
        (r"5\text{ cm}", "5"),
        (r"5\text{cm}", r"5\text{cm}"),
        (".5", r"\frac{1}{2}"),
        (r"\frac{.5}{2}", r"\frac{0.5}{2}"),
        ("k = 3", "3"),
        ("abc = 3", "abc=3"),
        ("x = y = 3", "x=y=3"),
        (r"\sqrt3x", r"\sqrt{3}x"),
        (r"\frac1{72}", r"\frac{1}{72}"),
        (r"\frac1", r"\frac1"),
        ("3/4", r"\frac{3}{4}"),
        ("03/4", "03/4"),
        ("a/b", "a/b"),
        (r"12\%", "12"),
        ("", ""),
    ],
)
def test_the_clean_up_of_math(text: str, clean: str) -> None:
    assert cleaned_for_math(text) == clean


@pytest.mark.parametrize("text", [r"5\text{ kg}\text{ s}", r"2\sqrt", r"\frac"])
def test_text_that_defeats_the_clean_up_equals_only_itself(text: str) -> None:
    with pytest.raises(ValueError, match=r"of nothing|two units"):
        cleaned_for_math(text)
    assert same_text(text, text)
    assert not same_text(text, "5")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("5 cm", "5"),
        ("1,000 dollars", "1000"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"the value is $x+1$ for all $y$", "x+1"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\sqrt5", r"\sqrt{5}"),
        (r"\textbf{no}", "no"),
        (r"\overline{AB}", "AB"),
        (r"\boxed{3}", "3"),
        (r"90^\circ", "90"),
        ("(1,2)", "(1,2)"),
        ("a cat", "cat"),
        (r"$a$ or $b$" + "\nnext", "a\nnext"),
    ],
)
def test_the_clean_up_of_minerva(text: str, clean: str) -> None:
    assert cleaned_for_minerva(text) == clean


def counted(text: str) -> bool:
    """By listing all substrings."""
    different = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    every = len(text) * (len(text) + 1) // 2
    return every > 0 and (every - len(different)) / every > 0.2


@given(st.text(alphabet="ab1", max_size=40))
def test_repetition_is_the_share_of_substrings_seen_before(text: str) -> None:
    assert is_repetitive(text) == counted(text)


def test_repetitive_text_equals_only_itself_by_words() -> None:
    loop = "so 12 " * 40
    varied = "".join(random.Random(0).choices("abcdefghijklmnop ", k=150))

    assert is_repetitive(loop)
    assert not is_repetitive(varied)
    assert not same_text(f"{loop} cm", loop)
    assert same_text(f"{varied} cm", varied)
    assert same_text(loop, loop)
