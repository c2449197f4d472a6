"""Verifiers on the machines of a run, as one: each grades a stretch of the responses with workers of its own.

A verdict depends on the response alone, so it is the same whichever machine gives it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import ray

from spark_rl.cluster.session import Cluster, Died, collect, persistent
from spark_rl.config import AnswerForm, VerifyConfig
from spark_rl.engine.base import stretches
from spark_rl.problem import Status, Verdict
from spark_rl.verify.pool import Comparison, Item, Verifier


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

    def verify_many(self, items: Sequence[Item], form: AnswerForm = "equivalent") -> list[Verdict]:
        """See :meth:`spark_rl.verify.Verifier.verify_many`. Equal comparisons are made once on each machine."""
        return self._asked("verify_many", items, form)

    def compare_many(self, comparisons: Sequence[Comparison | tuple[str, str, str]]) -> list[Status]:
        """See :meth:`spark_rl.verify.Verifier.compare_many`."""
        return self._asked("compare_many", comparisons)

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

    def _asked(self, method: str, asked: Sequence[Any], *arguments: Any) -> list[Any]:
        """What a method returns for each of ``asked``. The part of a process that dies is asked again."""
        if self._closed:
            raise RuntimeError("this verifier is closed")
        parts = stretches(len(asked), len(self._actors))
        found: dict[int, list[Any]] = {}

        def ask() -> None:
            of = list(self._actors)
            missing = {n: asked[part.start : part.stop] for n, part in enumerate(parts) if part and n not in found}
            refs = {n: of[n].call.remote(method, part, *arguments) for n, part in missing.items()}
            died: dict[int, str] = {}
            for n, ref in refs.items():  # all of them: what is done is not asked for again
                try:
                    found[n] = collect([ref])[0]
                except Died as death:
                    died[n] = str(death)
            if died:
                self._revive(of, died)
                raise Died(list(died), next(iter(died.values())))

        persistent(ask, lambda _: None)
        return [result for n in range(len(parts)) for result in found.get(n, ())]

    def _revive(self, of: Sequence[Any], died: dict[int, str]) -> None:
        """New processes for those of ``of`` that died, unless another thread has started them."""
        with self._mending:
            gone = [n for n in died if self._actors[n] is of[n]]
            if gone:
                self._cluster.died("verifier", gone, len(of), died[gone[0]])
                for n, actor in zip(gone, self._cluster.begun(self._start, gone), strict=True):
                    self._actors[n] = actor

    def _counts(self, name: str) -> list[Any]:
        return collect([actor.count.remote(name) for actor in self._actors])
