"""Kinds ``verdict`` and ``exact``: what a judge says, read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.verify import read_verdict
from spark_rl.verify.grade import grade
from spark_rl.verify.verdict import A_B

YES_NO_ROWS = (
    ("Yes", "Yes", "plainly"),
    ("yes", "Yes", "in lower case"),
    ("YES!", "Yes", "loudly"),
    ("yes.", "Yes", "with a stop"),
    (r"\text{Yes}", "Yes", "in text"),
    (r"\textbf{No}", "No", "in bold"),
    ("**No**", "No", "in Markdown"),
    ('"No"', "No", "quoted"),
    ("$No$", "No", "between dollars"),
    ("Correct", "Yes", "a synonym"),
    ("incorrect", "No", "a synonym"),
    ("True", "Yes", "a synonym"),
    ("wrong", "No", "a synonym"),
    ("not correct", "No", "negated"),
    ("Yes, it is correct", "Yes", "twice the same"),
    ("No, the answer is not correct.", "No", "twice the same, negated"),
    ("Yes and No", None, "both"),
    ("Yes, it is incorrect", None, "contradictory"),
    ("Yes/No", None, "the question's own words"),
    ("maybe", None, "neither"),
    ("C", None, "another label"),
    ("A", None, "a label of the other pair"),
    ("42", None, "an answer instead of a verdict"),
    ("Yes 42", None, "a verdict and an answer"),
    ("not", None, "unfinished"),
    ("the answer", None, "no stance"),
    ("", None, "nothing"),
    ("yes " * 100, None, "too long for a verdict"),
)

A_B_ROWS = (
    ("A", "A", "plainly"),
    ("b", "B", "in lower case"),
    ("(A)", "A", "in parentheses"),
    ("B.", "B", "with a stop"),
    (r"\text{A}", "A", "in text"),
    ("Answer A", "A", "named"),
    ("Response B", "B", "named"),
    ("Solution (B)", "B", "named, in parentheses"),
    ("Response A is better", "A", "a sentence"),
    ("A or B", None, "both"),
    ("A and B", None, "both"),
    ("neither", None, "none"),
    ("C", None, "a third"),
    ("AB", None, "run together"),
    ("A is incorrect", None, "about the answer, not a choice"),
    ("Yes", None, "a label of the other pair"),
    ("", None, "nothing"),
)


@pytest.mark.parametrize(("content", "label", "why"), YES_NO_ROWS)
def test_yes_no(content: str, label: str | None, why: str) -> None:
    assert read_verdict(f"Let me check. \\boxed{{{content}}}") == label, why


@pytest.mark.parametrize(("content", "label", "why"), A_B_ROWS)
def test_a_b(content: str, label: str | None, why: str) -> None:
    assert read_verdict(f"Let me compare. \\boxed{{{content}}}", A_B) == label, why


@pytest.mark.parametrize(
    ("gold", "content", "expected"),
    [
        ("Yes", "yes.", "correct"),
        ("yes", "Yes", "correct"),
        ("No", "correct", "wrong"),
        ("No", "Yes and No", "unparsable"),
        ("No", "C", "unparsable"),
        ("A", "(a)", "correct"),
        ("B", "Answer A", "wrong"),
        ("B", "correct", "unparsable"),
        ("B", "", "no_answer"),
    ],
)
def test_an_unreadable_verdict_is_never_wrong(gold: str, content: str, expected: str) -> None:
    status, _ = grade(f"\\boxed{{{content}}}", gold, "verdict")

    assert status == expected


def test_only_the_last_box_speaks() -> None:
    assert read_verdict(r"\boxed{Yes} ... on reflection \boxed{No}") == "No"
    assert read_verdict("Yes, without a box") is None


def test_labels_are_spelled_as_asked() -> None:
    assert read_verdict(r"\boxed{Yes}", ("yes", "no")) == "yes"


def test_unknown_labels_are_the_users_mistake() -> None:
    with pytest.raises(ValueError, match="verdict labels"):
        read_verdict(r"\boxed{1}", ("1", "2"))
    with pytest.raises(ValueError, match="must be Yes, No, A or B"):
        grade(r"\boxed{Yes}", "perhaps", "verdict")


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert read_verdict(f"\\boxed{{{text}}}") in ("Yes", "No", None)
    assert read_verdict(f"\\boxed{{{text}}}", A_B) in ("A", "B", None)


@pytest.mark.parametrize(
    ("gold", "content", "expected"),
    [
        ("-+", "-+", "correct"),
        ("-+", " -+ ", "correct"),
        ("-+", "$-+$", "correct"),
        ("-+", r"\text{-+}", "correct"),
        ("$-+$", "-+", "correct"),
        ("-+", "+-", "wrong"),
        ("Paris", "paris", "wrong"),
        ("1", "1.0", "wrong"),
        ("a b", "a  b", "wrong"),
        ("-+", "", "no_answer"),
    ],
)
def test_exact(gold: str, content: str, expected: str) -> None:
    status, _ = grade(f"\\boxed{{{content}}}", gold, "exact")

    assert status == expected
