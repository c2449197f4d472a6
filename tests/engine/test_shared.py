"""Rollouts that share the keys and values of their prompt, beside rollouts that have a copy each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AttentionInterface

from spark_rl.backend import open_backend
from spark_rl.chat import Prompt
from spark_rl.engine.attention import decode_attention
from spark_rl.engine.base import Sampling
from spark_rl.engine.decoding import SHARED
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.load import load_model
from spark_rl.model.shared import Places, SharedPrompts, UnshareableError, before
from spark_rl.problem import Problem
from tiny import EOS, engine_of, prompt_of, prompts, tiny_config
from vision import VLM_FAMILIES, draw_image, make_vlm
from windowed import WINDOWED, make_windowed

HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH = 4, 2, 8, 5
OWN_WAYS = ("gemma2", "gpt_oss")
"""Families that cap scores or attend to sinks: they share nothing, and draw the same."""
ENDS = [EOS, *range(11, 25)]
ASKED = Sampling(n=5, max_new_tokens=40, seed=5)


class Layer(nn.Module):
    """What transformers' attention functions read of their module."""

    num_key_value_groups = HEADS // KEY_HEADS
    is_causal = True


@given(
    alive=st.lists(st.booleans(), min_size=2, max_size=24).filter(any), copies=st.integers(1, 4),
    length=st.integers(1, 6), own=st.integers(1, 5), kind=st.sampled_from([None, "bool", "float"]),
    scaling=st.none() | st.floats(0.1, 2), window=st.integers(1, 12), seed=st.integers(0, 99),
)  # fmt: skip
@torch.no_grad()
def test_attention_behind_shared_prompts_equals_the_stock_attention(
    alive: list[bool], copies: int, length: int, own: int, kind: str | None, scaling: float | None, window: int,
    seed: int,
) -> None:  # fmt: skip
    """Whichever rows are left, in any order, with padding and windows."""
    generator = torch.Generator().manual_seed(seed)
    prompts = -(-len(alive) // copies)
    left = torch.tensor([place for place, lives in enumerate(alive) if lives])
    places = Places.of(torch.arange(prompts * copies), prompts, copies)
    shared = SharedPrompts(
        torch.randn(prompts, KEY_HEADS, length, WIDTH, generator=generator),
        torch.randn(prompts, KEY_HEADS, length, VALUE_WIDTH, generator=generator), places,
    )  # fmt: skip
    of_row = left[torch.randperm(len(left), generator=generator)]
    shared.keep(*places.kept(of_row))
    query = torch.randn(len(left), HEADS, 1, WIDTH, generator=generator)
    key = torch.randn(len(left), KEY_HEADS, own, WIDTH, generator=generator)
    value = torch.randn(len(left), KEY_HEADS, own, VALUE_WIDTH, generator=generator)
    mask = None
    if kind:
        pad = torch.randint(length, (prompts,), generator=generator)[of_row // copies]
        columns = torch.arange(length + own)
        mask = ((columns >= pad[:, None]) & (columns >= length + own - window))[:, None, None, :]
        if kind == "float":
            mask = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    whole = [torch.cat(both, 2) for both in zip(shared.expanded(), (key, value), strict=True)]
    stock, _ = AttentionInterface()["sdpa"](Layer(), query, *whole, mask, scaling=scaling)
    found, _ = decode_attention(Layer(), query, before(key, shared), before(value, shared), mask, scaling=scaling)
    assert shared.attended
    assert found.shape == (len(left), 1, HEADS, VALUE_WIDTH)
    assert torch.allclose(found, stock, atol=1e-5)


@torch.no_grad()
def test_what_shared_prompts_have_no_part_in_is_never_computed_without_them() -> None:
    places = Places.of(torch.arange(4), 2, 2)
    shared = SharedPrompts(torch.randn(2, KEY_HEADS, 3, WIDTH), torch.randn(2, KEY_HEADS, 3, WIDTH), places)
    query = torch.randn(4, HEADS, 1, WIDTH)
    key, value = torch.randn(2, 4, KEY_HEADS, 1, WIDTH)
    before(key, shared)
    with pytest.raises(UnshareableError, match="one layer"):
        decode_attention(Layer(), query, key, value, None)
    before(value, shared)
    with pytest.raises(UnshareableError, match="mask"):
        decode_attention(Layer(), query, key, value, torch.ones(4, 1, 1, 1, dtype=torch.bool))
    with pytest.raises(UnshareableError, match="mask"):
        decode_attention(Layer(), query, key, value, torch.ones(4, HEADS, 1, 4, dtype=torch.bool))
    with pytest.raises(UnshareableError, match="stock"):
        decode_attention(Layer(), query, key, value, None, s_aux=torch.ones(HEADS))
    assert not shared.attended


def long_prompts(count: int) -> list[Prompt]:
    """Of different lengths, and long enough to be shared."""
    return [prompt_of(*range(30, 30 + SHARED), *prompt.token_ids) for prompt in prompts(count, longest=30)]


def check_the_same_with_and_without(
    engine: EmbeddedEngine, asked: Sequence[Prompt], sampling: Sampling, *, shares: bool = True
) -> None:
    """Tokens, and log-probabilities to the rounding of float32."""
    shared = engine.generate(asked, sampling)
    assert engine.shares is shares
    again = engine.generate(asked, sampling)
    engine.shares = False
    for group, other, third in zip(shared, engine.generate(asked, sampling), again, strict=True):
        assert [one.token_ids for one in group] == [one.token_ids for one in other]
        for one, two, three in zip(group, other, third, strict=True):
            assert one == three
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
            assert (one.text, one.finish) == (two.text, two.finish)


@pytest.mark.parametrize("max_rows", [512, 11])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_rows_end_and_prompts_enter(family: str, max_rows: int, tiny_models: dict[str, Path]) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models[family])), ENDS, max_rows=max_rows)
    check_the_same_with_and_without(engine, long_prompts(9), ASKED)


def test_more_tokens_than_were_reserved(tiny_models: dict[str, Path]) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"])), [])
    check_the_same_with_and_without(engine, long_prompts(3), Sampling(n=3, max_new_tokens=150, seed=1))


@pytest.mark.parametrize("family", sorted(WINDOWED))
def test_windows_and_ways_of_attention(family: str, tmp_path: Path) -> None:
    engine = engine_of(load_model(tiny_config(make_windowed(family, tmp_path))), ENDS)
    check_the_same_with_and_without(engine, long_prompts(6), ASKED, shares=family not in OWN_WAYS)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_prompts_with_images(family: str, tmp_path: Path) -> None:
    backend = open_backend(tiny_config(make_vlm(family, tmp_path)))
    assert isinstance(backend.engine, EmbeddedEngine)
    problems = [
        Problem(f"p-{i}", "what is it? " * (1 + i % 3), "1", images=(draw_image(i, 40 + 8 * i, 40),) if i % 3 else ())
        for i in range(5)
    ]
    asked = [backend.chat.encode(problem) for problem in problems]
    check_the_same_with_and_without(backend.engine, asked, Sampling(n=3, max_new_tokens=16, seed=5))


def test_a_family_that_repeats_its_keys_shares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between cache and attention, where the note that prompts come before them is lost."""
    monkeypatch.setitem(WINDOWED, "jetmoe", {"kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2})
    engine = engine_of(load_model(tiny_config(make_windowed("jetmoe", tmp_path))), ENDS)
    assert engine.shares is None, "it is tried"
    check_the_same_with_and_without(engine, long_prompts(6), ASKED, shares=False)
