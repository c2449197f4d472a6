"""Weights on their way from one process to others: in buckets, so that never the whole model is anywhere twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

BUCKET = 2**28
"""Bytes of weights that travel together, or one tensor if it is larger."""

Bucket = list[tuple[str, str, tuple[int, ...], Any]]
"""(name, number format, shape, bytes) of some weights. Arrays of bytes are what Ray shares without copying."""


def buckets(named: Iterable[tuple[str, Tensor]], size: int = BUCKET) -> Iterator[Bucket]:
    """Weights in buckets of about ``size`` bytes, on the CPU."""
    bucket: Bucket = []
    held = 0
    for name, tensor in named:
        array = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if held and held + array.nbytes > size:
            yield bucket
            bucket, held = [], 0
        bucket.append((name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), np.array(array)))
        held += array.nbytes
    if bucket:
        yield bucket


def unpacked(bucket: Bucket) -> Iterator[tuple[str, Tensor]]:
    """The weights of a bucket."""
    for name, dtype, shape, array in bucket:
        yield name, torch.from_numpy(np.array(array)).view(getattr(torch, dtype)).reshape(shape)


@dataclass(frozen=True, slots=True)
class Incoming:
    """Weights that arrive bucket by bucket, for an engine to take over."""

    version: int
    arriving: Iterator[Bucket]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """See :class:`spark_rl.model.weights.Weights`."""
        for bucket in self.arriving:
            yield from unpacked(bucket)
