"""What stands before the routes: who may ask, how much, how long, and that nobody is waited for who has gone.

An ASGI middleware. A body is read before anything is done with it, within bounds of size and time; a client that hangs
up takes its request back, which frees what it held.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from spark_rl.serve.errors import CLOSING, ApiError
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


class _Exchange:
    """A request and its answer, as far as they have come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is read yet."""
        self.scope = scope
        self.status = 0
        """Of the answer; 0 until it begins."""
        self.to_come = True
        """Whether some of the body has not been received."""
        self.held = 0
        """Bytes of the body that are held."""
        self.left = asyncio.Event()
        """Set once nobody waits for the answer any more."""
        self._receive, self._send = receive, send
        self._comes = all(name != b"expect" for name, _ in scope["headers"])  # else not before it is asked for
        self._pieces: list[bytes] = []
        self._handed_over = False

    async def receive(self) -> Event:
        """What the client sends next."""
        self._comes = True
        message = await self._receive()
        self.to_come = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Event) -> None:
        """Something of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def rest(self) -> None:
        """Receive what the client sends on, and throw it away."""
        while self.to_come and self._comes:
            await self.receive()

    def keep(self, piece: bytes) -> None:
        """Hold a piece of the body."""
        self.held += len(piece)
        self._pieces.append(piece)

    async def whole(self) -> Event:
        """For the app to receive: the body in one piece, then that the client has gone, once it has."""
        if not self._handed_over:
            self._handed_over = True
            return {"type": "http.request", "body": b"".join(self._pieces), "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}


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
        self._times: set[asyncio.Timeout] = set()
        self._dismissed = False

    def dismiss(self) -> None:
        """End all requests under way, and those that come yet, with the error that the server is shutting down."""
        self._dismissed = True
        for time_left in self._times:
            if not time_left.expired():
                time_left.reschedule(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, exchange = time.monotonic(), _Exchange(scope, receive, send)
        try:
            await self._until_dismissed(exchange)
        except ApiError as error:
            if not exchange.status:
                with suppress(TimeoutError):
                    async with self._within(LINGER):
                        await exchange.rest()
                await _refuse(error, exchange)
            elif error.status != GONE:  # a stream has begun: all that can be sent is another event
                await send({"type": "http.response.body", "body": event(error.body()), "more_body": False})
        finally:
            self.metrics.request(str(scope["path"]), exchange.status or GONE, time.monotonic() - began)

    @asynccontextmanager
    async def _within(self, seconds: float | None) -> AsyncIterator[None]:
        """Raises :class:`TimeoutError` after so many seconds, or once the guard is dismissed."""
        async with asyncio.timeout(0 if self._dismissed else seconds) as time_left:
            self._times.add(time_left)
            try:
                yield
            finally:
                self._times.discard(time_left)

    async def _until_dismissed(self, exchange: _Exchange) -> None:
        try:
            async with self._within(None):
                await self._let_in(exchange)
        except TimeoutError:
            if not self._dismissed:
                raise
            raise ApiError(503, CLOSING) from None

    async def _let_in(self, exchange: _Exchange) -> None:
        self._check(exchange.scope)
        if exchange.scope["method"] in {"GET", "HEAD"}:
            await self.app(exchange.scope, exchange.receive, exchange.send)
            return
        if self._open >= self.limits.requests:
            raise ApiError(429, f"{self.limits.requests} requests are under way already; ask again later", "busy")
        self._open += 1
        self.metrics.under_way(self._open)
        try:
            try:
                async with asyncio.timeout(self.limits.reading):
                    await self._read(exchange)
            except TimeoutError:
                raise ApiError(408, f"the body did not arrive within {self.limits.reading:g} s") from None
            await self._answered(exchange)
        finally:
            self._open -= 1
            self._held -= exchange.held
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

    async def _read(self, exchange: _Exchange) -> None:
        """Read the body. Raises :class:`ApiError` if it is too long, or the client has gone."""
        most = self.limits.body
        too_long = ApiError(413, f"the request is longer than {most:,} bytes", "request_too_large")
        said = next((value for name, value in exchange.scope["headers"] if name == b"content-length"), b"0")
        if said.isdigit() and int(said[:20]) > most:
            raise too_long
        while exchange.to_come:
            message = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise ApiError(GONE, "the client has gone")
            piece = message.get("body", b"")
            if exchange.held + len(piece) > most:
                raise too_long
            if self._held + len(piece) > self.limits.bodies:
                raise ApiError(429, "too much is being sent at the same time; ask again later", "busy")
            self._held += len(piece)
            exchange.keep(piece)

    async def _answered(self, exchange: _Exchange) -> None:
        """Let the app answer, until the client has gone or the time is up."""

        async def watch() -> None:
            while (await exchange.receive())["type"] != "http.disconnect":
                pass

        answer = asyncio.ensure_future(self.app(exchange.scope, exchange.whole, exchange.send))
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
            exchange.left.set()
            for task in (answer, watcher):
                task.cancel()
            await asyncio.gather(answer, watcher, return_exceptions=True)


def _host(header: bytes) -> str:
    """The name in a ``Host`` header, without the port."""
    text = header.decode("latin-1").strip().lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


async def _refuse(error: ApiError, exchange: _Exchange) -> None:
    """Say why."""
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if exchange.to_come or error.status in {408, 413, 499}:
        headers.append((b"connection", b"close"))
    if error.status == 429:
        headers.append((b"retry-after", b"1"))
    await exchange.send({"type": "http.response.start", "status": error.status, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": body})
