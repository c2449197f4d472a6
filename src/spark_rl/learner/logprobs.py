"""Log-probabilities of given responses, computed so that the logits of a batch never exist all at once.

Shape suffixes: _B responses of a micro-batch, _S prompt and response tokens, _T response tokens, _N response tokens of
all rows laid end to end, _H hidden width, _V vocabulary.

The decoder runs on right-padded rows. Under causal attention a position sees only what is left of it, so padding needs
no mask. Only hidden states that predict a response token reach the output layer, ``chunk`` of them at a time, and
their logits are recomputed in the backward pass instead of being kept (peers: trl#3678).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spark_rl.learner.model import LoadedModel


@dataclass(frozen=True, slots=True)
class Rows:
    """A micro-batch of prompt + response token rows, right-padded."""

    tokens_BS: Tensor
    """Prompt, response, padding."""
    target_BT: Tensor
    """The response tokens alone, padded with 0."""
    mask_BT: Tensor
    """True on response tokens."""
    position_BT: Tensor
    """Where in ``tokens_BS`` the hidden state lies that predicts each response token."""


def make_rows(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int, device: torch.device
) -> Rows:
    """Lay prompt and response token lists out as padded tensors."""
    width = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    longest = max(1, *map(len, responses))
    tokens_BS = torch.full((len(prompts), width), pad, dtype=torch.long)
    target_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(prompts), longest, dtype=torch.bool)
    start_B = torch.tensor([len(p) - 1 for p in prompts])
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        tokens_BS[i, : len(prompt) + len(response)] = torch.tensor([*prompt, *response], dtype=torch.long)
        target_BT[i, : len(response)] = torch.tensor(response, dtype=torch.long)
        mask_BT[i, : len(response)] = True
    position_BT = (start_B[:, None] + torch.arange(longest)).clamp(max=width - 1)
    return Rows(*(t.to(device) for t in (tokens_BS, target_BT, mask_BT, position_BT)))


def response_logprobs(loaded: LoadedModel, rows: Rows, temperature: float, chunk: int) -> Tensor:
    """(B, T) float32 log-probability of every response token at ``temperature``, 0 where the mask is false.

    Differentiable in the model's weights. At most ``chunk * V`` logits exist at any time.
    """
    hidden_BSH = loaded.decoder(input_ids=rows.tokens_BS, use_cache=False).last_hidden_state
    row_B1 = torch.arange(hidden_BSH.shape[0], device=hidden_BSH.device)[:, None]
    hidden_NH = hidden_BSH[row_B1.expand_as(rows.position_BT)[rows.mask_BT], rows.position_BT[rows.mask_BT]]
    target_N = rows.target_BT[rows.mask_BT]

    def token_logprobs(hidden_NH: Tensor, target_N: Tensor) -> Tensor:
        logits_NV = loaded.head(hidden_NH) / temperature
        return logits_NV.gather(-1, target_N[:, None]).squeeze(-1) - logits_NV.logsumexp(-1)

    pieces = []
    for hidden, target in zip(torch.split(hidden_NH, chunk), torch.split(target_N, chunk), strict=True):
        if torch.is_grad_enabled() and len(hidden_NH) > chunk:
            pieces.append(checkpoint(token_logprobs, hidden, target, use_reentrant=False))
        else:
            pieces.append(token_logprobs(hidden, target))
    logp_BT = torch.zeros(rows.mask_BT.shape, dtype=torch.float32, device=hidden_NH.device)
    return logp_BT.masked_scatter(rows.mask_BT, torch.cat(pieces)) if pieces else logp_BT


def pack_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in micro-batches whose padded size (rows * longest) stays within ``budget`` tokens.

    Rows of similar length go together. A row longer than the budget gets a micro-batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        current = batches[-1] if batches else []
        if current and (len(current) + 1) * lengths[index] <= budget:
            current.append(index)
        else:
            batches.append([index])
    return batches
