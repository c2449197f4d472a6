"""A rehearsal: the program's own update on tensors without data, counting the bytes that live and the products made.

Weights are on torch's ``meta`` device, which computes shapes and nothing else; token ids and masks are real. So the
code that a run executes is the code that is counted: how it packs micro-batches, what autograd keeps, when a gradient
is let go. A model of 7 billion weights takes seconds and no memory.

Departures from the run: a number read off a tensor without data is 1, and attention is always the fused kernel, which
keeps queries, keys, values, its output and one number a query (what flash attention and torch's own kernels keep).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv

NAME, UNMASKED = "spark_rl_rehearsed", "spark_rl_rehearsed_unmasked"
"""Attention implementations: with a mask tensor like ``sdpa``, and without like ``flash_attention_2``."""

_aten: Any = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one rehearsal of an update found, in bytes and floating-point operations."""

    model: int
    """All weights as the model holds them, float32 copies of those in half precision too."""
    gradients: int
    moments: int
    reference: int
    activations: int
    """At the peak of the update, logits left out."""
    logits: int
    forward: int
    """At the peak of a pass without gradients, beyond what is always there."""
    flops: float
    """Products of the update of one group, passes of the reference left out."""
    gathered: int = 0
    """Of ranks, at the peak of the update: units that are whole, gradients that are not divided yet."""
    passing: int = 0
    """Of ranks, at the peak of a pass without gradients: units that are whole."""


class Rehearsal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, operations on tensors without data are carried out on shapes; bytes and products are counted.

    A storage counts from the operation that made it until the last tensor on it is gone.
    """

    def __init__(self, vocabulary: int = 0) -> None:
        """Begin to count; tensors of two dimensions whose last is ``vocabulary`` count as logits."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary = vocabulary
        self.live = 0
        """Bytes of all storages made so far that are still there."""
        self.peak = 0
        """The largest :attr:`live` since the last :meth:`restart`."""
        self.parts: dict[str, int] = {}
        """What :attr:`peak` is made of: ``activations``, ``logits``, and what :meth:`making` named."""
        self.flops = 0
        """Floating-point operations of matrix products and attention since the last :meth:`restart`."""
        self._part: str | None = None
        self._live: dict[str, int] = {}
        self._known: dict[int, weakref.ref[Any]] = {}
        self._named: dict[int, str] = {}

    def restart(self) -> None:
        """Begin a new peak and a new count of products."""
        self.peak, self.parts, self.flops = self.live, dict(self._live), 0

    @contextmanager
    def making(self, part: str) -> Iterator[None]:
        """Within, what is made counts as this part."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    def assign(self, tensor: Tensor, part: str) -> None:
        """Count a tensor as this part from now on."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            self._add(self._named[key], -size)
            self._named[key] = part
            self._add(part, size)

    def hold(self, tensors: Sequence[Tensor]) -> None:
        """Count storages that were made before, such as weights."""
        for tensor in tensors:
            self._count(tensor)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        logits = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
        self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))
        self._named[key] = self._part or ("logits" if logits else "activations")
        self._add(self._named[key], size)
        self.live += size
        if self.live > self.peak:
            self.peak, self.parts = self.live, dict(self._live)

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self._add(self._named.pop(key), -size)
        del self._known[key]

    def _add(self, part: str, size: int) -> None:
        self._live[part] = self._live.get(part, 0) + size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        found = [*_tensors(args), *_tensors(kwargs.values())]
        if any(tensor.is_meta for tensor in found):
            if func is _aten._local_scalar_dense.default:
                return 1.0 if found[0].is_floating_point() else 1
            if func is _aten._to_copy.default and torch.device(kwargs.get("device") or "meta").type == "cpu":
                return torch.ones(found[0].shape, dtype=kwargs.get("dtype") or found[0].dtype)
            if func in _INDEXED:
                args = (args[0], _numbered(args[1]), *args[2:])
            if not all(tensor.is_meta for tensor in _tensors(args)):
                args = tuple(_without_data(value) for value in args)
            kwargs = {name: _without_data(value) for name, value in kwargs.items()}
        out = func(*args, **kwargs)
        counted = flop_registry.get(func._overloadpacket)
        if counted is not None:
            self.flops += counted(*args, **kwargs, out_val=out)
        for tensor in _tensors((out,)):
            self._count(tensor)
        return out


_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten._unsafe_index.Tensor)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Those among values and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _numbered(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Masks among indices as the places that they mean: how many there are is known from their data alone."""
    numbered: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not index.is_meta:
            numbered += index.nonzero().unbind(-1)
        else:
            numbered.append(index)
    return numbered


def _without_data(value: Any) -> Any:
    """Tensors where the weights are: an accelerator would hold them too, but they are too small to matter."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, list | tuple):
        return [_without_data(one) for one in value]
    return value


def rehearsed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface, fused: (B, H, T, D) queries against (B, K, S, D) keys and values.

    Keys and values are repeated for their query heads, as transformers does for torch's kernels whenever there is a
    mask.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    if attention_mask is not None and groups > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    out = fused(query, key, value, attention_mask, scaling)
    return out.transpose(1, 2).contiguous(), None


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """(B, H, T, D) of the fused kernel, which is named here because torch would choose another without data."""
    if mask is not None:
        mask = mask if mask.is_meta else torch.empty_like(mask, device="meta")
        if mask.dtype == torch.bool:  # as torch converts it
            mask = torch.zeros_like(mask, dtype=query.dtype)
    out, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, mask is None, attn_mask=mask, scale=scaling or 1 / math.sqrt(query.shape[-1])
    )
    return out  # type: ignore[no-any-return]


AttentionInterface.register(NAME, rehearsed_attention)
AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])
AttentionInterface.register(UNMASKED, rehearsed_attention)
AttentionMaskInterface.register(UNMASKED, AttentionMaskInterface()["flash_attention_2"])
