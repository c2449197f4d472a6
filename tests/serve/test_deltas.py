"""Streamed text: what is sent adds up to the whole text, and is never taken back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from spark_rl.serve.deltas import Deltas


def decode(token_ids: Sequence[int]) -> str:
    """Tokens are bytes, as a byte-level tokenizer decodes them."""
    return bytes(token_ids).decode("utf-8", "replace")


def cut(text: str, stop: Sequence[str]) -> str:
    """As the engine cuts."""
    return text[: min((text.index(s) for s in stop if s in text), default=len(text))]


@given(
    text=st.text(alphabet="ab\n é漢🙂", max_size=30),
    stop=st.lists(st.text("ab\né", min_size=1, max_size=4), max_size=3), data=st.data(),
)  # fmt: skip
def test_pieces_add_up_to_the_text(text: str, stop: list[str], data: st.DataObject) -> None:
    deltas, token_ids, sent = Deltas(decode, stop), list(text.encode()), ""
    while token_ids:
        count = data.draw(st.integers(1, len(token_ids)))
        sent += deltas.feed(token_ids[:count])
        token_ids = token_ids[count:]
        assert cut(text, stop).startswith(sent)
    assert sent + deltas.finish(cut(text, stop)) == cut(text, stop)


def test_what_may_begin_a_stop_string_waits() -> None:
    deltas = Deltas(decode, ["END"])
    assert [deltas.feed(b"ab"), deltas.feed(b"E"), deltas.feed(b"N"), deltas.feed(b"x")] == ["ab", "", "", "ENx"]
    assert [deltas.feed(b" E"), deltas.feed(b"ND more")] == [" ", ""]
    assert deltas.finish("abENx ") == ""


def test_half_a_character_waits_for_its_other_half() -> None:
    deltas, both = Deltas(decode, ()), "é".encode()
    assert [deltas.feed(both[:1]), deltas.feed(both[1:])] == ["", "é"]
