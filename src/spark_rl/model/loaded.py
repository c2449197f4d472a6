"""A model in memory, with what the engine and the learner need to know of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A language model, seeing or not, with what the engine and the learner need to know of it."""

    model: nn.Module
    """What is trained and saved: the transformers model, or its peft wrapper."""
    tokenizer: Any
    decoder: nn.Module
    """The stack that turns tokens into final hidden states."""
    device: torch.device
    processor: Any = None
    """Turns chats with images into tokens and pixels; ``None`` for a model that sees nothing."""
    banned: Tensor | None = None
    """Token ids that no response may hold: those that stand for images."""
    held: dict[str, Tensor] | None = None
    """Where the model is on torch's meta device: its parameters and buffers by name, on the rank that read them; on the
    others those without data."""
    windows: tuple[int | None, ...] | None = None
    """What :func:`spark_rl.model.architecture.prove_decoder` returned; ``None`` where nothing was proven."""

    @property
    def causal_lm(self) -> Any:
        """The transformers model itself, adapters in place."""
        return unwrapped(self.model)

    @property
    def adapted(self) -> bool:
        """Whether there are adapters, which can be switched off."""
        return hasattr(self.model, "disable_adapter")

    def head(self, hidden: Tensor) -> Tensor:
        """(..., H) final hidden states -> (..., V) logits in float32, -inf for the banned tokens.

        Engine and learner both come through :meth:`project` and :meth:`possible`, so a token that can't be sampled has
        no probability in training.
        """
        return self.possible(self.project(hidden))

    def project(self, hidden: Tensor) -> Tensor:
        """(..., H) final hidden states -> (..., V) what the output layer makes of them, in its own number format."""
        output_layer: Any = self.causal_lm.get_output_embeddings()
        projected: Tensor = output_layer(hidden)
        return projected

    def logits(self, projected: Tensor) -> Tensor:
        """(..., V) what the output layer made -> (..., V) logits in float32, as the model itself computes them."""
        logits = projected.float()
        config = self.causal_lm.config.get_text_config()
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        if (scale := getattr(config, "logit_scale", None)) is not None:
            logits = logits * scale
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / divisor
        return logits

    def possible(self, projected: Tensor) -> Tensor:
        """The same, -inf for the banned tokens."""
        logits = self.logits(projected)
        return logits if self.banned is None else logits.index_fill(-1, self.banned, float("-inf"))

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Weights (or adapters) and tokenizer or processor, loadable with ``from_pretrained``; of ``state``, where the
        tensors of the model itself are shards.
        """
        model: Any = self.model
        with warnings.catch_warnings():  # of adapters whose base are adapters too: the vocabulary is never resized
            warnings.filterwarnings("ignore", "Could not find a config file in")
            model.save_pretrained(folder, state_dict=state)
        (self.processor or self.tokenizer).save_pretrained(folder)


def unwrapped(model: Any) -> Any:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
