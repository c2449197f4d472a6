"""Another server, which this one asks on behalf of its clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import httpx

from spark_rl.engine.openai import OpenAIEngine
from spark_rl.inference import Reasoner
from spark_rl.serve.backend import BEGUN, Spent, Threads, begun
from spark_rl.serve.errors import ApiError
from spark_rl.serve.protocol import ChatRequest
from spark_rl.serve.replies import event

_Found = TypeVar("_Found")

RETRIES = 2
"""How often the other server is asked again: somebody waits, and is told sooner."""


class Upstream:
    """Another server, which is asked on behalf of clients; plain completions are passed on as they are."""

    def __init__(self, reasoner: Reasoner, *, timeout: float) -> None:
        """``reasoner`` has an :class:`OpenAIEngine`; a request takes ``timeout`` seconds at most."""
        assert isinstance(reasoner.engine, OpenAIEngine)
        self.server, self.reasoner, self.name = reasoner.engine, reasoner, reasoner.engine.model
        self.server.endpoint.retries = min(self.server.endpoint.retries, RETRIES)
        self.timeout = timeout
        self.max_tokens: int | None = None
        self._client: httpx.AsyncClient | None = None
        self._threads = Threads()

    async def chat(self, request: ChatRequest, body: Mapping[str, Any]) -> dict[str, Any] | AsyncIterator[bytes]:
        """What the other server replies."""
        client = self._client = self._client or self.server.endpoint.client()
        try:
            passed = client.build_request(
                "POST", f"{self.server.endpoint.url}/chat/completions", json={**body, "model": self.server.model},
                timeout=self.timeout,
            )  # fmt: skip
        except ValueError:  # infinity, or half a character
            raise ApiError(400, "the request holds something that JSON has no form for") from None
        try:
            response = await client.send(passed, stream=True)
            if request.stream and response.status_code == 200:
                return await begun(self._passed_on(response))
            try:
                await response.aread()
                reply = response.json()
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise ApiError(504, "the upstream server gave no reply in time") from None
        except httpx.HTTPError as error:
            raise ApiError(502, f"the upstream server can't be reached ({type(error).__name__})") from None
        except ValueError:
            raise ApiError(502, "the upstream server's reply is no JSON") from None
        if response.status_code != 200 or not isinstance(reply, dict):
            said = reply.get("error") if isinstance(reply, dict) else None
            words = said.get("message") if isinstance(said, dict) else said or reply
            raise ApiError(response.status_code if response.status_code >= 400 else 502, f"upstream: {words!s:.500}")
        return reply

    async def think(self, work: Callable[[Reasoner], _Found]) -> tuple[_Found, Spent]:
        """In a thread, with a session of the engine that ends with this."""
        session = self.server.session()
        spent = Spent(session)
        try:
            found = await self._threads.run(partial(work, replace(self.reasoner, engine=spent)))
        finally:
            session.cancel()
        spent.read, spent.written = session.usage.read, session.usage.written
        return found, spent

    def load(self) -> dict[str, float]:
        """Nothing is known."""
        return {}

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    @staticmethod
    async def _passed_on(response: httpx.Response) -> AsyncGenerator[bytes]:
        try:
            yield BEGUN
            async for piece in response.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            yield event(ApiError(502, f"the upstream server broke off ({type(error).__name__})").body())
        finally:
            await response.aclose()
