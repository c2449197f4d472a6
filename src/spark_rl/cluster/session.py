"""Ray for one run: started here or joined, a reserved place for each process, and what to do when one dies."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from spark_rl.config import Config
from spark_rl.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds to wait for places, which a cluster that grows may have to make first."""
GRACE = 20.0
"""Seconds after a failure in which Ray may still say that a process beside it died, which then is its cause."""
TRIES = 3
"""Deaths in a row, with nothing done between them, after which a run ends."""

Result = TypeVar("Result")


class Died(Exception):  # noqa: N818  # what happened, which is mended
    """Processes ended in the middle of a call."""

    def __init__(self, places: Sequence[int], why: str) -> None:
        super().__init__(why)
        self.places = list(places)
        """Which of those that were called, from 0."""


class Cluster:
    """The places of a run's processes: learners first, then engines."""

    def __init__(self, config: Config) -> None:
        """Start or join Ray and reserve the places.

        Raises:
            UserError: the cluster can't be joined, or has too few GPUs or places.
        """
        self.settings = config.cluster
        self.restarts: Counter[str] = Counter()
        """Processes of each kind (``learner``, ``engine``) that died and were started again."""
        self._started = not ray.is_initialized()
        if self._started:
            _start(self.settings.learners + self.settings.engines, self.settings.address)
        try:
            self.on_gpus = _has_gpus(config)
            bundles = self._bundles()
            self._group = placement_group(bundles, strategy="PACK")
            try:
                ray.get(self._group.ready(), timeout=PATIENCE)
            except GetTimeoutError:
                remove_placement_group(self._group)
                have = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
                raise UserError(
                    f"Ray has no room for {len(bundles)} places of {bundles[0]} after {PATIENCE:.0f} s: the cluster "
                    f"has {have['CPU']:.0f} CPUs and {have['GPU']:.0f} GPUs, perhaps taken by others"
                ) from None
        except BaseException:
            self._stop()
            raise

    def _bundles(self) -> list[dict[str, float]]:
        """What each place holds. On GPUs that are too few for both, a learner and an engine share a place."""
        learners, engines = self.settings.learners, self.settings.engines
        self.shared = False
        if not self.on_gpus:
            return [{"CPU": 1.0}] * (learners + engines)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if engines and not learners:
            raise ConfigError("cluster.learners is 0, and a learner in this process would take a GPU that Ray gives to "
                              "an engine; set cluster.learners to 1 or more")  # fmt: skip
        if gpus >= learners + engines:
            return [{"CPU": 1.0, "GPU": 1.0}] * (learners + engines)
        if gpus >= max(learners, engines):
            self.shared = True
            return [{"CPU": 2.0, "GPU": 1.0}] * max(learners, engines)
        raise ConfigError(f"cluster.learners={learners} and cluster.engines={engines} need {max(learners, engines)} "
                          f"GPUs at least, and the cluster has {gpus}")  # fmt: skip

    @property
    def processes(self) -> int:
        """Learners and engines together."""
        return self.settings.learners + self.settings.engines

    def learner(self, kind: Any, place: int, *arguments: Any) -> Any:
        """A process in the place of a learner."""
        return self._actor(kind, place, arguments)

    def engine(self, kind: Any, place: int, *arguments: Any) -> Any:
        """A process in the place of an engine."""
        return self._actor(kind, place if self.shared else self.settings.learners + place, arguments)

    def _actor(self, kind: Any, place: int, arguments: Sequence[Any]) -> Any:
        """An actor in a place, which is not started again by Ray: whoever asked knows what else is to be done then."""
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)
        gpus = (0.5 if self.shared else 1.0) if self.on_gpus else 0.0
        options = {"num_cpus": 1, "num_gpus": gpus, "scheduling_strategy": strategy, "max_restarts": 0}
        groups = {"weights": 1}  # what may run beside a call: EngineWorker.take
        return ray.remote(**options, concurrency_groups=groups)(kind).remote(*arguments)

    def died(self, kind: str, places: Sequence[int], of: int, why: str) -> None:
        """Name and count processes that died and are started again."""
        self.restarts[kind] += len(places)
        numbers = " and ".join(str(place + 1) for place in places)
        logger.warning(
            "%s %s of %d died (%s); started again, and what it was doing is repeated", kind, numbers, of, why
        )

    def close(self) -> None:
        """End all processes and give the places back; stop Ray if it was started here."""
        if ray.is_initialized():
            remove_placement_group(self._group)
        self._stop()

    def _stop(self) -> None:
        if self._started and ray.is_initialized():
            with _our_signals():
                ray.shutdown()


def _start(processes: int, address: str | None) -> None:
    """Start Ray on this machine, with a logical CPU for each process, or join it.

    Raises:
        UserError: there is nothing to join.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a process without GPUs keeps what it sees
    quiet = {"configure_logging": False, "log_to_driver": True}
    with _our_signals():
        if address is not None:
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                why = " ".join(str(error).split())[:160]
                raise UserError(f"cluster.address={address}: there is no Ray to join ({why})") from None
            return
        cores = os.cpu_count() or 1
        ray.init(num_cpus=max(cores, 2 * processes), include_dashboard=False, **quiet)


@contextmanager
def _our_signals() -> Iterator[None]:
    """Within, Ray may take signals over; afterwards whoever listened before does again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _has_gpus(config: Config) -> bool:
    return config.model.device in {"auto", "cuda"} and ray.cluster_resources().get("GPU", 0) > 0


def collect(refs: Sequence[Any]) -> list[Any]:
    """What each call returns, in order. What one raises is raised here as it was there.

    Raises:
        Died: some of the processes are gone. Those beside them may have failed for that reason alone, so a failure
            waits a moment for what its cause may be.
    """
    dead: dict[int, str] = {}
    failed: BaseException | None = None
    places, waiting = {ref: place for place, ref in enumerate(refs)}, list(refs)
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=None if failed is None and not dead else GRACE)
        if not done:
            break  # the others wait for one that is gone
        try:
            ray.get(done[0])
        except (RayActorError, OutOfMemoryError) as error:
            dead[places[done[0]]] = _why(error)
            break
        except RayTaskError as error:
            failed = failed or error.cause or error
    if dead:
        raise Died(sorted(dead), next(iter(dead.values())))
    if failed is not None:
        raise failed
    found: list[Any] = ray.get(list(refs))
    return found


def _why(error: Exception) -> str:
    """The reason of a death in a few words."""
    if isinstance(error, OutOfMemoryError):
        return "its machine was out of memory"
    if "creation task" in str(error):  # it never began: what it needs is not there, and the last line says what
        return str(error).strip().splitlines()[-1].strip()[:200]
    text = " ".join(str(error).split())
    for sign, words in (("ray.kill", "it was killed"), ("SIGKILL", "it was killed"), ("node", "its machine was lost")):
        if sign in text and "intended" not in text:
            return words
    return "its process ended"


def persistent(act: Callable[[], Result], mend: Callable[[Died], None]) -> Result:
    """What ``act`` returns; after each death ``mend`` is called and ``act`` is repeated.

    Raises:
        UserError: it died too often.
    """
    (found,) = persistently(lambda: (act(),), mend)
    return found


def persistently(act: Callable[[], Iterable[Result]], mend: Callable[[Died], None]) -> Iterator[Result]:
    """What ``act`` gives, one after the other; after a death, what it gives when it is called again: it knows what it
    has given before. Raises like :func:`persistent`.
    """
    for _ in range(TRIES):
        try:
            yield from act()
            return
        except Died as death:
            last = death
            mend(death)
    raise UserError(f"a process died {TRIES} times in the same place of the run ({last}); what it printed says why")
