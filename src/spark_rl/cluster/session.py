"""Ray for one run: started here or joined, a reserved place for each process, and what to do when one dies."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from spark_rl.config import Config
from spark_rl.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds to wait for places, which a cluster that grows may have to make first."""
CONNECT = 10.0
"""Seconds in which a cluster that is joined must answer."""
GRACE = 20.0
"""Seconds after a failure in which Ray may still say that a process beside it died, which then is its cause."""
SETTLE = 2.0
"""Seconds after a death in which Ray may still say that others died with it, on a machine that was lost for example."""
TRIES = 3
"""Deaths in a row, with nothing done between them, after which a run ends."""

LOST = "its machine was lost"
UNREACHABLE = "it can't be reached any more"

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
        """Processes of each kind (``learner``, ``engine``, ``verifier``) that died and were started again."""
        self._closed = False
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
        """Learners and engines together, on the machine that has most of them."""
        learners, engines = self.settings.learners, self.settings.engines
        places = [*range(learners), *(self._engine_place(number) for number in range(engines))]
        machines = self._machines()
        return max(Counter(machines[place] for place in places).values())

    def _engine_place(self, number: int) -> int:
        return number if self.shared else self.settings.learners + number

    def _machines(self) -> dict[int, str]:
        """Place -> what Ray calls its machine."""
        found: dict[int, str] = placement_group_table(self._group)["bundles_to_node_id"]
        return found

    def machines(self) -> list[int]:
        """A place on each machine of the run; none where this machine is the only one."""
        first: dict[str, int] = {}
        for place, machine in sorted(self._machines().items()):
            first.setdefault(machine, place)
        return [] if list(first) == [ray.get_runtime_context().get_node_id()] else list(first.values())

    def begun(self, start: Callable[[int], Any], places: Sequence[int]) -> list[Any]:
        """What ``start`` starts for each of ``places``, once all of them run. Places on a machine that was lost, which
        Ray may not know yet, are made on another, if there is room.

        Raises:
            Died: a process ended before it began.
            UserError: there is no room.
        """
        actors = {place: start(place) for place in places}
        waiting, deadline = {actor.pid.remote(): place for place, actor in actors.items()}, 0.0
        died: dict[int, str] = {}
        while waiting:
            lost = False
            for ref in ray.wait(list(waiting), num_returns=len(waiting), timeout=1.0)[0]:
                place = waiting.pop(ref)
                try:
                    collect([ref])
                except Died as death:
                    lost = str(death) in {LOST, UNREACHABLE}
                    if lost:
                        actors[place] = start(place)
                        waiting[actors[place].pid.remote()] = place
                    else:
                        died[place] = str(death)
            if not lost and placement_group_table(self._group)["state"] == "CREATED":
                continue
            time.sleep(1.0)
            deadline = deadline or time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                raise UserError(
                    f"a machine was lost, and after {PATIENCE:.0f} s Ray has no room elsewhere for what ran on it; "
                    "add a machine and resume the run, or resume it with fewer cluster.learners or cluster.engines"
                )
        if died:
            raise Died(sorted(died), next(iter(died.values())))
        return [actors[place] for place in places]

    def learner(self, kind: Any, place: int, *arguments: Any) -> Any:
        """A process in the place of a learner."""
        return self._process(kind, place, arguments)

    def engine(self, kind: Any, place: int, *arguments: Any) -> Any:
        """A process in the place of an engine."""
        return self._process(kind, self._engine_place(place), arguments)

    def beside(self, kind: Any, place: int, *arguments: Any) -> Any:
        """A process on the machine of a place, which takes nothing of it; several threads may call it."""
        return self._actor(kind, place, arguments, num_cpus=0, max_concurrency=4)

    def _process(self, kind: Any, place: int, arguments: Sequence[Any]) -> Any:
        """A learner or an engine in a place."""
        gpus = (0.5 if self.shared else 1.0) if self.on_gpus else 0.0
        groups = {"beside": 1}  # what may run beside a call: EngineWorker.take, LearnerWorker.written
        return self._actor(kind, place, arguments, num_cpus=1, num_gpus=gpus, concurrency_groups=groups)

    def _actor(self, kind: Any, place: int, arguments: Sequence[Any], **options: Any) -> Any:
        """An actor, which is not started again by Ray: whoever asked knows what else is to be done then."""
        if self._closed:  # Ray would start again for it
            raise UserError("the run has ended, and starts no process any more")
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)
        return ray.remote(**options, scheduling_strategy=strategy, max_restarts=0)(kind).remote(*arguments)

    def died(self, kind: str, places: Sequence[int], of: int, why: str) -> None:
        """Name and count processes that died and are started again; nothing where only their results were lost."""
        if not places:
            return
        self.restarts[kind] += len(places)
        numbers = " and ".join(str(place + 1) for place in places)
        logger.warning(
            "%s %s of %d died (%s); started again, and what it was doing is repeated", kind, numbers, of, why
        )

    def close(self) -> None:
        """End all processes and give the places back; stop Ray if it was started here."""
        self._closed = True
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
            check_address(address)
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                why = " ".join(str(error).split())[:160]
                token = "" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token"
                raise UserError(f"cluster.address={address}: there is no Ray to join ({why}){token}") from None
            return
        cores = os.cpu_count() or 1
        # local: one that runs on this machine, which Ray would rather join, is somebody else's
        ray.init(address="local", num_cpus=max(cores, 2 * processes), include_dashboard=False, **quiet)


def check_address(address: str) -> None:
    """Whether somebody answers there: Ray itself would try for many minutes.

    Raises:
        UserError: nobody does.
    """
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = named.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT).close()
    except OSError as error:
        raise UserError(f"cluster.address={address}: there is no Ray to join ({host}:{port}: {error})") from None


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
    lost, failed = "", None
    found: list[Any] = [None] * len(refs)
    places, waiting = {ref: place for place, ref in enumerate(refs)}, list(refs)
    while waiting:
        patience = SETTLE if dead else GRACE if failed is not None or lost else None
        done, waiting = ray.wait(waiting, num_returns=1, timeout=patience)
        if not done:
            break  # the others wait for one that is gone
        place = places[done[0]]
        try:
            found[place] = ray.get(done[0])
        except (RayActorError, OutOfMemoryError) as error:
            dead[place] = _why(error)
        except ObjectLostError:
            dead[place] = LOST
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError):
                lost = LOST
            else:
                failed = failed or error.cause or error
    if dead or (lost and failed is None):
        raise Died(sorted(dead), next(iter(dead.values()), lost))
    if failed is not None:
        raise failed
    return found


def _why(error: Exception) -> str:
    """The reason of a death in a few words."""
    if isinstance(error, OutOfMemoryError):
        return "its machine was out of memory"
    if "creation task" in str(error):  # it never began: what it needs is not there, and the last line says what
        return str(error).strip().splitlines()[-1].strip()[:200]
    signs = {"ray.kill": "it was killed", "node has died": LOST, "temporarily unavailable": UNREACHABLE}
    return next((words for sign, words in signs.items() if sign in str(error)), "its process ended")


def persistent(act: Callable[[], Result], mend: Callable[[Died], None]) -> Result:
    """What ``act`` returns; after each death, of those in ``mend`` too, ``mend`` is called and ``act`` is repeated.

    Raises:
        UserError: it died too often.
    """
    (found,) = persistently(lambda: (act(),), mend)
    return found


def persistently(act: Callable[[], Iterable[Result]], mend: Callable[[Died], None]) -> Iterator[Result]:
    """What ``act`` gives, one after the other; after a death, what it gives when it is called again: it knows what it
    has given before. Raises like :func:`persistent`.
    """
    last: Died | None = None
    for _ in range(TRIES):
        try:
            if last is not None:
                mend(last)
            yield from act()
            return
        except Died as death:
            last = death
    assert last is not None, "or it would have returned"
    raise died_too_often(last)


def died_too_often(death: Died) -> UserError:
    """What ends a run whose processes die again and again."""
    return UserError(f"a process died {TRIES} times in the same place of the run ({death}); what it printed says why")
