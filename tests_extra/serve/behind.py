"""A server of OpenAI's protocol in the test's own process, for another server to stand before."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from answering import Json, answering


class Behind:
    """It lists one model, and answers chats as it is told."""

    def __init__(self, reply: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Listen on a free port.

        Args:
            reply: what a chat gets; ``None`` lets it wait until the other side hangs up.
        """
        self.asked: list[dict[str, Any]] = []
        """Chats that it was sent."""
        self.given_up = 0
        """Chats whose connection was closed while they waited."""
        behind = self

        class Handler(Json, BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer({"object": "list", "data": [{"id": "model"}]})

            def do_POST(self) -> None:
                body = self.body()
                behind.asked.append(body)
                found = reply(body)
                if found is not None:
                    self.answer(found)
                elif not self.rfile.read(1):
                    self.close_connection = True
                    behind.given_up += 1

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        self._answering = answering(server)

    def __enter__(self) -> Self:
        self._answering.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answering.__exit__(kind, error, trace)
