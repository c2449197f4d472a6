"""Kind ``choice``: letters and option texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.verify.grade import grade

OPTIONS = ("3/11", r"$\frac{1}{2}$", "a quarter", "2.50")
PLAIN: tuple[str, ...] = ()

ROWS = (
    ("B", "B", OPTIONS, "correct", "the letter"),
    ("B", "b", OPTIONS, "correct", "a small letter"),
    ("B", "(B)", OPTIONS, "correct", "in parentheses"),
    ("B", "B.", OPTIONS, "correct", "with a stop"),
    ("B", "B)", OPTIONS, "correct", "with a closing parenthesis"),
    ("B", r"\text{B}", OPTIONS, "correct", "in text"),
    ("B", r"\textbf{(B)}", OPTIONS, "correct", "in bold parentheses"),
    ("B", r"\mathrm{B}", OPTIONS, "correct", "in roman"),
    ("B", "**B**", OPTIONS, "correct", "in Markdown"),
    ("B", "Option B", OPTIONS, "correct", "named as an option"),
    ("B", r"B: \frac{1}{2}", OPTIONS, "correct", "with its text"),
    ("B", r"(B) \frac12", OPTIONS, "correct", "with its text, spelled otherwise"),
    ("B", "A", OPTIONS, "wrong", "another letter"),
    ("B", r"\frac{1}{2}", OPTIONS, "correct", "the option's text"),
    ("B", r"\dfrac12", OPTIONS, "correct", "the text, canonical"),
    ("B", "0.5", OPTIONS, "correct", "the same number as one option"),
    ("D", "2.5", OPTIONS, "correct", "a number with fewer zeros"),
    ("C", "A quarter.", OPTIONS, "correct", "words without regard to case"),
    ("B", "3/11", OPTIONS, "wrong", "the text of another option"),
    ("C", "a", OPTIONS, "wrong", "a lone letter is a letter"),
    ("a quarter", "C", OPTIONS, "correct", "the gold is an option's text"),
    (r"\frac{1}{2}", "(B)", OPTIONS, "correct", "the gold is a number among the options"),
    ("B", "B: 3/11", OPTIONS, "unparsable", "a letter beside another option's text"),
    ("B", "E", OPTIONS, "unparsable", "no such option"),
    ("B", "7", OPTIONS, "unparsable", "no option has this value"),
    ("B", "B or C", OPTIONS, "unparsable", "two letters for a gold of one"),
    ("B", "A, B", OPTIONS, "unparsable", "two letters in a list"),
    ("B", "none of these", OPTIONS, "unparsable", "other words"),
    ("A", "1", ("1", "1.0", "2"), "correct", "the same words before the same number"),
    ("A", "1.00", ("1", "1.0", "2"), "unparsable", "a number that two options have"),
    ("A", "x", ("x", "x"), "unparsable", "a text that two options have"),
    ("B", "BB Bb", ("BB BB", "BB Bb", "Bb Bb", "Bb bb"), "correct", "options that differ in case only"),
    ("B", "(A) and (C)", ("x", "(A) and (C)", "y"), "correct", "an option that speaks of others"),
    ("A", "(A) and (C)", OPTIONS, "unparsable", "two labels"),
    ("C", "A", ("x", "y", "A"), "wrong", "a lone letter is a label, not a text"),
    ("E", "(E)", PLAIN, "correct", "letters need no options"),
    ("E", "F", PLAIN, "wrong", "nor do other letters"),
    ("B, D", "D, B", PLAIN, "correct", "several letters in any order"),
    ("B, D", "BD", PLAIN, "correct", "run together"),
    ("B, D", "B and D", PLAIN, "correct", "in words"),
    ("B, D", "B", PLAIN, "wrong", "one of two"),
    ("B, D", "BB", PLAIN, "unparsable", "a letter twice"),
    ("B", "", OPTIONS, "no_answer", "an empty box"),
)


@pytest.mark.parametrize(("gold", "answer", "choices", "expected", "why"), ROWS)
def test_table(gold: str, answer: str, choices: tuple[str, ...], expected: str, why: str) -> None:
    status, extracted = grade(f"thus \\boxed{{{answer}}}", gold, "choice", choices)

    assert status == expected, why
    assert extracted == answer


@pytest.mark.parametrize("response", [r"\boxed{B}", "no box at all"])
def test_a_gold_that_is_no_option_is_the_users_mistake(response: str) -> None:
    with pytest.raises(ValueError, match="neither a letter nor the text of one of the 4 choices"):
        grade(response, "seven", "choice", OPTIONS)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    status, _ = grade(f"\\boxed{{{text}}}", "B", "choice", OPTIONS)

    assert status in ("correct", "wrong", "no_answer", "unparsable")
