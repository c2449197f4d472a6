"""``model.attention=flash_attention_2`` without a GPU: transformers' own way from our masks to the kernel's lengths,
with a plain softmax in place of the kernel.

transformers hands the kernel queries and keys without padding, and the lengths of each row; a query sees the keys up to
its place counted from the row's end. Our rows pad prompts on the left and responses on the right, and a response's keys
begin with those of its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.modeling_flash_attention_utils import _pad_input, _unpad_input, _upad_input

from spark_rl.engine.base import Sampling
from tiny import engine_of, learner_of, prompts, random_groups

NAME = "by_lengths"


def by_lengths(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface: (B, heads, T, D) queries, (B, heads, S, D) keys and values, (B, S) mask."""
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    rows, length = query.shape[:2]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if attention_mask is None:
        return torch.stack([_seen(*row, scale) for row in zip(query, key, value, strict=True)]), None
    query, key, value, index, (ends_q, ends_k), _ = _upad_input(query, key, value, attention_mask, length, _unpad_input)
    parts = [
        _seen(query[a:b], key[c:d], value[c:d], scale)
        for a, b, c, d in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
    ]
    return _pad_input(torch.cat(parts), index, rows, length), None


def _seen(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """(t, heads, D) queries that see (s, heads, D) keys, the last query all of them, each one before it one fewer."""
    copies = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    scores = torch.einsum("thd,shd->hts", query, key) * scale
    ahead = torch.ones(len(query), len(key), dtype=torch.bool).triu(len(key) - len(query) + 1)
    return torch.einsum("hts,shd->thd", scores.masked_fill(ahead, float("-inf")).softmax(-1), value)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    AttentionInterface.register(NAME, by_lengths)
    AttentionMaskInterface.register(NAME, AttentionMaskInterface()["flash_attention_2"])
    yield
    del AttentionInterface._global_mapping[NAME], AttentionMaskInterface._global_mapping[NAME]


def test_learner_scores_and_learns_the_same_by_lengths(tiny_models: dict[str, Path]) -> None:
    groups = random_groups(4, 5)
    rows = [(group.prompt_ids, rollout.completion.token_ids) for group in groups for rollout in group.rollouts]
    found = []
    for name in ("sdpa", NAME):
        learner = learner_of(tiny_models["qwen2"], optimiser={"lr": 1e-3})
        learner.loaded.causal_lm.set_attn_implementation(name)
        scores = learner.logprobs([prompt for prompt, _ in rows], [response for _, response in rows])
        found.append((torch.cat(scores), learner.update(groups)))
    (stock, first), (lengths, second) = found
    assert torch.allclose(stock, lengths, atol=1e-5)
    assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-4)


def test_engine_samples_the_same_by_lengths(tiny_models: dict[str, Path]) -> None:
    drawn = []
    for name in ("sdpa", NAME):
        engine = engine_of(learner_of(tiny_models["qwen2"]).loaded)
        engine.loaded.causal_lm.set_attn_implementation(name)
        drawn.append(engine.generate(prompts(5), Sampling(3, 1.0, 12, seed=1)))
    stock, lengths = ([completion for group in found for completion in group] for found in drawn)
    assert [c.token_ids for c in stock] == [c.token_ids for c in lengths]
    for one, other in zip(stock, lengths, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
