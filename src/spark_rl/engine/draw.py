"""From logits to tokens: one drawn a row, with its exact log-probability, and the most likely ones.

Shape suffixes: _R rows, _V vocabulary, _K most likely tokens or blocks of tokens, _B tokens of a block, _N places.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKED = 2048
"""Tokens of a vocabulary above which one is drawn by blocks."""
BLOCK = 512
"""Tokens of a block."""
CACHED = 2**19
"""Logits that are drawn from at a time on a CPU: 2 MB, which its cache holds from one pass over them to the next."""


def portion(vocabulary: int, rows: int, device: torch.device) -> int:
    """How many of these rows are drawn from at a time."""
    return max(1, CACHED // vocabulary) if device.type == "cpu" else rows


def penalised(logits_RV: Tensor, held_RV: Tensor, penalty: float) -> Tensor:
    """(R, V) logits, those of tokens that are held already made less likely by :attr:`Sampling.repetition_penalty`."""
    less_RV = torch.where(logits_RV > 0, logits_RV / penalty, logits_RV * penalty)
    return torch.where(held_RV, less_RV, logits_RV)


def most_likely(logits_RV: Tensor, temperature: float, count: int) -> tuple[Tensor, Tensor]:
    """(R, K) ids of the most likely tokens of each row, the likeliest first, and their log-probabilities, which are
    those that :func:`sample` gives. Arguments as there."""
    if temperature > 0 and temperature != 1.0:
        logits_RV = logits_RV / temperature
    top_RK, token_RK = logits_RV.topk(count, dim=-1)
    return token_RK, top_RK - logits_RV.logsumexp(-1, keepdim=True)


def sample(logits_RV: Tensor, temperature: float, uniform_R: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token a row with its exact log-probability.

    Args:
        logits_RV: (R, V) float32.
        temperature: 0 takes the most likely token and reports its log-probability at temperature 1.
        uniform_R: (R,) float64 in [0, 1), which draw the tokens; not used at temperature 0.

    Returns:
        (R,) token ids and (R,) log-probabilities in nats.
    """
    if temperature > 0 and temperature != 1.0:
        logits_RV = logits_RV / temperature
    if temperature > 0 and logits_RV.shape[-1] > BLOCKED:
        assert uniform_R is not None, "sampling needs randomness"
        return _by_blocks(logits_RV, uniform_R[:, None])
    logprobs_RV = logits_RV.log_softmax(-1)
    if temperature == 0:
        token_R = logprobs_RV.argmax(-1)
    else:
        assert uniform_R is not None, "sampling needs randomness"
        token_R = _placed(logprobs_RV.exp(), uniform_R[:, None])[0].squeeze(-1)
    return token_R, logprobs_RV.gather(-1, token_R[:, None]).squeeze(-1)


def _placed(weight_RN: Tensor, uniform_R1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, 1) places drawn in proportion to their weights, (R, 1) sums of the weights before what was drawn, (R, N) sums
    up to the end of each place.

    By the inverse transform in float64: a place of weight zero can't be drawn, however many there are.
    """
    end_RN = weight_RN.double().cumsum(-1)
    drawn_R1 = uniform_R1 * end_RN[:, -1:]
    return torch.searchsorted(end_RN, drawn_R1, right=True).clamp(max=weight_RN.shape[-1] - 1), drawn_R1, end_RN


def _by_blocks(logits_RV: Tensor, uniform_R1: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`sample` gives, for large vocabularies: first a block of tokens is drawn, then a token of the block.

    The logits are passed over four times, and nothing in float64 is as wide as they are. The draw is that of the whole
    vocabulary but where the rounding of a block's sum in float32 moves it, a share of some 1e-7.
    """
    vocabulary = logits_RV.shape[-1]
    whole = vocabulary // BLOCK * BLOCK
    most_R1 = logits_RV.amax(-1, keepdim=True)
    weight_RV = (logits_RV - most_R1).exp_()
    sums = [weight_RV[:, :whole].reshape(len(weight_RV), -1, BLOCK).sum(-1)]
    if whole < vocabulary:
        sums.append(weight_RV[:, whole:].sum(-1, keepdim=True))
    sum_RK = torch.cat(sums, dim=-1)
    block_R1, drawn_R1, end_RK = _placed(sum_RK, uniform_R1)
    width_R1 = sum_RK.gather(-1, block_R1).double()
    inside_R1 = 1 - (end_RK.gather(-1, block_R1) - drawn_R1) / width_R1
    token_RB = block_R1 * BLOCK + torch.arange(BLOCK, device=block_R1.device)
    beyond_RB = token_RB >= vocabulary
    block_RB = weight_RV.gather(-1, token_RB.masked_fill(beyond_RB, 0)).masked_fill(beyond_RB, 0)
    token_R1 = block_R1 * BLOCK + _placed(block_RB, inside_R1.clamp(0, 1 - 2**-53))[0]
    logprob_R1 = logits_RV.gather(-1, token_R1) - most_R1 - end_RK[:, -1:].log().float()
    return token_R1.squeeze(-1), logprob_R1.squeeze(-1)
