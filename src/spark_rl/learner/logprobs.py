"""Log-probabilities of given responses: each prompt goes through the model once, and the logits of a batch never exist
all at once.

The n responses of a group share one pass over their prompt and its images (:mod:`spark_rl.learner.prefill`). Only
hidden states that predict a response token reach the output layer, ``chunk`` of them at a time, and their logits are
recomputed in the backward pass instead of being kept (peers: trl#3678).

Shape suffixes: _P prompts, _B responses of a micro-batch, _T response tokens, _N response tokens of all rows laid end
to end, _H hidden width, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spark_rl.learner.model import LoadedModel
from spark_rl.learner.prefill import PromptBatch, PromptCache, Vision, batch_prompts, prefill, respond


@dataclass(frozen=True, slots=True)
class Rows:
    """A micro-batch: some prompts, and responses that each continue one of them."""

    prompts: PromptBatch
    row_B: Tensor
    """Which prompt each response continues."""
    target_BT: Tensor
    """The response tokens, padded with 0 on the right."""
    mask_BT: Tensor
    """True on response tokens."""


def make_rows(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    vision: Sequence[Vision],
    row_of: Sequence[int],
    responses: Sequence[Sequence[int]],
) -> Rows:
    """Lay prompts and responses out as padded tensors; response b continues prompt ``row_of[b]``."""
    longest = max(1, *map(len, responses))
    target_BT = torch.zeros(len(responses), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(responses), longest, dtype=torch.bool)
    for i, response in enumerate(responses):
        target_BT[i, : len(response)] = torch.tensor(response, dtype=torch.long)
        mask_BT[i, : len(response)] = True
    row_B, target_BT, mask_BT = (t.to(loaded.device) for t in (torch.tensor(row_of), target_BT, mask_BT))
    return Rows(batch_prompts(loaded, prompts, vision), row_B, target_BT, mask_BT)


def response_logprobs(loaded: LoadedModel, rows: Rows, temperature: float, chunk: int) -> Tensor:
    """(B, T) float32 log-probability of every response token at ``temperature``, 0 where the mask is false.

    Differentiable in the model's weights. At most ``chunk * V`` logits exist at any time.
    """
    cache = PromptCache(loaded.causal_lm.config.get_text_config().num_hidden_layers)
    first_BH = prefill(loaded, rows.prompts, cache).index_select(0, rows.row_B)
    hidden_BTH = first_BH[:, None]
    if rows.target_BT.shape[1] > 1:  # the last token predicts nothing that is asked for
        later_BTH = respond(loaded, rows.prompts, cache, rows.row_B, rows.target_BT[:, :-1], rows.mask_BT[:, :-1])
        hidden_BTH = torch.cat((hidden_BTH, later_BTH), dim=1)
    hidden_NH = hidden_BTH[rows.mask_BT]
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


def pack_by_tokens(
    prompts: Sequence[Hashable], prompt_lengths: Sequence[int], lengths: Sequence[int], budget: int
) -> list[list[int]]:
    """Indices of responses in micro-batches of at most ``budget`` padded tokens, each prompt counted once.

    Responses of the same prompt stay together, prompts of similar length go together. A response that is longer than
    the budget with its prompt gets a micro-batch of its own, and a group that does not fit is divided.

    Args:
        prompts: what tells the prompts apart, one entry a response.
        prompt_lengths: (B,) tokens of each response's prompt.
        lengths: (B,) tokens of each response.
        budget: prompts * longest prompt + responses * longest response.
    """
    first: dict[Hashable, int] = {}
    for i, prompt in enumerate(prompts):
        first.setdefault(prompt, i)
    order = sorted(range(len(prompts)), key=lambda i: (prompt_lengths[i], first[prompts[i]], lengths[i], i))
    batches: list[list[int]] = []
    seen: set[Hashable] = set()
    widest = longest = 0
    for i in order:
        wide, long = max(widest, prompt_lengths[i]), max(longest, lengths[i])
        cost = len(seen | {prompts[i]}) * wide + (len(batches[-1]) + 1 if batches else 1) * long
        if not batches or cost > budget:
            batches.append([])
            seen, wide, long = set(), prompt_lengths[i], lengths[i]
        batches[-1].append(i)
        seen.add(prompts[i])
        widest, longest = wide, long
    return batches
