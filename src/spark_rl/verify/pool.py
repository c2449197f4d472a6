"""The verifier: cheap comparisons in this process, symbolic ones in worker processes that can be killed (Eq. 2).

Workers are plain subprocesses, not ``multiprocessing`` children: they never import the user's ``__main__``, work from
any thread, from notebooks and from scripts without a guard, and are safe beside torch's threads because nothing is
forked without exec. A worker that overruns its time limit is killed and replaced; its item counts as ``timeout``. A
worker that dies of an item (out of memory, a crash in C) is replaced too; that item counts as ``unparsable``.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from spark_rl.config import VerifyConfig
from spark_rl.problem import Kind, Status, Verdict
from spark_rl.verify.grade import grade, verdict_of
from spark_rl.verify.worker import COMPARISONS, receive, send

START_LIMIT = 120.0
"""Seconds a worker may take to load sympy before that is an error; never charged to an item."""

Item = tuple[str, str, Kind, Sequence[str]]
"""(response, gold answer, kind, choices), as :func:`verify` takes them."""

Comparison = tuple[str, str, str]
"""(name in :data:`spark_rl.verify.worker.COMPARISONS`, gold answer, given answer)."""

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from spark_rl.verify.worker import serve; serve(float(sys.argv[2]))"
)


_CLOSED = "this Verifier is closed; make a new one"


class _Worker:
    """One slot: a process that is started at need, used by one thread at a time, and replaced when it is spent."""

    def __init__(self, config: VerifyConfig) -> None:
        self._limit = config.timeout
        self._recycle_after = config.recycle_after
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes], socket.socket, int], _Worker] | None = None
        self._ready = False
        self._done = 0
        self._owner = 0
        self.kills = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def compare(self, name: str, gold: str, answer: str) -> Status:
        """``timeout`` if the comparison had to be killed, otherwise what the worker found."""
        connection = self._started()
        reply: dict[str, Any] | None
        try:
            send(connection, {"name": name, "gold": gold, "answer": answer})
            reply = _receive_within(connection, self._limit)
        except TimeoutError:
            self.kills += 1
            self._replace()
            return "timeout"
        except OSError:
            reply = None  # it died before it could read
        except BaseException:
            self.stop()  # an interrupted exchange would leave its reply to the next item
            raise
        if reply is None:
            self._replace()
            return "unparsable"
        self._done += 1
        if self._done >= self._recycle_after:
            self._replace()
        status: Status = reply["status"]
        return status

    def stop(self) -> None:
        """End the process and wait for it."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._connection = self._finalizer = None

    def _started(self) -> socket.socket:
        if self._process is not None and (self._process.poll() is not None or self._owner != os.getpid()):
            self.stop()
        if self._process is None:
            self._start()
        connection = self._connection
        assert connection is not None
        if not self._ready:
            try:
                self._ready = _receive_within(connection, START_LIMIT) is not None
            except TimeoutError:
                self._ready = False
            if not self._ready:
                self.stop()
                raise RuntimeError(
                    "the verifier's worker process did not start (its own error is above); "
                    "check that 'python -c \"import math_verify, sympy\"' works in this environment"
                )
        return connection

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter on our own code
                [sys.executable, "-W", "ignore", "-c", _BOOT, json.dumps(sys.path), str(self._limit)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self._connection = ours
        self._owner = os.getpid()
        self._ready, self._done = False, 0
        self._finalizer = weakref.finalize(self, _end, self._process, ours, self._owner)

    def _replace(self) -> None:
        """A fresh process, loading while this thread goes on."""
        self.stop()
        self._start()


def _end(process: subprocess.Popen[bytes], connection: socket.socket, owner: int) -> None:
    connection.close()
    if os.getpid() == owner:  # a forked child must not kill its parent's workers
        process.kill()
        process.wait()


def _receive_within(connection: socket.socket, seconds: float) -> dict[str, Any] | None:
    connection.settimeout(seconds)
    return receive(connection)


class Verifier:
    """Grades responses from any thread; close it, or use it as a context manager, to end its processes.

    ``with Verifier(config.verify) as verifier: verifier.verify_many([(response, "42", "math", ())])``
    """

    def __init__(self, config: VerifyConfig | None = None) -> None:
        self.config = config if config is not None else VerifyConfig()
        self._workers = [_Worker(self.config) for _ in range(self.config.workers)]
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in reversed(self._workers):
            self._free.put(worker)
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that have been started."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    @property
    def kills(self) -> int:
        """Comparisons killed at the time limit so far."""
        return sum(worker.kills for worker in self._workers)

    def verify(self, response: str, answer: str, kind: Kind = "math", choices: Sequence[str] = ()) -> Verdict:
        """One verdict; see :func:`verify` for the arguments and errors."""
        status, extracted = grade(response, answer, kind, choices)
        if status is None:
            assert extracted is not None
            status = self._compare("math", answer, extracted)
        return verdict_of(status, extracted)

    def verify_many(self, items: Sequence[Item]) -> list[Verdict]:
        """Verdicts in the order of the items. Equal symbolic comparisons are made once."""
        pending: dict[tuple[str, str], Future[Status]] = {}
        found: list[tuple[Status | None, str | None]] = []
        try:
            for response, answer, kind, choices in items:
                status, extracted = grade(response, answer, kind, choices)
                found.append((status, extracted))
                if status is None and extracted is not None and (answer, extracted) not in pending:
                    pending[answer, extracted] = self._executor().submit(self._compare, "math", answer, extracted)
            return [
                verdict_of(status or pending[item[1], extracted or ""].result(), extracted)
                for (status, extracted), item in zip(found, items, strict=True)
            ]
        finally:
            for future in pending.values():
                future.cancel()

    def compare_many(self, comparisons: Sequence[Comparison]) -> list[Status]:
        """What the named comparisons say, in order, each made in a worker and killed at the time limit. Equal ones are
        made once.

        Raises:
            ValueError: for a name that is not in :data:`spark_rl.verify.worker.COMPARISONS`.
        """
        unknown = {name for name, _, _ in comparisons} - COMPARISONS.keys()
        if unknown:
            raise ValueError(f"unknown comparison {min(unknown)!r}; known are {', '.join(COMPARISONS)}")
        pending: dict[Comparison, Future[Status]] = {}
        try:
            for comparison in comparisons:
                if comparison not in pending:
                    pending[comparison] = self._executor().submit(self._compare, *comparison)
            return [pending[comparison].result() for comparison in comparisons]
        finally:
            for future in pending.values():
                future.cancel()

    def close(self) -> None:
        """End all workers, after the comparisons under way. Nothing is left behind; closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            threads = self._threads
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        for worker in [self._free.get() for _ in self._workers]:
            worker.stop()
            self._free.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _compare(self, name: str, gold: str, answer: str) -> Status:
        worker = self._free.get()
        try:
            if self._closed:
                raise RuntimeError(_CLOSED)
            return worker.compare(name, gold, answer)
        finally:
            self._free.put(worker)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._closed:
                raise RuntimeError(_CLOSED)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.config.workers, thread_name_prefix="spark-verify")
            return self._threads


_default: Verifier | None = None
_default_lock = threading.Lock()


def default_verifier() -> Verifier:
    """The verifier behind the function :func:`verify`, made at its first use; its workers end with this process."""
    global _default  # noqa: PLW0603  # one per process, by intent
    with _default_lock:
        if _default is None:
            _default = Verifier()
        return _default


def verify(response: str, answer: str, kind: Kind = "math", choices: Sequence[str] = ()) -> Verdict:
    r"""Grade one response: r = 1 if its last ``\boxed{}`` equals the gold answer, else 0 (Eq. 2).

    Args:
        response: the model's text.
        answer: the gold answer, bare or in ``$...$`` or ``\boxed{}``.
        kind: ``math`` (numbers, LaTeX, structure, symbolic equivalence), ``choice`` (a letter or an option's text),
            ``verdict`` (Yes/No, A/B) or ``exact`` (the same string).
        choices: option texts in order A, B, C, ... for ``choice``.

    Returns:
        A :class:`spark_rl.problem.Verdict`; ``verify(r"so \boxed{\frac12}", "0.5").reward`` is 1.0.

    Raises:
        ValueError: for an empty gold, a gold that its kind cannot be, or an unknown kind.
    """
    return default_verifier().verify(response, answer, kind, choices)
