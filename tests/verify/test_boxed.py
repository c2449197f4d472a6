"""The last balanced box: where it stands, what it holds, and that finding it is linear."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.config import THINKING, VerifyConfig
from spark_rl.verify import Verifier, answer_part, extract_boxed, last_box_span, read_verdict, verify
from spark_rl.verify.boxed import thoughts

balanced = st.recursive(
    st.text(alphabet="ab1 ,+^_=$\n", max_size=6) | st.sampled_from([r"\{", r"\}", r"\\", r"\frac", r"\boxed", r"\ "]),
    lambda inner: st.lists(inner, max_size=3).map("".join) | inner.map(lambda text: "{" + text + "}"),
    max_leaves=8,
)
prose = st.text(alphabet="abc{}\\ \n$", max_size=30)

ROWS = (
    (r"\boxed{42}", "42", "the plain case"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "nested braces"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}", "escaped braces"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right.", "one escaped brace only"),
    (r"\boxed{a \\}", r"a \\", "an escaped backslash does not escape the brace"),
    (r"\boxed{1} then \boxed{2}", "2", "the last one"),
    (r"\boxed{1} then \boxed{2", "1", "a later open box hides nothing"),
    (r"\boxed{ \boxed{5}", "5", "an open box around a closed one"),
    (r"\boxed{x = \boxed{5}}", r"x = \boxed{5}", "of nested boxes the outermost"),
    (r"\boxed {7}", "7", "a space before the brace"),
    (r"\\boxed{7}", "7", "a doubled backslash"),
    (r"{ {{ \boxed{7}", "7", "open groups before it"),
    (r"}} \boxed{7}}}", "7", "stray closing braces"),
    (r"\boxed{}", "", "an empty box"),
    (r"\fbox{7} \box{8} boxed{9}", None, "other boxes do not count"),
    (r"\boxed 7", None, "no braces, no box"),
    (r"\boxedness{7}", None, "another command"),
    ("", None, "nothing"),
)


@pytest.mark.parametrize(("text", "content", "why"), ROWS)
def test_table(text: str, content: str | None, why: str) -> None:
    assert extract_boxed(text) == content, why


@given(prose, balanced, st.text(alphabet="abc. \n", max_size=20))
def test_returns_what_was_boxed(before: str, content: str, after: str) -> None:
    text = f"{before} \\boxed{{{content}}}{after}"

    assert extract_boxed(text) == content


@given(prose, balanced, prose)
def test_span_cuts_the_box_out(before: str, content: str, after: str) -> None:
    text = f"{before} \\boxed{{{content}}}{after}"
    span = last_box_span(text)

    assert span is not None
    start, end = span
    assert text[start:].startswith("\\boxed")
    assert text[end - 1] == "}"
    assert extract_boxed(text[start:end]) == extract_boxed(text)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    extract_boxed(text)
    extract_boxed("\\boxed{" + text)


@pytest.mark.parametrize(
    "piece", [r"\boxed{", "{", "}", "\\", r"\boxed", r"\boxed ", r"\boxed{}", r"\{", r"\\boxed"], ids=repr
)
def test_a_megabyte_takes_linear_time(piece: str) -> None:
    text = r"\boxed{7} " + piece * (1_000_000 // len(piece))
    start = time.perf_counter()

    extract_boxed(text)

    assert time.perf_counter() - start < 5.0  # quadratic would take minutes


# --- thinking -------------------------------------------------------------------------------------------------------

THOUGHTS = (
    (r"<think>try \boxed{3}? no, let me", None, "cut while it thinks"),
    (r"<think>guess \boxed{3}</think> The answer is 4.", None, "nothing boxed after the thought"),
    (r"<think>guess \boxed{3}</think> It is \boxed{4}.", "4", "the answer after the thought"),
    (r"<think>guess</think> \boxed{4} </think>", None, "all before a closing tag was thinking"),
    (r"or \boxed{3}?</think> It is \boxed{4}.", "4", "the opening tag stood in the prompt"),
    (r"so \boxed{3}</think> It is 4.", None, "the same, and nothing boxed after it"),
    (r"\boxed{4} <think>or \boxed{5}", "4", "stated before a thought that is cut"),
    (r"\boxed{4} <think>\boxed{5}</think> Yes.", "4", "stated before a thought"),
    (r"<think>a</think> \boxed{4} <think>\boxed{5}</think> sure", "4", "stated between two thoughts"),
    (r"<think>a</think> \boxed{4} <think>\boxed{5}</think> \boxed{6}", "6", "stated again"),
    (r"<think>a<think>b</think> \boxed{4}", "4", "the same tag again is a word of the thought"),
    (r"<think>a<think>b</think>c \boxed{3}</think> \boxed{4}", "4", "nested, and all closed"),
    (r"<think>a<think>b</think>c \boxed{3}</think> no", None, "nested, and nothing after it"),
    (r"<think>a [/THINK] \boxed{3} </thinking> \boxed{3}", None, "tags of other families end nothing"),
    (r"<think>a <reasoning> b</think> \boxed{4}", "4", "and begin nothing inside a thought"),
    (r"<THINK>a</Think> \boxed{4}", "4", "in any case"),
    (r"<THINK>\boxed{4}", None, "in any case, cut"),
    (r"</think></think>\boxed{4}", "4", "closed twice"),
    (r"<think></think>\boxed{4}", "4", "an empty thought"),
    (r"<think>\boxed{3</think>} \boxed{4}", "4", "a box that only the thought opens"),
    (r"\box<think>x</think>ed{3}", None, "no box is put together around a thought"),
    (r"a < think > \boxed{4}", "4", "no tag"),
    (r"<thinker>\boxed{4}", "4", "another word"),
    (r"I <|think|> \boxed{4}", "4", "another token"),
)


@pytest.mark.parametrize(("response", "answer", "why"), THOUGHTS, ids=[row[-1] for row in THOUGHTS])
def test_a_box_inside_a_thought_is_no_answer(response: str, answer: str | None, why: str) -> None:
    assert extract_boxed(answer_part(response)) == answer, why
    if answer is None:
        for gold in "3456":
            assert verify(response, gold).status == "no_answer"
    else:
        assert verify(response, answer).status == "correct"


@pytest.mark.parametrize(("opening", "closing"), THINKING)
def test_the_tags_of_every_family(opening: str, closing: str) -> None:
    assert verify(rf"{opening}so \boxed{{3}}", "3").status == "no_answer"
    assert verify(rf"{opening}so \boxed{{3}}{closing} 3", "3").status == "no_answer"
    assert verify(rf"so \boxed{{3}}{closing} 3", "3").status == "no_answer"
    assert verify(rf"{opening}so \boxed{{4}}{closing} \boxed{{3}}", "3").status == "correct"
    assert read_verdict(rf"{opening}\boxed{{No}}{closing} \boxed{{Yes}}") == "Yes"
    assert read_verdict(rf"{opening}\boxed{{No}}{closing} Yes") is None


def test_the_tags_are_a_setting() -> None:
    mine = (("(thinks", "done)"),)
    with Verifier(VerifyConfig(thinking=mine)) as verifier:
        assert verifier.verify(r"(thinks \boxed{3} done) \boxed{4}", "4").status == "correct"
        assert verifier.verify(r"(thinks \boxed{4}", "4").status == "no_answer"
        assert verifier.verify(r"<think> \boxed{4}", "4").status == "correct"
    with Verifier(VerifyConfig(thinking=())) as verifier:
        assert verifier.verify(r"<think> \boxed{4}", "4").status == "correct"


pieces = st.lists(
    st.sampled_from(["<think>", "</think>", "[THINK]", "[/THINK]", "<", "think>", r"\boxed{1}", r"\boxed{", "}", "x"]),
    max_size=12,
).map("".join)


@given(pieces)
def test_thoughts_are_apart_and_what_is_left_has_none(response: str) -> None:
    found = thoughts(response)
    assert all(0 <= start < end <= len(response) for start, end in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(found))
    left = answer_part(response)
    assert thoughts(left) == []
    assert answer_part(left) == left
    assert found or left == response


@given(prose, balanced)
def test_what_follows_a_finished_thought_is_all_that_counts(thought: str, answer: str) -> None:
    response = f"<think>{thought}</think>{answer}"
    assert answer_part(response) == answer
    assert answer_part(f"{thought}</think>{answer}") == answer
    assert answer_part(f"<think>{thought}{answer}") == ""


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "<", "[THINK]</think>", "<think"])
def test_hostile_tags_take_linear_time(piece: str) -> None:
    answer_part(piece * 300_000 + r"\boxed{4}")  # quadratic time would be hours
