"""What the program really allocates: torch's own record of every block, kernels' temporaries among them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from spark_rl.config import Config
from spark_rl.learner.handout import load_on_first_rank
from spark_rl.learner.sharded import ShardedLearner
from spark_rl.problem import Group

MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""The environment in which the C library gives every block back to the kernel as soon as it is freed, so that what is
resident is what there is."""


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes above what there was before, at the peak."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    kineto: Any = record.profiler
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def held_by(tensors: list[torch.Tensor]) -> int:
    """Bytes of the storages of tensors, each counted once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def resident(name: str) -> int:
    """Bytes that the kernel counts for this process: ``VmRSS`` now, ``VmHWM`` at most since the mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def on_a_rank(cases: list[tuple[Config, list[Group]]]) -> list[dict[str, int]]:
    """The second update of each case on this rank: ``weights``, all ranks' together, ``held`` bytes of the shards and
    moments, ``taken`` with what the kernel counts above them at the peak, what gloo's threads hold too.

    The process runs in the environment :data:`MAPPED`.
    """
    return [_updated(*case) for case in cases]


def _updated(config: Config, groups: list[Group]) -> dict[str, int]:
    compared = config.objective.kl > 0 and config.model.lora is None
    reference = load_on_first_rank(config) if compared else None
    learner = ShardedLearner(load_on_first_rank(config), config, reference)
    assert "nonfinite" not in learner.update(groups)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident("VmRSS")
    learner.update(groups)
    grown = resident("VmHWM") - before
    models = [learner.loaded.model, *([] if reference is None else [reference.model])]
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    tensors += [t for state in learner.optimiser.state.values() for t in state.values()]
    held = held_by([t.to_local() if hasattr(t, "to_local") else t for t in (t.detach() for t in tensors)])
    weights = sum(p.numel() for p in learner.loaded.model.parameters())
    return {"weights": weights, "held": held, "taken": held + grown}
