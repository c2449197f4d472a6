"""Group-relative advantages, Eq. 3 of the paper.

Shape suffixes: _P problems, _G responses of one problem's group.

Departures: a group whose rewards are equal up to a tolerance gets exactly zero (comparing floats with ``!=`` would let
rounding noise through, amplified by the division); ``scale="none"`` centres without dividing (Dr. GRPO,
https://arxiv.org/abs/2503.20783).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

FLAT_TOLERANCE = 1e-6
"""Rewards that differ by less than this carry no signal."""


def group_advantages(rewards_PG: Tensor, eps: float = 1e-6, scale: Literal["group", "none"] = "group") -> Tensor:
    """A^i = (r^i - mean) / sqrt(mean((r - mean)^2) + eps), per row.

    Args:
        rewards_PG: (P, G) rewards; one row a group. A vector (G,) is one group.
        eps: the constant inside the root.
        scale: ``group`` divides by the population standard deviation, ``none`` only subtracts the mean.

    Returns:
        Advantages of the same shape and dtype; rows without signal are exactly zero.
    """
    centred_PG = rewards_PG - rewards_PG.mean(-1, keepdim=True)
    advantages_PG = centred_PG
    if scale == "group":
        advantages_PG = centred_PG / (centred_PG.square().mean(-1, keepdim=True) + eps).sqrt()
    return advantages_PG.masked_fill(is_flat(rewards_PG).unsqueeze(-1), 0.0)


def is_flat(rewards_PG: Tensor) -> Tensor:
    """(P,) bool: groups whose rewards are all equal, so that no response is better than another."""
    return (rewards_PG.amax(-1) - rewards_PG.amin(-1)) <= FLAT_TOLERANCE
