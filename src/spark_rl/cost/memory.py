"""How much memory a stage takes at most: of a GPU what torch allocates, else what is resident of this process."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import torch

_STATUS, _MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20


def restart_peak(device: torch.device) -> None:
    """Begin to measure anew; what nobody refers to any more is freed first."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _MARK.exists():
        try:
            _MARK.write_text("5")  # VmHWM begins anew
        except OSError:  # a system that forbids it: peak_mib is the peak of the whole process then
            return


def peak_mib(device: torch.device) -> float | None:
    """MiB at most since :func:`restart_peak`; ``None`` on a system that does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    if not _STATUS.exists():
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"))
    return None if found is None else int(found[1]) / 1024
