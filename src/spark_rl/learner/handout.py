"""A model that the first rank alone reads, handed out to all ranks tensor by tensor.

The first rank loads it on the CPU, with every check that a model of one process is put to; what is sent to the others
are its modules on torch's ``meta`` device, without data. When ``fully_shard`` has divided these, each tensor is sent
whole, in the number format that it was read in, and each rank keeps its part. So a rank never holds more than its
shards and one tensor; the machine of the first holds the model too, less what has been handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from spark_rl.config import Config
from spark_rl.errors import ConfigError, UserError
from spark_rl.model.load import UNREADABLE, Description, checkpoint_layers, describe_model, load_model, resolve_device
from spark_rl.model.loaded import LoadedModel, unwrapped
from spark_rl.model.score import Scorer

PATIENCE = timedelta(hours=6)
"""For which the other ranks wait for the first, which may have to download the model."""


def load_on_first_rank(config: Config, path: str | Path | None = None) -> LoadedModel:
    """What :func:`spark_rl.model.load.load_model` loads, without data but with ``held``; all ranks call it.

    Raises:
        UserError: on every rank, what one of them can't load, in one line.
        RuntimeError: on every other rank, what else failed on one of them.
    """
    first = dist.get_rank() == 0
    texts: LoadedModel | Description
    held: dict[str, Tensor] = {}
    mine: LoadedModel | Exception | None = None
    failure: Exception | None = None
    try:
        device = resolve_device(config.model.device)
        if first:
            texts = _read(config, path)
            mine, held = _without_data(texts)
        else:
            texts = describe_model(config, path)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other ranks wait for this one
        failure, mine = error, _sendable(error)
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, mine, dist.new_group(backend="gloo", timeout=PATIENCE))
    if failures := [failure or one for one in told if isinstance(one, Exception)]:
        raise failures[0]
    loaded: LoadedModel = told[0]
    if config.model.gradient_checkpointing:
        checkpoint_layers(loaded.model)
    return replace(
        loaded, device=device, banned=None if loaded.banned is None else loaded.banned.to(device),
        tokenizer=texts.tokenizer, processor=texts.processor, held=held if first else dict(_tensors(loaded.model)),
    )  # fmt: skip


@torch.no_grad()
def hand_out(scorer: Scorer, *, offload: bool) -> None:
    """Give a divided model without data its weights, and let go of those that are held; all ranks call it.

    Args:
        scorer: of a model that :func:`load_on_first_rank` loaded.
        offload: whether shards lie in the memory of the CPU.
    """
    model, device, held = scorer.model, scorer.loaded.device, scorer.loaded.held
    assert held is not None, "or there is nothing to hand out"
    scorer.to_empty(device=torch.device("cpu") if offload else device)
    parameters = dict(model.named_parameters())
    for name in list(held):
        whole = held.pop(name)
        whole = torch.empty_like(whole, device=device) if whole.is_meta else whole.to(device).contiguous()
        dist.broadcast(whole, 0)
        if name in parameters:
            parameters[name].copy_(divided(whole, parameters[name]))
        else:
            owner, _, buffer = name.rpartition(".")
            setattr(model.get_submodule(owner), buffer, whole)


def divided(whole: Tensor, like: Tensor) -> Tensor:
    """The shards of a tensor that each rank has whole, in the number format and the place of others."""
    assert isinstance(like, DTensor), "fully_shard makes it one"
    whole = whole.to(like.device_mesh.device_type)
    shards: Tensor = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return shards.to(device=like.device, dtype=like.dtype)


def _read(config: Config, path: str | Path | None) -> LoadedModel:
    """The whole model, on the CPU; kernels that need a GPU are named after the checks, which torch's attention passes.

    Raises:
        ConfigError: it can't be loaded.
    """
    wanted, here = config.model.attention, {"device": "cpu"}
    if wanted == "flash_attention_2":
        here["attention"] = "sdpa"
    loaded = load_model(config.with_model(**here), path)
    if "attention" in here:
        try:
            loaded.causal_lm.set_attn_implementation(wanted)
        except UNREADABLE as error:
            raise ConfigError(f"model.attention={wanted} can't be used: {' '.join(str(error).split())[:300]}") from None
    return loaded


def _without_data(loaded: LoadedModel) -> tuple[LoadedModel, dict[str, Tensor]]:
    """A copy of a model on the meta device, without tokenizer, processor and recomputation, and the tensors by name."""
    held = dict(_tensors(loaded.model))
    empty: dict[int, Any] = {id(t): torch.empty_like(t, device="meta") for t in loaded.model.buffers()}
    for parameter in loaded.model.parameters():
        data = torch.empty_like(parameter, device="meta")
        empty[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
    model: Any = deepcopy(loaded.model, empty)
    for layer in model.modules():
        vars(layer).pop("forward", None)  # of gradient checkpointing: it would call the layer that was copied
    sent = replace(loaded, model=model, decoder=unwrapped(model).base_model, tokenizer=None, processor=None)
    return sent, held


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters by name, tied ones once, and buffers, in their own number formats, whatever becomes of the model's."""
    yield from ((name, parameter.detach()) for name, parameter in model.named_parameters())
    yield from model.named_buffers(remove_duplicate=False)


def _sendable(error: Exception) -> Exception:
    """What the other ranks are told."""
    if isinstance(error, UserError):
        return error
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return RuntimeError(f"rank {dist.get_rank()} failed to load the model: {line}")
