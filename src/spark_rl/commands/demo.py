"""``spark-rl demo``: a page to try a model on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_rl.commands.checks import check_config
from spark_rl.commands.models import address, inference_config, is_server, open_reasoner, run_behind, run_name
from spark_rl.commands.terminal import say
from spark_rl.errors import UserError

if TYPE_CHECKING:
    from spark_rl.config import Config
    from spark_rl.problem import Problem

NO_BASE = "none"
"""``--base none``: the model alone."""


def demo(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl demo``."""
    try:
        from spark_rl.demo.page import show
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"gradio", "fastapi", "uvicorn", "starlette"}:
            raise
        raise UserError("demo needs Gradio: pip install 'spark-rl[demo]'") from None
    from spark_rl.demo.ask import Model
    from spark_rl.serve.guard import LOOPBACK

    config = inference_config(arguments)
    check_config(config)
    problems = _problems(arguments, config)
    models = [Model(_name(arguments.model), open_reasoner(arguments, config))]
    base = _base(arguments, config)
    if base is not None:
        settings = inference_config(base)
        if run_behind(base.model) is None:  # asked as the model is asked, so that only the weights differ
            settings = config.model_copy(update={"model": settings.model})
        models.append(Model(f"{_name(base.model)} (base)", open_reasoner(base, settings)))

    def ready(port: int) -> None:
        names = " and ".join(model.name for model in models)
        say(f"showing {names} on {address(arguments.host, port)}  (Ctrl-C stops)")

    hosts = sorted(LOOPBACK) if arguments.host in LOOPBACK else []
    show(models, problems, config, arguments.host, arguments.port, hosts=hosts, ready=ready)
    say("stopped")
    return {"models": [model.name for model in models], "problems": len(problems)}


def _base(arguments: argparse.Namespace, config: Config) -> argparse.Namespace | None:
    """The options of the model to compare with: what ``--base`` names, or what a run began from."""
    named = arguments.base
    if named is None and run_behind(arguments.model) is not None:
        named = config.model.path
    if named is None or named == NO_BASE:
        return None
    return argparse.Namespace(model=named, config=arguments.config, overrides=arguments.overrides, served_model=None)


def _problems(arguments: argparse.Namespace, config: Config) -> tuple[Problem, ...]:
    """What can be browsed: ``--data``, or the held-out problems of the run or recipe, where they are there."""
    spec = arguments.data or config.data.heldout
    if spec is None or spec.startswith("split:"):
        return ()
    from spark_rl.data import load_problems

    try:
        return load_problems(spec, config.data, "heldout")
    except UserError as error:
        if arguments.data:
            raise
        say(f"no held-out problems to browse: {error}")
        return ()


def _name(model: str | None) -> str:
    """What the page calls a model: a run's or folder's name, or what was given."""
    run = run_name(model)
    if run is not None:
        return run
    if model is None or is_server(model):
        return model or "embedded"
    return Path(model).name if Path(model).is_dir() else model
