"""Kill runs of several processes at any moment, continue them, and compare: ``python campaigns/cluster_kills.py``.

What ``kills.py`` does to one process is done to runs whose learners and engines are processes of Ray's, and to runs
that sample with vLLM (``make campaign-cluster`` has both). SIGKILL meets the process that was started (the driver), one
learner, all learners, the engines, or all of them, while a checkpoint is being written, while weights go to the
engines, or at any other instant. A run goes on by itself, or ends with a line and is continued, until it ends. It
survived if what it left equals what the untouched run left, and if nothing is left of its processes: those of a driver
that was killed may still be there when the next one starts, and must end by themselves. Equal is bit for bit; with
vLLM, whose batches depend on when its processes are asked, it is equal responses and rewards, and numbers and weights
that differ by rounding (:data:`NEAR`).

Runs with Ray join one that stays (``own``: each session starts one). ``servers`` needs a vLLM server, which is started
here, and again when it was killed. Exit status 1 if a run did not survive; its folder is kept.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import math
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import torch
from kills import RUN, WATCHED, Kill, Shared, Watched, difference, left, session
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from small_runs import rows

from spark_rl.config import Config, load_config
from spark_rl.engine.vllm import VllmEngine, VllmServers, import_vllm
from spark_rl.errors import EngineError
from spark_rl.runs import checkpoints

STEPS = ("train.steps=8", "train.save_every=1", "train.keep=2", "train.eval_every=4")
CHAIN = 6
"""Strikes at one run at most, before it may end."""
PATIENCE = 400.0
"""Seconds in which what belongs to a driver that was killed must have ended; vLLM that has only begun to start waits
five minutes for it."""
KILLED = -signal.SIGKILL
SUBREAPER = 36
"""``PR_SET_CHILD_SUBREAPER``: who loses its parent becomes a child of this process, and is found."""
RAY = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_worker_niceness": "0", "RAY_DEDUP_LOGS": "0"}

TITLES = {
    "learners": ("ray::LearnerWorker",), "engines": ("ray::EngineWorker", "VLLM::EngineCore"), "server": (),
}  # fmt: skip
"""How the command lines of a run's processes begin."""


NEAR = 1e-3
"""How far numbers may be apart with vLLM, relative or absolute; weights, absolute."""


@dataclass(frozen=True)
class Arrangement:
    """Of which processes a run consists."""

    settings: tuple[str, ...]
    victims: tuple[str, ...]
    """Who may be killed, the likelier the oftener."""
    joins: bool = False
    """Whether its Ray runs already."""
    served: bool = False
    """Whether its vLLM runs already."""


_OF_RAY = ("driver", "driver", "driver", "a learner", "learners", "engines", "all")
ARRANGEMENTS = {
    "two": Arrangement(("cluster.learners=2", "cluster.engines=1"), _OF_RAY, joins=True),
    "three": Arrangement(("cluster.learners=3", "cluster.engines=1"), _OF_RAY, joins=True),
    "own": Arrangement(("cluster.learners=2", "cluster.engines=1"), _OF_RAY),
    "vllm": Arrangement(("engine.name=vllm",), ("driver", "engines")),
    "servers": Arrangement(("engine.name=vllm",), ("driver", "driver", "server"), served=True),
}


@dataclass
class Strike(Kill):
    """Kills some of a run's processes, again and again, when something happens; with no plan it only looks."""

    run_dir: Path = Path()
    shared: Shared = field(default_factory=Shared)
    plan: Callable[[], Plan | None] = lambda: None
    """What to do next; ``None`` is nothing more."""
    next: Plan | None = None
    done: list[Plan] = field(default_factory=list)
    spans: dict[str, list[float]] = field(default_factory=lambda: {"saving": [], "sending weights": []})
    """How long each of these took."""
    _since: dict[str, float] = field(default_factory=dict)
    _due: float | None = None

    def __post_init__(self) -> None:
        self.next = self.plan()
        self._arm()

    def _arm(self) -> None:
        self._due = None
        if self.next is not None and self.next.when == "at any instant":
            self._due = time.monotonic() + self.next.delay

    def look(self, pid: int) -> None:
        """See what happens, and strike if it is time."""
        now = time.monotonic()
        for name, happens in (("saving", self._saves()), ("sending weights", self.shared.phase == "sending weights")):
            if happens and name not in self._since:
                self._since[name] = now
                if self.next is not None and self.next.when == name and self._due is None:
                    self.next.skip -= 1
                    if self.next.skip < 0:
                        self._due = now + self.next.delay
            elif not happens and name in self._since:
                self.spans[name].append(now - self._since.pop(name))
        if self.next is None or self._due is None or now < self._due:
            return
        victims = self._victims(pid, self.next.victims)
        if not victims:  # they start, or are started again
            self._due = now + 0.2
            return
        self.next.what = "saving" if "saving" in self._since else self.shared.phase
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.done.append(self.next)
        self.next = None if pid in victims else self.plan()
        self._arm()

    def _saves(self) -> bool:
        folder = self.run_dir / "checkpoints"
        try:
            return any(name.endswith(".partial") for name in os.listdir(folder))  # noqa: PTH208  # the fastest
        except OSError:
            return False

    def _victims(self, pid: int, kind: str) -> list[int]:
        if kind == "driver":
            return [pid]
        if kind == "a learner":
            return self.next.rng.sample(found, 1) if (found := titled("learners")) and self.next else []
        if kind == "server":
            return [server] if (server := SERVER.pid) else []
        return [pid, *titled("learners"), *titled("engines")] if kind == "all" else titled(kind)


@dataclass
class Plan:
    """A strike to come."""

    when: str
    victims: str
    delay: float
    """Seconds after it began to happen."""
    skip: int
    """How often it may happen before."""
    rng: random.Random
    what: str = ""
    """What was being done then."""


@dataclass
class Found:
    """What came of one arrangement."""

    kills: Counter[str] = field(default_factory=Counter)
    """``who, while what`` -> how often."""
    runs: int = 0
    sessions: int = 0
    lost: list[str] = field(default_factory=list)
    apart: float = 0.0
    """The largest difference of a weight to that of the untouched run."""
    ended: float = 0.0
    """Seconds that the processes of a killed driver took to end, at most."""
    seconds: float = 0.0


def main() -> int:
    """Kill, continue, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrangements", nargs="*", metavar="|".join(ARRANGEMENTS), default=list(ARRANGEMENTS))
    parser.add_argument("--kills", type=int, default=20, help="of each arrangement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.arrangements) - set(ARRANGEMENTS):
        parser.error(f"there is no {', '.join(unknown)}; take some of {', '.join(ARRANGEMENTS)}")
    torch.set_num_threads(1)
    os.environ |= RAY
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    console, everything = Console(width=110), {}
    with tempfile.TemporaryDirectory(prefix="cluster-kills-") as folder:
        for name in arguments.arrangements:
            found = kill_runs(Path(folder), name, arguments.kills, arguments.seed, console)
            everything[name] = found
            _show(name, found, console)
        lost = [line for found in everything.values() for line in found.lost]
        if lost:
            console.print(f"kept: {shutil.copytree(folder, f'{folder}-kept', symlinks=True)}")
    if arguments.json:
        facts = {name: asdict(found) for name, found in everything.items()}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(bool(lost))


def _show(name: str, found: Found, console: Console) -> None:
    total = sum(found.kills.values())
    table = Table("killed", "while", "kills", title=f"{name}: {total} kills, {found.runs} runs")
    for what, count in sorted(found.kills.items()):
        table.add_row(*what.split(", "), str(count))
    console.print(table)
    for line in found.lost:
        console.print(f"LOST: {line}", markup=False)
    console.print(
        f"{total} kills of {found.runs} runs, {len(found.lost)} lost, in {found.sessions} sessions and "
        f"{found.seconds:.0f} s; what was left of a session ended within {found.ended:.1f} s; weights are "
        f"{found.apart:.1g} apart"
    )


def kill_runs(folder: Path, name: str, kills: int, seed: int, console: Console) -> Found:
    """Strike at runs of an arrangement ``kills`` times, below ``folder``."""
    arrangement, rng, shared, found = ARRANGEMENTS[name], random.Random(f"{seed} {name}"), Shared(), Found()
    with ExitStack() as stack:
        settings = [*RUN, *STEPS, *arrangement.settings]
        watched = [*WATCHED, *_sending(name)]
        if arrangement.joins:
            settings.append(f"cluster.address={stack.enter_context(ray_head(folder))}")
        if arrangement.served:
            settings.append(f"engine.servers=[{SERVER.prepare(load_config('tiny', settings), folder)}]")
            stack.callback(SERVER.stop)

        def config_of(run_dir: Path) -> Config:
            return load_config("tiny", settings, run_dir=str(run_dir))

        started = time.monotonic()
        untouched, log = folder / f"{name}-untouched", folder / f"{name}-untouched.log"
        looked = Strike(watched=watched, run_dir=untouched, shared=shared)
        SERVER.start(arrangement.served)
        if session(config_of(untouched), looked, shared, log) != 0:
            raise SystemExit(f"the untouched run failed: {log.read_text()[-2000:]}")
        seconds, expected = time.monotonic() - started, left(untouched)
        found.ended = _all_gone(found)
        longest = {what: max(spans, default=0.1) for what, spans in looked.spans.items()}
        told = ", ".join(f"{what} {len(spans)} times, {longest[what]:.2f} s at most"
                         for what, spans in looked.spans.items())  # fmt: skip
        console.print(f"{name}: the untouched run took {seconds:.1f} s; {told}")

        def plan_of(budget: list[int]) -> Plan | None:
            if not budget:
                return None
            budget.pop()
            when = rng.choice(["saving", "saving", "sending weights", "sending weights", "at any instant"])
            delay = rng.uniform(0, 1.2 * longest[when] if when in longest else seconds)
            return Plan(when, rng.choice(arrangement.victims), delay, rng.randint(0, 3), rng)

        started = time.monotonic()
        while (done := sum(found.kills.values())) < kills:
            found.runs += 1
            run_dir, log = folder / f"{name}-{found.runs}", folder / f"{name}-{found.runs}.log"
            budget = [0] * rng.randint(1, min(CHAIN, kills - done))
            differs = _run(found, budget, plan_of, config_of(run_dir), shared, watched, log, arrangement, rng)
            if not differs and "engine.name=vllm" in arrangement.settings:
                differs = _rounding(run_dir, untouched, found)
            elif not differs:
                differs = difference(left(run_dir), expected)
            if differs:
                found.lost.append(f"{run_dir.name}: {differs}")
                console.print(f"LOST: {found.lost[-1]}", markup=False)
            else:
                shutil.rmtree(run_dir)
                log.unlink()
            console.print(f"{name}: {sum(found.kills.values())} kills, {found.runs} runs, {len(found.lost)} lost, "
                          f"{time.monotonic() - started:.0f} s")  # fmt: skip
        found.seconds = time.monotonic() - started
    return found


def _run(
    found: Found, budget: list[int], plan_of: Callable[[list[int]], Plan | None], config: Config, shared: Shared,
    watched: Sequence[Watched], log: Path, arrangement: Arrangement, rng: random.Random,
) -> str:  # fmt: skip
    """Sessions until the run ends; why it did not."""
    while True:
        strike = Strike(watched=watched, run_dir=Path(str(config.run_dir)), shared=shared, plan=lambda: plan_of(budget))
        SERVER.start(arrangement.served)
        status = session(config, strike, shared, log)
        found.sessions += 1
        found.kills.update(f"{plan.victims}, {plan.what}" for plan in strike.done)
        if status == 0:
            break
        if not strike.done or (status == KILLED) != (strike.done[-1].victims in {"driver", "all"}) or status == 1:
            return f"ended with {status}: {log.read_text()[-1500:]}"
        if rng.random() < 0.5:  # or the next session meets what is left of this one
            found.ended = max(found.ended, _all_gone(found))
    found.ended = max(found.ended, _all_gone(found))
    return ""


def _rounding(run_dir: Path, untouched: Path, found: Found) -> str:
    """What two runs with vLLM differ by, beyond rounding; empty if by nothing."""
    for file in ("rollouts", "outcomes", "metrics", "evaluations"):
        mine, its = rows(run_dir / f"{file}.jsonl"), rows(untouched / f"{file}.jsonl")
        if len(mine) != len(its):
            return f"{file}: {len(mine)} rows in place of {len(its)}"
        exactly = file in {"rollouts", "outcomes"}
        for one, other in zip(mine, its, strict=True):
            names = [name for name in one.keys() | other.keys() if not name.startswith(("engine_gap", "engine_kl"))]
            for name in names:
                a, b = one.get(name), other.get(name)
                if a != b and (exactly or not _near(a, b)):
                    return f"{file}, {name}: {a} in place of {b}, in {str(other)[:200]}"
    names = [f"checkpoints/{path.name}/model" for path in checkpoints(untouched)]
    if names != [f"checkpoints/{path.name}/model" for path in checkpoints(run_dir)]:
        return f"checkpoints: {checkpoints(run_dir)}"
    for name in ["model", *names]:
        expected = load_file(untouched / name / "model.safetensors")
        for key, tensor in load_file(run_dir / name / "model.safetensors").items():
            found.apart = max(found.apart, float((tensor - expected[key]).abs().max()))
    if found.apart > NEAR:
        return f"weights are {found.apart:.1g} apart"
    files = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (run_dir, untouched)]
    return "" if files[0] == files[1] else f"files: {set(files[0]) ^ set(files[1])}"


def _near(a: object, b: object) -> bool:
    """Whether two values differ by rounding."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=NEAR, abs_tol=NEAR)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_near(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_near, a, b))
    return a == b


def _sending(name: str) -> Iterator[Watched]:
    """What hands weights over."""
    if name in {"vllm", "servers"}:
        import_vllm()  # once for all sessions
        yield from ((owner, "sync", "sending weights") for owner in (VllmEngine, VllmServers))
        return
    engines = importlib.import_module("spark_rl.cluster.engines")
    learners = importlib.import_module("spark_rl.cluster.learners")
    yield engines.RayEngine, "sync", "sending weights"
    yield learners.RayLearner, "update", "updating"


def _all_gone(found: Found) -> float:
    """Wait until nothing of a session is left; how long that took."""
    begun = time.monotonic()
    while rest := _rest():
        if time.monotonic() - begun > PATIENCE:
            found.lost.append(f"left behind after {PATIENCE:.0f} s: {rest}")
            for pid in rest:
                os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.1)
    return time.monotonic() - begun


def _rest() -> dict[int, str]:
    """What is left of a session: everything below this process but Ray and the server that stay, with those that run a
    part of it there."""
    staying = {pid for root in STAYING for pid in [root, *_below(root)]}
    ours = {pid for kind in TITLES for pid in titled(kind)} - set(_below(SERVER.pid) if SERVER.pid else ())
    return {pid: _command(pid)[:80] for pid in _below(os.getpid()) if pid not in staying or pid in ours}


STAYING: list[int] = []
"""Processes that outlive sessions."""


def titled(kind: str) -> list[int]:
    """The processes of a kind below this one."""
    return [pid for pid in _below(os.getpid()) if TITLES[kind] and _command(pid).startswith(TITLES[kind])]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _below(root: int) -> list[int]:
    """The processes that one has started, and those that these have; the dead, which are collected here, are none."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z":
            continue
        children.setdefault(int(parent), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        these = children.get(waiting.pop(), [])
        found += these
        waiting += these
    return found


@contextmanager
def ray_head(folder: Path) -> Iterator[str]:
    """A Ray that stays; its address."""
    port = free_port()
    ray = Path(sys.executable).with_name("ray")
    arguments = ["--head", f"--port={port}", "--num-cpus=16", "--include-dashboard=false", "--disable-usage-stats"]
    with (folder / "ray.log").open("w") as log:
        command = [str(ray), "start", "--block", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
    STAYING.append(process.pid)
    try:
        _wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text(), process, folder / "ray.log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        STAYING.remove(process.pid)


class Server:
    """``vllm serve``, started as the engine asks for it where it finds none."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of its first process, while that runs."""
        return None if self.process is None or self.process.poll() is not None else self.process.pid

    def prepare(self, config: Config, folder: Path) -> str:
        """How it is started; its address."""
        self.url, self.log = f"http://127.0.0.1:{free_port()}", folder / "server.log"
        engine = config.engine.model_copy(update={"servers": (self.url,)})
        try:
            VllmServers(config.model_copy(update={"engine": engine}))
        except EngineError as error:
            setting, *self.words = shlex.split(str(error).partition("start it with: ")[2])
        name, _, value = setting.partition("=")
        self.words[0], self.environment = sys.executable, os.environ | {name: value}
        return self.url

    def start(self, wanted: bool) -> None:
        """Unless it runs. Its port must be free within :data:`PATIENCE`."""
        if not wanted or self.pid is not None:
            return
        port, begun = urlsplit(self.url).port, time.monotonic()
        while is_taken(int(port or 0)):
            assert time.monotonic() - begun < PATIENCE, "the port of a server that was killed is not free"
            time.sleep(0.1)
        self.stop()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(  # noqa: S603
                self.words, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        STAYING.append(self.process.pid)
        _wait_for(self._answers, self.process, self.log)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """At once; its own processes must end by themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            STAYING.remove(self.process.pid)
            self.process = None


SERVER = Server()


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"it did not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def is_taken(port: int) -> bool:
    """Whether somebody listens at a port."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main())
