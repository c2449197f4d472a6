"""Adapters as somebody hands them over, a configuration of peft, in the words of ``model.lora``."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig as PeftLoraConfig

from spark_rl.config import LoraConfig

_NO_MATTER = {"task_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version"}
"""Of peft's settings those that do not change what is trained."""


def lora_settings(adapters: Any) -> dict[str, Any] | None:
    """The settings of ``model.lora`` that mean the same adapters; ``None`` where they can't say it."""
    if type(adapters) is not PeftLoraConfig or adapters.target_modules is None:
        return None
    targets = adapters.target_modules
    if isinstance(targets, str) and targets != "all-linear":  # a regular expression
        return None
    said: dict[str, Any] = {
        "rank": adapters.r, "alpha": float(adapters.lora_alpha),
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
    }  # fmt: skip
    if "dropout" in LoraConfig.model_fields:
        said["dropout"] = adapters.lora_dropout
    plain = PeftLoraConfig(
        r=adapters.r, lora_alpha=adapters.lora_alpha, target_modules=targets, lora_dropout=said.get("dropout", 0.0)
    )
    wanted, found = plain.to_dict(), adapters.to_dict()
    return said if all(wanted[name] == found[name] for name in wanted.keys() - _NO_MATTER) else None
