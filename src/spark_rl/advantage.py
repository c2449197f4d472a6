"""Group-relative advantages, Eq. 3 of the paper.

Shape suffixes: _P problems, _G responses of one problem's group.

Departures: a group whose rewards are equal up to a tolerance gets exactly zero (comparing floats with ``!=`` would let
rounding noise through, amplified by the division); ``scale="none"`` centres without dividing (Dr. GRPO,
https://arxiv.org/abs/2503.20783). ``scale="task"`` centres each group by its own mean and divides by one standard
deviation for all of a batch, as REINFORCE++ with baseline does (https://arxiv.org/abs/2501.03262), but one for each
task: a group's own deviation is a poor estimate that grows the advantages of groups with a single right or wrong
response, and one over all tasks would let the task whose rewards vary most say how much the others count.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "task", "none"]

FLAT_TOLERANCE = 1e-6
"""Rewards that differ by less than this carry no signal."""


def batch_advantages(
    rewards: Sequence[Tensor], tasks: Sequence[Hashable], eps: float = 1e-6, scale: Scale = "group"
) -> list[Tensor]:
    """The advantages of groups that may differ in size, which is :func:`group_advantages` for each but for ``task``.

    Args:
        rewards: one (G,) vector a group.
        tasks: the task of each group.
        eps: the constant inside the root.
        scale: ``task`` divides by the root of the mean square, over all responses of the groups of one task, of what is
            left of a reward when its group's mean is taken; groups without signal count in that mean.

    Returns:
        One (G,) vector a group, of its dtype; those without signal are exactly zero.
    """
    if scale != "task":
        return [group_advantages(rewards_G, eps, scale) for rewards_G in rewards]
    centred = [group_advantages(rewards_G, eps, "none") for rewards_G in rewards]
    roots = {
        task: (torch.cat([c for c, t in zip(centred, tasks, strict=True) if t == task]).square().mean() + eps).sqrt()
        for task in dict.fromkeys(tasks)
    }
    return [centred_G / roots[task] for centred_G, task in zip(centred, tasks, strict=True)]


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
