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
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.processes = [process for process in multiprocessing.active_children() if process not in others]

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
