"""Weights from a learner into vLLM: in buckets, through files in shared memory.

vLLM's workers are processes of their own. A bucket is written to shared memory, each worker reads from it what it needs
(with tensor parallelism its part), and the file is removed: the weights exist twice for one bucket at a time. A sender
that is killed leaves its file in memory for good; the next one removes it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from spark_rl.lock import LOCK, hold, holder
from spark_rl.model.weights import Weights

BUCKET = 256 * 2**20
"""Bytes sent together, or one tensor if it is larger."""
SHARED = Path("/dev/shm")  # noqa: S108  # memory that processes share, on Linux
"""Where buckets are written, if there is such a place; else where temporary files are."""
PREFIX, FILE = "spark-rl-weights-", "bucket.safetensors"
"""How the folders of buckets begin, and the file in each."""
YOUNG = 60.0
"""Seconds in which a folder may have been made and not be held yet."""


def send(weights: Weights, call: Callable[..., Any], bucket: int = BUCKET) -> None:
    """Replace the weights of a ``vllm.LLM`` by the learner's, with its own calls for that.

    Args:
        weights: the learner's; iterated once.
        call: calls a method of a ``vllm.LLM`` that was made with the arguments of
            :func:`spark_rl.engine.vllm.arguments.engine_arguments`, or of servers that were started with them.
        bucket: bytes.
    """
    place = SHARED if SHARED.is_dir() else Path(tempfile.gettempdir())
    _sweep(place)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as folder, hold(Path(folder)):
        path = Path(folder) / FILE
        call("start_weight_update")
        for tensors in buckets(weights.named(), bucket):
            save_file(tensors, path)
            call("update_weights", {"update_info": {"path": str(path)}})
            path.unlink()
        call("finish_weight_update")


def _sweep(place: Path) -> None:
    """Remove what senders left that were killed, and nothing else."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            if time.time() - folder.stat().st_mtime > YOUNG and holder(folder) is None:
                for name in (FILE, LOCK):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()


def buckets(named: Iterable[tuple[str, Tensor]], size: int, device: str = "cpu") -> Iterator[dict[str, Tensor]]:
    """Tensors gathered up to ``size`` bytes, copied to a device: one is valid until the next is asked for."""
    gathered: dict[str, Tensor] = {}
    held = 0
    for name, tensor in named:
        bytes_ = tensor.numel() * tensor.element_size()
        if gathered and held + bytes_ > size:
            yield gathered
            gathered, held = {}, 0
        gathered[name] = tensor.detach().to(device, copy=True).contiguous()
        held += bytes_
    if gathered:
        yield gathered
