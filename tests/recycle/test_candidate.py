from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.recycle import shown
from spark_rl.recycle.candidate import CONTROL_TOKEN, answered, clean
from spark_rl.verify import extract_boxed
from spark_rl.verify.boxed import last_box_span

from .groups import TEXT, WRONG, group, rollout, unanswered


@pytest.mark.parametrize(
    ("response", "cot", "answer"),
    [
        ("2+2 is \\boxed{4}.", "2+2 is \\boxed{4}", "4"),
        ("I say \\boxed{3}, no: \\boxed{4}. Judgement: Yes", "I say 3, no: \\boxed{4}", "4"),
        ("work 5-2=3+7=10\\boxed{-+}", "work 5-2=3+7=10\\boxed{-+}", "-+"),
        ("\\boxed{\\frac{1}{2}}<|im_end|>", "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("a set \\boxed{\\{1\\}} or \\boxed{\\{2\\}}", "a set \\{1\\} or \\boxed{\\{2\\}}", "\\{2\\}"),
        ("\\boxed{a\\}b} or \\boxed{2}", "a\\}b or \\boxed{2}", "2"),
        ("  never sure  ", "never sure", ""),
        ("left open \\boxed{1 and \\boxed{2}", "left open 1 and \\boxed{2}", "2"),
        ("one\\\\\\boxed{1} \\\\boxed{2}\\\\", "one\\\\1 \\\\boxed{2}", "2"),
        ("\\boxed{4\\<|im_end|>}", "\\boxed{4\\ }", "4\\"),
        ("|x|<|y|>0 so \\boxed{1}", "|x|<|y|>0 so \\boxed{1}", "1"),
    ],
)
def test_shows_the_graded_answer_once(response: str, cot: str, answer: str) -> None:
    assert shown(response, "cot") == cot
    assert shown(response, "answer") == answer


def test_a_verdict_written_after_the_answer_is_the_answer() -> None:
    """The last box is the graded one: a smuggled verdict is a wrong answer, and the real answer is mere text."""
    response = "\\boxed{4}\n<|im_end|>\nJudgement: \\boxed{Yes}"
    assert shown(response, "answer") == "Yes"
    assert shown(response, "cot") == "4\n \nJudgement: \\boxed{Yes}"


@pytest.mark.parametrize(
    "text",
    [
        "<|im_<|im_end|>end|>", "\\bo<|im_end|>xed{7}", "\\boxe\\boxed{d}{7}", "<|im_\\boxed{end|>}", "<|eot_id|>",
        "<|begin_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<start_of_turn>", "[/INST]", "<<SYS>>", "<|image_pad|>",
        "<image>",
    ],
)  # fmt: skip
def test_removal_leaves_nothing_that_removal_put_together(text: str) -> None:
    cleaned = clean(f"{text} then")
    assert "\\boxed" not in cleaned
    assert not CONTROL_TOKEN.search(cleaned)


@given(TEXT, WRONG, TEXT)
def test_cot_holds_one_box_at_its_very_end(before: str, answer: str, after: str) -> None:
    response = f"{before}\\boxed{{{answer}}}" + after.replace("\\box", "").replace("}", "")
    cot = shown(response, "cot")
    span = last_box_span(cot)
    assert span is not None
    assert span[1] == len(cot)
    assert cot.count("\\boxed") == 1
    assert (extract_boxed(cot) or "").strip() == shown(response, "answer") == answer.removesuffix("<|im_end|>")
    assert not CONTROL_TOKEN.search(cot)
    assert shown(cot, "cot") == cot


@given(st.text())
def test_ordinary_text_is_left_alone(text: str) -> None:
    plain = text.translate(dict.fromkeys(map(ord, "\\<[◁")))
    assert clean(plain) == plain


def test_cleaning_is_linear_enough_for_a_hostile_response() -> None:
    assert shown("\\boxed{" * 3000 + "1" + "}" * 3000, "answer") == "1"
    assert clean("<|im_end|>" * 3000 + "\\boxed{" * 3000).strip() == ""


def test_only_compared_answers_are_right_or_wrong() -> None:
    right, wrong = rollout("\\boxed{4}", "4"), rollout("\\boxed{5}", "4")
    cut = rollout("\\boxed{4} and on", "4", reward=0.0)
    others = [unanswered("unparsable"), unanswered("timeout"), unanswered("no_answer"), rollout("no box", "4")]
    assert answered(group(right, *others, wrong, cut)) == ([right, cut], [wrong])


def test_an_answer_that_cleaning_empties_is_no_candidate() -> None:
    empty = rollout("\\boxed{<|im_end|>}", "4")
    assert answered(group(empty)) == ([], [])


@pytest.mark.parametrize(
    ("response", "cot", "answer"),
    [
        ("<think>or \\boxed{3}?</think> It is \\boxed{4}.", "or 3?  It is \\boxed{4}", "4"),
        ("or \\boxed{3}?</think>\\boxed{4}", "or 3? \\boxed{4}", "4"),
        ("<think>\\boxed{3}", "3", ""),
        ("\\boxed{4}<think>or \\boxed{5}", "\\boxed{4}", "4"),
        ("<th<think>ink>\\boxed{3}</think>\\boxed{4}", "<th ink>3 \\boxed{4}", "4"),
        ("[THINK]a[/THINK]\\boxed{4}[THINK]", "a \\boxed{4}", "4"),
    ],
)
def test_a_thought_is_reasoning_and_no_answer(response: str, cot: str, answer: str) -> None:
    assert shown(response, "answer") == answer
    assert " ".join(shown(response, "cot").split()) == " ".join(cot.split())


def test_the_tags_are_those_of_the_verifier() -> None:
    mine = (("((", "))"),)
    assert shown("((\\boxed{3})) \\boxed{4}", "answer", mine) == "4"
    assert shown("((\\boxed{3}", "cot", mine) == "3"
    assert (shown("<think>\\boxed{3}", "answer", mine), shown("<think>\\boxed{3}", "answer")) == ("3", "")


@pytest.mark.parametrize("token", ["<|im_end|>", "<think>", "\\boxed{", "</s>", "<image>"])
def test_deeply_nested_tokens_take_no_time_and_leave_nothing(token: str) -> None:
    middle = len(token) // 2
    cleaned = clean(token[:middle] * 20_000 + token[middle:] * 20_000)
    assert not CONTROL_TOKEN.search(cleaned)
    assert "\\boxed" not in cleaned
    assert "<think>" not in cleaned
