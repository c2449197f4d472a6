"""The process in which symbolic comparison happens, so that it can be killed without touching the trainer.

Started by :mod:`spark_rl.verify.pool`; speaks length-prefixed JSON over the socket that is its standard input: nothing
is unpickled, and nothing that a library prints can corrupt the protocol. It limits its own memory, ends when its parent
does, and sets kernel timers before each comparison: one of the processor time it takes, and a far longer one of the
clock for what waits without working. Their signals keep their default action, which ends the process even while a C
routine holds the interpreter.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from spark_rl.problem import Status

MEMORY_LIMIT = 2 << 30
"""Address space of a worker, in bytes."""
WALL_FACTOR = 10.0
LEAST_WALL = 60.0
"""Seconds on the clock, at least, before a comparison is ended that has not used up its processor time."""
TIME_IS_UP = frozenset(
    -getattr(signal, name)
    for name in ("SIGPROF", "SIGALRM")
    if hasattr(signal, name)  # POSIX only
)
"""Exit codes of a worker that one of its timers ended."""
ORPHAN_CHECK = 5.0
"""Seconds between two looks at whether the parent still lives."""

COMPARISONS: Mapping[str, str] = {
    "math": "spark_rl.verify.worker:compare_symbolically",
    "choice": "spark_rl.verify.worker:compare_options",
    "reference": "spark_rl.evals.score.reference:compare",
}
"""Name -> ``module:function``, loaded by the worker at its first use. A function takes (gold, answer), ``choice`` the
option texts too, and returns a :data:`spark_rl.problem.Status`; whatever it raises counts as ``unparsable``."""


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """One message: four bytes of length, then JSON."""
    body = json.dumps(message).encode("ascii")
    connection.sendall(struct.pack("!I", len(body)) + body)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next message, or ``None`` when the other side is gone; ``TimeoutError`` past the socket's timeout."""
    header = _read(connection, 4)
    body = None if header is None else _read(connection, struct.unpack("!I", header)[0])
    return None if body is None else dict(json.loads(body))


def _read(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except ConnectionResetError:
            return None
        if not piece:
            return None
        data += piece
    return bytes(data)


def serve() -> None:
    """Answer comparisons until the parent closes the connection or dies. Each says how many seconds it may take."""
    parent = os.getppid()
    connection = socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    limit_memory()
    compare_symbolically(r"\frac{x}{2}+\sqrt{3}", r"\sqrt3+0.5x")  # loads every module before a timer runs
    send(connection, {"ready": os.getpid()})
    silence()
    while True:
        readable, _, _ = select.select([connection], [], [], ORPHAN_CHECK)
        if not readable and os.getppid() == parent:
            continue
        request = receive(connection) if readable else None
        if request is None:
            return
        limit_time(request["limit"])
        try:
            status = _comparison(request["name"])(*request["arguments"])
        except Exception:  # noqa: BLE001  # untrusted text, for ``reference`` in a third-party parser: not readable
            status = "unparsable"
        limit_time(None)
        send(connection, {"status": status})


@cache
def _comparison(name: str) -> Callable[..., Status]:
    module, _, function = COMPARISONS[name].partition(":")
    found: Callable[..., Status] = getattr(import_module(module), function)
    return found


def compare_symbolically(gold: str, answer: str) -> Status:
    """:func:`spark_rl.verify.equivalence.compare` with symbolic algebra for what it would leave undecided."""
    from spark_rl.verify.equivalence import compare  # noqa: PLC0415  # loaded at need, like every comparison
    from spark_rl.verify.symbolic import symbolically_equal  # noqa: PLC0415

    return compare(gold, answer, symbolically_equal) or "unparsable"


def compare_options(gold: str, answer: str, choices: Sequence[str] = ()) -> Status:
    """:func:`spark_rl.verify.choice.compare_choice` with symbolic algebra for options it would leave undecided."""
    from spark_rl.verify.choice import compare_choice  # noqa: PLC0415
    from spark_rl.verify.symbolic import symbolically_equal  # noqa: PLC0415

    return compare_choice(gold, answer, choices, symbolically_equal) or "unparsable"


def wall_limit(limit: float) -> float:
    """Seconds on the clock for a comparison that may take ``limit`` seconds of processor time."""
    return max(WALL_FACTOR * limit, LEAST_WALL)


def limit_time(limit: float | None) -> None:
    """Start both timers, or stop them."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, limit or 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0 if limit is None else wall_limit(limit))


def silence() -> None:
    """Whatever libraries still have to say about untrusted text is of no use to the user."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def limit_memory() -> None:
    if sys.platform == "linux":
        import resource  # noqa: PLC0415  # POSIX only

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
