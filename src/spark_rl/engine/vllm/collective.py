"""Weights from a learner into vLLM servers over NCCL: this process is rank 0 of a group, their workers the rest.

vLLM's own trainer side (``NCCLTrainerWeightTransferEngine``) sends a whole model in one update; here it is asked for
one bucket at a time, which vLLM's workers take as parts of one update, so that merged or gathered weights never exist
twice. It needs vLLM beside the learner, and a GPU.

Written against vLLM 0.32's public interface; it has not been run: NCCL wants a GPU a rank (docs/vllm.md).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from spark_rl.engine.vllm.arguments import import_vllm
from spark_rl.engine.vllm.transfer import BUCKET, buckets
from spark_rl.errors import UserError
from spark_rl.model.weights import Weights

Tell = Callable[[str, Sequence[Mapping[str, Any]]], None]
"""Calls a method of every server at the same time, with a body for each."""


class Collective:
    """The learner's end."""

    def __init__(self, sizes: Sequence[int], hosts: Sequence[str], tell: Tell) -> None:
        """Connect.

        Args:
            sizes: how many workers each server has.
            hosts: where the servers are.
            tell: calls them.

        Raises:
            UserError: this process has no GPU, or no vLLM.
        """
        if not torch.cuda.is_available():
            raise UserError("engine.servers take over weights over NCCL, and this process has no GPU to send them from")
        import_vllm()
        from vllm.distributed.weight_transfer.nccl_engine import (  # noqa: PLC0415  # vLLM may be missing
            NCCLTrainerInitInfo,
            NCCLTrainerWeightTransferEngine,
        )

        self._bucket = Bucket()
        self._engine: Any = NCCLTrainerWeightTransferEngine.trainer_init(
            NCCLTrainerInitInfo(
                rank=0, master_address=own_address(hosts), master_port=_open_port(), world_size=1 + sum(sizes)
            ),
            client=Servers(sizes, tell),
            source=self._bucket,
        )

    def send(self, weights: Weights, call: Callable[..., None], bucket: int = BUCKET) -> None:
        """Replace the weights of all servers. ``call`` begins and ends the update, as for files."""
        call("start_weight_update")
        for tensors in buckets(weights.named(), bucket, "cuda"):
            self._bucket.tensors = tensors
            self._engine.send_weights()
        self._bucket.tensors = {}
        call("finish_weight_update")

    def close(self) -> None:
        """Leave the group."""
        self._engine.shutdown()


class Bucket:
    """Weights to send, as vLLM's ``WeightSource`` has them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def metadata(self) -> list[Any]:
        """Name, format and shape of each."""
        from vllm.distributed.weight_transfer import ParamMeta  # noqa: PLC0415  # vLLM may be missing

        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self.tensors.items())


class Servers:
    """All servers as one for vLLM's trainer side (``VLLMWeightSyncClient``)."""

    def __init__(self, sizes: Sequence[int], tell: Tell) -> None:
        self._first = list(accumulate(sizes[:-1], initial=1))
        self._tell = tell

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """The workers of a server take the ranks behind those of the servers before it."""
        self._tell(
            "init_weight_transfer_engine",
            [{"init_info": init_info | {"rank_offset": first}} for first in self._first],
        )

    def start_weight_update(self) -> None:
        """An update is begun for all its buckets together."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """The next bucket comes."""
        self._tell("update_weights", [{"update_info": update_info}] * len(self._first))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """It is ended for all its buckets together."""


def own_address(hosts: Sequence[str]) -> str:
    """Where servers reach this machine: its address on the way to the first that is elsewhere."""
    found = "127.0.0.1"
    for host in hosts:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((host, 9))  # sends nothing
            found = str(way.getsockname()[0])
        if not found.startswith("127."):
            break
    return found


def _open_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
