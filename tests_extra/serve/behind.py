"""A server of OpenAI's protocol in the test's own process, for another server to stand before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


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

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.say({"object": "list", "data": [{"id": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                behind.asked.append(body)
                found = reply(body)
                if found is not None:
                    self.say(found)
                elif not self.rfile.read(1):
                    self.close_connection = True
                    behind.given_up += 1

            def say(self, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Nothing: the test's output is its own."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
