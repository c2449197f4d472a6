"""What passes from a learner to an engine: the current weights under the names of the Hugging Face layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

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


@torch.no_grad()
def take_over(model: nn.Module, weights: Weights) -> None:
    """Copy the weights of a policy into another model of the same kind, one tensor at a time.

    Each name is where the model itself would write that part of its weights, so families whose checkpoints are laid out
    in another way than their modules need nothing of their own. A name may come twice; the last value holds.

    Raises:
        ConfigError: a weight is missing, unknown, or of another shape.
    """
    places = _places(unwrapped(model))
    given: set[str] = set()
    opened: _Layer | None = None
    for name, tensor in weights.named():
        place = places.get(name)
        if place is None or place.view.shape != tensor.shape:
            what = "has no place for it" if place is None else f"holds {list(place.view.shape)} there"
            raise ConfigError(f"the weight {name} {list(tensor.shape)} can't be taken over: the model {what}")
        if place.layer is None:
            place.view.copy_(tensor)
        else:
            if opened is not None and opened is not place.layer:
                opened.close()
            opened = place.layer
            opened.fill(name, tensor)
        given.add(name)
    if opened is not None:
        opened.close()
    if missing := sorted(places.keys() - given):
        raise ConfigError(f"{len(missing)} weights were not handed over, the first is {missing[0]}")


@dataclass(slots=True)
class _Layer:
    """The weights of a layer, of which a checkpoint holds some in another order or joined with others."""

    causal_lm: Any
    tensors: dict[str, Tensor]
    numbers: dict[str, Tensor] | None = None
    """Name in the Hugging Face layout -> where each of its elements lies in ``tensors``, joined end to end. Eight bytes
    an element, so only while weights of this layer come in."""

    def fill(self, name: str, value: Tensor) -> None:
        """Put a tensor of the Hugging Face layout where its elements lie."""
        if self.numbers is None:
            numbered, begin = {}, 0
            for own, tensor in self.tensors.items():
                numbered[own] = torch.arange(begin, begin + tensor.numel(), device=tensor.device).view(tensor.shape)
                begin += tensor.numel()
            self.numbers = revert_weight_conversion(self.causal_lm, numbered)
        place_N, value_N, begin = self.numbers[name].reshape(-1), value.reshape(-1), 0
        for tensor in self.tensors.values():
            here_N = ((place_N >= begin) & (place_N < begin + tensor.numel())).nonzero()[:, 0]
            if len(here_N):
                tensor.view(-1)[place_N[here_N] - begin] = value_N[here_N.to(value.device)].to(tensor)
            begin += tensor.numel()

    def close(self) -> None:
        """Let go of what was only needed while weights came in."""
        self.numbers = None


class _Place(NamedTuple):
    """Where a tensor of the Hugging Face layout lies in a model."""

    view: Tensor
    """Part of the model's own weight; of the same shape where ``layer`` says that there is no such part."""
    layer: _Layer | None = None


def _places(causal_lm: Any) -> dict[str, _Place]:
    """Name in the Hugging Face layout -> where it lies, of a model without adapters."""
    tied = set(getattr(causal_lm, "all_tied_weights_keys", None) or ())
    tensors = {name: tensor for name, tensor in causal_lm.state_dict().items() if name not in tied}
    places: dict[str, _Place] = {}
    for _, names in groupby(tensors, key=_layer):
        layer = _Layer(causal_lm, {name: tensors[name] for name in names})
        own = {tensor.untyped_storage().data_ptr() for tensor in layer.tensors.values()}
        for name, view in revert_weight_conversion(causal_lm, dict(layer.tensors)).items():
            is_own = view.untyped_storage().data_ptr() in own
            places[name] = _Place(view) if is_own else _Place(view.to("meta"), layer)
    return places


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
