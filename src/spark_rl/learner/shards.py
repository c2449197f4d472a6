"""What a learner saves beside ``model/``: ``shards/``, safetensors that torch's distributed checkpoints write and read,
and ``learner.json``.

Tensors are saved under the names of their parameters and without regard to who held which part, so any number of ranks
reads what any number has saved; a learner on one device is one without the others. Reading them runs nothing, while
torch's own format has a pickle in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from spark_rl.files import parse_json, write_json

Named = Sequence[tuple[str, Tensor]]
"""Trained parameters with their names, in float32."""

SHARDS, STATE = "shards", "learner.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
FILE_BYTES = 1 << 28
"""A rank's file is put together in memory before it is written, so there are several."""


def begin_save(
    path: Path, named: Named, optimiser: torch.optim.Optimizer, schedule: dict[str, float],
    group: dist.ProcessGroup | None, *, weights: bool,
) -> Callable[[], None]:  # fmt: skip
    """Copy the state of a learner and begin to write it, each rank its part; all ranks call it.

    Args:
        path: an existing folder that all ranks see.
        named: the parameters.
        optimiser: AdamW on them.
        schedule: ``updates`` and ``warm``.
        group: a process group of the CPU that nothing else uses meanwhile; ``None`` for one process, whose state is
            written when this returns.
        weights: whether the parameters themselves are saved: ``model/`` holds them rounded.

    Returns:
        Waits until it is written; on rank 0, until every rank has written its part.
    """
    state = _state(named, optimiser, weights)
    if group is None or dist.get_rank(group) == 0:
        steps = {name: int(optimiser.state[p]["step"]) for name, p in named if optimiser.state.get(p)}
        write_json(path / STATE, {**schedule, "steps": steps})
        (path / SHARDS).mkdir(exist_ok=True)  # ranks that died while they wrote it left files of the same names
    ranks = 1 if group is None else dist.get_world_size(group)
    writer = HuggingFaceStorageWriter(str(path / SHARDS), _files(state, ranks), save_distributed=True)
    if group is None:
        with _plainly(), _one_process():
            save(state, storage_writer=writer, no_dist=True)
        return lambda: None
    saving = async_save(state, storage_writer=writer, process_group=group)
    assert not isinstance(saving, dict), "a future"

    def finish() -> None:
        with _plainly():
            saving.result()  # type: ignore[union-attr]

    return finish


@torch.no_grad()
def restore(
    path: Path, named: Named, optimiser: torch.optim.Optimizer, group: dist.ProcessGroup | None, *, weights: bool
) -> tuple[int, float]:
    """Give parameters and optimiser back what :func:`begin_save` wrote; (``updates``, ``warm``).

    Args:
        path: the folder.
        named: the parameters, whole or in shards.
        optimiser: AdamW on them.
        group: of the ranks that all call this; ``None`` for one process.
        weights: whether the parameters themselves were saved.
    """
    saved = parse_json((path / STATE).read_text(encoding="utf-8"))
    optimiser.state.clear()
    for name, parameter in named:
        if name in saved["steps"]:
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            optimiser.state[parameter] = {"step": torch.tensor(float(saved["steps"][name])), **moments}
    state = _state(named, optimiser, weights)
    if state:
        reader = HuggingFaceStorageReader(str(path / SHARDS))
        with _plainly(), _one_process():
            load(state, storage_reader=reader, process_group=group, no_dist=group is None)
    return int(saved["updates"]), float(saved["warm"])


@contextmanager
def _plainly() -> Iterator[None]:
    """Within, what goes wrong is raised as the exception it was: torch wraps that of each rank in one of its own, which
    is no ``Exception``.
    """
    try:
        yield
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first if isinstance(first, Exception) else RuntimeError(str(first)) from None


@contextmanager
def _one_process() -> Iterator[None]:
    """Not in the thread that waits for a checkpoint: filters of warnings are those of all threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as one process wants it
        yield


def _files(state: Mapping[str, Tensor], ranks: int) -> dict[str, int]:
    """Which file of its rank each tensor goes into, counted from 1."""
    files: dict[str, int] = {}
    number, held = 1, 0
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size() // ranks
        if held and held + size > FILE_BYTES:
            number, held = number + 1, 0
        files[name] = number
        held += size
    return files


def _state(named: Named, optimiser: torch.optim.Optimizer, weights: bool) -> dict[str, Tensor]:
    """Tensors that share their memory with the learner's."""
    state: dict[str, Tensor] = {}
    for name, parameter in named:
        if optimiser.state.get(parameter):
            state |= {f"{name}.{moment}": optimiser.state[parameter][moment] for moment in MOMENTS}
        if weights:
            state[f"{name}.weight"] = parameter.detach()
    return state
