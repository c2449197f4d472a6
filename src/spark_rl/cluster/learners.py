"""Several processes that train one model, as one learner.

When one of them dies, all are started again from the last checkpoint that is complete, and the updates since then are
done again on the same groups, which are kept for that: nothing has to be saved after every update, and the numbers are
the same. A checkpoint that was being written meanwhile is written again, after the update that it belongs to.

When one of them is out of memory, the others wait for it in the middle of what they compute together. All are started
again in the same way, and go on in smaller micro-batches; the updates before are done again in theirs.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from torch import Tensor

from spark_rl.cluster.session import TRIES, Cluster, Died, collect, died_too_often, persistent
from spark_rl.cluster.stream import BUCKET, Bucket, buckets, unpacked
from spark_rl.learner.base import Span
from spark_rl.learner.sharded import ShardedLearner
from spark_rl.learner.shards import SHARDS
from spark_rl.model.memory import is_out_of_memory
from spark_rl.problem import Group
from spark_rl.runs import final_of

logger = logging.getLogger(__name__)

LEAST = 256
"""Tokens of a micro-batch that are not halved where the memory is not enough: it holds one response at least."""

Make = Callable[[Path | None], ShardedLearner]
"""Makes the learner of the process that calls it, one of several that torch.distributed connects: with the weights of a
folder, or those of the configuration."""


class LearnerWorker:
    """One rank of a learner, in a process of its own."""

    def __init__(self, make: Make, rank: int, ranks: int) -> None:
        self._make, self.rank, self.ranks = make, rank, ranks
        self.learner: ShardedLearner
        self._sending: Iterator[Bucket] = iter(())
        self._finish: Callable[[], None] | None = None

    def pid(self) -> int:
        """The number of this process on its machine."""
        return os.getpid()

    def address(self) -> str:
        """Where this process, as the first, is found by the others."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def open(self, address: str, weights: Path | None, state: Path | None, backend: str) -> None:
        """Meet the other ranks and make the learner, with the state of a checkpoint if there is one."""
        dist.init_process_group(backend, init_method=address, rank=self.rank, world_size=self.ranks)
        self.learner = self._make(weights)
        if state is not None:
            self.learner.load(state)

    def call(self, micro_tokens: int, method: str, *arguments: Any) -> Any:
        """What a method of the learner returns in micro-batches of so many tokens, and its version afterwards; the
        result of the first rank alone."""
        self.learner.micro_tokens = micro_tokens
        result = getattr(self.learner, method)(*arguments)
        return result if self.rank == 0 else None, self.learner.weights().version

    def begin_save(self, path: Path) -> None:
        """Write ``model/``, and begin to write the rest."""
        self._finish = self.learner.begin_save(path)

    @ray.method(concurrency_group="beside")  # type: ignore[untyped-decorator]
    def written(self) -> None:
        """Wait for the end of what :meth:`begin_save` began, beside the calls that follow it."""
        assert self._finish is not None, "it was begun"
        self._finish()

    @ray.method(num_returns=2)  # type: ignore[untyped-decorator]
    def bucket(self, begin: bool) -> tuple[Bucket | None, bool]:
        """The next weights, from the first if ``begin``, and whether there were any left. All ranks gather them
        together; the first has them."""
        if begin:
            self._sending = buckets(self.learner.weights().named(), BUCKET)
        bucket = next(self._sending, None)
        return (bucket if self.rank == 0 else None), bucket is not None


@dataclass(slots=True)
class _Save:
    """A checkpoint that is being written."""

    path: Path
    after: int
    """Updates since the checkpoint before, of which it holds the results."""
    written: list[Any]
    """What says that a process has written its part."""


@dataclass(frozen=True, slots=True)
class RemoteWeights:
    """The weights of a learner in other processes, which are the current ones when they are asked for."""

    learner: RayLearner
    version: int

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """See :class:`spark_rl.model.weights.Weights`."""
        for reference in self.references():
            yield from unpacked(ray.get(reference))

    def references(self) -> Iterator[Any]:
        """Each bucket in Ray's store; from the first again, if a process dies meanwhile."""
        return self.learner.buckets()


class RayLearner:
    """Processes that train one model, behind the contract of a learner. One thread calls it, beside those that wait for
    a checkpoint."""

    def __init__(self, cluster: Cluster, make: Make, weights: Path | None, micro_tokens: int) -> None:
        """Start the processes.

        Args:
            cluster: where they have their places.
            make: makes the learner of one rank, there.
            weights: a folder with weights in place of those of the configuration.
            micro_tokens: of a micro-batch at most, as the configuration has it.

        Raises:
            UserError: the model can't be loaded.
        """
        self._cluster, self._make, self._weights = cluster, make, weights
        self._saved: Path | None = None
        """The last complete checkpoint."""
        self._saving: _Save | None = None
        self._done: list[tuple[Any, Span | None, int]] = []
        """The updates since the last complete checkpoint: the groups in Ray's store, which writes to disk what is too
        much, and the tokens of their micro-batches."""
        self.micro_tokens = micro_tokens
        """Of a micro-batch at most: less than the setting once the memory was not enough for it."""
        self._version = 0
        self._workers: list[Any] = []
        self._lock = threading.RLock()
        """Held while the processes are called: who waits for a checkpoint may find first that one died."""
        persistent(self._open, self._told)

    def _open(self) -> None:
        """All processes anew, in the state that :meth:`_all` left them in."""
        for worker in self._workers:
            ray.kill(worker)
        ranks = self._cluster.settings.learners

        def start(rank: int) -> Any:
            return self._cluster.learner(LearnerWorker, rank, self._make, rank, ranks)

        self._workers = []
        self._workers = self._cluster.begun(start, range(ranks))
        self._load_saved()
        for number, (groups, span, micro_tokens) in enumerate(self._done):
            self._save_again(number)
            self._call("update", groups, span, micro_tokens=min(micro_tokens, self.micro_tokens))
        self._save_again(len(self._done))

    def _load_saved(self) -> None:
        """Have the processes meet and make their learner, from the last complete checkpoint if there is one."""
        address = collect([self._workers[0].address.remote()])[0]
        state = None if self._saved is None else final_of(self._saved)
        weights = self._weights if state is None else state / "model"
        backend = "cpu:gloo,cuda:nccl" if self._cluster.on_gpus else "gloo"
        try:
            collect([worker.open.remote(address, weights, state, backend) for worker in self._workers])
        except Died:
            raise
        except Exception as error:
            if state is None or state.exists():
                raise
            raise Died([], "the checkpoint was given its final name while it was read") from error

    def _told(self, death: Died) -> None:
        self._cluster.died("learner", death.places, self._cluster.settings.learners, str(death))

    def _mend(self, death: Died) -> None:
        """From the last checkpoint to where the learner was."""
        self._told(death)
        if self._done:
            logger.warning("the learners do the last %d updates again", len(self._done))
        persistent(self._open, self._told)

    def _call(self, method: str, *arguments: Any, micro_tokens: int | None = None) -> Any:
        """What the first rank returns, once all are done."""
        tokens = micro_tokens or self.micro_tokens
        found = collect([worker.call.remote(tokens, method, *arguments) for worker in self._workers])
        result, self._version = found[0]
        return result

    def _all(self, method: str, *arguments: Any) -> Any:
        """What the learner returns, whoever dies meanwhile."""
        with self._lock:
            return persistent(lambda: self._call(method, *arguments), self._mend)

    def _fitting(self, method: str, *arguments: Any) -> Any:
        """The same, in smaller micro-batches where the memory of a process is not enough for those so far.

        Raises:
            torch.OutOfMemoryError: it is not enough for small ones either.
        """
        with self._lock:
            again = False
            while True:
                try:
                    if again:
                        persistent(self._open, self._told)
                    return self._all(method, *arguments)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or self.micro_tokens < 2 * LEAST:
                        raise
                again, self.micro_tokens = True, self.micro_tokens // 2
                logger.warning(
                    "a learner is out of memory; all are started again with learner.micro_tokens=%d", self.micro_tokens
                )

    def update(self, groups: Sequence[Group], span: Span | None = None) -> dict[str, float]:
        """See :class:`spark_rl.learner.base.Learner`. Images travel as the data has them; each rank prepares those of
        the groups that it computes."""
        sent = ray.put([replace(group, vision={}) if group.vision else group for group in groups])
        with self._lock:
            metrics: dict[str, float] = self._fitting("update", sent, span)
            self._done.append((sent, span, self.micro_tokens))
        return metrics

    def rate(self, position: float, steps: int) -> float:
        """The learning rate of an update at ``position`` (in steps) of a run of ``steps`` steps."""
        return float(self._all("rate", position, steps))

    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        vision: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Tensor]:
        """One (T,) tensor a response, at the sampling temperature."""
        found: list[Tensor] = self._fitting("logprobs", prompts, responses, vision)
        return found

    def weights(self) -> RemoteWeights:
        """The weights as they are now; the version is the number of updates."""
        return RemoteWeights(self, self._version)

    def not_finite(self) -> str | None:
        """See :class:`spark_rl.learner.base.Learner`. Each process looks at its shards."""
        found: str | None = self._all("not_finite")
        return found

    def buckets(self) -> Iterator[Any]:
        """The current weights, each bucket in Ray's store; from the first again when the processes are other ones."""
        asked_of: list[Any] | None = None
        while True:
            with self._lock:
                begin, asked_of = asked_of is not self._workers, self._workers
                asked = [worker.bucket.remote(begin) for worker in asked_of]
                try:
                    more = all(collect([more for _, more in asked]))
                except Died as death:
                    self._mend(death)
                    continue
            if not more:
                return
            yield asked[0][0]

    def save(self, path: Path) -> None:
        """Like any learner, in a folder that every machine sees."""
        self.begin_save(path)()

    def begin_save(self, path: Path) -> Callable[[], None]:
        """Write ``model/`` and begin to write the rest, in a folder that every machine sees; training goes on
        meanwhile.

        What is returned waits for the end, in whatever thread. Until then the checkpoint before is the one to go on
        from when a process dies.
        """
        with self._lock:
            assert self._saving is None, "one at a time"
            saving = self._saving = _Save(path.absolute(), len(self._done), [])
            try:
                self._begin(saving)
            except Died as death:
                self._mend(death)
        return partial(self._finish, saving)

    def _begin(self, saving: _Save) -> None:
        collect([worker.begin_save.remote(saving.path) for worker in self._workers])
        saving.written = [worker.written.remote() for worker in self._workers]

    def _save_again(self, after: int) -> None:
        """Begin anew with the checkpoint that is not complete, where it belongs after so many updates."""
        saving = self._saving
        if saving is not None and saving.after == after:
            for part in ("model", SHARDS):
                shutil.rmtree(saving.path / part, ignore_errors=True)
            self._begin(saving)

    def _finish(self, saving: _Save) -> None:
        """Until all processes have written their parts, whoever dies meanwhile."""
        deaths = 0
        while True:
            written = saving.written
            try:
                collect(written)
            except Died as death:
                with self._lock:
                    if saving.written is not written:  # mended by who found it first
                        continue
                    deaths += 1
                    if deaths == TRIES:
                        raise died_too_often(death) from None
                    self._mend(death)
                continue
            with self._lock:
                if saving.written is written:
                    self._saved, self._saving, self._done = saving.path, None, self._done[saving.after :]
                    return

    def load(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote."""
        path = path.absolute()
        self._all("load", path)
        self._saved, self._done = path, []

    def export(self, path: Path) -> None:
        """Weights (or adapters) and tokenizer or processor, in a folder that every machine sees."""
        self._all("export", path.absolute())

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []
