"""Attention for one new token a row, registered with transformers as ``spark_rl_decode``.

torch's fused CPU kernel is made for many queries; with one query a row and a mask it spends most of its time on
overhead. Two batched products do the same in a fraction (``benchmarks/rollout_speed.py``). On a GPU they read shared
keys and values as they are, which the stock path repeats for every query head first.
Everything else (prefill, the learner's forward) goes to the stock ``sdpa`` path unchanged.

Shape suffixes: _R rows, _K key-value heads, _G query heads per key-value head, _T positions, _D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "spark_rl_decode"
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
    """
    if query.shape[2] != 1 or torch.is_grad_enabled() or any(options.get(name) is not None for name in STOCK_ONLY):
        stock = AttentionInterface()["sdpa"]
        result: tuple[Tensor, None] = stock(module, query, key, value, attention_mask, scaling=scaling, **options)
        return result
    rows, heads, _, width = query.shape
    query_RKGD = query.view(rows, key.shape[1], heads // key.shape[1], width)
    scores_RKGT = query_RKGD @ key.transpose(-1, -2)
    scores_RKGT *= scaling if scaling is not None else width**-0.5
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores_RKGT.masked_fill_(~attention_mask, float("-inf"))
        else:
            scores_RKGT += attention_mask
    output_RKGD = scores_RKGT.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return output_RKGD.reshape(rows, 1, heads, -1), None


AttentionInterface.register(NAME, decode_attention)
AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])
