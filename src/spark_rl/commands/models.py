"""Which model and settings a command uses: a run's own, a recipe's, or those of an embedded base."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_rl.commands.terminal import loading_torch, quiet_libraries, waiting
from spark_rl.config import Config, load_config, saved_settings
from spark_rl.errors import ConfigError, UserError
from spark_rl.files import resolved
from spark_rl.model.places import EMBEDDED, RECIPES, find_model
from spark_rl.runs import find_run, is_checkpoint, placed
from spark_rl.runs import trained_weights as weights_of

if TYPE_CHECKING:
    from spark_rl.engine.base import Engine
    from spark_rl.engine.openai import OpenAIEngine, ServerChat
    from spark_rl.evals.score.grading import Judge
    from spark_rl.inference import Reasoner


def recipe_of(model: str | None) -> str | None:
    """The recipe of an embedded base, ``embedded`` where no model is given; ``None`` for any other model.

    Raises:
        ConfigError: the name begins like an embedded base's and is none, nor is there anything of that name.
    """
    name = model or "embedded"
    if name.startswith("embedded") and name not in RECIPES and not Path(name).exists():
        raise ConfigError(
            f"there is no embedded base {name!r}; there are two: {' (reads) and '.join(RECIPES)} (also sees images)"
        )
    return RECIPES.get(name)


def inference_config(arguments: argparse.Namespace, *, sees: bool = False, needs_model: bool = True) -> Config:
    """A run's own configuration, or the recipe's, with overrides applied.

    Args:
        arguments: ``model``, ``config`` and ``overrides`` are read; without a model and a configuration ``model``
            becomes ``embedded-vl`` if ``sees``.
        sees: whether the model is about to be shown images.
        needs_model: whether a model will be asked; if not, no embedded base brings its recipe.
    """
    if getattr(arguments, "served_model", None) is not None and not is_server(arguments.model):
        raise UserError("--served-model names a model of a server; give the server's address as --model http://...")
    if sees and arguments.model is None and arguments.config is None:
        arguments.model = "embedded-vl"
    run = run_behind(arguments.model)
    if run is not None and (run / "config.json").exists():
        return load_config(None, arguments.overrides, **saved_settings(run))
    settings = {"model": {"path": arguments.model}} if arguments.model else {}
    recipe = recipe_of(arguments.model) if needs_model else None
    config = load_config(arguments.config or recipe, arguments.overrides, **settings)
    if needs_model and not is_server(arguments.model):
        find_model(config.model.path)  # a mistyped path is answered before data is read and libraries are loaded
    return config


def is_server(model: str | None) -> bool:
    """Whether ``--model`` is the address of a server."""
    return model is not None and model.startswith(("http://", "https://"))


def open_reasoner(arguments: argparse.Namespace, config: Config) -> Reasoner:
    """The model ready to answer: on a server, or by the engine of ``engine.name``.

    Args:
        arguments: ``model`` and ``served_model`` are read.
        config: everything else.
    """
    if is_server(arguments.model):
        with waiting(f"asking {arguments.model}"):
            quiet_libraries()
            from spark_rl.inference import build_reasoner

            server, chat = open_server(arguments.model, getattr(arguments, "served_model", None), config)
        return build_reasoner(server, chat, config)
    with loading_torch():
        from spark_rl.backend import open_reasoner as opened

    weights = trained_weights(arguments.model)
    with waiting(f"loading the model {weights or arguments.model or config.model.path}"):
        return opened(config, weights)


def open_server(url: str, served_model: str | None, config: Config) -> tuple[OpenAIEngine, ServerChat]:
    """A server's engine and chat format; without a name the model that it serves."""
    from spark_rl.engine.openai import OpenAIEngine, ServerChat

    chat = ServerChat(config.chat)
    return OpenAIEngine(url, served_model, chat=config.chat, images=config.data.images), chat


def open_grader(
    arguments: argparse.Namespace, config: Config, reasoner: Reasoner
) -> tuple[tuple[str, ...], Judge | None]:
    """The name of the language model that grades, and how it is asked: ``--grader URL``, or the model itself, ``self``.

    It answers greedily, to the user turn alone.
    """
    if arguments.grader is None:
        return (), None
    from spark_rl.engine.base import Sampling
    from spark_rl.inference import warn_of_refusals
    from spark_rl.problem import Problem

    engine: Engine = reasoner.engine
    chat, label = reasoner.chat, "self"
    if arguments.grader != "self":
        server, chat = open_server(arguments.grader, arguments.grader_model, config)
        engine, label = server, server.model
    sampling = Sampling(1, 0.0, config.inference.max_new_tokens, config.seed)

    def ask(turns: Sequence[str]) -> list[str | None]:
        prompts = [chat.encode(Problem(id="grading", question="", answer="", prompt=turn)) for turn in turns]
        replies = [completions[0] for completions in engine.generate(prompts, sampling)]
        warn_of_refusals(replies, "grade")
        return [None if reply.finish == "refused" else reply.text for reply in replies]

    return (label,), ask


def run_behind(model: str | None) -> Path | None:
    """The run that ``--model`` names, by path, name or ``latest``, or one of whose checkpoints it names; else ``None``.

    Raises:
        ConfigError: ``latest``, and there is none.
    """
    return None if model is None or model in EMBEDDED or is_server(model) else find_run(model)


def run_name(model: str | None) -> str | None:
    """What the run that ``--model`` names is called; ``None`` if it names none. Raises like :func:`run_behind`."""
    run = run_behind(model)
    return None if run is None else resolved(run).name


def address(host: str, port: int) -> str:
    """Where a browser finds what listens there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def trained_weights(model: str | None) -> Path | None:
    """The weights of a run: its final ones, else those of its last checkpoint, or of the checkpoint that ``model``
    names; ``None`` if ``model`` is not a run.
    """
    run = run_behind(model)
    if model is None or run is None:
        return None
    return weights_of(place if is_checkpoint(place := placed(model)) else run)


def settings_of_run(model: str) -> dict[str, Any] | None:
    """What a run that is trained further starts from: its own settings, its trained model in place of the one it began
    with, and no place to write to yet. ``None`` if ``model`` is not a run, nor a checkpoint of one.

    Raises:
        UserError: it has no trained model yet.
    """
    run, weights = run_behind(model), trained_weights(model)
    if run is None or weights is None:
        return None
    settings = saved_settings(run)
    settings["model"] = {**settings.get("model", {}), "path": str(resolved(weights))}
    return settings | {"run_dir": None}
