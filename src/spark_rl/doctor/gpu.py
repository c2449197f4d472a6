"""``spark-rl doctor --gpu``: what only a GPU can show, tried wherever one is at hand.

Where there is none, the parts that can run on a CPU do, so that the code is proven if not the card.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import torch

from spark_rl.doctor.card import cards, matrices, memory_speed
from spark_rl.doctor.finding import Finding
from spark_rl.doctor.ranks import all_reduce, sharded_update
from spark_rl.doctor.rollouts import vllm
from spark_rl.doctor.sharded import sharded_learner
from spark_rl.doctor.update import flash_attention, learning, parity, repeats, scale, scarce

Part = Callable[[torch.device], list[Finding]]

PARTS: Mapping[str, Part] = {
    "cards": cards,
    "matrices": matrices,
    "memory speed": memory_speed,
    "parity": parity,
    "twice the same": repeats,
    "training": learning,
    "size": scale,
    "memory that is not enough": scarce,
    "flash attention": flash_attention,
    "all-reduce": all_reduce,
    "FSDP2": sharded_update,
    "sharded learner": sharded_learner,
    "vLLM": vllm,
}
"""Name -> what is tried, in the order of the table."""


def tried(name: str, part: Part, device: torch.device) -> list[Finding]:
    """The findings of a part.

    Whatever it raises is a finding: a driver, a library or a card that is broken must not hide the other parts.
    """
    try:
        return part(device)
    except Exception as error:  # noqa: BLE001  # the machine under examination may fail in any way
        why = " ".join(str(error).split())[:300]
        return [Finding(name, "failed", f"{type(error).__name__}: {why}", "wrong")]
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
