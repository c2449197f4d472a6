"""The one-query attention against transformers' own scaled-dot-product path."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AttentionInterface

from spark_rl.engine.attention import FUSED, decode_attention

ROWS, HEADS, KEY_HEADS, LENGTH, WIDTH = 3, 4, 2, 6, 8


class Layer(nn.Module):
    """What transformers' attention functions read of their module."""

    num_key_value_groups = HEADS // KEY_HEADS
    is_causal = True


def tensors(
    queries: int, value_width: int = WIDTH, length: int = LENGTH
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(ROWS, HEADS, queries, WIDTH, generator=generator),
        torch.randn(ROWS, KEY_HEADS, length, WIDTH, generator=generator),
        torch.randn(ROWS, KEY_HEADS, length, value_width, generator=generator),
    )


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("scaling", [None, 0.11])
@pytest.mark.parametrize("value_width", [WIDTH, 5])
@pytest.mark.parametrize("length", [LENGTH, FUSED - 1, FUSED, FUSED + 50])
@torch.no_grad()
def test_one_query_equals_the_stock_attention(
    mask: str | None, scaling: float | None, value_width: int, length: int
) -> None:
    query, key, value = tensors(1, value_width, length)
    seen = (torch.arange(length) >= torch.tensor([0, 2, 5])[:, None])[:, None, None, :]
    given = {"bool": seen, "float": torch.zeros(seen.shape).masked_fill(~seen, -1e30), None: None}[mask]
    found, _ = decode_attention(Layer(), query, key, value, given, scaling=scaling)
    stock, _ = AttentionInterface()["sdpa"](Layer(), query, key, value, given, scaling=scaling)
    assert found.shape == (ROWS, 1, HEADS, value_width)
    assert torch.allclose(found, stock, atol=1e-6)


@torch.no_grad()
def test_several_queries_go_to_the_stock_attention() -> None:
    query, key, value = tensors(LENGTH)
    found, _ = decode_attention(Layer(), query, key, value, None)
    stock, _ = AttentionInterface()["sdpa"](Layer(), query, key, value, None)
    assert torch.equal(found, stock)


@pytest.mark.parametrize(
    "option",
    [{"position_bias": torch.linspace(-3, 3, LENGTH).expand(ROWS, HEADS, 1, LENGTH)}, {"s_aux": torch.ones(HEADS)}],
)
@torch.no_grad()
def test_options_that_change_the_scores_go_to_the_stock_attention(option: dict[str, torch.Tensor]) -> None:
    query, key, value = tensors(1)
    found, _ = decode_attention(Layer(), query, key, value, None, **option)
    stock, _ = AttentionInterface()["sdpa"](Layer(), query, key, value, None, **option)
    assert torch.equal(found, stock)


@torch.no_grad()
def test_capped_scores_are_not_left_uncapped() -> None:
    with pytest.raises(ValueError, match="softcap"):
        decode_attention(Layer(), *tensors(1), None, softcap=2.0)


def test_gradients_flow_as_through_the_stock_attention() -> None:
    query, key, value = tensors(1)
    leaves = [t.clone().requires_grad_() for t in (query, key, value, query, key, value)]
    decode_attention(Layer(), *leaves[:3], None)[0].square().sum().backward()
    AttentionInterface()["sdpa"](Layer(), *leaves[3:], None)[0].square().sum().backward()
    for ours, theirs in zip(leaves[:3], leaves[3:], strict=True):
        assert torch.equal(ours.grad, theirs.grad)
