"""``spark-rl serve``: a model behind OpenAI's protocol, in its three roles."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from spark_rl.commands.checks import check_config
from spark_rl.commands.models import address, inference_config, is_server, open_reasoner, run_name
from spark_rl.commands.terminal import say
from spark_rl.errors import UserError

KEY = "SPARK_RL_API_KEY"
"""The environment variable that holds the key, unless ``--api-key-env`` says another."""


def serve(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl serve``."""
    if arguments.upstream is not None:
        if arguments.model is not None:
            raise UserError("--model is served here, and --upstream is served elsewhere; give one of the two")
        if not is_server(arguments.upstream):
            raise UserError(f"--upstream {arguments.upstream} is no address; give http://HOST:PORT/v1")
        for option in ("max_tokens", "served_model_name"):
            if getattr(arguments, option) is not None:
                raise UserError(f"--{option.replace('_', '-')} is for a model that is served here; with --upstream, "
                                "give it to the other server")  # fmt: skip
        arguments.model = arguments.upstream
    try:
        from spark_rl.serve.app import build_app, run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"fastapi", "uvicorn", "starlette"}:
            raise
        raise UserError("serve needs FastAPI and uvicorn: pip install 'spark-rl[serve]'") from None
    from spark_rl.serve.backend import Backend
    from spark_rl.serve.embedded import Embedded
    from spark_rl.serve.guard import LOOPBACK, Limits
    from spark_rl.serve.upstream import Upstream

    key = os.environ.get(arguments.api_key_env) or None
    alone = arguments.host in LOOPBACK
    if key is None and not alone:
        raise UserError(f"--host {arguments.host} can be reached from other machines: set a key in "
                        f"{arguments.api_key_env}, or leave --host out")  # fmt: skip
    config = inference_config(arguments)
    check_config(config)
    reasoner = open_reasoner(arguments, config)
    limits = Limits(requests=arguments.requests, seconds=arguments.timeout)
    backend: Backend
    if is_server(arguments.model):
        backend = Upstream(reasoner, timeout=arguments.timeout)
    else:
        # a request of 128 completions is one prompt, one that judges 256 responses is as many
        backend = Embedded(
            reasoner, _name(arguments), queue=max(1024, 8 * arguments.requests), max_tokens=arguments.max_tokens
        )
    app = build_app(backend, limits, key, LOOPBACK if alone else frozenset())

    def ready(port: int) -> None:
        say(f"serving {backend.name} on {address(arguments.host, port)}/v1  (Ctrl-C stops)")

    run(app, arguments.host, arguments.port, ready, app.dismiss)
    say("stopped")
    return {"model": backend.name}


def _name(arguments: argparse.Namespace) -> str:
    """What clients call the model: a run's name, or what ``--model`` says."""
    if arguments.served_model_name is not None:
        return str(arguments.served_model_name)
    return run_name(arguments.model) or arguments.model or "embedded"
