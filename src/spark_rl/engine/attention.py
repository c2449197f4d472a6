"""Attention for one new token a row, registered with transformers as ``spark_rl_decode``.

torch's fused CPU kernel is made for many queries; with one query a row and a mask it spends most of its time on
overhead. Two batched products do the same in a fraction (``benchmarks/rollout_speed.py``), as long as a row has few
keys; with more of them, the fused kernel is given the query heads of a key head as its queries. On a GPU they read
shared keys and values as they are, which the stock path repeats for every query head first. Where rollouts share their
prompt (:mod:`spark_rl.model.shared`), all their queries go through its keys together.
Everything else (prefill, the learner's forward) goes to the stock ``sdpa`` path unchanged.

Shape suffixes: _R rows, _K key-value heads, _G query heads per key-value head, _T positions, _D head width, _P prompts,
_Q the queries of all rollouts of a prompt, _S prompt positions, _C prompt positions and then own ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from spark_rl.model.shared import SharedPrompts, UnshareableError, prompts_before

NAME = "spark_rl_decode"
FUSED = 320
"""Keys a row from which the fused kernel takes less time on a CPU: 1.0 to 1.5 times less at 350 to 500 keys in float32,
1.3 to 1.8 in bfloat16; below 200 it takes more."""
STOCK_ONLY = ("softcap", "position_bias", "s_aux")
"""Options that change the scores: capped ones, biased ones, sinks. A layer that sets one is left to the stock path."""


def decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (R, heads, 1, D) queries against (R, K, T, D) keys and values.

    Returns:
        (R, 1, heads, D) outputs and no weights.

    Raises:
        UnshareableError: prompts are shared, and the layer is left to the stock path.
    """
    shared = prompts_before(key, value)
    if query.shape[2] != 1 or torch.is_grad_enabled() or any(options.get(name) is not None for name in STOCK_ONLY):
        if shared is not None:
            raise UnshareableError("the stock path knows no shared prompts")
        stock = AttentionInterface()["sdpa"]
        result: tuple[Tensor, None] = stock(module, query, key, value, attention_mask, scaling=scaling, **options)
        return result
    rows, heads, _, width = query.shape
    query_RKGD = query.view(rows, key.shape[1], heads // key.shape[1], width)
    scale = scaling if scaling is not None else width**-0.5
    if shared is not None:
        return _behind_prompts(query_RKGD * scale, key, value, attention_mask, shared).reshape(rows, 1, heads, -1), None
    if key.shape[2] >= FUSED and query.device.type == "cpu":
        mask = attention_mask
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(query.dtype)
        fused_RKGD = scaled_dot_product_attention(query_RKGD, key, value, attn_mask=mask, scale=scale)
        return fused_RKGD.reshape(rows, 1, heads, -1), None
    scores_RKGT = _scores(query_RKGD, key)
    scores_RKGT *= scale
    _mask(scores_RKGT, attention_mask)
    output_RKGD = scores_RKGT.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return output_RKGD.reshape(rows, 1, heads, -1), None


def _behind_prompts(
    query_RKGD: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, shared: SharedPrompts
) -> Tensor:
    """(R, K, G, D) outputs of scaled queries over shared prompts and then the rows' own keys, under one softmax."""
    places, prompts, columns = shared.places, shared.length, shared.length + key.shape[2]
    mask_P = mask_R = None
    if attention_mask is not None:
        if attention_mask.shape[1] != 1 or attention_mask.shape[-1] != columns:
            raise UnshareableError("the mask is not of all columns, or differs between heads")
        mask_R = attention_mask.expand(len(query_RKGD), -1, -1, -1)
        mask_P, mask_R = mask_R[places.row_P, ..., :prompts], mask_R[..., prompts:]
    scores_PKQS = _scores(places.by_prompt(query_RKGD), shared.keys_PKSD)
    scores_RKGT = _scores(query_RKGD, key)
    _mask(scores_PKQS, mask_P)  # alike for all rows of a prompt: they have its padding, and end in one column
    _mask(scores_RKGT, mask_R)
    scores_PKQC = torch.cat((scores_PKQS, places.by_prompt(scores_RKGT)), dim=-1)
    weights_PKQC = scores_PKQC.softmax(-1, dtype=torch.float32).to(value.dtype)
    output_RKGD = places.by_row(weights_PKQC[..., :prompts] @ shared.values_PKSD)
    output_RKGD = output_RKGD + places.by_row(weights_PKQC[..., prompts:]) @ value
    shared.attended = True
    return output_RKGD


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Products of queries and keys. In half precision on a CPU oneDNN lays out what does not lie in order at each call,
    and does so 3 to 6 times as slowly with transposed keys as with keys."""
    if key.device.type == "cpu" and key.dtype != torch.float32:
        key = key.contiguous()
    return query @ key.transpose(-1, -2)


def _mask(scores: Tensor, mask: Tensor | None) -> None:
    """Take out what a mask of booleans, or of what is added to scores, leaves out."""
    if mask is None:
        return
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    else:
        scores += mask


AttentionInterface.register(NAME, decode_attention)
AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])
