"""The process in which chat templates are rendered, because whoever made a model made its template too.

Jinja's sandbox, which transformers gives it, lets a template reach nothing of Python's, but not end: loops in loops run
for years, and one product of a text and a number takes all memory. So a process of its own renders, one for all
templates, with limits on its memory and on the time of each prompt; it costs some tenths of a millisecond a prompt and
a second once. What it writes is what ``apply_chat_template`` would write. It is started when the first template is
rendered that did not come with this package, and ends with this process.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from spark_rl.model.places import EMBEDDED
from spark_rl.verify.child import Child
from spark_rl.verify.worker import (
    ORPHAN_CHECK,
    TIME_IS_UP,
    limit_memory,
    limit_time,
    receive,
    send,
    silence,
    wall_limit,
)

SECONDS = 10.0
"""Of processor time for one prompt."""
MOST_CHARACTERS = 5_000_000
"""Of a rendered prompt: more tokens than any model reads, and a tokenizer takes some fifty bytes for each."""
START_LIMIT = 600.0
"""Seconds on the clock in which the process has to start."""
GRACE = 10.0
"""Seconds past the process's own limits at which it is ended."""


class RenderingError(ValueError):
    """Why a template gives no text, as a phrase."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line
        """Of the template, where Jinja knows it."""


class _Renderer:
    """The process, asked by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply. Raises :class:`RenderingError` if there is none within the limits."""
        with self._lock:
            connection = self._started()
            connection.settimeout(wall_limit(request["limit"]) + GRACE)
            try:
                send(connection, request)
                reply = receive(connection)
            except (TimeoutError, ConnectionError):
                reply = None
            except BaseException:
                self._stop()  # its reply would be the next one's
                raise
            if reply is not None:
                return reply
            self._stop()
        raise RenderingError("the process that rendered it has ended; it may need too much memory")

    def _started(self) -> socket.socket:
        if self._child is not None and not self._child.is_there:
            self._stop()  # this is a fork of whoever started it, or it was killed
        if self._child is not None:
            return self._child.connection
        child = Child("spark_rl.chat.rendering")  # ends by itself where this is interrupted
        child.connection.settimeout(START_LIMIT)
        try:
            ready = receive(child.connection) is not None
        except TimeoutError:
            ready = False
        if not ready:
            child.stop()
            raise RuntimeError("the process that renders chat templates did not start (its own error is above)")
        self._child = child
        return child.connection

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None


_renderer = _Renderer()


def render(template: str, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
    """The chat as the template writes it, up to where the answer begins.

    Args:
        template: Jinja.
        messages: as ``apply_chat_template`` takes them.
        arguments: what else the template may use, its special tokens too.

    Raises:
        RenderingError: the template fails, takes too long, needs too much memory or writes too much.
    """
    asked = {"template": template, "messages": messages, "arguments": arguments, "limit": SECONDS}
    if template in _ours():
        return str(_rendered(asked))
    reply = _renderer.ask(asked)
    if "text" not in reply:
        raise RenderingError(reply["error"], reply["line"])
    return str(reply["text"])


@cache
def _ours() -> frozenset[str]:
    """Templates of the bases that come with this package, which end: no process has to start for them."""
    return frozenset((base / "chat_template.jinja").read_text(encoding="utf-8") for base in EMBEDDED.values())


def _rendered(asked: Mapping[str, Any]) -> Any:
    """What transformers makes of a request."""
    from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415  # heavy, at first use

    texts, _ = render_jinja_template(
        [asked["messages"]], chat_template=asked["template"], add_generation_prompt=True, **asked["arguments"]
    )
    return texts[0]


def serve() -> None:
    """Let children render, one after the other, until one of them is told that there is nothing more to do.

    A child that its timer ends is replaced by the next in some milliseconds, with everything imported.
    """
    connection, asker = socket.socket(fileno=0), os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _rendered({"template": "", "messages": [], "arguments": {}})  # loads every module before a timer runs
    limit_memory()
    send(connection, {"ready": os.getpid()})
    silence()
    while True:
        child = os.fork()
        if child == 0:
            _serve(connection, asker)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) not in TIME_IS_UP:
            return  # nobody asks any more; or nobody knows what it was asked
        send(connection, {"error": "it takes too long for one prompt; does it ever end?", "line": None})


def _serve(connection: socket.socket, asker: int) -> None:
    """Render until the connection is closed or who asks is gone."""
    while True:
        readable, _, _ = select.select([connection], [], [], ORPHAN_CHECK)
        if not readable:
            try:
                os.kill(asker, 0)
            except ProcessLookupError:
                return
            continue
        request = receive(connection)
        if request is None:
            return
        limit_time(request["limit"])
        reply: dict[str, Any]
        try:
            text = _rendered(request)
            size = len(text)
            reply = {"text": text}
            if size > MOST_CHARACTERS:
                reply = {"error": f"it writes {size:,} characters, more than {MOST_CHARACTERS:,}", "line": None}
        except Exception as error:  # noqa: BLE001  # untrusted code, whatever it raises
            reply = {"error": _why(error), "line": getattr(error, "lineno", None)}
        limit_time(None)
        send(connection, reply)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    try:
        text = str(error)[:500]
    except Exception:  # noqa: BLE001  # of an error that the template has a part in
        text = ""
    return " ".join(text.split()) or type(error).__name__
