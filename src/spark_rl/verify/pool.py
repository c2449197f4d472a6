"""The verifier: cheap comparisons in this process, symbolic ones in worker processes that can be killed (Eq. 2).

Workers are plain subprocesses, not ``multiprocessing`` children: they never import the user's ``__main__``, work from
any thread, from notebooks and from scripts without a guard, and are safe beside torch's threads because nothing is
forked without exec.

What is limited is the processor time that a comparison takes, by a kernel timer of the worker's own: a busy machine
makes verdicts late and never different. A worker that overruns is ended and replaced; its item counts as ``timeout``.
The limit is a short one at first (:data:`FIRST_LOOK`), and not many of a batch get the whole one after it.
A worker that dies otherwise (killed from outside, out of memory, a crash in C) is replaced too, and its item is tried
again in the fresh one; an item under which :data:`ATTEMPTS` workers died counts as ``unparsable``. Where none can be
started there are no verdicts: that is a :class:`VerifierError`.
"""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from spark_rl.config import AnswerForm, VerifyConfig
from spark_rl.errors import VerifierError
from spark_rl.problem import Kind, Status, Verdict
from spark_rl.verify.child import Child
from spark_rl.verify.grade import best_of, grade_each, in_form, verdict_of
from spark_rl.verify.worker import COMPARISONS, TIME_IS_UP, receive, send, wall_limit

START_LIMIT = 600.0
"""Seconds on the clock a worker may take to start before that is an error; never charged to an item."""
ATTEMPTS = 3
"""Workers that may die under one item, and that may be killed one after the other while they start."""
REPLY_GRACE = 10.0
"""Seconds past the worker's own limits at which the pool ends it: one that is stopped keeps no time itself."""

FIRST_LOOK = 0.25
"""Seconds of processor time after which a comparison is put off. Hardly one that ends takes as long."""
SLOW, SLOW_SHARE = 8, 64
"""Comparisons of a batch that may take longer, and one more for so many comparisons of it."""

Item = tuple[str, str | Sequence[str], Kind, Sequence[str]]
"""(response, gold answer or several, kind, choices), as :func:`verify` takes them."""

Answer = Callable[[], Status]
"""Waits for what a comparison found."""

Finish = Callable[[], Verdict]
"""Waits for the verdict of an item that :meth:`Verifier.grading` has begun."""


class Comparison(NamedTuple):
    """One question to a worker: ``Comparison("math", r"2\\sqrt{3}", r"\\sqrt{12}")``."""

    name: str
    """One of :data:`spark_rl.verify.worker.COMPARISONS`."""
    gold: str
    answer: str
    choices: tuple[str, ...] = ()
    """Option texts, for ``choice`` only."""

    def request(self) -> dict[str, Any]:
        """What is sent to the worker: the function's name and its arguments."""
        given = (self.gold, self.answer, self.choices) if self.choices else (self.gold, self.answer)
        return {"name": self.name, "arguments": given}


_CLOSED = "this Verifier is closed; make a new one"


class _Worker:
    """One slot: a process that is started at need, used by one thread at a time, and replaced when it is spent."""

    def __init__(self, config: VerifyConfig) -> None:
        self._recycle_after = config.recycle_after
        self._child: Child | None = None
        self._ready = False
        self._done = 0
        self.kills = 0
        self.deaths = 0

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.process.pid

    def compare(self, comparison: Comparison, limit: float) -> Status:
        """``timeout`` if the comparison had to be ended after ``limit`` seconds of processor time, otherwise what the
        worker found.
        """
        for _ in range(ATTEMPTS):
            connection = self._started()
            try:
                reply = self._asked(connection, comparison, limit)
            except TimeoutError:
                ended = True
            except BaseException:
                self.stop()  # an interrupted exchange would leave its reply to the next item
                raise
            else:
                if reply is not None:
                    self._done += 1
                    if self._done >= self._recycle_after:
                        self._replace()
                    status: Status = reply["status"]
                    return status
                ended = self._exit_code() in TIME_IS_UP
            self._replace()
            if ended:
                self.kills += 1
                return "timeout"
            self.deaths += 1
        return "unparsable"

    def _asked(self, connection: socket.socket, comparison: Comparison, limit: float) -> dict[str, Any] | None:
        """The worker's reply, ``None`` if it died. Raises ``TimeoutError`` if it does neither."""
        connection.settimeout(wall_limit(limit) + REPLY_GRACE)
        try:
            send(connection, {**comparison.request(), "limit": limit})
        except ConnectionError:
            return None  # it died before it could read
        return receive(connection)

    def _exit_code(self) -> int | None:
        """How the process ended that closed its connection."""
        assert self._child is not None
        try:
            return self._child.process.wait(REPLY_GRACE)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the process and wait for it."""
        if self._child is not None:
            self._child.stop()
        self._child = None

    def _started(self) -> socket.socket:
        """The connection to a process that is ready. One that is killed while it starts is started again.

        Raises:
            VerifierError: none can be started.
        """
        for _ in range(ATTEMPTS):
            if self._child is not None and not self._child.is_there:
                self.stop()
            if self._child is None:
                try:
                    self._start()
                except OSError as error:
                    raise _no_room("a worker process", error) from None
            assert self._child is not None
            connection = self._child.connection
            if not self._ready:
                connection.settimeout(START_LIMIT)
                try:
                    self._ready = receive(connection) is not None
                except TimeoutError:
                    break
            if self._ready:
                return connection
            code = self._exit_code()
            self.stop()
            if code is None or code >= 0:
                break
            self.deaths += 1
        self.stop()
        raise VerifierError(
            "the verifier's worker process did not start (its own error is above, unless it was killed); "
            "check that 'python -c \"import mpmath\"' works in this environment and that memory is left"
        )

    def _start(self) -> None:
        self._child = Child("spark_rl.verify.worker")
        self._ready, self._done = False, 0

    def _replace(self) -> None:
        """A fresh process, loading while this thread goes on; if none can be started now, it is when it is needed."""
        self.stop()
        with suppress(OSError):
            self._start()


def _no_room(what: str, error: BaseException) -> VerifierError:
    return VerifierError(
        f"the verifier can't start {what} ({getattr(error, 'strerror', None) or error}); raise the limit of processes "
        "(ulimit -u), of open files (ulimit -n) or of memory, or lower verify.workers"
    )


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
        """Comparisons ended at a time limit so far, at both where a slow one was made again."""
        return sum(worker.kills for worker in self._workers)

    @property
    def deaths(self) -> int:
        """Workers that died under a comparison or while they started, and were not ended by this verifier."""
        return sum(worker.deaths for worker in self._workers)

    def verify(
        self, response: str, answer: str | Sequence[str], kind: Kind = "math", choices: Sequence[str] = ()
    ) -> Verdict:
        """One verdict; see :func:`verify` for the arguments and errors."""
        return self.verify_many([(response, answer, kind, choices)])[0]

    def verify_many(self, items: Sequence[Item], form: AnswerForm = "equivalent") -> list[Verdict]:
        """Verdicts in the order of the items. Equal symbolic comparisons are made once.

        With ``form`` ``evaluated``, right answers that are not evaluated (:mod:`spark_rl.verify.form`) are
        ``unparsable``: the training reward's setting ``reward.form``.
        """
        with self.grading(form) as begin:
            begun = [begin(item) for item in items]
            return [finish() for finish in begun]

    @contextmanager
    def grading(self, form: AnswerForm = "equivalent") -> Iterator[Callable[[Item], Finish]]:
        """A function that begins to grade an item, for items that come one by one: what workers are asked goes on
        while the next is waited for. What it gives waits for the verdict. Otherwise like :meth:`verify_many`.

        ::

            with verifier.grading() as begin:
                begun = [begin(item) for item in coming]
                verdicts = [finish() for finish in begun]
        """
        with self._asking() as ask:
            yield lambda item: self._begin(item, form, ask)

    def _begin(self, item: Item, form: AnswerForm, ask: Callable[[Comparison], Answer]) -> Finish:
        """Grade one item as far as this process can, have workers asked for the rest, and say how to wait for it."""
        response, answer, kind, choices = item
        found, extracted = grade_each(response, answer, kind, choices, self.config.thinking)
        content = extracted or ""

        def settled(gold: str, status: Status) -> Status:
            return in_form(status, gold, content, kind, form)

        known = {gold: status if status is None else settled(gold, status) for gold, status in found.items()}
        options = tuple(choices) if kind == "choice" else ()
        open_ = [gold for gold, status in known.items() if status is None] if best_of(known.values()) is None else []
        pending = {gold: ask(Comparison(kind, gold, content, options)) for gold in open_}

        def finish() -> Verdict:
            status = best_of({**known, **{gold: settled(gold, told()) for gold, told in pending.items()}}.values())
            assert status is not None, "every comparison that could still be right was made"
            return verdict_of(status, extracted)

        return finish

    def compare_many(self, comparisons: Sequence[Comparison | tuple[str, str, str]]) -> list[Status]:
        """What the named comparisons say, in order, each made in a worker and killed at the time limit. Equal ones are
        made once.

        Raises:
            ValueError: for a name that is not in :data:`spark_rl.verify.worker.COMPARISONS`.
        """
        unknown = {comparison[0] for comparison in comparisons} - COMPARISONS.keys()
        if unknown:
            raise ValueError(f"unknown comparison {min(unknown)!r}; known are {', '.join(COMPARISONS)}")
        with self._asking() as ask:
            return [answer() for answer in [ask(Comparison(*comparison)) for comparison in comparisons]]

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

    @contextmanager
    def _asking(self) -> Iterator[Callable[[Comparison], Answer]]:
        """A function that has a comparison made in a worker, once; what is not begun when the block ends is dropped.

        What is slow is ended after a first look and made again, with the whole time limit, when its answer is waited
        for; of what comes after :data:`SLOW` of these in one batch it is not made again, so that a batch of killers
        costs a first look each. Which ones these are depends on the order of the answers alone.
        """
        limit, first = self.config.timeout, min(FIRST_LOOK, self.config.timeout)
        pending: dict[Comparison, Future[Status]] = {}
        settled: dict[Comparison, Status] = {}
        again = 0

        def ask(comparison: Comparison) -> Answer:
            if comparison not in pending:
                pending[comparison] = self._submit(comparison, first)
            return partial(answer, comparison)

        def answer(comparison: Comparison) -> Status:
            nonlocal again
            if comparison not in settled:
                status = pending[comparison].result()
                if status == "timeout" and first < limit and again < SLOW + len(pending) // SLOW_SHARE:
                    again += 1
                    status = self._submit(comparison, limit).result()
                settled[comparison] = status
            return settled[comparison]

        try:
            yield ask
        finally:
            for future in pending.values():
                future.cancel()

    def _submit(self, comparison: Comparison, limit: float) -> Future[Status]:
        """Raises :class:`VerifierError` where the system has no thread left to wait for the worker."""
        executor = self._executor()
        try:
            return executor.submit(self._compare, comparison, limit)
        except RuntimeError as error:
            if "thread" not in str(error):
                raise
            raise _no_room("a thread", error) from None

    def _compare(self, comparison: Comparison, limit: float) -> Status:
        worker = self._free.get()
        try:
            if self._closed:
                raise RuntimeError(_CLOSED)
            return worker.compare(comparison, limit)
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
