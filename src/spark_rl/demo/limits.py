"""What stands before the page: how much a request may hold. An ASGI middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

PICTURE = 10 * 2**20
"""Bytes of a picture at most."""
BODY = 12 * 2**20
"""Bytes of any request at most."""

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]


class _TooLargeError(Exception):
    """Ends the reading of a request."""


class Bounded:
    """Lets requests through to ``app`` as long as they are small; others are refused (413)."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Pass a request on. What the app makes of one that is cut off is not sent."""
        held, began = 0, False

        async def counted() -> Event:
            nonlocal held
            event = await receive()
            held += len(event.get("body", b""))
            if held > BODY:
                raise _TooLargeError
            return event

        async def sent(event: Event) -> None:
            nonlocal began
            if held <= BODY:
                began = True
                await send(event)

        with suppress(_TooLargeError):
            await self.app(scope, counted, sent)
        if held > BODY and not began:
            said = f"the request holds more than {BODY // 2**20} MiB".encode()
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": said})
