"""A process group over every card (NCCL), or over two processes of a CPU (gloo): all-reduce, and FSDP2's update.

Each rank is a process of its own, with a time limit, so that a group that hangs is a finding and not a hang.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from spark_rl.doctor.card import timed
from spark_rl.doctor.finding import Finding, judged
from spark_rl.model.weights import gathered

LIMIT = 150.0
"""Seconds that all ranks together may take, from the start of their processes to their end."""
Numbers = dict[str, float]
Work = Callable[[torch.device], Numbers]
"""The device of a rank -> what it measured."""


def all_reduce(device: torch.device) -> list[Finding]:
    """Sums over all ranks, of a few numbers and of many."""
    world = world_of(device)
    numbers = on_ranks(_reduced, world, device)
    return [
        judged(
            f"all-reduce ({backend_of(device)})",
            f"{world} rank{'s' * (world > 1)}, {numbers['rate']:.3g} GB/s, {1e6 * numbers['latency']:.0f} us at least",
            f"sum of {numbers['size'] / 2**20:.0f} MiB, bus bandwidth; of one rank it moves nothing",
            right=numbers["right"] == 1,
        )
    ]  # fmt: skip


def sharded_update(device: torch.device) -> list[Finding]:
    """One AdamW step of a small network under ``fully_shard``, each rank with its part of a batch, beside the same
    network whole with all of it.
    """
    world = world_of(device)
    off = on_ranks(_sharded, world, device)["off"]
    return [
        judged(
            f"FSDP2 ({backend_of(device)})", f"{world} rank{'s' * (world > 1)}, gradients {off:.1e} off one process",
            "fully_shard of torch, float32; below 1e-5 is rounding", right=off < 1e-5,
        )
    ]  # fmt: skip


def world_of(device: torch.device) -> int:
    """All cards, or two processes of a CPU."""
    return torch.cuda.device_count() if device.type == "cuda" else 2


def on_ranks(work: Work, world: int, device: torch.device, limit: float = LIMIT) -> Numbers:
    """What rank 0 measured of ``work``, done by ``world`` processes that form a group.

    Args:
        work: a function of a module, which each process imports.
        world: ranks.
        device: its kind is that of every rank.
        limit: seconds.

    Raises:
        RuntimeError: a rank failed, or not all had ended in time.
    """
    context = get_context("spawn")
    with TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_rank, args=(work, rank, world, device.type, folder, limit)) for rank in range(world)
        ]
        for process in ranks:
            process.start()
        end = time.monotonic() + limit
        for process in ranks:
            process.join(max(0.0, end - time.monotonic()))
        late = [rank for rank, process in enumerate(ranks) if process.is_alive()]
        for process in ranks:
            process.kill()
            process.join()
        failures = sorted(Path(folder).glob("failure-*"), key=lambda path: path.stat().st_mtime_ns)  # the cause first
        if failures:
            raise RuntimeError(failures[0].read_text(encoding="utf-8"))
        if late:
            raise RuntimeError(f"ranks {late} of {world} had not ended after {limit:g} s")
        if any(process.exitcode for process in ranks):
            raise RuntimeError(f"ranks ended with {[process.exitcode for process in ranks]}")
        numbers: Numbers = json.loads((Path(folder) / "numbers").read_text(encoding="utf-8"))
    return numbers


def _rank(work: Work, rank: int, world: int, kind: str, folder: str, limit: float) -> None:
    """One process: join the group, work, and leave numbers or the reason why there are none."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            backend_of(device), init_method=f"file://{folder}/group", rank=rank, world_size=world,
            timeout=timedelta(seconds=limit / 2), device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
        numbers = work(device)
        dist.barrier()
        dist.destroy_process_group()
        if rank == 0:
            (Path(folder) / "numbers").write_text(json.dumps(numbers), encoding="utf-8")
    except Exception as error:  # noqa: BLE001  # this process ends here, and says to the other one why
        why = f"rank {rank}: {type(error).__name__}: {' '.join(str(error).split())}"
        (Path(folder) / f"failure-{rank}").write_text(why, encoding="utf-8")


def backend_of(device: torch.device) -> str:
    """What carries tensors between the ranks."""
    return "nccl" if device.type == "cuda" else "gloo"


def _reduced(device: torch.device) -> Numbers:
    rank, world = dist.get_rank(), dist.get_world_size()
    small = torch.full((8,), float(rank + 1), device=device)
    dist.all_reduce(small)
    right = bool((small == world * (world + 1) / 2).all())
    large = torch.ones(2**26 if device.type == "cuda" else 2**18, device=device)
    size = large.numel() * large.element_size()
    seconds = timed(device, partial(dist.all_reduce, large), 5)
    return {
        "right": float(right), "size": float(size), "rate": 2 * (world - 1) / world * size / seconds / 1e9,
        "latency": timed(device, partial(dist.all_reduce, torch.ones(8, device=device)), 5),
    }  # fmt: skip


def _sharded(device: torch.device) -> Numbers:
    rank, world = dist.get_rank(), dist.get_world_size()
    whole, shards = _network(device), _network(device)
    for layer in shards:
        fully_shard(layer, mesh=init_device_mesh(device.type, (world,)))
    fully_shard(shards, mesh=init_device_mesh(device.type, (world,)))
    draw = torch.Generator().manual_seed(1)
    batch, target = (torch.randn(8 * world, 33, generator=draw).to(device) for _ in range(2))
    mine = slice(8 * rank, 8 * (rank + 1))
    _loss(shards, batch[mine], target[mine]).backward()  # type: ignore[no-untyped-call]
    _loss(whole, batch, target).backward()  # type: ignore[no-untyped-call]
    found = torch.cat([_full(p.grad).flatten() for p in shards.parameters()])
    right = torch.cat([_full(p.grad).flatten() for p in whole.parameters()])
    return {"off": float((found - right).norm() / right.norm())}


def _network(device: torch.device) -> nn.Sequential:
    torch.manual_seed(0)  # this process has no other use for its random numbers
    return nn.Sequential(nn.Linear(33, 65), nn.Sequential(nn.GELU(), nn.Linear(65, 33))).to(device)


def _loss(network: nn.Module, batch: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(network(batch), target)


def _full(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "every weight takes part"
    return gathered(tensor)
