"""Ranks for tests: processes that make the same calls, with gloo between them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from transformers.utils import logging

PATIENCE = timedelta(seconds=60)
"""Ranks that make unequal calls wait for each other; here, not for long."""


def on_ranks(ranks: int, function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """What ``function(*args)`` returns on each of so many ranks; what it raises is raised here."""
    folder.mkdir(parents=True, exist_ok=True)
    spawn(_rank, (ranks, function, folder, args), nprocs=ranks)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(ranks)]


def _rank(rank: int, ranks: int, function: Callable[..., Any], folder: Path, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks, timeout=PATIENCE
    )
    torch.save(function(*args), folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
