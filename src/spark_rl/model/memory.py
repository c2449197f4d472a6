"""Memory of the CPU that is used again, and memory that is not enough: how it is told from other errors, and what is
tried then."""

from __future__ import annotations

import ctypes
import os
import re
import sys

import torch

HELD_BLOCK = 2**28
"""Bytes of a tensor that is freed for the next ones, and not given back to the system at once."""
HELD = 2**31 - 1
"""Bytes that are held at most, at the end of the heap."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)

_SAID = re.compile(r"out of memory|can't allocate memory|not enough memory|failed to allocate", re.IGNORECASE)


def hold_freed_memory() -> None:
    """Let glibc keep what tensors free for those that come after, which the system would have to clear page by page
    while every other thread waits: a million pages a step of a small model. A process that was told otherwise, by
    ``MALLOC_*`` or ``GLIBC_TUNABLES``, or that has another allocator, goes on as before."""
    if not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        _tell_libc("mallopt", _TRIM_THRESHOLD, HELD)
        _tell_libc("mallopt", _MMAP_THRESHOLD, HELD_BLOCK)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left: of a GPU, of the CPU, or of Python."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def let_go(device: torch.device) -> None:
    """Give memory back to the device that nothing uses, and that torch or :func:`hold_freed_memory` keeps."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        _tell_libc("malloc_trim", 0)


def _tell_libc(name: str, *arguments: int) -> None:
    """Call a function of the C library, where it has one of this name."""
    function = getattr(_LIBC, name, None)
    if function is not None:
        function(*arguments)
