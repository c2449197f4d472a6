"""Memory that is not enough: how it is told from other errors, and what is tried then."""

from __future__ import annotations

import re

import torch

_SAID = re.compile(r"out of memory|can't allocate memory|not enough memory|failed to allocate", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left: of a GPU, of the CPU, or of Python."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def let_go(device: torch.device) -> None:
    """Give memory back to the device that nothing uses and torch keeps for itself."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
