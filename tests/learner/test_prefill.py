"""The caches between the prompt pass and the response pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from spark_rl.learner.prefill import PromptCache, ResponseCache


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
