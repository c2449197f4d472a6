"""Which engine and which learner a configuration means: the one place that knows the implementations.

The embedded engine decodes on the weights that the local learner trains, so both are given the same loaded model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_rl.chat import ChatFormat
from spark_rl.config import Config
from spark_rl.engine.base import Engine
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.engine.probe import Probed
from spark_rl.engine.vllm import VllmEngine, import_vllm
from spark_rl.errors import ConfigError, UserError
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.learner.base import Learner
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import describe_model, load_model, set_threads
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.places import find_model
from spark_rl.model.restore import restore_weights
from spark_rl.objective import with_importance_cap
from spark_rl.plugins import load_object, said


@dataclass(frozen=True, slots=True)
class Backend:
    """One model that can be asked: its engine, and the chat format that makes the engine's prompts."""

    config: Config
    loaded: LoadedModel
    engine: Engine
    chat: ChatFormat


def check_engine(config: Config, given: Engine | None = None) -> None:
    """Whether what a configuration names can generate for training; nothing is loaded.

    Raises:
        ConfigError: it is no engine, or vLLM is to read a model that is only in memory.
        UserError: vLLM is not installed.
    """
    if given is not None:
        _check_parts(given, f"the engine given, a {type(given).__name__},")
    if config.rollout.ahead and given is None and config.engine.name == "embedded":
        raise ConfigError("rollout.ahead samples while the learner updates, and the embedded engine decodes on the "
                          "learner's own weights; name an engine with its own, or set rollout.ahead=0")  # fmt: skip
    if given is None and config.engine.name == "vllm":
        import_vllm()
        find_model(config.model.path)  # it reads the model itself, so one in memory is none


def open_backend(
    config: Config,
    weights: str | Path | None = None,
    loaded: LoadedModel | None = None,
    engine: Engine | None = None,
) -> Backend:
    """The model of ``config.model`` with its engine.

    Args:
        config: of the run or command.
        weights: a directory with weights in place of those of ``config.model``.
        loaded: the model itself, where it is in memory already; it is given ``weights``.
        engine: what generates, in place of the engine of ``config.engine``.

    Raises:
        ConfigError: the model can't be loaded.
        ChatError: its chat template can't work.
    """
    set_threads(config.model)
    if loaded is None:
        loaded = load_model(config, weights)
    elif weights is not None:
        restore_weights(loaded, Path(weights))
    chat = ChatFormat(loaded.tokenizer, config.chat, loaded.processor, config.data.images)
    return Backend(config, loaded, build_engine(config, loaded, chat) if engine is None else engine, chat)


def open_reasoner(config: Config, weights: str | Path | None = None) -> Reasoner:
    """The model of ``config.model`` with its engine, ready to answer, to judge and to reflect.

    Engines with weights of their own read them themselves; only the embedded one has the model loaded here.

    Raises:
        UserError: the model or the engine can't be loaded, or the chat template can't work.
    """
    if config.engine.name == "vllm":
        vllm = VllmEngine(config, weights)
        return build_reasoner(vllm, vllm.facts.chat, config)
    if config.engine.name == "embedded":
        backend = open_backend(config, weights)
        return build_reasoner(backend.engine, backend.chat, config)
    described = describe_model(config, weights)
    chat = ChatFormat(described.tokenizer, config.chat, described.processor, config.data.images)
    if weights is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(weights)})})
    return build_reasoner(own_engine(config, chat), chat, config)


def build_engine(config: Config, loaded: LoadedModel, chat: ChatFormat) -> Engine:
    """The engine of ``config.engine`` beside a loaded model.

    Raises:
        ConfigError: vLLM can't load the model; a class of the user's own can't be loaded, or is no engine.
        UserError: vLLM is not installed.
    """
    if config.engine.name == "vllm":
        return VllmEngine(config, colocated=True)  # a resumed run hands it the checkpoint's weights before it begins
    if config.engine.name != "embedded":
        return own_engine(config, chat)
    generation_config = getattr(loaded.causal_lm, "generation_config", None)
    return EmbeddedEngine(loaded, chat.eos_ids(generation_config), chat.decode, config.engine.max_rows)


def own_engine(config: Config, chat: ChatFormat) -> Engine:
    """An engine of the class that ``engine.name`` names, made with the configuration and the chat format.

    Raises:
        ConfigError: there is no such class, it lacks a part of :class:`spark_rl.engine.base.Engine`, or it can't be
            made.
    """
    spec = config.engine.name
    kind = load_object(spec, "engine.name")
    if not callable(kind):
        raise ConfigError(f"engine.name {spec!r} is no class but a value of type {type(kind).__name__}")
    try:
        engine: Engine = kind(config, chat)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  # the user's own code, which may raise anything
        raise ConfigError(f"engine.name {spec!r} can't be made from (config, chat): {said(error)}") from None
    _check_parts(engine, f"engine.name {spec!r}")
    return engine


def _check_parts(engine: Any, what: str) -> None:
    """Raises :class:`ConfigError` if something lacks a part of :class:`spark_rl.engine.base.Engine`."""
    parts = ("generate", "sync", "sleep", "wake", "close", "version")
    missing = [name for name in parts if not hasattr(engine, name)]
    if missing:
        raise ConfigError(f"{what} is no engine: it lacks {', '.join(missing)} (see docs/extending.md)")


def build_learner(
    config: Config, loaded: LoadedModel, reference: LoadedModel | None = None, engine: Engine | None = None
) -> Learner:
    """The learner that trains a loaded model.

    Args:
        config: of the run.
        loaded: the model.
        reference: that of the KL term, else the model that the configuration names; adapters need none.
        engine: what generates, if that is not what the configuration names.

    Raises:
        ConfigError: the reference model can't be loaded.
    """
    needs_reference = config.objective.kl > 0 and not hasattr(loaded.model, "disable_adapter")
    config = with_importance_cap(config, shared=None if engine is None else isinstance(engine, EmbeddedEngine))
    return LocalLearner(loaded, config, reference or load_model(config) if needs_reference else None)


def probed(config: Config, engine: Engine, learner: Learner) -> Engine:
    """The engine, compared with the learner after every sync if it has weights of its own (``engine.max_kl``)."""
    if isinstance(engine, EmbeddedEngine) or config.engine.max_kl is None:
        return engine
    return Probed(engine, learner.logprobs, config.engine.max_kl, config.rollout.temperature)
