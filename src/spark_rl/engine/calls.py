"""What one caller has under way, for another thread to end: a client may hang up while its thread waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager


class Calls:
    """The calls of one caller, and how each is ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: set[Callable[[], None]] = set()
        self._cancelled = False

    @contextmanager
    def noted(self, end: Callable[[], None]) -> Iterator[None]:
        """A call, which ``end`` ends. Raises :class:`concurrent.futures.CancelledError` where none is to be made."""
        with self._lock:
            if self._cancelled:
                raise CancelledError
            self._ends.add(end)
        try:
            yield
        finally:
            with self._lock:
                self._ends.discard(end)

    def cancel(self) -> None:
        """End all of them, and let no more begin."""
        with self._lock:
            self._cancelled = True
            left = list(self._ends)
        for end in left:
            end()
