"""The sharded learner on every card, beside the learner of one device on the same groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from spark_rl.doctor.finding import Finding, judged
from spark_rl.doctor.ranks import Numbers, backend_of, on_ranks, world_of
from spark_rl.doctor.update import GRADIENTS, learned, opened, sampled, settings
from spark_rl.learner.handout import load_on_first_rank
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.sharded import ShardedLearner
from spark_rl.model.load import load_model
from spark_rl.problem import Group

ROUNDING = {"float32": 1e-5, "bfloat16": GRADIENTS["bfloat16"]}
"""In bfloat16 the learner of one device rounds its gradients where the sharded one adds them up in float32."""


def sharded_learner(device: torch.device) -> list[Finding]:
    """One update of the embedded default, of all ranks and of one device, in both number formats."""
    _, engine, chat, _ = opened(settings(device))
    groups, world = sampled(engine, chat, 8, 8, 48), world_of(device)
    numbers = on_ranks(partial(_compared, groups=groups), world, device)
    return [
        judged(
            f"sharded learner, {dtype}",
            f"{world} rank{'s' * (world > 1)} ({backend_of(device)}), gradients {numbers[dtype]:.1e} off one device",
            f"of one update of the embedded default; rounding is below {rounding:g}", right=numbers[dtype] < rounding,
        )
        for dtype, rounding in ROUNDING.items()
    ]  # fmt: skip


def _compared(device: torch.device, groups: Sequence[Group]) -> Numbers:
    torch.set_num_threads(1)
    found = {}
    for dtype in ROUNDING:
        config = settings(device, dtype)
        _, right = learned(LocalLearner(load_model(config), config), groups)
        _, sharded = learned(ShardedLearner(load_on_first_rank(config), config), groups)
        found[dtype] = float((sharded - right).norm() / right.norm())
    return found
