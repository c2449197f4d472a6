"""The routes, and the server that runs them until Ctrl-C. The one importer of FastAPI and uvicorn."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from spark_rl.errors import UserError
from spark_rl.serve.backend import Backend, begun
from spark_rl.serve.embedded import Embedded
from spark_rl.serve.errors import EXPECTED, ApiError, told
from spark_rl.serve.guard import Guard, Limits
from spark_rl.serve.judging import judge
from spark_rl.serve.metrics import Metrics
from spark_rl.serve.protocol import ChatRequest, JudgeRequest, first_mistake
from spark_rl.serve.reasoned import Reasoned

SWITCH = 0.0005
"""Seconds after which a thread lets another one run: the engine's waits for the event loop's no longer than that."""
FAREWELL = 10
"""Seconds within which a server that is stopped has gone: who stops a container kills it then."""
LAST_WORDS = 2
"""Of them, the seconds in which requests that are still under way are told so."""


def build_app(backend: Backend, limits: Limits, key: str | None, hosts: frozenset[str]) -> Guard:
    """The whole server as an ASGI app.

    Args:
        backend: what answers; closed with the app.
        limits: see there.
        key: that clients must send; ``None`` for no key.
        hosts: names that it answers to; none for any.
    """
    metrics, began = Metrics(), int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await backend.close()

    def check_model(model: str | None) -> None:
        if model is not None and model != backend.name:
            raise ApiError(404, f"there is no model {model[:200]!r} here; there is {backend.name!r}", "model_not_found",
                           "model")  # fmt: skip

    async def chat(body: ChatRequest, http: Request) -> Response:
        """OpenAI's chat completions, with ``spark`` beside."""
        check_model(body.model)
        if body.spark is not None:
            reasoned = Reasoned(backend, body)
            if body.stream:
                return StreamingResponse(await begun(reasoned.events()), media_type="text/event-stream")
            return JSONResponse(await reasoned.whole())
        answer = await backend.chat(body, {} if isinstance(backend, Embedded) else await http.json())
        if isinstance(answer, dict):
            return JSONResponse(answer)
        return StreamingResponse(answer, media_type="text/event-stream")

    async def judged(body: JudgeRequest) -> Response:
        """Responses judged, alone or in pairs."""
        check_model(body.model)
        return JSONResponse(await judge(backend, body))

    async def models() -> Response:
        """The one model that there is."""
        entry = {"id": backend.name, "object": "model", "created": began, "owned_by": "spark-rl"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def health() -> Response:
        """Whether requests are answered."""
        return JSONResponse({"status": "ok", "model": backend.name})

    async def measured() -> Response:
        """For Prometheus."""
        return Response(metrics.text(backend.load()), media_type="text/plain; version=0.0.4; charset=utf-8")

    app = FastAPI(title="spark-rl serve", docs_url=None, redoc_url=None, lifespan=lifespan)  # their pages load scripts
    app.add_api_route("/v1/chat/completions", chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/judge", judged, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", models, methods=["GET"], response_model=None)
    app.add_api_route("/health", health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", measured, methods=["GET"], response_model=None)
    for kind in (*EXPECTED, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _explained)
    return Guard(app, limits=limits, metrics=metrics, key=key, hosts=hosts)


async def _explained(_: Request, error: Exception) -> Response:
    """Any error, in OpenAI's format."""
    if isinstance(error, RequestValidationError):
        error = first_mistake(error.errors())
    elif isinstance(error, HTTPException):
        error = ApiError(error.status_code, str(error.detail))
    said = told(error)
    return JSONResponse(said.body(), said.status, {"retry-after": "1"} if said.status == 429 else None)


def run(app: Any, host: str, port: int, ready: Any, dismiss: Callable[[], None] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM, then let requests under way end, for a while or until Ctrl-C once more.

    Args:
        app: from :func:`build_app`.
        host: an address of this machine.
        port: 0 takes any that is free.
        ready: called with the port once it listens.
        dismiss: ends the requests that are left then. Without it they are cut off.

    Raises:
        UserError: the address can't be listened on.
    """
    sys.setswitchinterval(SWITCH)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of clients that hang up
    config = uvicorn.Config(
        app, host=host, port=port, log_level="error", access_log=False, lifespan="on", ws="none",
        timeout_keep_alive=30, timeout_graceful_shutdown=FAREWELL, server_header=False,
        h11_max_incomplete_event_size=2**16,
    )  # fmt: skip
    try:
        listening = config.bind_socket()
    except (SystemExit, OverflowError):
        raise UserError(
            f"can't listen on {host}:{port}; is it taken, or not this machine's? see --host and --port"
        ) from None
    server = uvicorn.Server(config)
    hurried = threading.Event()
    if dismiss is not None:
        stop = server.handle_exit

        def once(number: int, frame: Any) -> None:
            if server.should_exit:  # uvicorn would drop everything, and say so in tracebacks
                hurried.set()
            else:
                stop(number, frame)

        server.handle_exit = once

    async def serve() -> None:
        task = asyncio.ensure_future(server.serve([listening]))
        while not server.started and not task.done():
            await asyncio.sleep(0.02)
        if not task.done():
            ready(listening.getsockname()[1])
        while not server.should_exit and not task.done():
            await asyncio.sleep(0.1)
        end = time.monotonic() + FAREWELL - LAST_WORDS
        while time.monotonic() < end and not task.done() and not hurried.is_set():
            await asyncio.wait({task}, timeout=0.1)
        if dismiss is not None and not task.done():
            dismiss()
        await task

    with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has stopped
        asyncio.run(serve())
