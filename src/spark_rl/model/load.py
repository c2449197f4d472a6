"""Loading a model through transformers, by path, hub id or name of an embedded base: causal LMs with their tokenizer,
image-text-to-text models with their processor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from spark_rl.config import Config, LoraConfig, ModelConfig
from spark_rl.cores import usable_cores
from spark_rl.errors import ConfigError
from spark_rl.model import freeze
from spark_rl.model.adapters import check_embeddings
from spark_rl.model.architecture import check_architecture, prove_decoder
from spark_rl.model.loaded import LoadedModel, unwrapped
from spark_rl.model.memory import hold_freed_memory
from spark_rl.model.places import find_model, has_adapters, layers_of, on_disk
from spark_rl.model.read import (
    OTHER_TASK,
    check_finite,
    check_language_head,
    merged,
    read_weights,
    with_saved_adapters,
)
from spark_rl.model.sizes import check_end, check_tokenizer, has_tokenizer, positions_of, prompt_limit
from spark_rl.model.vision import load_processor, sees, vision_tokens
from spark_rl.problem import TASKS

UNREADABLE = (
    OSError, ValueError, ImportError, RuntimeError, SafetensorError, LookupError, AttributeError, TypeError,
    StrictDataclassError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
"""What transformers raises about the files of a model: a list where it expects a mapping is an ``AttributeError``."""


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA, then MPS, then the CPU. Raises ``ConfigError`` for a device that can't be used here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch asserts that it was built for CUDA
        raise ConfigError(f"model.device {name!r} can't be used here: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and ":" not in name:  # a name for whichever card is this process's own
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def set_arithmetic(config: ModelConfig) -> None:
    """Set torch's CPU threads, ``model.threads`` or the cores this process may use, and ``model.deterministic``. Where
    no GPU is used, freed memory is held for what comes next."""
    torch.set_num_threads(config.threads or usable_cores())
    if config.device == "cpu" or not torch.cuda.is_available():
        hold_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")  # read by transformers
        torch.use_deterministic_algorithms(mode=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a model before its weights are read."""

    source: str
    """The directory or hub id that was asked for, as messages name it."""
    base: str
    """Where the whole model is: ``source``, or the base beneath the adapters in it."""
    adapters: tuple[Path, ...]
    """Directories of adapters upon ``base``, the innermost first."""
    config: PreTrainedConfig
    tokenizer: Any
    processor: Any
    """``None`` for a model that sees nothing."""

    @property
    def positions(self) -> int | None:
        """Tokens of prompt and response together at most; ``None`` if the model says no limit."""
        return positions_of(self.config)


def describe_model(config: Config, path: str | Path | None = None) -> Description:
    """Find the model of ``config.model`` (or ``path`` instead) and compare what needs no weights.

    Adapters at ``path`` are those of a run, whose base is ``config.model.path`` if that can be found.

    Raises:
        ConfigError: there is no such model, it writes no text, or its tokenizer does not fit it; in one line.
    """
    settings = config.model
    named = str(path or settings.path)
    source, base = find_model(named), None
    if path is not None and has_adapters(source):
        base = _found(settings.path)
    base, adapters = layers_of(source, base)
    base = on_disk(base)
    options = {"trust_remote_code": settings.trust_remote_code}
    try:
        model_config = AutoConfig.from_pretrained(base, **options)
        check_architecture(model_config)
        check_language_head(model_config, named)
        texts = next((str(folder) for folder in reversed(adapters) if has_tokenizer(folder)), base)
        if Path(texts).is_dir() and not has_tokenizer(texts):
            raise ConfigError(f"{named!r} holds no tokenizer; copy tokenizer.json and tokenizer_config.json of the "
                              "model it was made from into it")  # fmt: skip
        processor = load_processor(texts, model_config, **options) if sees(model_config) else None
        tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(texts, **options)
    except Exception as error:
        if isinstance(error, ConfigError) or not (isinstance(error, UNREADABLE) or type(error) is Exception):
            raise  # tokenizers raises nothing narrower than Exception
        raise _cannot_load(named, error) from None
    check_tokenizer(tokenizer, model_config, named, sees=processor is not None)
    check_end(tokenizer, model_config, named)
    return Description(named, base, adapters, model_config, tokenizer, processor)


def fitted_to_model(config: Config, path: str | Path | None = None, loaded: LoadedModel | None = None) -> Config:
    """The configuration of a training run with prompts no longer than the model can hold, before any weight is read.

    ``loaded`` is the model itself, where it is in memory.

    Raises:
        ConfigError: like :func:`describe_model` and :func:`spark_rl.model.sizes.prompt_limit`.
    """
    if loaded is not None:
        tokenizer, positions = loaded.tokenizer, positions_of(loaded.causal_lm.config)
    else:
        described = describe_model(config, path)
        tokenizer, positions = described.tokenizer, described.positions
    few_shot = [tokenizer(config.chat.few_shot_of(task), add_special_tokens=False)["input_ids"] for task in TASKS]
    limit = prompt_limit(config, positions, max(map(len, few_shot)))
    rollout = config.rollout.model_copy(update={"max_prompt_tokens": limit})
    return config.model_copy(update={"rollout": rollout})


def load_model(config: Config, path: str | Path | None = None) -> LoadedModel:
    """The model of ``config.model`` (or the weights at ``path`` instead), ready to train, dropout off.

    A directory of adapters is a model like any other: they are merged into their base, except those at ``path`` of a
    run with ``model.lora``, which are trained further.

    Raises:
        ConfigError: there is no such model, or it can't be read whole, in one line.
    """
    settings, device = config.model, resolve_device(config.model.device)
    described = describe_model(config, path)
    kind: Any = AutoModelForImageTextToText if described.processor else AutoModelForCausalLM
    continued = settings.lora is not None and path is not None and described.adapters != ()
    finished = described.adapters[:-1] if continued else described.adapters
    try:
        model = read_weights(
            kind, described.base, dtype=getattr(torch, settings.dtype), trust_remote_code=settings.trust_remote_code,
            attn_implementation=None if settings.attention == "sdpa" else settings.attention,
        )  # fmt: skip
        model.to(device)
        for folder in finished:
            model = merged(model, folder)
        freeze.freeze(model, settings.freeze, sees=described.processor is not None)
        if settings.lora is not None:
            model.name_or_path = str(finished[-1] if finished else described.base)  # which adapters save as their base
            model = with_adapters(model, settings.lora, described.adapters[-1] if continued else None, config.seed)
    except UNREADABLE as error:
        if isinstance(error, ConfigError):
            raise
        raise _cannot_load(described.source, error) from None
    return _proven(model, described.tokenizer, described.processor, device, settings, described.source)


def _proven(
    model: Any, tokenizer: Any, processor: Any, device: torch.device, settings: ModelConfig, source: str
) -> LoadedModel:
    """A model whose weights are in place, ready to train, with what it computes put to the proof.

    Raises:
        ConfigError: it holds NaN, or computes something that engine and learner do not.
    """
    check_finite(model, source)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    model.eval()  # no dropout: the engine and the learner must see the same distribution
    banned = vision_tokens(unwrapped(model).config, processor) if processor else []
    loaded = LoadedModel(
        model, tokenizer, _decoder(model), device, processor, torch.tensor(banned, device=device) if banned else None
    )
    check_head(loaded)
    return replace(loaded, windows=prove_decoder(loaded))


def model_in_memory(model: Any, processing_class: Any, config: Config, adapters: Any = None) -> LoadedModel:
    """A model that somebody loaded, with every check that :func:`load_model` makes; it stays in its number format, and
    where it is unless ``model.device`` names another place.

    Args:
        model: a transformers model that writes text, seeing or not, or its peft wrapper.
        processing_class: its tokenizer, or the processor of a model that sees; ``None`` loads it from where the model
            came from.
        config: of the run; ``model.lora`` puts new adapters on a model without any.
        adapters: a peft configuration to be taken in place of ``model.lora``.

    Raises:
        ConfigError: it can't be trained, in one line.
    """
    settings, base = config.model, unwrapped(model)
    if not isinstance(base, PreTrainedModel):
        raise ConfigError(f"model is a {type(model).__name__}; it must be a name, a path, or a model of transformers "
                          "that writes text, such as AutoModelForCausalLM loads")  # fmt: skip
    source, adapted = base.name_or_path or type(base).__name__, hasattr(model, "peft_config")
    check_architecture(base.config)
    check_language_head(base.config, source)
    if OTHER_TASK.search(type(base).__name__) or base.get_output_embeddings() is None:
        raise ConfigError(f"model is a {type(base).__name__}, which has no head that writes text; load it with "
                          "AutoModelForCausalLM")  # fmt: skip
    if len(set((getattr(base, "hf_device_map", None) or {}).values())) > 1:
        raise ConfigError("model is spread over several devices; load it on one, without device_map")
    if getattr(base, "is_quantized", False):
        raise ConfigError("model is quantised, which can't be trained here; load it without quantization_config")
    if base.dtype not in {torch.float32, torch.bfloat16}:
        raise ConfigError(f"model is in {str(base.dtype).removeprefix('torch.')}; load it in bfloat16 or float32")
    tokenizer, processor = _texts_of(base, processing_class, source)
    check_tokenizer(tokenizer, base.config, source, sees=processor is not None)
    check_end(tokenizer, base.config, source)
    wanted = adapters is not None or settings.lora is not None
    if adapted and wanted:
        raise ConfigError("model has adapters already; leave peft_config and model.lora out, or give the model without "
                          "them")  # fmt: skip
    if (adapted or wanted) and not base.name_or_path:
        raise ConfigError("adapters are saved without their base, and this base lies nowhere: save it with "
                          "save_pretrained, and give the folder in place of the model")  # fmt: skip
    if settings.device != "auto":
        model.to(resolve_device(settings.device))
    if not adapted:
        freeze.freeze(base, settings.freeze, sees=processor is not None)
    if wanted and not adapted:
        model = _adapted(model, adapters, config.seed) if adapters is not None else with_adapters(
            model, settings.lora, None, config.seed)  # type: ignore[arg-type]  # fmt: skip
    if adapted or wanted:
        check_embeddings(model)
    if not hasattr(model, "disable_adapter") and adapted:
        raise ConfigError(f"model is a {type(model).__name__}, whose adapters can't be switched off; use LoRA")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("model has nothing to train: no weight requires a gradient (saved adapters are loaded for "
                          "training with is_trainable=True)")  # fmt: skip
    return _proven(model, tokenizer, processor, next(base.parameters()).device, settings, source)


def copied(loaded: LoadedModel, dtype: torch.dtype) -> LoadedModel:
    """A second model of the same kind in a number format of its own, without adapters. Its weights are random until it
    takes some over (:func:`spark_rl.model.weights.take_over`)."""
    base = loaded.causal_lm
    kind: Any = type(base)  # which its configuration need not lead to, where it is of the user's own
    with torch.random.fork_rng(devices=[]):
        model = kind._from_config(deepcopy(base.config), dtype=dtype)
    model.generation_config = getattr(base, "generation_config", None)  # which says what ends a response
    model.to(loaded.device).eval().requires_grad_(requires_grad=False)
    return replace(loaded, model=model, decoder=_decoder(model))


def _texts_of(base: Any, processing_class: Any, source: str) -> tuple[Any, Any]:
    """(tokenizer, processor or ``None``) of a model in memory."""
    seeing = sees(base.config)
    if processing_class is None:
        if not base.name_or_path:
            raise ConfigError("model does not say where it came from; give its tokenizer or processor as "
                              "processing_class")  # fmt: skip
        try:
            found = on_disk(find_model(base.name_or_path))
            processing_class = load_processor(found, base.config) if seeing else AutoTokenizer.from_pretrained(found)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise ConfigError(f"the {'processor' if seeing else 'tokenizer'} of {source!r} can't be loaded ({why}); "
                              "give it as processing_class")  from None  # fmt: skip
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(f"processing_class is a {type(processing_class).__name__}; it must be a tokenizer or a "
                          "processor of transformers")  # fmt: skip
    if seeing and tokenizer is processing_class:
        raise ConfigError(f"{type(base).__name__} sees images, so processing_class must be its processor, as "
                          "AutoProcessor loads it, and not a tokenizer alone")  # fmt: skip
    return tokenizer, processing_class if seeing else None


def _adapted(model: Any, adapters: Any, seed: int) -> nn.Module:
    """New adapters of any kind that peft has, a function of the seed."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wrapped: nn.Module = get_peft_model(model, adapters)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"peft_config can't be used: {' '.join(str(error).split())[:200]}") from None
    if not hasattr(wrapped, "disable_adapter") or getattr(adapters, "is_prompt_learning", False):
        raise ConfigError(f"peft_config is a {type(adapters).__name__}, which spark-rl can't train; use LoraConfig")
    return wrapped


def _found(name: str) -> str | None:
    """What :func:`find_model` finds, or ``None``."""
    try:
        return find_model(name)
    except ConfigError:
        return None


def _cannot_load(source: str, error: Exception) -> ConfigError:
    kind = f"{type(error).__name__} " if isinstance(error, LookupError | AttributeError | TypeError) else ""
    return ConfigError(f"cannot load the model {source!r}: {kind}{' '.join(str(error).split())[:300]}")


def check_head(loaded: LoadedModel) -> None:
    """Prove on two tokens that decoder and head together are the model, or refuse it.

    Log-probabilities are computed from hidden states in chunks (never all logits at once), which is only right if
    nothing else happens between the decoder and the logits.
    """
    tokens = torch.tensor([[0, 1]], device=loaded.device)
    with torch.no_grad():
        whole = loaded.causal_lm(input_ids=tokens, use_cache=False).logits.float()
        parts = loaded.logits(loaded.project(loaded.decoder(input_ids=tokens, use_cache=False).last_hidden_state))
    # In half precision the model scales or caps its logits in that precision, ``head`` in float32.
    tolerance = 1e-3 if loaded.causal_lm.dtype == torch.float32 else 2e-2
    if not torch.allclose(whole, parts, rtol=tolerance, atol=tolerance):
        name = type(loaded.causal_lm).__name__
        raise ConfigError(f"{name} changes its logits after the output layer in a way spark-rl does not know; "
                          "please report the model")  # fmt: skip


def _decoder(model: nn.Module) -> nn.Module:
    decoder: nn.Module = unwrapped(model).base_model
    return decoder


def with_adapters(model: Any, settings: LoraConfig, saved: Path | None, seed: int) -> nn.Module:
    """New adapters, a function of the seed, or those saved in a directory, to be trained further."""
    if saved is not None:
        resumed = with_saved_adapters(model, saved, trainable=True)
        resumed.peft_config["default"].base_model_name_or_path = model.name_or_path  # it may have moved
        return resumed  # type: ignore[no-any-return]
    targets = settings.target_modules
    check_embeddings(model, () if isinstance(targets, str) else targets)
    adapters = PeftLoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, task_type="CAUSAL_LM",
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=freeze.excluded(model, targets),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped: nn.Module = get_peft_model(model, adapters)
    return wrapped


def checkpoint_layers(model: nn.Module) -> None:
    """Recompute each decoder layer in the backward pass instead of keeping its activations.

    transformers' own switch works in training mode only, which would turn dropout on.

    Raises:
        ConfigError: the model has no such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        name = type(unwrapped(model)).__name__
        raise ConfigError(f"{name} does not support model.gradient_checkpointing; leave it false")
    for layer in layers:
        if "forward" not in vars(layer):  # a model in memory may have been here before
            layer.forward = _recomputed(layer.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)

    return call
