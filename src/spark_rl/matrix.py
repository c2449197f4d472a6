"""Many runs, each a process of its own, as many at a time as there is room for: the arms of an ablation or of claims.

A run is what ``spark-rl train`` makes of its settings, on one thread unless they say otherwise: its numbers are those
of that command with ``model.threads=1``, whatever runs beside it. What is finished is kept, what was cut off is
resumed, and a run that fails is named while the others go on. Beside the directory of a run lie its settings
(``RUN.json``) and what it said (``RUN.log``).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from spark_rl.config import Config
from spark_rl.control import Control
from spark_rl.cores import usable_cores
from spark_rl.errors import ConfigError, Stopped, UserError
from spark_rl.files import read_object, write_json
from spark_rl.parts import with_resolved_paths
from spark_rl.report.arms import Arms, Going

Result = dict[str, Any]
"""What the ``summary.json`` of a run holds."""

POLL = 0.25
"""Seconds between two looks at the processes."""
TAIL = 4096
"""Bytes at the end of a log that are read."""
DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What is there where a driver of NVIDIA or AMD is, or Windows lends one."""

_STEP = re.compile(r"step +(\d+)/(\d+)")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be made."""

    label: str
    """What it is called: ``spark, seed 0``."""
    kind: str
    """Runs of one kind take about as long as each other."""
    config: Config
    """With ``run_dir``."""
    budget: str | None = None
    """The label of the run whose generated tokens end this one, in place of ``train.steps``."""

    @property
    def run_dir(self) -> Path:
        """Where it is written."""
        return Path(str(self.config.run_dir))


@dataclass(slots=True)
class Outcome:
    """What became of the jobs, by label."""

    results: dict[str, Result] = field(default_factory=dict)
    """Of those that are finished."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why the others failed, in one line."""

    @property
    def problem(self) -> str | None:
        """What has failed, in one line."""
        if not self.failures:
            return None
        label, why = next(iter(self.failures.items()))
        total = len(self.failures) + len(self.results)
        return (f"{len(self.failures)} of {total} runs failed, {label} because: {why}; what is done is kept, and the "
                "same command tries the rest again")  # fmt: skip

    def check(self) -> None:
        """Raise :class:`UserError`, in one line, if a run has failed."""
        if self.problem is not None:
            raise UserError(self.problem)


def room(config: Config) -> int:
    """Runs that this machine has room for at a time: one a core, or one where it computes on a GPU or in a cluster."""
    in_cluster = config.cluster.learners or config.cluster.engines or config.engine.servers
    device = config.model.device
    if in_cluster or device not in {"auto", "cpu"} or (device == "auto" and any(map(os.path.exists, DRIVERS))):
        return 1
    return usable_cores()


def on_one_thread(config: Config) -> Config:
    """The configuration of a run beside others: one thread where none are asked for."""
    if config.model.threads:
        return config
    return config.with_model(threads=1)


def run_matrix(
    jobs: Sequence[Job], at_once: int, watcher: Arms | None = None, changed: Callable[[Outcome], None] | None = None
) -> Outcome:
    """Make all runs that are not finished, ``at_once`` at a time, in the order of the jobs.

    Args:
        jobs: with labels and run directories of their own.
        at_once: processes at a time.
        watcher: hears what happens.
        changed: called with what is known so far whenever a run has ended.

    Raises:
        Stopped: a signal came; the runs in flight have saved what they had done.
    """
    control = Control()
    control.advice = "the same command goes on; what is done is kept"
    matrix = _Matrix(jobs, at_once, watcher or Arms())
    with control.listening():
        try:
            matrix.run(changed)
        except BaseException as error:
            matrix.stop()
            if isinstance(error, Stopped):
                done = len(matrix.outcome.results)
                raise control.stopped(f"with {done} of {len(jobs)} runs done") from None
            raise
    return matrix.outcome


@dataclass(slots=True)
class _Process:
    """A run in flight."""

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    began: float
    first: float | None = None
    """The share of its steps that was done before this session."""

    def going(self) -> Going:
        """How far it is."""
        lines = _tail(self.log)
        steps = [(int(found[1]), int(found[2])) for line in lines if (found := _STEP.match(line))]
        done = None
        if steps:
            share = steps[-1][0] / max(1, steps[-1][1])
            if self.first is None:
                self.first = (steps[0][0] - 1) / max(1, steps[0][1])
            done = (share - self.first) / (1 - self.first) if self.first < 1 else None
        return Going(self.job.label, self.job.kind, lines[-1] if lines else "", time.monotonic() - self.began, done)


class _Matrix:
    """The state of :func:`run_matrix`."""

    def __init__(self, jobs: Sequence[Job], at_once: int, watcher: Arms) -> None:
        self.jobs, self.at_once, self.watcher = jobs, at_once, watcher
        self.number = {job.label: number for number, job in enumerate(jobs, start=1)}
        assert len(self.number) == len(jobs), "labels tell the runs apart"
        self.outcome = Outcome()
        self.waiting = list(jobs)
        self.running: list[_Process] = []

    def run(self, changed: Callable[[Outcome], None] | None) -> None:
        """To the end of the last run."""
        self.watcher.begin(len(self.jobs), self.at_once)
        while self.waiting or self.running:
            known = len(self.outcome.results) + len(self.outcome.failures)
            self._collect()
            self._start()
            if changed is not None and len(self.outcome.results) + len(self.outcome.failures) > known:
                changed(self.outcome)
            self.watcher.show([one.going() for one in self.running], [job.kind for job in self.waiting])
            if self.running:
                time.sleep(POLL)

    def stop(self) -> None:
        """Let the runs in flight save what they have done; a second signal ends them at once."""
        if self.running:
            self.watcher.note("stops when the steps in flight are done and saved; a second signal ends at once")
        try:
            for one in self.running:
                one.process.terminate()
            for one in self.running:
                one.process.wait()
        except KeyboardInterrupt:
            for one in self.running:
                one.process.kill()
                one.process.wait()

    def _collect(self) -> None:
        """Take the results of the runs that have ended."""
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            label, code = one.job.label, one.process.returncode
            summary = read_object(one.job.run_dir / "summary.json")
            if code == 0 and summary:
                self.outcome.results[label] = summary
                self.watcher.ends(self.number[label], label, one.job.kind, summary, time.monotonic() - one.began)
            else:
                self._fail(label, f"{_reason(one.log, code)} (see {one.log})")

    def _start(self) -> None:
        """Begin what there is room for, in order; what is finished already takes none."""
        for job in list(self.waiting):
            config = job.config
            if job.budget is not None:
                if job.budget in self.outcome.failures:
                    self.waiting.remove(job)
                    self._fail(job.label, f"it ends at the tokens of {job.budget}, which failed")
                    continue
                if job.budget not in self.outcome.results:
                    continue
                train = {"steps": None, "tokens": self.outcome.results[job.budget]["tokens"]}
                config = config.model_copy(update={"train": config.train.model_copy(update=train)})
            config = with_resolved_paths(config)
            summary = read_object(job.run_dir / "summary.json")
            if _is_of(summary, config):
                self.waiting.remove(job)
                self.outcome.results[job.label] = summary
                self.watcher.kept(self.number[job.label], job.label)
            elif len(self.running) < self.at_once:
                self.waiting.remove(job)
                self.running.append(self._process(job, config))
            else:
                return

    def _process(self, job: Job, config: Config) -> _Process:
        run_dir = job.run_dir
        settings, log = Path(f"{run_dir}.json"), Path(f"{run_dir}.log")
        try:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            write_json(settings, config.model_dump(mode="json", exclude_unset=True))
            file = log.open("wb")
        except OSError as error:
            raise ConfigError(f"cannot write the run directory {run_dir}: {error.strerror}") from None
        command = [sys.executable, "-m", "spark_rl", "train", "--config", str(settings), "--run-dir", str(run_dir)]
        if (run_dir / "config.json").exists():
            command.append("--resume")
        self.watcher.begins(self.number[job.label], job.label, run_dir)
        with file:
            return _Process(job, _started(command, file, config.model.threads), log, time.monotonic())

    def _fail(self, label: str, why: str) -> None:
        self.outcome.failures[label] = why
        self.watcher.fails(self.number[label], label, why)


def _started(command: Sequence[str], log: IO[bytes], threads: int) -> subprocess.Popen[bytes]:
    """A process that hears of signals through this one alone, and ends in order if this one is killed."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    return subprocess.Popen(  # noqa: S603  # our own command
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
        start_new_session=True, preexec_fn=_dies_with_parent if _LIBC else None,  # noqa: PLW1509  # one call of libc
    )  # fmt: skip


def _dies_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_DIES_WITH_PARENT, int(signal.SIGTERM))


def _is_of(summary: Result, config: Config) -> bool:
    """Whether a finished run was made with these settings."""
    made = summary.get("config")
    wanted = config.model_dump(mode="json")
    if isinstance(made, dict) and "max_prompt_tokens" not in config.rollout.model_fields_set:  # the model says then
        wanted["rollout"]["max_prompt_tokens"] = made.get("rollout", {}).get("max_prompt_tokens")
    return bool(made == wanted)


def _tail(log: Path) -> list[str]:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _reason(log: Path, code: int) -> str:
    """Why a run has ended without a result."""
    lines = _tail(log)
    said = [line.removeprefix("spark-rl: ") for line in lines if line.startswith("spark-rl: ")]
    if said:
        return said[-1]
    if code < 0:
        return f"{signal.Signals(-code).name} ended it"
    return lines[-1] if lines else f"it ended with code {code}"
