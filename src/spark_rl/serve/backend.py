"""What a server needs of whatever answers its clients, and what all that answer share.

A plain chat goes to it as it came. Whatever answers, judges and reflects is work for a
:class:`spark_rl.inference.Reasoner`, done in a thread on an engine that counts its tokens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from pydantic import ValidationError

from spark_rl.chat import Prompt
from spark_rl.config import InferenceConfig
from spark_rl.config.section import one_line
from spark_rl.engine.base import Around, Engine, Sampling
from spark_rl.inference import Reasoner
from spark_rl.problem import Completion
from spark_rl.serve.errors import ApiError
from spark_rl.serve.protocol import ChatRequest
from spark_rl.serve.replies import tokens_of, usage

_Found = TypeVar("_Found")

BEGUN = b""
"""The first event of a stream, which is not sent."""
REASONERS = 64
"""Requests that answer, judge and reflect, or are made into tokens, at a time."""
SEVERAL_TEMPERATURE = 0.7
"""Of several answers or judgements where neither the request nor the run says another: greedy ones are all alike."""


class Spent(Around):
    """An engine that counts what is asked of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.read = self.written = 0
        """Tokens of prompts, once each however many completions they have, and of completions."""
        self.cut: set[str] = set()
        """Completions that ended for want of room."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """What the engine gives."""
        drawn = self.engine.generate(prompts, sampling)
        self.read += sum(len(prompt.token_ids) for prompt in prompts)
        self.written += sum(map(tokens_of, drawn))
        self.cut |= {one.text for completions in drawn for one in completions if one.finish == "length"}
        return drawn

    @property
    def usage(self) -> dict[str, int]:
        """For a reply."""
        return usage(self.read, self.written)


class Backend(Protocol):
    """What answers."""

    name: str
    """Of the model, for clients."""
    reasoner: Reasoner
    max_tokens: int | None
    """Of a completion at most, whatever a request says."""

    async def chat(self, request: ChatRequest, body: Mapping[str, Any]) -> dict[str, Any] | AsyncIterator[bytes]:
        """A whole reply, or the events of a stream."""
        ...

    async def think(self, work: Callable[[Reasoner], _Found]) -> tuple[_Found, Spent]:
        """What ``work`` makes of the model in its three roles, and what it took; cancelling this ends what it asks of
        the engine."""
        ...

    def load(self) -> dict[str, float]:
        """What is measured of it."""
        ...

    async def close(self) -> None:
        """Free what it holds."""
        ...


class Threads:
    """Work that waits for an engine, off the event loop: so much of it at a time."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], _Found]) -> _Found:
        """What ``work`` returns, in a thread that is left to itself if this is cancelled."""
        if self._limiter is None:  # which belongs to a loop that runs
            self._limiter = anyio.CapacityLimiter(REASONERS)
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


async def begun(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """A stream whose first event, :data:`BEGUN`, has been taken: one that has begun gives up what it holds wherever it
    is dropped, and one that has not would not. Its client may leave before anybody asks for a piece."""
    assert await anext(events) is BEGUN
    return events


def settings(
    backend: Backend, temperature: float | None, max_tokens: int | None, *, several: bool, **changes: Any
) -> InferenceConfig:
    """The run's settings of answering, judging and reflecting, with what a request changes.

    Args:
        backend: whose run, and whose limit of tokens.
        temperature: that the request asks for.
        max_tokens: that it asks for.
        several: whether several answers or judgements are drawn from one prompt.
        changes: further settings.

    Raises:
        ApiError: they do not go together.
    """
    config = backend.reasoner.config
    if temperature is None:
        temperature = SEVERAL_TEMPERATURE if several and config.temperature == 0 else config.temperature
    limit = config.max_new_tokens if max_tokens is None else max_tokens
    if backend.max_tokens is not None:
        limit = min(limit, backend.max_tokens)
    try:
        return config.changed(temperature=temperature, max_new_tokens=limit, **changes)
    except ValidationError as error:
        raise ApiError(400, one_line(error)) from None
