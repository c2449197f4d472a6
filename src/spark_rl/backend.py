"""Which engine and which learner a configuration means: the one place that knows the implementations.

The embedded engine decodes on the weights that the local learner trains, so both are given the same loaded model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spark_rl.chat import ChatFormat
from spark_rl.config import Config
from spark_rl.engine.base import Engine
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.learner.base import Learner
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model, set_threads
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.restore import restore_weights


@dataclass(frozen=True, slots=True)
class Backend:
    """One model that can be asked: its engine, and the chat format that makes the engine's prompts."""

    config: Config
    loaded: LoadedModel
    engine: Engine
    chat: ChatFormat


def open_backend(config: Config, weights: str | Path | None = None, loaded: LoadedModel | None = None) -> Backend:
    """The model of ``config.model`` with its engine.

    Args:
        config: of the run or command.
        weights: a directory with weights in place of those of ``config.model``.
        loaded: the model itself, where it is in memory already; it is given ``weights``.

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
    return Backend(config, loaded, build_engine(config, loaded, chat), chat)


def build_engine(config: Config, loaded: LoadedModel, chat: ChatFormat) -> Engine:
    """The engine of ``config.engine``."""
    generation_config = getattr(loaded.causal_lm, "generation_config", None)
    return EmbeddedEngine(loaded, chat.eos_ids(generation_config), chat.decode, config.engine.max_rows)


def build_learner(config: Config, loaded: LoadedModel, reference: LoadedModel | None = None) -> Learner:
    """The learner that trains a loaded model, with the reference of its KL term: ``reference``, else the model that the
    configuration names; adapters need none.

    Raises:
        ConfigError: the reference model can't be loaded.
    """
    needs_reference = config.objective.kl > 0 and not hasattr(loaded.model, "disable_adapter")
    return LocalLearner(loaded, config, reference or load_model(config) if needs_reference else None)
