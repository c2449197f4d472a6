"""Accelerators by name, and what share of their best numbers a run is assumed to reach."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from spark_rl.errors import UserError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator, by its maker's data sheet."""

    name: str
    memory: float
    """GiB that a process can use."""
    tflops: float | None = None
    """Dense bfloat16 products with float32 sums, 10^12 operations a second; ``None`` where only the size is known."""
    bandwidth: float = 0.0
    """Memory bandwidth, GB/s."""
    link: float = 0.0
    """To the other GPUs of its node, GB/s one way."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40gb", 39.4, 312, 1555, 300),
        Gpu("a100-80gb", 79.2, 312, 2039, 300),
        Gpu("h100-80gb", 79.2, 989, 3350, 450),
        Gpu("h20-96gb", 95.0, 148, 4000, 450),
        Gpu("h200-141gb", 139.0, 989, 4800, 450),
        Gpu("b200-180gb", 178.0, 2250, 8000, 900),
        Gpu("mi300x-192gb", 191.0, 1307, 5300, 448),
        Gpu("l40s-48gb", 44.5, 362, 864, 32),
        Gpu("a10g-24gb", 22.0, 70, 600, 32),
        Gpu("l4-24gb", 22.0, 121, 300, 32),
        Gpu("rtx4090-24gb", 23.5, 165, 1008, 32),
    )
}
"""From the data sheets of NVIDIA and AMD, without sparsity; links are NVLink or Infinity Fabric, PCIe 4 where there is
none."""

UPDATE_SHARE = 0.35
"""Of the products a second that passes over whole sequences reach, forward and back (flash attention, no compiler)."""
DECODE_SHARE = 0.6
"""Of the bandwidth that decoding reaches."""
LINK_SHARE = 0.6
"""Of the link that gathering and reducing shards reach; it overlaps with computing."""
EMBEDDED_LAYER = 0.2e-3
"""Seconds that one layer of the embedded engine takes for one token at least: some fifty small kernels, which a CUDA
graph starts (128 rows, H200: docs/performance.md)."""
RESERVED = 1.5
"""GiB for what no tensor shows: CUDA's context, NCCL's and cuBLAS's buffers."""
FRAGMENTED = 0.05
"""Of activations, caches and gathered weights on top, that the allocator loses between blocks."""
VLLM_WORKSPACE, VLLM_ASLEEP = 3.0, 1.0
"""GiB that vLLM takes beside weights and cache (graphs, activations of a prefill), and what of it stays asleep."""


def gpu_of(text: str) -> Gpu:
    """The GPU of a name, or one that only has a size: ``24`` and ``24gb`` are GiB.

    Raises:
        UserError: there is no such name; the line has the nearest.
    """
    if text in GPUS:
        return GPUS[text]
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:gb|gib)?", text.lower())
    if size and float(size[1]) > 0:
        return Gpu(f"{size[1]} GiB", float(size[1]))
    starting = [name for name in GPUS if name.startswith(text.lower())]
    near = starting or difflib.get_close_matches(text.lower(), GPUS, n=1, cutoff=0.4)
    meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(GPUS)}"
    raise UserError(f"--gpu {text!r} is neither a size in GiB, such as 24, nor a GPU known here; {meant}")
