"""Adapters as somebody hands them over, a configuration of peft, in the words of ``model.lora``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig as PeftLoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from spark_rl.errors import ConfigError
from spark_rl.model.loaded import unwrapped

_NO_MATTER = {"task_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version"}
"""Of peft's settings those that do not change what is trained."""


def check_embeddings(model: Any, targets: Sequence[str] = ()) -> None:
    """Refuse adapters on the input or the output embedding.

    peft saves them together with the embedding in a form that does not load again, and where the two share their
    weights an adapter on one would change the other when it is merged.

    Args:
        model: a transformers model, or its peft wrapper.
        targets: names of the modules that adapters are about to be put on.

    Raises:
        ConfigError: there are such, or would be, in one line.
    """
    base = unwrapped(model)
    for what, module in (("input", base.get_input_embeddings()), ("output", base.get_output_embeddings())):
        name = next((name for name, other in base.named_modules() if other is module), what)
        meant = any(name == target or name.endswith(f".{target}") for target in targets)
        if meant or isinstance(module, BaseTunerLayer):
            raise ConfigError(f"model.lora.target_modules names {name}, the {what} embedding, whose adapters can't be "
                              "saved and merged here; take it out")  # fmt: skip


def lora_settings(adapters: Any) -> dict[str, Any] | None:
    """The settings of ``model.lora`` that mean the same adapters; ``None`` where they can't say it."""
    if type(adapters) is not PeftLoraConfig or adapters.target_modules is None:
        return None
    targets = adapters.target_modules
    if isinstance(targets, str) and targets != "all-linear":  # a regular expression
        return None
    said: dict[str, Any] = {
        "rank": adapters.r, "alpha": float(adapters.lora_alpha), "dropout": adapters.lora_dropout,
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
    }  # fmt: skip
    plain = PeftLoraConfig(
        r=adapters.r, lora_alpha=adapters.lora_alpha, target_modules=targets, lora_dropout=adapters.lora_dropout
    )
    wanted, found = plain.to_dict(), adapters.to_dict()
    return said if all(wanted[name] == found[name] for name in wanted.keys() - _NO_MATTER) else None
