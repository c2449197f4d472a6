"""What stands before the routes: who may ask, how much, how long, and that nobody is waited for who has gone.

An ASGI middleware. A body is read before anything is done with it, within bounds of size and time; a client that hangs
up takes its request back, which frees what it held.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from spark_rl.serve.errors import ApiError
from spark_rl.serve.metrics import Metrics
from spark_rl.serve.replies import event

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MIB = 2**20
OPEN_TO_ALL = frozenset(("/health",))
"""Paths that need no key."""
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1", "[::1]"))
"""Hosts that only this machine reaches."""
LINGER = 5.0
"""Seconds in which the rest of a refused body is read and thrown away: a client that sends on while its connection is
closed would not see why."""
GONE = 499
"""Counted for clients that hung up; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on."""

    requests: int = 256
    """Under way at a time; more are told to come again (429)."""
    seconds: float = 600.0
    """That a request may take, its generation included (408)."""
    body: int = 32 * MIB
    """Bytes of a request (413)."""
    bodies: int = 256 * MIB
    """Bytes of all requests under way (429)."""
    reading: float = 30.0
    """Seconds in which a body has to arrive (408)."""


class Guard:
    """Lets requests through to ``app``, or says why not."""

    def __init__(self, app: App, *, limits: Limits, metrics: Metrics, key: str | None, hosts: frozenset[str]) -> None:
        """Guard an app.

        Args:
            app: what answers.
            limits: see there.
            metrics: what is counted.
            key: that clients must send as ``Authorization: Bearer KEY``; ``None`` lets everybody in.
            hosts: the ``Host`` names that are answered, or none for any: a page on the web may make a browser ask a
                server on this machine under a name of its own.
        """
        self.app, self.limits, self.metrics, self.hosts = app, limits, metrics, hosts
        self._key = None if key is None else key.encode()
        self._open = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, to_come = time.monotonic(), [0], [True]
        sends = [all(name != b"expect" for name, _ in scope["headers"])]  # else not before it is asked for

        async def heard() -> Event:
            sends[0] = True
            message = await receive()
            to_come[0] = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def counted(message: Event) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._let_in(scope, heard, counted, status)
        except ApiError as error:
            if not status[0]:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while to_come[0] and sends[0]:
                            await heard()
                await _refuse(error, counted, closed=to_come[0])
            elif error.status != GONE:  # a stream has begun: all that can be sent is another event
                await send({"type": "http.response.body", "body": event(error.body()), "more_body": False})
        finally:
            self.metrics.request(str(scope["path"]), status[0] or GONE, time.monotonic() - began)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send, status: list[int]) -> None:
        self._check(scope)
        if scope["method"] in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
            return
        if self._open >= self.limits.requests:
            raise ApiError(429, f"{self.limits.requests} requests are under way already; ask again later", "busy")
        self._open += 1
        self.metrics.under_way(self._open)
        body: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self.limits.reading):
                    await self._read(scope, receive, body)
            except TimeoutError:
                raise ApiError(408, f"the body did not arrive within {self.limits.reading:g} s") from None
            await self._answered(scope, b"".join(body), receive, send)
        finally:
            self._open -= 1
            self._held -= sum(map(len, body))
            self.metrics.under_way(self._open)

    def _check(self, scope: Scope) -> None:
        """Raises :class:`ApiError` for a stranger."""
        headers = dict(reversed(scope["headers"]))
        if self.hosts and _host(headers.get(b"host", b"")) not in self.hosts:
            raise ApiError(403, "this server answers to localhost alone; to serve others, start it with --host")
        if self._key is None or scope["path"] in OPEN_TO_ALL:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
            raise ApiError(401, "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
                           "invalid_api_key")  # fmt: skip

    async def _read(self, scope: Scope, receive: Receive, body: list[bytes]) -> None:
        """Read the body into ``body``. Raises :class:`ApiError` if it is too long, or the client has gone."""
        most = self.limits.body
        too_long = ApiError(413, f"the request is longer than {most:,} bytes", "request_too_large")
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if said.isdigit() and int(said[:20]) > most:
            raise too_long
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(GONE, "the client has gone")
            piece = message.get("body", b"")
            size += len(piece)
            if size > most:
                raise too_long
            if self._held + len(piece) > self.limits.bodies:
                raise ApiError(429, "too much is being sent at the same time; ask again later", "busy")
            self._held += len(piece)
            body.append(piece)
            more = message.get("more_body", False)

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the app answer, until the client has gone or the time is up."""
        left, whole = asyncio.Event(), [body]

        async def given() -> Event:
            if whole:
                return {"type": "http.request", "body": whole.pop(), "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        answer = asyncio.ensure_future(self.app(scope, given, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({answer, watcher}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
            elif watcher.done():
                raise ApiError(GONE, "the client has gone")
            else:
                raise ApiError(408, f"the request took longer than {self.limits.seconds:g} s", "timeout")
        finally:
            left.set()
            for task in (answer, watcher):
                task.cancel()
            await asyncio.gather(answer, watcher, return_exceptions=True)


def _host(header: bytes) -> str:
    """The name in a ``Host`` header, without the port."""
    text = header.decode("latin-1").strip().lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


async def _refuse(error: ApiError, send: Send, *, closed: bool) -> None:
    """Say why; ``closed`` where some of the body is not read."""
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if closed or error.status in {408, 413, 499}:
        headers.append((b"connection", b"close"))
    if error.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
