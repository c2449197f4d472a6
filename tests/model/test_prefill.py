"""The prompt pass, the response pass and the caches between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spark_rl.model.cache import RolloutCache
from spark_rl.model.load import load_model
from spark_rl.model.prefill import PromptCache, ResponseCache, batch_prompts, extend, prefill, respond
from spark_rl.model.sizes import windows_of
from tiny import tiny_config
from windowed import make_windowed


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def prompt_gradient(keys: Tensor, row_B: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the prompts' keys under a weighted sum of what the responses see of them."""
    keys = keys.clone().requires_grad_()
    prompts = PromptCache(1)
    prompts.update(keys, keys * 2, 0)
    own = torch.zeros(len(row_B), keys.shape[1], 3, keys.shape[3])
    seen, values = ResponseCache(prompts, row_B).update(own, own, 0)
    assert torch.equal(seen[:, :, :-3], keys[row_B])
    assert torch.equal(values[:, :, :-3], 2 * keys[row_B])
    assert torch.equal(seen[:, :, -3:], own)
    (seen[:, :, :-3] * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert keys.grad is not None
    return keys.grad


@pytest.mark.usefixtures("two_threads")
def test_gradients_of_shared_prompts_add_in_a_fixed_order() -> None:
    """The same seed gives the same weights on any number of threads, to the last bit."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(8, 4, 64, 16, generator=generator)
    row_B = torch.randint(0, 8, (256,), generator=generator)
    weight = torch.randn(256, 4, 64, 16, generator=generator)
    gradients = [prompt_gradient(keys, row_B, weight) for _ in range(10)]
    assert all(torch.equal(gradients[0], other) for other in gradients)
    expected = torch.stack([weight[row_B == i].double().sum(0) for i in range(8)])
    assert torch.allclose(gradients[0].double(), expected, atol=1e-4)


def test_padding_with_an_empty_embedding_leaves_gradients_finite(tmp_path: Path) -> None:
    """transformers keeps the embedding of the padding token at zero, where Gemma 3n's norms have no gradient."""
    loaded = load_model(tiny_config(make_windowed("gemma3n_text", tmp_path)))
    assert not loaded.causal_lm.get_input_embeddings().weight[0].any()
    batch = batch_prompts(loaded, [[5, 6, 7, 8], [9]])
    assert batch.tokens_PS.tolist() == [[5, 6, 7, 8], [0, 0, 0, 9]]
    prefill(loaded, batch, PromptCache(4)).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in loaded.model.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "qwen3"])
@torch.no_grad()
def test_one_token_at_a_time_equals_all_at_once(tmp_path: Path, family: str, forgets: bool) -> None:
    """:func:`extend` and :func:`respond` behind the same prompts, beyond the window, with padding between."""
    loaded = load_model(tiny_config(make_windowed(family, tmp_path)))
    batch = batch_prompts(loaded, [[*range(20, 31)], [40, 41], [7]])
    tokens_BT = torch.arange(50, 50 + 3 * 12).view(3, 12)
    kept, cache = PromptCache(4), RolloutCache(windows_of(loaded.causal_lm.config) if forgets else [None] * 4)
    prefill(loaded, batch, kept)
    prefill(loaded, batch, cache)
    cache.fork(1, 2)
    seen_BT = torch.ones(3, 12, dtype=torch.bool)
    expected_BTH = respond(loaded, batch, kept, torch.arange(3), tokens_BT, seen_BT)
    for t in range(12):
        seen_BS = torch.cat((batch.seen_PS, seen_BT[:, : t + 1]), dim=-1)
        found_BH = extend(loaded, tokens_BT[:, t], batch.next_P + t, seen_BS, cache)
        assert torch.allclose(found_BH, expected_BTH[:, t], atol=1e-4)
