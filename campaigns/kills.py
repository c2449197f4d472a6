"""Kill runs at any moment, continue them, and compare with one that was never touched: ``python campaigns/kills.py``.

A process that has imported everything forks one child a session, so that a kill costs about a second. A session trains
a very small model for a few steps, evaluates, saves and ends; it is killed (SIGKILL)

- **at a place**: right before or right after one of the operations that change files (write, sync, rename, remove,
  make), each as likely as any other; or
- **at an instant**, whatever it is doing then.

The same run is then continued, and perhaps killed again, until it ends by itself. It survived if what it left equals
what the untouched run left: weights bit for bit, every metric but the clock, rollouts, evaluations, outcomes, scores,
and nothing half written beside them. Exit status 1 if one did not; its folder is kept.

What is killed is the process: what the operating system has taken over is not lost, as it is when a machine loses its
power (for which files and folders are synced, which this can't show).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from small_runs import SETTINGS, rows, without_clock

from spark_rl import checkpoint
from spark_rl.config import Config, load_config
from spark_rl.errors import UserError
from spark_rl.examination import Examination
from spark_rl.learner.local import LocalLearner
from spark_rl.manifest import damage_of
from spark_rl.report.metrics import MetricsLog
from spark_rl.rollout import Sampler
from spark_rl.run import Run, train
from spark_rl.runs import checkpoints
from spark_rl.verify import Verifier

RUN = (
    *SETTINGS, "train.steps=6", "train.save_every=2", "train.keep=1", "train.eval_every=3", "train.sample_rollouts=16",
    "data.heldout=procedural:missing", "data.transfer=null",
)  # fmt: skip
CHAIN = 4
"""Kills of one run at most, before it may end."""
OPERATIONS = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir", "symlink", "write", "open", "truncate")
"""Of :mod:`os`, by which a run changes its folder; and ``log``, of ``metrics.jsonl`` and ``rollouts.jsonl``."""
PHASES = (
    "starting", "loading", "sampling", "verifying", "updating", "sending weights", "evaluating", "saving", "final save",
    "between",
)  # fmt: skip


Watched = tuple[Any, str, str]
"""An owner of a function, the name of that, and the phase that it is."""
WATCHED: tuple[Watched, ...] = (
    (Run, "_load", "loading"), (Sampler, "sample", "sampling"), (Verifier, "verify_many", "verifying"),
    (LocalLearner, "update", "updating"), (Examination, "before", "evaluating"), (Examination, "during", "evaluating"),
    (Examination, "after", "evaluating"), (checkpoint, "begin_checkpoint", "saving"),
    (checkpoint, "replace_folder", "saving"), (checkpoint, "remove_folder", "saving"),
    (checkpoint, "export_model", "final save"), (Run, "_steps", "between"),
)  # fmt: skip
REFUSED = 2
"""Exit status of a session that ended with a line for its user."""


class Shared:
    """What the process that is killed was doing, and how many operations it has done, in memory that outlives it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 16)

    def begin(self) -> None:
        """Of a new process."""
        self.memory[:16] = bytes(16)

    @property
    def phase(self) -> str:
        """What is being done, the innermost."""
        return PHASES[self.memory[0]]

    @phase.setter
    def phase(self, name: str) -> None:
        self.memory[0] = PHASES.index(name)

    @property
    def operations(self) -> int:
        """How many were begun."""
        return int.from_bytes(self.memory[8:16], "little")

    @operations.setter
    def operations(self, number: int) -> None:
        self.memory[8:16] = number.to_bytes(8, "little")


@dataclass
class Kill:
    """When a session ends."""

    place: int | None = None
    """Before or after this operation, counted from 1; ``None`` is at an instant, or never."""
    after: bool = False
    seconds: float | None = None
    """At this instant."""
    watched: Sequence[Watched] = WATCHED
    """What tells what is being done."""
    _begun: float = field(default_factory=time.monotonic)

    def look(self, pid: int) -> None:
        """Strike if it is time; asked again and again while the process runs."""
        if self.seconds is not None and time.monotonic() >= self._begun + self.seconds:
            os.kill(pid, signal.SIGKILL)
            self.seconds = None


@dataclass(slots=True)
class Campaign:
    """What came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    """What was being done -> how often it was killed then."""
    places: Counter[str] = field(default_factory=Counter)
    """Operation -> how often it was killed there."""
    runs: int = 0
    lost: list[str] = field(default_factory=list)
    """What differs, one line a run that did not survive."""
    seconds: float = 0.0


def main() -> int:
    """Kill, continue, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--setting", action="append", default=[], metavar="KEY=VALUE", help="of the run; again for more"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    console = Console(width=100)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        found = kill_runs(Path(folder), arguments.kills, arguments.seed, tuple(arguments.setting), console)
        if found.lost:
            kept = shutil.copytree(folder, f"{folder}-kept", symlinks=True)
            console.print(f"kept: {kept}")
    table = Table("killed while", "kills", title=f"{sum(found.kills.values())} kills, {found.runs} runs")
    for phase in PHASES:
        if phase in found.kills:
            table.add_row(phase, str(found.kills[phase]))
    console.print(table)
    console.print("at operations: " + ", ".join(f"{name} {count}" for name, count in sorted(found.places.items())))
    for line in found.lost:
        console.print(f"LOST: {line}", markup=False)
    total = sum(found.kills.values())
    console.print(
        f"{found.runs - len(found.lost)} of {found.runs} runs survived {total} kills in {found.seconds:.0f} s"
    )
    if arguments.json:
        facts = {"kills": found.kills, "places": found.places, "runs": found.runs, "lost": found.lost,
                 "seconds": found.seconds, "seed": arguments.seed}  # fmt: skip
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(bool(found.lost))


def kill_runs(
    folder: Path, kills: int, seed: int = 0, settings: tuple[str, ...] = (), console: Console | None = None
) -> Campaign:
    """Kill runs ``kills`` times, below ``folder``, where those that did not survive are left."""
    torch.set_num_threads(1)
    rng, shared, found, started = random.Random(seed), Shared(), Campaign(), time.monotonic()

    def config_of(run_dir: Path) -> Config:
        return load_config("tiny", [*RUN, *settings], run_dir=str(run_dir))

    begun = time.monotonic()
    if session(config_of(folder / "untouched"), Kill(), shared, folder / "untouched.log") != 0:
        raise SystemExit(f"the untouched run failed: {(folder / 'untouched.log').read_text()[-2000:]}")
    seconds, operations = time.monotonic() - begun, shared.operations
    expected = left(folder / "untouched")
    if console is not None:
        console.print(f"the untouched run: {operations} operations on files, {seconds:.1f} s")
    while (done := sum(found.kills.values())) < kills:
        found.runs += 1
        run_dir, log = folder / f"run-{found.runs}", folder / f"run-{found.runs}.log"
        for _ in range(rng.randint(1, min(CHAIN, kills - done))):
            kill = Kill(rng.randint(1, operations), rng.random() < 0.5)
            if rng.random() < 0.5:
                kill = Kill(seconds=rng.uniform(0, seconds))
            status = session(config_of(run_dir), kill, shared, log)
            if status != -signal.SIGKILL:
                break
            found.kills[shared.phase] += 1
            if kill.place is not None:
                found.places["after" if kill.after else "before"] += 1
        else:
            status = session(config_of(run_dir), Kill(), shared, log)
        differs = f"ended with {status}: {log.read_text()[-500:]}" if status else difference(left(run_dir), expected)
        if differs:
            found.lost.append(f"{run_dir.name}: {differs}")
        else:
            shutil.rmtree(run_dir)
            log.unlink()
        if console is not None and found.runs % 10 == 0:
            console.print(f"{sum(found.kills.values())} kills, {found.runs} runs, {len(found.lost)} lost")
    found.seconds = time.monotonic() - started
    return found


def session(config: Config, kill: Kill, shared: Shared, log: Path) -> int:
    """Train in a child until it ends or is killed; its exit status, negative for a signal."""
    shared.begin()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _train(config, kill, shared, log)
            status = 0
        except UserError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = REFUSED
        except BaseException:  # noqa: BLE001  # nothing of the parent may go on here
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        kill.look(pid)
        time.sleep(0.002)


def _train(config: Config, kill: Kill, shared: Shared, log: Path) -> None:
    """In the child: what it prints goes to ``log``, and it watches itself."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    run_dir = Path(str(config.run_dir))
    for owner, name, phase in kill.watched:
        setattr(owner, name, _within(shared, phase, getattr(owner, name)))
    _watch_operations(kill, shared)
    train(config, resume=(run_dir / "config.json").exists())


def _within(shared: Shared, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def during(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # what it does is done beside the run
            return work(*arguments, **options)
        before, shared.phase = shared.phase, phase
        try:
            return work(*arguments, **options)
        finally:
            shared.phase = before

    return during


def _watch_operations(kill: Kill, shared: Shared) -> None:
    """Count what changes files, and end at the one that was chosen."""

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def at(*arguments: Any, **options: Any) -> Any:
            shared.operations += 1
            chosen = shared.operations == kill.place
            if chosen and not kill.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = work(*arguments, **options)
            if chosen:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return at

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    setattr(MetricsLog, "append", counted(MetricsLog.append))  # noqa: B010  # a method, to a type checker
    setattr(Path, "open", counted(Path.open))  # noqa: B010


def left(run_dir: Path) -> dict[str, str]:
    """What a run has left, by the name of the thing: digests of all that must be equal."""
    found = {"model": _digest(run_dir / "model" / "model.safetensors")}
    for path in checkpoints(run_dir):
        found[path.name] = _digest(path / "model" / "model.safetensors") + str(damage_of(path))
        for file in sorted((path / "shards").iterdir()):
            found[f"{path.name}/{file.name}"] = _tensors(file)
    for name in ("metrics", "rollouts", "evaluations", "outcomes"):
        found[name] = json.dumps(rows(run_dir / f"{name}.jsonl"), sort_keys=True)
    summary = without_clock(json.loads((run_dir / "summary.json").read_text()))
    summary["config"] |= {"run_dir": None, "cluster": None}  # where it ran
    summary["config"]["engine"]["servers"] = None
    found["summary"] = json.dumps(summary, sort_keys=True)
    found["files"] = " ".join(sorted(str(path.relative_to(run_dir)) for path in _files(run_dir)))
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Every file of a run, hidden ones too."""
    return (path for path in folder.rglob("*") if path.is_file())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tensors(path: Path) -> str:
    """Of the values alone: the header of such a file names its tensors in any order."""
    if path.suffix != ".safetensors":
        return _digest(path)
    values = load_file(path)
    return " ".join(hashlib.sha256(values[name].numpy().tobytes()).hexdigest()[:16] for name in sorted(values))


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """The first thing that is not as it should be; empty if all is."""
    names = [name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)]
    if not names:
        return ""
    name = min(names)
    return (
        f"{', '.join(sorted(names))}: {found.get(name, 'missing')[-300:]} in place of {expected.get(name, '')[-300:]}"
    )


if __name__ == "__main__":
    sys.exit(main())
