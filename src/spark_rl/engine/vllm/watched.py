"""Calls of vLLM that end when its processes do: vLLM itself waits for the answer of one that is gone for ever."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a run to stop."""
QUIET = "ignore:resource_tracker"
"""What Python's tracker of shared memory is started with: vLLM's processes are killed at the end, since they do not
hear SIGTERM, and what the tracker removes after them is not worth a warning."""
LOOK = 1.0
"""Seconds between two looks at the processes."""


class Ended(Exception):  # noqa: N818  # what happened, as the engine tells it
    """A process that vLLM needs has ended."""


class _Stop(BaseException):
    """A signal that asks a run to stop, while vLLM starts: it swallows a ``KeyboardInterrupt`` then, and waits for many
    minutes for processes that nobody answers any more."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Watched:
    """Processes, and calls that depend on them."""

    def __init__(self) -> None:
        self.processes: Sequence[BaseProcess] = ()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Within, processes are started: they are watched, and never hear :data:`STOPS`, because they inherit the mask.

        A terminal, and Slurm, send those to all processes at once; one that ends at them can't answer any more.
        """
        _track()
        others = multiprocessing.active_children()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        stop: _Stop | None = None
        try:
            with _stopping():
                yield
        except _Stop as heard:
            stop = heard
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.processes = [process for process in multiprocessing.active_children() if process not in others]
        if stop is not None:
            for process in self.processes:
                process.kill()
            signal.raise_signal(stop.number)  # for whoever listens
            raise KeyboardInterrupt

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the function returns or raises, from a thread of its own.

        Raises:
            Ended: a process ended before the function did. The thread is left behind.
        """
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(*arguments, **options))
            except BaseException as error:  # noqa: BLE001  # who waits raises it
                future.set_exception(error)

        threading.Thread(target=run, name="vllm-call", daemon=True).start()
        while not wait([future], LOOK).done:
            gone = [process for process in self.processes if not process.is_alive()]
            if gone and not wait([future], LOOK).done:  # it may be telling so itself
                raise Ended(f"its process {gone[0].name} ended with exit code {gone[0].exitcode}")
        return future.result()


@contextmanager
def _stopping() -> Iterator[None]:
    """Within, signals that would be heard raise :class:`_Stop`; only the main thread hears any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise _Stop(number)

    before = {number: signal.getsignal(number) for number in STOPS}
    heard = [number for number, handler in before.items() if callable(handler)]
    try:
        for number in heard:
            signal.signal(number, stop)
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _track() -> None:
    """Start Python's tracker of shared memory, which takes the mask of signals away as it starts."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = QUIET if before is None else f"{before},{QUIET}"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
