"""The options of real questions: every one is read as itself, alone and beside its letter, and never as another."""

from __future__ import annotations

import string

import pytest

from spark_rl.config import VerifyConfig
from spark_rl.evals.benchmarks import find
from spark_rl.verify import Verifier
from vision_sets import real_items, real_rows

FORMS = {
    "alone": r"\boxed{%(text)s}",
    "in text": r"\boxed{\text{%(text)s}}",
    "behind its letter": r"\boxed{%(letter)s. %(text)s}",
    "in brackets": r"\boxed{%(letter)s (%(text)s)}",
}
AMBIGUOUS = {"C", "B"}
"""Chemical and physical symbols that are options' texts: in a box of their own they are labels."""


@real_rows
@pytest.mark.parametrize("name", ["mathvision", "mathvista", "mmlu_stem"])
@pytest.mark.parametrize("form", FORMS)
def test_every_option_is_itself(form: str, name: str) -> None:
    problems = [item.problem for item in real_items(find(name)) if item.problem.choices]
    asked = [
        (letter, text, problem.choices)
        for problem in problems
        for letter, text in zip(string.ascii_uppercase, problem.choices, strict=False)
        if text.count("{") == text.count("}") and text.count("(") == text.count(")")
    ]
    rows = [
        (FORMS[form] % {"letter": letter, "text": text}, letter, "choice", choices) for letter, text, choices in asked
    ]
    with Verifier(VerifyConfig(workers=1)) as verifier:
        verdicts = verifier.verify_many(rows)
    refused = {text for verdict, (_, text, _) in zip(verdicts, asked, strict=True) if verdict.status != "correct"}

    assert len(asked) > 100
    assert refused <= AMBIGUOUS


@real_rows
@pytest.mark.parametrize("name", ["mathvision", "mathvista", "mmlu_stem"])
def test_two_options_are_none(name: str) -> None:
    problems = [
        item.problem
        for item in real_items(find(name))
        if len(set(item.problem.choices)) > 1 and AMBIGUOUS.isdisjoint(item.problem.choices)
    ]
    boxes = ("A or B", "A. %s, B. %s", "(A) %s (B) %s", "A and B", "A/B", "Not A", "A B")
    rows = [
        (rf"\boxed{{{box % problem.choices[:2] if '%' in box else box}}}", "A", "choice", problem.choices)
        for problem in problems
        for box in boxes
    ]
    with Verifier(VerifyConfig(workers=1)) as verifier:
        rewarded = [row for row, verdict in zip(rows, verifier.verify_many(rows), strict=True) if verdict.reward]

    assert rewarded == []
