"""The last balanced box: where it stands, what it holds, and that finding it is linear."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.verify import extract_boxed, last_box_span

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
