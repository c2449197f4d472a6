"""What the program really allocates: torch's own record of every block, kernels' temporaries among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


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
