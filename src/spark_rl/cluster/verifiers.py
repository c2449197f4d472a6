"""Verifiers on the machines of a run, as one: each grades a part of the responses with workers of its own.

A verdict depends on the response alone, so it is the same whichever machine gives it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray

from spark_rl.cluster.session import Cluster, Died, collect, persistent
from spark_rl.config import AnswerForm, VerifyConfig
from spark_rl.engine.base import stretches
from spark_rl.problem import Status, Verdict
from spark_rl.verify.pool import Comparison, Finish, Item, Verifier

BATCH = 64
"""Items that are sent to a process at once."""


class VerifierWorker:
    """A verifier in a process of its own."""

    def __init__(self, config: VerifyConfig) -> None:
        self._verifier = Verifier(config)

    def pid(self) -> int:
        """The number of this process on its machine."""
        return os.getpid()

    def call(self, method: str, *arguments: Any) -> Any:
        """``verify_many`` or ``compare_many``, from several threads at once."""
        return getattr(self._verifier, method)(*arguments)

    def count(self, name: str) -> Any:
        """``pids``, ``kills`` or ``deaths``."""
        return getattr(self._verifier, name)


class RayVerifier(Verifier):
    """A verifier on each machine of a run, behind the methods of one; this process has no workers itself."""

    def __init__(self, cluster: Cluster, config: VerifyConfig, places: Sequence[int]) -> None:
        """Start them.

        Args:
            cluster: whose machines they are.
            config: of each, so that ``verify.workers`` is a number of processes a machine.
            places: of the cluster, one on each machine.
        """
        super().__init__(config)
        self._cluster, self._places = cluster, places
        self._mending = threading.Lock()
        self._actors = [self._start(number) for number in range(len(self._places))]

    def _start(self, number: int) -> Any:
        return self._cluster.beside(VerifierWorker, self._places[number], self.config)

    @contextmanager
    def grading(self, form: AnswerForm = "equivalent") -> Iterator[Callable[[Item], Finish]]:
        """See :meth:`spark_rl.verify.Verifier.grading`. Items go to the machines in turn, :data:`BATCH` at a time."""
        waiting: list[Item] = []
        sent: list[Callable[[], list[Any]]] = []

        def send() -> None:
            sent.append(cache(self._send(len(sent) % len(self._places), "verify_many", list(waiting), form)))
            waiting.clear()

        def begin(item: Item) -> Finish:
            batch, place = len(sent), len(waiting)
            waiting.append(item)
            if len(waiting) == BATCH:
                send()

            def finish() -> Verdict:
                if batch == len(sent):
                    send()
                verdict: Verdict = sent[batch]()[place]
                return verdict

            return finish

        yield begin

    def compare_many(self, comparisons: Sequence[Comparison | tuple[str, str, str]]) -> list[Status]:
        """See :meth:`spark_rl.verify.Verifier.compare_many`."""
        parts = enumerate(stretches(len(comparisons), len(self._places)))
        sent = [self._send(n, "compare_many", comparisons[part.start : part.stop]) for n, part in parts if part]
        return [status for wait in sent for status in wait()]

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that have been started, each of its machine."""
        return tuple(pid for pids in self._counts("pids") for pid in pids)

    @property
    def kills(self) -> int:
        """Comparisons ended at the time limit so far."""
        return sum(self._counts("kills"))

    @property
    def deaths(self) -> int:
        """Workers that died and were not ended by their verifier."""
        return sum(self._counts("deaths"))

    def close(self) -> None:
        """End the processes; their workers end with them."""
        super().close()
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _send(self, number: int, method: str, asked: Sequence[Any], *arguments: Any) -> Callable[[], list[Any]]:
        """Ask a process. What is given waits for what its method returns; a process that died is asked again."""
        if self._closed:
            raise RuntimeError("this verifier is closed")

        def ask() -> tuple[Any, Any]:
            actor = self._actors[number]
            return actor, actor.call.remote(method, asked, *arguments)

        under_way = ask()

        def mend(death: Died) -> None:
            nonlocal under_way
            with self._mending:
                if self._actors[number] is under_way[0]:  # or another batch found it first
                    self._cluster.died("verifier", [number], len(self._actors), str(death))
                    (self._actors[number],) = self._cluster.begun(self._start, [number])
            under_way = ask()

        def wait() -> list[Any]:
            found: list[Any] = persistent(lambda: collect([under_way[1]])[0], mend)
            return found

        return wait

    def _counts(self, name: str) -> list[Any]:
        return collect([actor.count.remote(name) for actor in self._actors])
