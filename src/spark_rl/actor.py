"""A model ready to be asked: weights, engine, chat format and templates, assembled from a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spark_rl.chat import ChatFormat
from spark_rl.config import Config
from spark_rl.engine.base import Engine
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.inference import Reasoner
from spark_rl.model.load import LoadedModel, load_model, set_threads
from spark_rl.recycle import Templates, load_templates


@dataclass(frozen=True, slots=True)
class Actor:
    """One model in all its roles."""

    loaded: LoadedModel
    engine: Engine
    chat: ChatFormat
    templates: Templates
    config: Config

    def reasoner(self) -> Reasoner:
        """The model answering, judging and reflecting as ``config.inference`` says."""
        return Reasoner(self.engine, self.chat, self.templates, self.config.inference, self.config.seed)


def open_actor(config: Config, weights: str | Path | None = None) -> Actor:
    """Load the model of ``config.model`` (or ``weights`` in its place) with its engine.

    Raises:
        ConfigError: the model or the templates can't be loaded.
    """
    set_threads(config.model)
    templates = load_templates(config.recycle.templates, config.verify.thinking)
    loaded = load_model(config, weights)
    chat = ChatFormat(loaded.tokenizer, config.chat, loaded.processor, config.data.images)
    generation_config = getattr(loaded.causal_lm, "generation_config", None)
    engine = EmbeddedEngine(loaded, chat.eos_ids(generation_config), chat.decode, config.engine.max_rows)
    return Actor(loaded, engine, chat, templates, config)
