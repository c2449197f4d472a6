"""Chunked log-probabilities against all logits at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.plan.measure import peak_of
from tests.plan.test_memory import model_of
from torch import Tensor
from transformers import AutoModelForCausalLM

from spark_rl.model import score
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.score import PADDING, Rows, Scorer, by_length, make_rows, pack_by_tokens, response_logprobs
from tiny import tiny_config
from windowed import WINDOWED, make_windowed

PROMPTS = [[1, 7, 8, 9], [1], [5, 6], [1, 11, 12, 13, 14, 15]]
RESPONSES = [[20, 21], [30, 31, 32, 33, 34], [40], [50, 51, 2]]


def whole_logprobs(model: Any, prompt: Sequence[int], response: Sequence[int], temperature: float) -> Tensor:
    """One row alone, every logit, the textbook way."""
    tokens = torch.tensor([[*prompt, *response]])
    logp = (model(tokens).logits[0].float() / temperature).log_softmax(-1)
    return logp[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


def rows_of(loaded: LoadedModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Rows:
    """Every response with a prompt of its own."""
    return make_rows(loaded, prompts, [{}] * len(prompts), range(len(prompts)), responses)


def found_logprobs(loaded: LoadedModel, chunk: int, temperature: float = 1.0) -> Tensor:
    return response_logprobs(loaded, rows_of(loaded, PROMPTS, RESPONSES), temperature, chunk)


def test_rows_are_laid_out_as_documented(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen2"]))
    rows = make_rows(loaded, [[1, 2, 3], [4]], [{}, {}], [1, 0, 1], [[5], [6, 7], [8]])
    assert rows.prompts.tokens_PS.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert rows.prompts.seen_PS.tolist() == [[True, True, True], [False, False, True]]
    assert rows.prompts.next_P.tolist() == [3, 1]
    assert rows.row_B.tolist() == [1, 0, 1]
    assert rows.target_BT.tolist() == [[5, 0], [6, 7], [8, 0]]
    assert rows.mask_BT.tolist() == [[True, False], [True, True], [True, False]]


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


@pytest.mark.parametrize("banned", [[], [0, 7, 69]])
def test_differentiated_by_hand_they_have_the_bits_of_autograd(banned: list[int]) -> None:
    rng = torch.Generator().manual_seed(1)
    logits, weights = 4 * torch.randn(50, 70, generator=rng), torch.randn(50, generator=rng)
    tokens = torch.randint(8, 69, (50,), generator=rng)
    logits[:, banned] = float("-inf")
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = score._token_logprobs(one, tokens)
    theirs = other.gather(-1, tokens[:, None]).squeeze(-1) - other.logsumexp(-1)
    assert torch.equal(ours, theirs)
    for found in (ours, theirs):
        (found * weights).sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 6, 100])
def test_so_many_logits_are_kept_for_the_backward_pass(tiny_models: dict[str, Path], kept: int) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen2"]))
    vocabulary, chunk = loaded.causal_lm.get_output_embeddings().weight.shape[0], 2
    rows, tokens = rows_of(loaded, PROMPTS, RESPONSES), sum(map(len, RESPONSES))
    held: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        if tensor.shape[-1:] == (vocabulary,) and len(tensor) <= chunk:
            held[tensor.data_ptr()] = len(tensor)
        return tensor

    def run(kept: int) -> tuple[Tensor, list[Tensor]]:
        loaded.model.zero_grad()
        logp = response_logprobs(loaded, rows, 1.0, chunk, kept)
        logp.sum().backward()
        return logp.detach(), [p.grad.clone() for p in loaded.model.parameters() if p.grad is not None]

    expected, gradients = run(0)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        response_logprobs(loaded, rows, 1.0, chunk, kept)
    assert sum(held.values()) == min(tokens, kept // chunk * chunk)
    found, others = run(kept)
    assert torch.equal(found, expected)
    assert all(map(torch.equal, others, gradients))


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
def test_padding_and_company_do_not_matter(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen3"]))
    together = found_logprobs(loaded, 100)
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        alone = response_logprobs(loaded, rows_of(loaded, [prompt], [response]), 1.0, 100)
        assert torch.allclose(together[i, : len(response)], alone[0], atol=1e-5)


@torch.no_grad()
def test_a_response_without_tokens_is_an_empty_row(tiny_models: dict[str, Path]) -> None:
    loaded = load_model(tiny_config(tiny_models["qwen3"]))
    found = response_logprobs(loaded, rows_of(loaded, [[1, 5], [1]], [[], [9, 8]]), 1.0, 100)
    assert found[0].tolist() == [0.0, 0.0]
    assert (found[1] < 0).all()


def test_responses_of_one_prompt_share_its_pass(model_path: str) -> None:
    """Values and gradients are those of rows that each bring their own prompt, and the prompt is read once."""
    prompts, row_of = [PROMPTS[0], PROMPTS[3]], [0, 1, 0, 1, 0, 1]
    responses = [*RESPONSES, [60], [61, 62]]
    weights = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    gradients, values, tokens_read = [], [], []
    for shared in (True, False):
        loaded = load_model(tiny_config(model_path))
        read = [0]
        loaded.causal_lm.get_input_embeddings().register_forward_hook(
            lambda _m, args, _out, read=read: read.append(args[0].numel())
        )
        rows = (
            make_rows(loaded, prompts, [{}, {}], row_of, responses)
            if shared
            else rows_of(loaded, [prompts[i] for i in row_of], responses)
        )
        logp = response_logprobs(loaded, rows, 1.0, 100)
        (logp * weights).sum().backward()
        values.append(logp.detach())
        gradients.append([p.grad.clone() for p in loaded.model.parameters()])
        tokens_read.append(sum(read))
    assert torch.allclose(values[0], values[1], atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*gradients, strict=True))
    assert tokens_read[0] == tokens_read[1] - 4 * 6, "two prompts of at most six tokens instead of six"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", WINDOWED)
def test_values_and_gradients_behind_windows_are_those_of_whole_sequences(
    tmp_path: Path, family: str, attention: str
) -> None:
    """Each sequence alone through transformers' own model, every logit; prompts within the window and beyond it."""
    path = make_windowed(family, tmp_path)
    loaded = load_model(tiny_config(path, model={"attention": attention}))
    stock = AutoModelForCausalLM.from_pretrained(path).eval()
    rng = random.Random(0)
    prompts = [[rng.randrange(3, 190) for _ in range(length)] for length in (20, 5, 11)]
    row_of = [0, 1, 2, 0, 1, 2, 0]
    responses = [[rng.randrange(3, 190) for _ in range(length)] for length in (14, 25, 1, 3, 9, 12, 2)]
    weights = torch.randn(7, 25, generator=torch.Generator().manual_seed(0))
    found = response_logprobs(loaded, make_rows(loaded, prompts, [{}] * 3, row_of, responses), 0.7, 10)
    (found * weights).sum().backward()
    for row, (prompt, response) in enumerate(zip(row_of, responses, strict=True)):
        expected = whole_logprobs(stock, prompts[prompt], response, 0.7)
        assert torch.allclose(found[row, : len(response)], expected, atol=1e-4)
        (expected * weights[row, : len(response)]).sum().backward()
    gradients = dict(stock.named_parameters())
    for name, parameter in loaded.causal_lm.named_parameters():
        mine, theirs = parameter.grad, gradients[name].grad
        if theirs is None:
            assert mine is None or not mine.any(), name
        else:
            assert torch.allclose(mine, theirs, atol=1e-4 * float(theirs.abs().max() + 1)), name


@given(
    groups=st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(1, 30), max_size=6)), max_size=8),
    budget=st.integers(1, 200),
)
def test_packing_is_a_partition_within_the_budget(groups: list[tuple[int, list[int]]], budget: int) -> None:
    owners = [g for g, (_, lengths) in enumerate(groups) for _ in lengths]
    widths = [width for width, lengths in groups for _ in lengths]
    lengths = [length for _, lengths in groups for length in lengths]
    batches = pack_by_tokens(owners, widths, lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        prompts = len({owners[i] for i in batch}) * max(widths[i] for i in batch)
        assert len(batch) == 1 or prompts + sum(lengths[i] for i in batch) <= budget


def test_packing_keeps_groups_whole_where_they_fit() -> None:
    owners, widths = ["a", "b", "a", "b", "c"], [9, 3, 9, 3, 9]
    assert pack_by_tokens(owners, widths, [2, 1, 2, 1, 2], 24) == [[1, 3, 0, 2], [4]]
    assert pack_by_tokens(owners, widths, [2, 1, 2, 1, 2], 100) == [[1, 3, 0, 2, 4]]


@given(lengths=st.lists(st.integers(0, 900), max_size=60))
def test_responses_of_similar_length_go_together(lengths: list[int]) -> None:
    parts = by_length(lengths)
    assert sorted(i for part in parts for i in part) == [i for i, length in enumerate(lengths) if length]
    for part in parts:
        tokens = sum(lengths[i] for i in part)
        assert len(part) * max(lengths[i] for i in part) - tokens <= max(64, PADDING * tokens)


@torch.no_grad()
def test_how_responses_are_put_together_does_not_matter(model_path: str) -> None:
    """Long and short ones of one prompt, so that they go through the model in several parts."""
    loaded = load_model(tiny_config(model_path))
    responses = [[20 + i % 7 for i in range(length)] for length in (70, 1, 3, 66, 30, 2, 28)]
    together = response_logprobs(loaded, make_rows(loaded, PROMPTS[:1], [{}], [0] * 7, responses), 1.0, 100)
    assert len(by_length([len(r) for r in responses])) > 1
    for found, response in zip(together, responses, strict=True):
        alone = response_logprobs(loaded, rows_of(loaded, PROMPTS[:1], [response]), 1.0, 100)
        assert torch.allclose(found[: len(response)], alone[0], atol=1e-5)
        assert (found[len(response) :] == 0).all()


def test_no_second_copy_of_the_gradients_is_held(tmp_path: Path) -> None:
    """Prompts and two parts of responses each have a gradient of every weight."""
    path = model_of(tmp_path / "model", hidden_size=256, intermediate_size=1024, num_hidden_layers=4)
    loaded = load_model(tiny_config(path))
    scorer = Scorer(loaded, 1.0, 64)
    responses = [[5, 6], [7, 8, 9]]
    rows = make_rows(loaded, [[1, 2, 3]], [{}], [0, 0], responses, ((0,), (1,)))
    weights = sum(p.nbytes for p in loaded.model.parameters())
    scorer(rows).sum().backward()
    loaded.model.zero_grad()
    peak = peak_of(lambda: scorer(rows).sum().backward())
    assert weights < peak < 1.3 * weights
