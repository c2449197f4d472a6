"""Log-probabilities of given responses: each prompt goes through the model once, and the logits of a batch never exist
all at once.

The n responses of a group share one pass over their prompt and its images (:mod:`spark_rl.model.prefill`). Only
hidden states that predict a response token reach the output layer, ``chunk`` of them at a time. Where the vocabulary is
small, the logits of some stay for the backward pass; those of the others are recomputed there (peers: trl#3678).

Shape suffixes: _P prompts, _B responses of a micro-batch, _T response tokens, _N response tokens of all rows laid end
to end, _H hidden width, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from spark_rl.model.loaded import LoadedModel
from spark_rl.model.prefill import PromptBatch, PromptCache, Vision, batch_prompts, prefill, respond
from spark_rl.model.sizes import head_width
from spark_rl.model.turns import Cut, in_turn

Parts = tuple[tuple[int, ...], ...]
"""Places of responses in a micro-batch, for each part that goes through the model together."""

LOGITS = 2**26
"""That exist at the same time, unless ``learner.logit_chunk`` says otherwise: 256 MiB."""
CHUNK = 1024
"""Response positions whose logits exist at the same time where the vocabulary is so small that more fit."""

PADDING = 0.25
"""Padding of responses that go through the model together, as a share of their tokens."""


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
    parts: Parts | None = None
    """Which responses go through the model together, where several ranks must make as many calls; ``None`` leaves it
    to :func:`by_length`."""


def make_rows(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    vision: Sequence[Vision],
    row_of: Sequence[int],
    responses: Sequence[Sequence[int]],
    parts: Parts | None = None,
) -> Rows:
    """Lay prompts and responses out as padded tensors; response b continues prompt ``row_of[b]``.

    Places in ``parts`` that no response has become responses without tokens to the first prompt, and where there is no
    prompt either, one token becomes one: a rank that has less to do than others makes their calls with these. They
    have no log-probabilities, and their gradient is zero.
    """
    if parts is not None:
        fillers = 1 + max(place for part in parts for place in part) - len(responses)
        responses, row_of = [*responses, *[()] * fillers], [*row_of, *[0] * fillers]
    if not prompts:
        prompts, vision = [[_harmless_token(loaded)]], [{}]
    longest = max(1, *map(len, responses))
    target_BT = torch.zeros(len(responses), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(responses), longest, dtype=torch.bool)
    for i, response in enumerate(responses):
        target_BT[i, : len(response)] = torch.tensor(response, dtype=torch.long)
        mask_BT[i, : len(response)] = True
    row_B, target_BT, mask_BT = (t.to(loaded.device) for t in (torch.tensor(row_of), target_BT, mask_BT))
    return Rows(batch_prompts(loaded, prompts, vision), row_B, target_BT, mask_BT, parts)


def _harmless_token(loaded: LoadedModel) -> int:
    """A token that stands for no image, and is not 0, which some families keep for padding."""
    banned = set() if loaded.banned is None else set(loaded.banned.tolist())
    return next(token for token in range(1, len(banned) + 2) if token not in banned)


class Scorer(nn.Module):
    """A model as a function from rows to log-probabilities: it owns the decoder and the head.

    A learner trains it as one module, so a sharded learner can wrap it whole.
    """

    def __init__(self, loaded: LoadedModel, temperature: float, chunk: int | None = None) -> None:
        """Put a loaded model into a module.

        Args:
            loaded: the model; its parameters are this module's.
            temperature: that of sampling.
            chunk: response positions whose logits exist at the same time; ``None`` is what :func:`chunk_for` says, and
                keeps those of others for the backward pass, of so many as have :data:`LOGITS` together.
        """
        super().__init__()
        self.model = loaded.model
        self.loaded = loaded
        self.temperature = temperature
        vocabulary = loaded.causal_lm.get_output_embeddings().weight.shape[0]
        self.chunk = chunk or chunk_for(vocabulary)
        self.kept = max(0, LOGITS // vocabulary - self.chunk) if chunk is None else 0

    def forward(self, rows: Rows) -> Tensor:
        """(B, T) float32 log-probability of every response token, see :func:`response_logprobs`."""
        return response_logprobs(self.loaded, rows, self.temperature, self.chunk, self.kept)


def chunk_for(vocabulary: int) -> int:
    """Positions with at most :data:`LOGITS` logits, and never more than :data:`CHUNK`."""
    return max(1, min(CHUNK, LOGITS // vocabulary))


def response_logprobs(loaded: LoadedModel, rows: Rows, temperature: float, chunk: int, kept: int = 0) -> Tensor:
    """(B, T) float32 log-probability of every response token at ``temperature``, 0 where the mask is false.

    Differentiable in the weights. At most ``(kept + chunk) * V`` logits exist at any time: those of the first ``kept``
    positions stay for the backward pass. Responses of similar length go through the model together, all of them after
    one pass over the prompts.
    """
    cache = PromptCache(loaded.causal_lm.config.get_text_config().num_hidden_layers)
    last_PH = prefill(loaded, rows.prompts, cache)
    cut = None
    if torch.is_grad_enabled() and last_PH.requires_grad:
        cut = Cut([last_PH, *cache.states()])
        last_PH = cut.given[0]
        cache.replace(cut.given[1:])
    hidden, places = [], []
    planned = rows.parts is not None
    for part in by_length(rows.mask_BT.sum(-1).tolist()) if rows.parts is None else rows.parts:
        part_B = torch.tensor(part, device=rows.row_B.device)
        mask_BT = rows.mask_BT[part_B]
        width = max(1, int(mask_BT.sum(-1).max()))
        mask_BT, row_B = mask_BT[:, :width], rows.row_B[part_B]
        hidden_BTH = last_PH.index_select(0, row_B)[:, None]
        fed = max(planned, width - 1)  # the last token predicts nothing that is asked for; a planned call is made
        if fed:
            tokens_BT = rows.target_BT[part_B, :fed]
            later_BTH = respond(loaded, rows.prompts, cache, row_B, tokens_BT, mask_BT[:, :fed])
            hidden_BTH = torch.cat((hidden_BTH, later_BTH), dim=1)
        hidden.append(hidden_BTH[:, :width][mask_BT])
        place_NB, place_NT = mask_BT.nonzero(as_tuple=True)
        places.append((part_B[place_NB], place_NT))
    logp_BT = torch.zeros(rows.mask_BT.shape, dtype=torch.float32, device=last_PH.device)
    if not hidden:
        return logp_BT
    hidden_NH = torch.cat(hidden if cut is None else in_turn(cut, hidden))
    place = tuple(torch.cat(parts) for parts in zip(*places, strict=True))
    target_N = rows.target_BT[place]

    def token_logprobs(hidden_NH: Tensor, target_N: Tensor) -> Tensor:
        logits_NV = loaded.head(hidden_NH)
        return _token_logprobs(logits_NV if temperature == 1.0 else logits_NV / temperature, target_N)

    pieces: list[Tensor] = []
    for some_NH, some_N in zip(torch.split(hidden_NH, chunk), torch.split(target_N, chunk), strict=True):
        if torch.is_grad_enabled() and len(hidden_NH) > chunk and (len(pieces) + 1) * chunk > kept:
            pieces.append(checkpoint(token_logprobs, some_NH, some_N, use_reentrant=False))
        else:
            pieces.append(token_logprobs(some_NH, some_N))
    return logp_BT.index_put(place, torch.cat(pieces))


def _token_logprobs(logits_NV: Tensor, token_N: Tensor) -> Tensor:
    logp_N: Tensor = _TokenLogprobs.apply(logits_NV, token_N)  # type: ignore[no-untyped-call]
    return logp_N


class _TokenLogprobs(torch.autograd.Function):
    """(N, V) logits, (N,) tokens -> (N,) log-probabilities.

    Torch's own backward pass gives the same bits through three more tensors as wide as the logits: zeros, to which it
    adds what comes from the token's logit and what comes from the sum.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, token_N: Tensor) -> Tensor:
        sum_N1 = logits_NV.logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits_NV, token_N, sum_N1)
        return (logits_NV.gather(-1, token_N[:, None]) - sum_N1).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        logits_NV, token_N, sum_N1 = ctx.saved_tensors
        gradient_NV = (logits_NV - sum_N1).exp_().mul_(-gradient_N[:, None])
        return gradient_NV.scatter_add_(-1, token_N[:, None], gradient_N[:, None]), None


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of responses in parts of similar length: padding is at most :data:`PADDING` of a part, or 64 tokens.

    Empty responses are left out.
    """
    parts: list[list[int]] = []
    total = 0
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: (lengths[i], i)):
        padding = (len(parts[-1]) + 1) * lengths[i] - total - lengths[i] if parts else 0
        if not parts or padding > max(64, PADDING * (total + lengths[i])):
            parts.append([])
            total = 0
        parts[-1].append(i)
        total += lengths[i]
    return parts


def seen_share(loaded: LoadedModel) -> float:
    """What a prompt's token costs again for each response that sees it, as a share of a token.

    A response keeps a copy of its prompt's keys and values for the backward pass, one head a query head; a token of its
    own keeps about ten hidden states a layer and four of the inner width of its feed-forward (measured by
    ``tests/model/test_charge.py``).
    """
    text = loaded.causal_lm.config.get_text_config()
    heads, hidden = text.num_attention_heads, text.hidden_size
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    inner = max(inner) if isinstance(inner, Sequence) else inner
    return float(2 * heads * head_width(text) / (10 * hidden + 4 * inner))


def pack_by_tokens(
    prompts: Sequence[Hashable],
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    budget: int,
    seen: float = 0.0,
) -> list[list[int]]:
    """Indices of responses in micro-batches of at most ``budget`` tokens, each prompt counted once, padded.

    Responses of the same prompt stay together, prompts of similar length go together. A response that is longer than
    the budget with its prompt gets a micro-batch of its own, and a group that does not fit is divided.

    Args:
        prompts: what tells the prompts apart, one entry a response.
        prompt_lengths: (B,) tokens of each response's prompt.
        lengths: (B,) tokens of each response.
        budget: prompts * longest prompt + tokens of the responses + ``seen`` * responses * longest prompt.
        seen: what a prompt's token costs again for each response, see :func:`seen_share`.
    """
    first: dict[Hashable, int] = {}
    for i, prompt in enumerate(prompts):
        first.setdefault(prompt, i)
    order = sorted(range(len(prompts)), key=lambda i: (prompt_lengths[i], first[prompts[i]], i))
    batches: list[list[int]] = []
    held: set[Hashable] = set()
    widest = total = 0
    for i in order:
        widest = max(widest, prompt_lengths[i])
        copies = len(held | {prompts[i]}) + seen * (len(batches[-1]) + 1 if batches else 1)
        if not batches or copies * widest + total + lengths[i] > budget:
            batches.append([])
            held, widest, total = set(), prompt_lengths[i], 0
        batches[-1].append(i)
        held.add(prompts[i])
        total += lengths[i]
    return batches
