"""P(Yes) at the place where a verdict is written: by hand, for labels of every template and tokens of any cut."""

from __future__ import annotations

from itertools import pairwise
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.problem import Place
from spark_rl.verify.certainty import verdict_probability
from spark_rl.verify.verdict import A_B, YES_NO, Labels


def places(*tokens: str | dict[str, float]) -> tuple[Place, ...]:
    """Tokens that are certain, or the chances at one place with that of the sampled token first."""
    given = [{token: 1.0} if isinstance(token, str) else token for token in tokens]
    return tuple(tuple((text, log(chance)) for text, chance in place.items()) for place in given)


BOX = "work \\boxed{"


@pytest.mark.parametrize(
    ("tokens", "labels", "expected", "why"),
    [
        ((BOX, {"Yes": 0.6, "No": 0.2, "?": 0.1}, "}"), YES_NO, ("Yes", 0.75), "Yes against No, and nothing else"),
        ((BOX, {"No": 0.6, "Yes": 0.2}, "}"), YES_NO, ("No", 0.75), "of the verdict that was given"),
        ((BOX, {"Yes": 0.1, "No": 0.3}, "}"), YES_NO, ("Yes", 0.25), "a verdict may be the less likely one"),
        ((BOX, {"A": 0.9, "B": 0.1}, "}"), ("B", "A"), ("A", 0.9), "labels in either order"),
        ((BOX, {"B": 0.8, "A": 0.2, "Answer": 0.5}, "}"), A_B, ("B", 0.8), "a word that begins with A is not A"),
        ((BOX, {"No": 0.5, "Not": 0.3, "Yes": 0.5}, "}"), YES_NO, ("No", 0.5), "nor is Not a No"),
        ((BOX, {"Yes": 0.5, " yes": 0.2, "Y": 0.1, "No": 0.2}, "}"), YES_NO, ("Yes", 0.8), "spellings of one label"),
        ((BOX, {"Y": 0.6, "N": 0.4}, "es", "}"), YES_NO, ("Yes", 0.6), "the first token of the word decides"),
        (("\\boxed", {"{Yes": 0.6, "{No": 0.2, "Yes": 0.2}, "}"), YES_NO, ("Yes", 0.75), "a token with the brace"),
        ((BOX + "\\text{", {"No": 0.9, "Yes": 0.1}, "}}"), YES_NO, ("No", 0.9), "inside of markup"),
        ((BOX, {"Yes": 0.7}, "}"), YES_NO, ("Yes", 0.7), "the rest stands for No"),
        ((BOX, {"Yes": 0.7, "?": 0.1}, "}"), YES_NO, ("Yes", 0.7 / 0.9), "the rest but for what is known"),
        ((BOX, {"Yes": 1.0}, "}"), YES_NO, ("Yes", 1.0), "no rest"),
        (("\\boxed{No} \\boxed{", {"Yes": 0.7, "No": 0.3}, "}"), YES_NO, ("Yes", 0.7), "the last box"),
        (("{Yes} <think>\\boxed{No}</think>\\boxed{", {"Yes": 0.7}, "}"), YES_NO, ("Yes", 0.7), "not a thought"),
        ((BOX, {"in": 0.7, "cor": 0.3}, "correct}"), YES_NO, ("No", 0.7), "another word for it"),
        ((BOX, "It is ", {"not": 0.7}, " correct}"), YES_NO, ("No", 0.7), "where it is turned round"),
    ],
)
def test_probabilities_by_hand(
    tokens: tuple[str | dict[str, float], ...], labels: Labels, expected: tuple[str, float], why: str
) -> None:
    found = verdict_probability(places(*tokens), labels)
    assert found is not None, why
    assert found[0] == expected[0], why
    assert found[1] == pytest.approx(expected[1]), why


@pytest.mark.parametrize("text", ["", "Yes", "\\boxed{}", "\\boxed{Yes and No}", "\\boxed{5}", "\\boxed{Yes", "{Yes}"])
def test_without_a_verdict_there_is_no_probability(text: str) -> None:
    assert verdict_probability(places(text)) is None
    assert verdict_probability(()) is None


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.lists(st.integers(1, 11), max_size=3), st.booleans())
def test_how_the_text_around_is_cut_changes_nothing(yes: float, no: float, cuts: list[int], swapped: bool) -> None:
    """The two labels share what they have, whichever was sampled."""
    text, total = "work\\boxed{", yes + no
    cut = sorted({0, *cuts, len(text)})
    pieces = [text[begin:end] for begin, end in pairwise(cut)]
    chances = {"Yes": yes / total, "No": no / total}
    sampled = "No" if swapped else "Yes"
    ordered = {sampled: chances[sampled], **chances}
    found = verdict_probability(places(*pieces, ordered, "}"))
    assert found is not None
    assert found == (sampled, pytest.approx(chances[sampled], abs=1e-9))
