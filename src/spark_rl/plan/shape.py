"""The model of a plan: its architecture on the meta device, from its configuration alone, and a batch to rehearse."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.modeling_layers import GradientCheckpointingLayer

from spark_rl.config import Config
from spark_rl.errors import ConfigError
from spark_rl.model import freeze
from spark_rl.model.architecture import check_architecture
from spark_rl.model.load import UNREADABLE, checkpoint_layers, with_adapters
from spark_rl.model.loaded import LoadedModel, unwrapped
from spark_rl.model.places import find_model, layers_of, on_disk
from spark_rl.model.sizes import cached_numbers, head_width
from spark_rl.model.vision import sees
from spark_rl.plan.known import KNOWN
from spark_rl.plan.rehearse import NAME, UNMASKED
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens, as a plan assumes them."""

    prompt: int
    """Of a problem's prompt, on average; those of an image count."""
    response: int
    """Of a response, on average."""
    judged: int
    """Of the prompt of a recycled problem, which shows one response or two."""
    longest: int
    """A response at most."""
    image: int = 0
    """Tokens of an image in each prompt, which the model encodes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of weights, and of what one token leaves in the cache."""

    weights: int
    trained: int
    layers: int
    vocabulary: int
    layer: int
    """Weights of the largest layer."""
    outside: int
    """Weights outside all layers: embeddings, head, norms."""
    multiplied: int
    """Weights of the text layers that each token is multiplied with."""
    head: int
    """Weights of the output layer."""
    attended: int
    """Widths of the query heads of all layers together: a token's attention to one other takes four times as many
    operations."""
    cached: int
    """Numbers that one token leaves in the key-value cache, all layers together."""


def model_config(path: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a model: of a directory, a run, the hub, or one that this project knows by name.

    Raises:
        ConfigError: there is none, or its architecture can't be trained here.
    """
    if path in KNOWN:
        kind, settings = KNOWN[path]
        return AutoConfig.for_model(kind, **deepcopy(settings))
    base = on_disk(layers_of(find_model(path), None)[0])
    try:
        found = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        why = " ".join(str(error).split())[:160]
        raise ConfigError(f"the configuration of {path!r} can't be read ({why}); give a directory with its "
                          "config.json as model.path") from None  # fmt: skip
    check_architecture(found)
    return found


def without_data(found: Any, config: Config, *, trained: bool = True) -> LoadedModel:
    """A model of this configuration on the meta device, as :func:`spark_rl.model.load.load_model` would prepare it.

    ``trained`` is false for a reference: no adapters.

    Raises:
        ConfigError: ``model.freeze``, ``model.lora`` or ``model.gradient_checkpointing`` do not fit it.
    """
    settings, found = config.model, deepcopy(found)
    if hasattr(getattr(found, "vision_config", None), "fullatt_block_indexes"):  # windows keep as much, one by one
        found.vision_config.fullatt_block_indexes = list(range(found.vision_config.depth))
    kind: Any = AutoModelForImageTextToText if sees(found) else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(found, dtype=getattr(torch, settings.dtype))
    if settings.attention != "eager":
        model.set_attn_implementation(UNMASKED if settings.attention == "flash_attention_2" else NAME)
    freeze.freeze(model, settings.freeze, sees=sees(found))
    if trained and settings.lora is not None:
        with torch.device("meta"):
            model = with_adapters(model, settings.lora, None, config.seed)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    model.eval()
    decoder = unwrapped(model).base_model
    return LoadedModel(model, None, decoder, torch.device("cpu"))  # ids and masks have data, and are made there


def has_reference(config: Config) -> bool:
    """Whether a second copy of the weights stands beside the trained one."""
    return config.objective.kl > 0 and config.model.lora is None


def sizes_of(loaded: LoadedModel) -> Sizes:
    """Count a model."""
    text = loaded.causal_lm.config.get_text_config()
    weights = {id(p): p for p in loaded.model.parameters()}
    layers = [m for m in loaded.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    inside = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    total = sum(p.numel() for p in weights.values())
    tower = loaded.causal_lm.get_encoder("image") if hasattr(loaded.causal_lm.config, "vision_config") else None
    seeing = {id(m) for m in tower.modules()} if tower is not None else set()
    linear = sum(
        m.weight.numel() for layer in layers if id(layer) not in seeing for m in layer.modules()
        if isinstance(m, torch.nn.Linear)
    )  # fmt: skip
    return Sizes(
        weights=total,
        trained=sum(p.numel() for p in weights.values() if p.requires_grad),
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        layer=max(inside, default=total),
        outside=total - sum(inside),
        multiplied=linear,
        head=loaded.causal_lm.get_output_embeddings().weight.numel(),
        attended=text.num_hidden_layers * text.num_attention_heads * head_width(text),
        cached=cached_numbers(text),
    )


def width_of(config: Config) -> int:
    """Bytes of a weight in ``model.dtype``."""
    return 2 if config.model.dtype == "bfloat16" else 4


def decoding_width(config: Config) -> int:
    """Bytes of a weight that decodes."""
    return 2 if config.decoding_dtype == "bfloat16" else 4


def copies_bytes(config: Config, gpus: int, sizes: Sizes) -> float:
    """The weights that the embedded engine decodes on, where they are not the learner's, and those of a frozen judge
    (``reward.self.judge``), which it decodes on too."""
    apart = config.engine.name != "vllm" and (gpus > 1 or config.decoding_dtype != config.model.dtype)
    frozen = config.reward.self is not None and config.reward.self.judge == "frozen"
    return float(decoding_width(config) * sizes.weights * (apart + frozen))


def groups_of(count: int, samples: int, prompt: int, response: int, found: Any = None, image: int = 0) -> list[Group]:
    """Groups of equal lengths in which every response has an advantage; ``image`` tokens of each prompt are one."""
    tokens = [1] * prompt
    vision: dict[str, torch.Tensor] = {}
    if image:
        side = max(1, round(math.sqrt(image)))
        tokens = [1] * max(1, prompt - side * side - 2)
        tokens += [found.vision_start_token_id, *[found.image_token_id] * side**2, found.vision_end_token_id]
        vision = {
            "pixel_values": torch.zeros(4 * side * side, 3 * 2 * 14 * 14),  # two by two patches are a token
            "image_grid_thw": torch.tensor([[1, 2 * side, 2 * side]]),
            "mm_token_type_ids": torch.tensor([[int(token == found.image_token_id) for token in tokens]]),
        }
    return [
        Group(Problem(id=f"p{number}", question="", answer=""), _rollouts(samples, response), tuple(tokens), vision)
        for number in range(count)
    ]


def _rollouts(samples: int, response: int) -> tuple[Rollout, ...]:
    completion = Completion("", (1,) * response, (-1.0,) * response, "stop")
    return tuple(Rollout(completion, Verdict(float(i % 2), "correct" if i % 2 else "wrong")) for i in range(samples))
