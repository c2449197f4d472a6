"""Several engines as one: each has a copy of the weights and generates for a stretch of the prompts."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.cluster.session import Cluster, Died, collect, persistent, persistently
from spark_rl.cluster.stream import Bucket, Incoming, buckets
from spark_rl.engine.base import Arrival, Engine, Sampling, check_count, gathered, stretches
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion

Make = Callable[[], tuple[Engine, ChatFormat]]
"""Makes an engine with weights of its own in the process that calls it, and the chat format of its model."""


class EngineWorker:
    """An engine in a process of its own."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._arriving: queue.Queue[Bucket | None] = queue.Queue(maxsize=1)
        self._failed = False

    def pid(self) -> int:
        """The number of this process on its machine."""
        return os.getpid()

    def open(self) -> None:
        """Load the model: apart from the start, so that what is wrong with it is raised as it is."""
        self.engine, self.chat = self._make()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Images come as they are in the data, and are prepared here."""
        found = self.engine.generate([_prepared(prompt, self.chat) for prompt in prompts], sampling)
        check_count(found, len(prompts), self.engine)
        return found

    def begin(self) -> None:
        """Forget what a transfer left that was broken off."""
        self._arriving, self._failed = queue.Queue(maxsize=1), False

    def sync(self, version: int) -> None:
        """Take over what :meth:`take` is given meanwhile, until it is given ``None``."""
        try:
            self.engine.sync(Incoming(version, iter(self._arriving.get, None)))
        except BaseException:
            self._failed = True
            raise

    @ray.method(concurrency_group="beside")  # type: ignore[untyped-decorator]
    def take(self, bucket: Bucket | None) -> None:
        """The next weights, beside a :meth:`sync` that runs; returns when there is room for more."""
        while not self._failed:
            try:
                self._arriving.put(bucket, timeout=0.2)
            except queue.Full:
                continue
            return

    def call(self, method: str) -> None:
        """``sleep``, ``wake`` or ``close``."""
        getattr(self.engine, method)()


def _prepared(prompt: Prompt, chat: ChatFormat) -> Prompt:
    return replace(prompt, vision=chat.vision_of(prompt)) if prompt.images else prompt


class RayEngine:
    """Engines in processes of their own, behind the contract of one."""

    def __init__(self, cluster: Cluster, make: Make) -> None:
        """Start the engines.

        Args:
            cluster: where they have their places.
            make: makes one of them, there.

        Raises:
            UserError: the model or the engine can't be loaded.
        """
        self.version = 0
        self._cluster, self._make = cluster, make
        self._weights: Weights | None = None
        self._workers = [self._start(place) for place in range(cluster.settings.engines)]
        self._all("open")

    def _start(self, place: int) -> Any:
        return self._cluster.engine(EngineWorker, place, self._make)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """See :meth:`arriving`."""
        return gathered(self.arriving(prompts, sampling), len(prompts))

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        """Each engine generates for a stretch of the prompts, which is handed over when it is done. What one that died
        was asked is asked again, with the same weights and the same random numbers."""
        parts = stretches(len(prompts), len(self._workers))
        missing = [place for place, part in enumerate(parts) if part]

        def ask() -> Iterator[Arrival]:
            asked = {
                self._workers[place].generate.remote(
                    [replace(prompts[i], vision={}) if prompts[i].images else prompts[i] for i in parts[place]],
                    replace(sampling, first=sampling.first + parts[place].start),
                ): place
                for place in missing
            }
            died: list[int] = []
            why = ""
            while asked:  # all of them: what is done is not asked for again
                (ref,), _ = ray.wait(list(asked), num_returns=1)
                place = asked.pop(ref)
                try:
                    (found,) = collect([ref])
                except Died as death:
                    died.append(place)
                    why = str(death)
                else:
                    missing.remove(place)
                    yield from zip(parts[place], found, strict=True)
            if died:
                raise Died(sorted(died), why)

        return persistently(ask, self._revive)

    def sync(self, weights: Weights) -> None:
        """Send the weights to every engine, bucket by bucket."""
        self._weights = weights
        persistent(lambda: self._send(weights, range(len(self._workers))), self._replace)
        self.version = weights.version

    def _send(self, weights: Weights, places: Sequence[int]) -> None:
        """Two buckets are on their way at most: one that is taken, and one that is made meanwhile."""
        workers = [self._workers[place] for place in places]
        try:
            collect([worker.begin.remote() for worker in workers])
            running = [worker.sync.remote(weights.version) for worker in workers]
            taken: list[Any] = []
            for ref in _references(weights):
                collect(taken)
                taken = [worker.take.remote(ref) for worker in workers]
            collect(taken)
            collect([worker.take.remote(None) for worker in workers])
            collect(running)
        except Died as death:
            raise Died([places[place] for place in death.places], str(death)) from None

    def _replace(self, death: Died) -> None:
        """New processes for those that died, without weights yet."""
        self._cluster.died("engine", death.places, len(self._workers), str(death))
        for place in death.places:
            ray.kill(self._workers[place])
        for place, worker in zip(death.places, self._cluster.begun(self._start, death.places), strict=True):
            self._workers[place] = worker
        collect([self._workers[place].open.remote() for place in death.places])

    def _revive(self, death: Died) -> None:
        """New processes for those that died, with the weights of the others."""
        self._replace(death)
        weights, places = self._weights, death.places
        if weights is not None:
            persistent(lambda: self._send(weights, places), self._replace)

    def _all(self, method: str, *arguments: Any) -> None:
        def call() -> None:
            collect([getattr(worker, method).remote(*arguments) for worker in self._workers])

        persistent(call, self._revive)

    def sleep(self) -> None:
        """Every engine gives what it can to the learners."""
        self._all("call", "sleep")

    def wake(self) -> None:
        """Every engine is ready again."""
        self._all("call", "wake")

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []


def _references(weights: Weights) -> Iterator[Any]:
    """Each bucket in Ray's store. Weights that are in other processes put them there themselves."""
    elsewhere = getattr(weights, "references", None)
    if elsewhere is not None:
        yield from elsewhere()
        return
    for bucket in buckets(weights.named()):
        yield ray.put(bucket)
