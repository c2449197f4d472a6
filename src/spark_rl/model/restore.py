"""A model in memory at other times of its training: as it was before, frozen, and as a checkpoint holds it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.utils import load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError

from spark_rl.errors import ConfigError
from spark_rl.model.loaded import LoadedModel, unwrapped
from spark_rl.model.places import has_adapters
from spark_rl.model.read import read_weights


def frozen_copy(loaded: LoadedModel) -> LoadedModel:
    """The model as it is now, never to be trained: the reference of the KL term."""
    model: Any = deepcopy(loaded.model)
    for layer in model.modules():
        vars(layer).pop("forward", None)  # of gradient checkpointing: it would call the layer that was copied
    model.requires_grad_(False)
    return replace(loaded, model=model, decoder=unwrapped(model).base_model)


def restore_weights(loaded: LoadedModel, folder: Path) -> None:
    """Put the weights of a checkpoint into the model that it was made of.

    Raises:
        ConfigError: the checkpoint can't be read, or is of another model.
    """
    try:
        if has_adapters(folder):
            set_peft_model_state_dict(loaded.model, load_peft_weights(str(folder), device="cpu"))
            return
        model = loaded.causal_lm
        saved = read_weights(type(model), str(folder), dtype=model.dtype)
        model.load_state_dict(saved.state_dict())
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ConfigError):
            raise
        why = " ".join(str(error).split())[:300]
        raise ConfigError(f"the weights in {folder} can't be put into the model: {why}") from None
