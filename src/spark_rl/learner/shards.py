"""What a learner of several ranks saves beside ``model/``: ``shards/``, in the format of torch's distributed
checkpoints, and ``learner.json``.

Tensors are saved under the names of their parameters and without regard to who held which part, so any number of ranks
reads them, one process without ranks too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from spark_rl.files import parse_json, write_json

Named = Sequence[tuple[str, Tensor]]
"""Trained parameters with their names, in float32."""

SHARDS, STATE = "shards", "learner.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


def begin_save(
    path: Path, named: Named, optimiser: torch.optim.Optimizer, schedule: dict[str, float], group: dist.ProcessGroup,
    *, weights: bool,
) -> Callable[[], None]:  # fmt: skip
    """Copy the state of a learner and begin to write it, each rank its part; all ranks call it.

    Args:
        path: an existing folder that all ranks see.
        named: the parameters.
        optimiser: AdamW on them.
        schedule: ``updates`` and ``warm``.
        group: a process group of the CPU that nothing else uses meanwhile.
        weights: whether the parameters themselves are saved: ``model/`` holds them rounded.

    Returns:
        Waits until it is written; on rank 0, until every rank has written its part.
    """
    if dist.get_rank(group) == 0:
        steps = {name: int(optimiser.state[p]["step"]) for name, p in named if optimiser.state.get(p)}
        write_json(path / STATE, {**schedule, "steps": steps})
    saving = async_save(_state(named, optimiser, weights), checkpoint_id=path / SHARDS, process_group=group)
    assert not isinstance(saving, dict), "a future"

    def finish() -> None:
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as one process wants it
        load(_state(named, optimiser, weights), checkpoint_id=path / SHARDS, process_group=group, no_dist=group is None)
    return int(saved["updates"]), float(saved["warm"])


def _state(named: Named, optimiser: torch.optim.Optimizer, weights: bool) -> dict[str, Tensor]:
    """Tensors that share their memory with the learner's."""
    state: dict[str, Tensor] = {}
    for name, parameter in named:
        if optimiser.state.get(parameter):
            state |= {f"{name}.{moment}": optimiser.state[parameter][moment] for moment in MOMENTS}
        if weights:
            state[f"{name}.weight"] = parameter.detach()
    return state
