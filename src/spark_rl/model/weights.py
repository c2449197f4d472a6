"""What passes from a learner to an engine: the current weights under the names of the Hugging Face layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from spark_rl.errors import ConfigError
from spark_rl.model.loaded import unwrapped

_LAYER = re.compile(r".*?\.\d+\.")


class Weights(Protocol):
    """The weights of a policy. An engine that holds a copy takes them over; one that shares them only counts."""

    @property
    def version(self) -> int:
        """Which policy this is: it grows with every update."""
        ...

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """(name as in a checkpoint of the model, tensor), adapters merged, tied weights once, layer by layer.

        A tensor is valid until the next one is asked for: an engine that keeps it copies it.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The weights of a module in this process, or of one whose shards lie on several ranks: then all of them ask for
    :meth:`named` in step, and each is given the whole tensors.
    """

    model: nn.Module
    """A transformers model or its peft wrapper."""
    version: int
    dtype: torch.dtype | None = None
    """The number format that floating-point weights are handed over in; ``None`` for their own."""

    @torch.no_grad()
    def named(self) -> Iterator[tuple[str, Tensor]]:
        """See :class:`Weights`. Merged weights exist for one layer at a time."""
        causal_lm: Any = unwrapped(self.model)
        _check_mergeable(causal_lm)
        tied = set(getattr(causal_lm, "all_tied_weights_keys", None) or ())
        deltas = {
            f"{name}.base_layer.weight": module
            for name, module in causal_lm.named_modules()
            if isinstance(module, LoraLayer) and hasattr(module, "get_delta_weight")
        }
        tensors = {
            name: tensor
            for name, tensor in causal_lm.state_dict().items()
            if "lora_" not in name and name.replace(".base_layer.", ".") not in tied
        }
        for _, names in groupby(tensors, key=_layer):
            bucket = {
                name.replace(".base_layer.", "."): self._whole(_merged(tensors[name], deltas.get(name)))
                for name in names
            }
            yield from revert_weight_conversion(causal_lm, bucket).items()

    def _whole(self, tensor: Tensor) -> Tensor:
        """Gathered from its shards, in the number format asked for."""
        if self.dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        return gathered(tensor)


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor whose shards lie on several ranks, which all ask; other tensors as they are."""
    sharded: Any = tensor.detach()
    if not hasattr(sharded, "full_tensor"):
        return tensor
    whole: Tensor = sharded.to(sharded.device_mesh.device_type).full_tensor()
    return whole


def _check_mergeable(causal_lm: nn.Module) -> None:
    """Raises :class:`ConfigError` for adapters that are more than a matrix to be added."""
    for name, module in causal_lm.named_modules():
        other = isinstance(module, BaseTunerLayer) and not isinstance(module, LoraLayer)
        if other or isinstance(module, ModulesToSaveWrapper) or any(getattr(module, "use_dora", {}).values()):
            raise ConfigError(f"the adapters of {name} can't be merged for an engine with weights of its own: only "
                              "plain LoRA can, without use_dora and modules_to_save")  # fmt: skip


def _layer(name: str) -> str:
    """The part of a weight's name up to its layer's number: converters of a layer need its weights together."""
    found = _LAYER.match(name)
    return found[0] if found else ""


def _merged(weight: Tensor, adapted: Any) -> Tensor:
    """The weight with its adapters added."""
    if adapted is None:
        return weight
    for adapter in adapted.active_adapters:
        weight = weight + adapted.get_delta_weight(adapter).to(weight.dtype)
    return weight
