"""What this machine reaches, and what a training step must take at that speed at least."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from spark_rl.cost.record import FORWARD, TRAINED
from spark_rl.doctor.card import settle
from spark_rl.plan.shape import Sizes


@dataclass(frozen=True, slots=True)
class Roofline:
    """Operations a second, and bytes a second, read and written together."""

    flops: float
    bandwidth: float

    def best(self, other: Roofline) -> Roofline:
        """The faster of two measurements, each part for itself."""
        return Roofline(max(self.flops, other.flops), max(self.bandwidth, other.bandwidth))


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt of a step."""

    prompt: int
    """Its tokens."""
    lengths: list[int]
    """Of its responses."""
    trained: list[int]
    """Lengths of those that are trained on."""


def measure_roofline(dtype: torch.dtype, device: torch.device, repeats: int = 3) -> Roofline:
    """A product of matrices of 2,048 squared (8,192 on a GPU) and a copy of a quarter of a GB, the best of some, on
    torch's threads."""
    side = 2048 if device.type == "cpu" else 8192
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source, sink = torch.ones(2**26, device=device), torch.zeros(2**26, device=device)
    torch.mm(left, right)
    product = min(_seconds(lambda: torch.mm(left, right), device) for _ in range(repeats))
    copy = min(_seconds(lambda: sink.copy_(source), device) for _ in range(repeats))
    return Roofline(2 * side**3 / product, 2 * source.nbytes / copy)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    settle(device)
    began = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - began


def least_seconds(updates: Sequence[Sequence[Asked]], sizes: Sizes, roof: Roofline, width: int, kl: float) -> float:
    """At the speed of the roofline: prefill and updates by their products, decoding by its products or by the weights,
    keys and values that it reads, whichever is slower. A prompt is counted once for all of its responses.

    Args:
        updates: the prompts of each update of a step.
        sizes: of the model.
        roof: of the machine.
        width: bytes of a weight.
        kl: of the objective; where it is positive a reference reads what is trained on once more.
    """
    total = 0.0
    for asked in updates:
        prefill = sum(_products(sizes, one.prompt, []) for one in asked)
        decode = sum(_products(sizes, one.prompt, one.lengths) for one in asked) - prefill
        seen = sum(length * (one.prompt + length / 2) for one in asked for length in one.lengths)
        longest = max((length for one in asked for length in one.lengths), default=0)
        read = width * ((sizes.multiplied + sizes.head) * longest + sizes.cached * seen)
        trained = sum(_products(sizes, one.prompt, one.trained) for one in asked if one.trained)
        passes = TRAINED // FORWARD + (kl > 0)
        total += (prefill + passes * trained) / roof.flops + max(decode / roof.flops, read / roof.bandwidth)
    return total


def _products(sizes: Sizes, prompt: int, lengths: Sequence[int]) -> float:
    """Operations of one pass over a prompt and its responses: layers, head and attention."""
    tokens = sum(lengths)
    attention = prompt**2 / 2 + sum(length * (prompt + length / 2) for length in lengths)
    return FORWARD * (sizes.multiplied * (prompt + tokens) + sizes.head * tokens) + 4 * sizes.attended * attention
