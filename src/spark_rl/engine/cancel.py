"""Requests that can be ended from outside: by a time limit, or because nobody waits for them any more (Ctrl-C).

A thread that waits for a reply can't be stopped in Python. Its connection can be shut, and then it stops waiting.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException


class AbandonedError(Exception):
    """Raised in the threads of requests that nobody waits for any more."""


class Cancel:
    """Ends the requests of other threads at once: those that wait for a reply, and those that pause."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._live: set[Line] = set()
        self._lock = threading.Lock()

    def now(self) -> None:
        """End all requests made with this object, those under way and those to come."""
        self._wanted.set()
        with self._lock:
            lines = list(self._live)
        for line in lines:
            line.cut()

    def check(self) -> None:
        """Raises :class:`AbandonedError` after :meth:`now`."""
        if self._wanted.is_set():
            raise AbandonedError

    def pause(self, seconds: float) -> None:
        """Sleep. Raises :class:`AbandonedError` if :meth:`now` is called meanwhile."""
        if self._wanted.wait(seconds):
            raise AbandonedError

    @contextmanager
    def watching(self, connection: HTTPConnection, seconds: float) -> Iterator[Line]:
        """A line over ``connection`` that is cut after ``seconds``, however slowly bytes trickle in until then.

        Raises:
            TimeoutError: it was.
        """
        line = Line(connection)
        clock = threading.Timer(seconds, line.expire)
        clock.daemon = True
        with self._lock:
            self._live.add(line)
        clock.start()
        try:
            yield line
        except (OSError, HTTPException):
            self.check()
            if not line.expired:
                raise
        finally:
            clock.cancel()
            with self._lock:
                self._live.discard(line)
            connection.close()
        self.check()
        if line.expired:
            raise TimeoutError


class NoAnswerError(ConnectionError):
    """No connection came about, in the words of the system."""


class Line:
    """A connection that another thread can cut."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.connection = connection
        self.expired = False
        self._socket: socket.socket | None = None

    def open(self) -> None:
        try:
            self.connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise NoAnswerError(f"its certificate can't be trusted: {error.verify_message}") from None
        except OSError as error:
            raise NoAnswerError(error.strerror or str(error)) from None
        self._socket = self.connection.sock  # the connection forgets it before the reply has been read

    def cut(self) -> None:
        found = self._socket
        if found is not None:
            with suppress(OSError):
                # not SSLSocket's own, which pulls the encryption from under the thread that reads
                socket.socket.shutdown(found, socket.SHUT_RDWR)

    def expire(self) -> None:
        self.expired = True
        self.cut()
