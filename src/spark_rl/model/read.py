"""Reading weights so that none is missing, misread or left out in silence.

transformers replaces a weight that a checkpoint lacks, or holds in another shape, by random numbers, and drops what the
model has no place for. Here the first two are refused, and so is the third wherever it changes what the model computes.
Names that a training wrapper left in front of the real ones are mended, and said.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, load_peft_weights
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from spark_rl.errors import ConfigError
from spark_rl.model.places import ADAPTERS

logger = logging.getLogger(__name__)

WRAPPERS = {
    r"_orig_mod\.": "", r"_fsdp_wrapped_module\.": "", r"_checkpoint_wrapped_module\.": "",
    r"^_forward_module\.": "", r"^module\.": "",
}  # fmt: skip
"""What torch.compile, FSDP, activation checkpointing, Lightning and DataParallel put into names -> nothing."""

OTHER_TASK = re.compile(r"Classification|QuestionAnswering|MultipleChoice|Reward|MaskedLM")
"""In the name of an architecture: its head gives scores or labels, not the next token."""
OTHER_HEAD = re.compile(r"^(score|classifier|classification_head|reward_head|regression_head|qa_outputs)\.")
"""Weights of such a head."""
HARMLESS = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|cos_cached|sin_cached)$")
"""Buffers that older checkpoints hold and that are computed anew."""
DEPTHS = ("num_hidden_layers", "depth")
"""Numbers of layers in a configuration, or in its part about images."""
SPARE = 2**24
"""Weights that a config.json may say beyond two for each byte of its files."""
NAMED = 3
"""Weights that a message names; the others are counted."""


def check_language_head(config: Any, source: str) -> None:
    """Refuse a reward model or classifier by its ``config.json``, before any weight is read.

    Raises:
        ConfigError: the model's head is not one of language.
    """
    for name in config.architectures or ():
        if OTHER_TASK.search(name):
            raise ConfigError(f"{source!r} is a {name}: it gives scores or labels and writes no text, so it has no "
                              "head to train; choose a causal language model")  # fmt: skip


def _check_size(kind: Any, source: str, trust_remote_code: bool) -> None:
    """Refuse a directory whose ``config.json`` says far more layers or weights than its files hold: transformers would
    make all of them before it compares.

    Raises:
        ConfigError: it does.
    """
    files = list(Path(source).glob("*.safetensors"))
    if not files:  # a name on the hub, or an older format
        return
    found = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    names = {name for file in files for name in _names(file)}
    layers = max((getattr(part, name, None) or 0 for part in _parts(found) for name in DEPTHS), default=0)
    if layers > len(names):
        raise ConfigError(
            f"{source!r}: its config.json says {layers:,} layers, but its files hold {len(names):,} tensors"
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        auto = getattr(kind, "from_config", None)  # a model's own class has none
        made = kind(found) if auto is None else auto(found, trust_remote_code=trust_remote_code)
        said = sum(parameter.numel() for parameter in made.parameters())
    held = sum(file.stat().st_size for file in files)
    if said > 2 * held + SPARE:
        raise ConfigError(f"{source!r} holds weights of other shapes than its config.json says: {said:,} weights, but "
                          f"its files have {held:,} bytes")  # fmt: skip


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def _parts(config: Any) -> list[Any]:
    return [config, *(value for value in vars(config).values() if isinstance(value, PreTrainedConfig))]


def read_weights(kind: Any, source: str, **options: Any) -> Any:
    """A model of one of transformers' auto classes, or of its own, every weight of it read from ``source``.

    Raises:
        ConfigError: weights are missing, of another shape, or without a place in the model; one line that names the
            first few. Or ``config.json`` says far more of them than there are.
    """
    _check_size(kind, source, options.get("trust_remote_code", False))
    model, info = _read(kind, source, options)
    wrapped = [key for key in info["unexpected_keys"] if any(re.search(pattern, key) for pattern in WRAPPERS)]
    if wrapped:
        model, info = _read(kind, source, {**options, "key_mapping": WRAPPERS})
        # transformers would put the prefixes back when it saves
        model._weight_conversions = [c for c in model._weight_conversions if not set(c.source_patterns) & set(WRAPPERS)]
        logger.warning("%s: the names of %d weights have a wrapper's prefix, such as %s; it is left out", source,
                       len(wrapped), min(wrapped))  # fmt: skip
    _check_info(model, info, source)
    return model


def _read(kind: Any, source: str, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    model, info = kind.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    return model, info


def _check_info(model: Any, info: Mapping[str, Any], source: str) -> None:
    """Raises :class:`ConfigError` for whatever transformers would have made up or dropped."""
    name = type(model).__name__
    unexpected = sorted(key for key in info["unexpected_keys"] if not HARMLESS.search(key))
    head = [key for key in unexpected if OTHER_HEAD.search(key)]
    if head:
        raise ConfigError(f"{source!r} holds {_first(head)}, the head of a reward model or a classifier, and not that "
                          f"of {name}; choose a causal language model")  # fmt: skip
    if info["missing_keys"]:
        also = f"; it holds {_first(unexpected)}, which the model does not know" if unexpected else ""
        raise ConfigError(f"{source!r} lacks weights of {name}: {_first(info['missing_keys'])}{also}; they would be "
                          "random, so save the whole model again")  # fmt: skip
    if info["mismatched_keys"]:
        shapes = [f"{key} ({list(held)} instead of {list(wanted)})" for key, held, wanted in info["mismatched_keys"]]
        raise ConfigError(f"{source!r} holds weights of other shapes than its config.json says: {_first(shapes)}")
    if info["error_msgs"]:
        raise ConfigError(f"cannot load the model {source!r}: {' '.join(info['error_msgs'][0].split())[:300]}")
    inside = _without_place(unexpected, model.state_dict().keys())
    if inside:
        raise ConfigError(f"{source!r} holds weights that {name} has no place for: {_first(inside)}; without them it "
                          "computes something else, so its config.json is not that of these weights")  # fmt: skip
    if unexpected:
        logger.warning("%s: %s is not part of %s and is not read", source, _first(unexpected), name)


def _without_place(unexpected: Collection[str], known: Collection[str]) -> list[str]:
    """Unexpected weights inside the model's layers, or beside a weight of one of its modules."""
    layers = {_pattern(before) for key in known if (before := _up_to_layer(key))}
    modules = {key.rpartition(".")[0] for key in known}
    return [
        key for key in unexpected
        if _pattern(_up_to_layer(key)) in layers or key.rpartition(".")[0] in modules
    ]  # fmt: skip


def _up_to_layer(key: str) -> str:
    found = re.match(r".*?\.\d+\.", key)
    return found[0] if found else ""


def _pattern(key: str) -> str:
    return re.sub(r"\d+", "*", key)


def _first(names: Collection[str]) -> str:
    """The first few names in order, and how many more there are."""
    ordered = sorted(names, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)])
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def with_saved_adapters(model: nn.Module, folder: Path, *, trainable: bool) -> Any:
    """``model`` under the adapters that a directory holds, every one of them read.

    Raises:
        ConfigError: there are none, or some are missing or belong to another model.
    """
    if not any((folder / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        raise ConfigError(f"{folder} has an {ADAPTERS} and no adapter_model.safetensors; save the adapters again")
    saved = load_peft_weights(str(folder), device="cpu")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # which are refused below
        adapted: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    embeddings = any(name.endswith(("embed_tokens.weight", "lm_head.weight")) for name in saved)
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=embeddings)
    if missing := wanted.keys() - saved.keys():
        raise ConfigError(f"{str(folder)!r} lacks weights of its adapters: {_first(missing)}; they would be as good as "
                          "untrained, so save the adapters again")  # fmt: skip
    if unknown := saved.keys() - wanted.keys():
        raise ConfigError(f"{str(folder)!r} holds adapters that its base has no place for: {_first(unknown)}; they "
                          "belong to another model")  # fmt: skip
    return adapted


def merged(model: nn.Module, folder: Path) -> nn.Module:
    """``model`` with the adapters of a directory added into its weights.

    Raises:
        ConfigError: they can't be read, or are of a kind that can't be merged.
    """
    adapted = with_saved_adapters(model, folder, trainable=False)
    if not hasattr(adapted.base_model, "merge_and_unload"):
        kind = adapted.peft_config["default"].peft_type
        raise ConfigError(f"the adapters in {folder} are of the kind {kind}, which can't be merged into a model")
    whole: Any = adapted.merge_and_unload()
    whole.requires_grad_(True)
    return whole  # type: ignore[no-any-return]


def check_finite(model: nn.Module, source: str) -> None:
    """Refuse weights that are not numbers: every log-probability would be none either.

    Raises:
        ConfigError: a weight is NaN or infinite; the line names the first tensors that hold one.
    """
    bad = [
        name for name, weight in model.named_parameters()
        if weight.numel() and weight.is_floating_point() and not _is_finite(weight.detach())
    ]  # fmt: skip
    if bad:
        raise ConfigError(f"{source!r} holds NaN or infinity in {_first(bad)}; its training or its conversion failed")


def _is_finite(weight: torch.Tensor) -> bool:
    """Without a temporary of the weight's size: a NaN becomes both extremes."""
    low, high = torch.aminmax(weight)
    return bool(torch.isfinite(low) and torch.isfinite(high))
