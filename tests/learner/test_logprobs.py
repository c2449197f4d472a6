"""Chunked log-probabilities against all logits at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from spark_rl.learner.logprobs import make_rows, pack_by_tokens, response_logprobs
from spark_rl.learner.model import LoadedModel, load_model
from tiny import tiny_config

PROMPTS = [[1, 7, 8, 9], [1], [5, 6], [1, 11, 12, 13, 14, 15]]
RESPONSES = [[20, 21], [30, 31, 32, 33, 34], [40], [50, 51, 2]]
CPU = torch.device("cpu")


def whole_logprobs(model: Any, prompt: Sequence[int], response: Sequence[int], temperature: float) -> Tensor:
    """One row alone, every logit, the textbook way."""
    tokens = torch.tensor([[*prompt, *response]])
    logp = (model(tokens).logits[0].float() / temperature).log_softmax(-1)
    return logp[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


def found_logprobs(loaded: LoadedModel, chunk: int, temperature: float = 1.0, pad: int = 0) -> Tensor:
    return response_logprobs(loaded, make_rows(PROMPTS, RESPONSES, pad, CPU), temperature, chunk)


def test_rows_are_laid_out_as_documented() -> None:
    rows = make_rows([[1, 2, 3], [4]], [[5], [6, 7]], 99, CPU)
    assert rows.tokens_BS.tolist() == [[1, 2, 3, 5], [4, 6, 7, 99]]
    assert rows.target_BT.tolist() == [[5, 0], [6, 7]]
    assert rows.mask_BT.tolist() == [[True, False], [True, True]]
    assert rows.position_BT[rows.mask_BT].tolist() == [2, 0, 1]  # the positions before 5, 6 and 7


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_equal_to_all_logits_of_each_row_alone(model_path: str, temperature: float) -> None:
    loaded = load_model(tiny_config(model_path))
    model = AutoModelForCausalLM.from_pretrained(model_path).eval()
    found = found_logprobs(loaded, chunk=3, temperature=temperature)
    assert found.dtype == torch.float32
    for row, prompt, response in zip(found, PROMPTS, RESPONSES, strict=True):
        expected = whole_logprobs(model, prompt, response, temperature)
        assert torch.allclose(row[: len(response)], expected, atol=1e-5)
        assert (row[len(response) :] == 0).all()


@pytest.mark.parametrize("chunk", [1, 2, 5, 11, 1000])
def test_the_chunk_changes_neither_values_nor_gradients(tiny_models: dict[str, Path], chunk: int) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen2"]))  # tied: the output layer's weight gets both gradients
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))

    def run(chunk: int) -> tuple[Tensor, list[Tensor]]:
        loaded.model.zero_grad()
        logp = found_logprobs(loaded, chunk)
        (logp * weights).sum().backward()
        return logp.detach(), [p.grad.clone() for p in loaded.model.parameters()]

    values, gradients = run(chunk)
    expected_values, expected_gradients = run(10_000)
    assert torch.allclose(values, expected_values, atol=1e-6)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_no_more_than_a_chunk_of_logits_exists(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["llama"]))
    sizes: list[int] = []
    loaded.causal_lm.get_output_embeddings().register_forward_hook(lambda _m, _a, out: sizes.append(out.numel() // 200))
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape[0] if tensor.dim() == 2 and tensor.shape[1] == 200 else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logp = found_logprobs(loaded, chunk=4)
    assert sizes == [4, 4, 3]  # eleven response tokens; prompts and padding never reach the output layer
    assert max(kept) == 0, "logits should be recomputed, not kept"
    logp.sum().backward()
    assert sorted(sizes) == [3, 3, 4, 4, 4, 4]


@torch.no_grad()
def test_padding_token_and_company_do_not_matter(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen3"]))
    together = found_logprobs(loaded, 100)
    assert torch.equal(together, found_logprobs(loaded, 100, pad=77))
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        alone = response_logprobs(loaded, make_rows([prompt], [response], 0, CPU), 1.0, 100)
        assert torch.allclose(together[i, : len(response)], alone[0], atol=1e-5)


@torch.no_grad()
def test_a_response_without_tokens_is_an_empty_row(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen3"]))
    found = response_logprobs(loaded, make_rows([[1, 5], [1]], [[], [9, 8]], 0, CPU), 1.0, 100)
    assert found[0].tolist() == [0.0, 0.0]
    assert (found[1] < 0).all()


@given(lengths=st.lists(st.integers(1, 40), max_size=30), budget=st.integers(1, 120))
def test_packing_is_a_partition_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = pack_by_tokens(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_packing_puts_rows_of_similar_length_together() -> None:
    assert pack_by_tokens([9, 1, 8, 2, 30], 18) == [[1, 3], [2, 0], [4]]
