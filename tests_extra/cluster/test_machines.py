"""A cluster that runs already, of several machines: here several ``ray start`` on one, with few CPUs each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from same import STEPS, check_same, logged

from running import ENVIRONMENT, SMALL, command
from spark_rl.cluster.session import check_address
from spark_rl.errors import UserError

SECRET = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
RAY = Path(sys.executable).with_name("ray")


class Machine:
    """What ``ray start`` starts, until it is lost."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [RAY, "start", "--block", "--disable-usage-stats", *arguments], env=ENVIRONMENT | SECRET,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        told = []
        for line in self.process.stdout:  # one after another: their ports are free when they look for them
            told.append(line)
            if "Ray runtime started" in line:
                return
        raise AssertionError("".join(told))

    def raylet(self) -> int | None:
        """The process below which everything runs there."""
        return next((pid for pid, line in children(self.process.pid).items() if "raylet/raylet" in line), None)

    def runs(self, kind: str) -> int:
        """How many processes of a kind run there."""
        raylet = self.raylet()
        return 0 if raylet is None else sum(f"ray::{kind}" in line for line in children(raylet).values())

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


def children(pid: int) -> dict[int, str]:
    """Process -> command line of those that a process started."""
    asked = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    lines = (line.split(None, 1) for line in found.stdout.splitlines())
    return {int(number): line for number, line in lines}


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def machines(port: int) -> Iterator[list[Machine]]:
    """A head without CPUs, and three machines of which two are needed."""
    head = Machine("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
    others: list[Machine] = []
    try:
        others = [Machine(f"--address=127.0.0.1:{port}", "--num-cpus=1") for _ in range(3)]
        yield others
        assert head.process.poll() is None, "a run leaves the Ray that it joined as it was"
    finally:
        for machine in [*others, head]:
            machine.stop()


def training(run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    """``spark-rl train``, from another folder than that of Ray."""
    arguments = ("train", "--config", "tiny", "--run-dir", run_dir.name, *SMALL, *STEPS, *overrides)
    return subprocess.Popen(
        command(*arguments, "model.path=embedded"),
        cwd=run_dir.parent,
        env=ENVIRONMENT | SECRET,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_ran_on_a_machine_that_is_lost_goes_on_on_another(
    port: int, machines: list[Machine], alone: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    spread = ("cluster.learners=1", "cluster.engines=1", f"cluster.address=127.0.0.1:{port}")
    with training(run_dir, *spread) as run:
        while run.poll() is None and (not (run_dir / "metrics.jsonl").exists() or len(logged(run_dir)) < 2):
            time.sleep(0.1)
        place = {kind: [m.runs(kind) for m in machines] for kind in ("LearnerWorker", "EngineWorker", "VerifierWorker")}
        lost = machines[place["LearnerWorker"].index(1)]
        raylet = lost.raylet()
        assert raylet is not None
        os.kill(raylet, signal.SIGKILL)
        told = run.communicate(timeout=200)[1]
    assert run.returncode == 0, told
    learner, engine, verifiers = place.values()
    assert sorted(learner) == sorted(engine) == [0, 0, 1]
    assert learner != engine, "each on a machine"
    assert verifiers == [a + b for a, b in zip(learner, engine, strict=True)]
    assert "learner 1 of 1 died" in told
    records = logged(run_dir)
    assert sum(record.get("restarts/learner", 0) for record in records) == 1
    assert sum(record.get("restarts/verifier", 0) for record in records) == 1
    check_same(run_dir, alone)


def test_the_next_run_finds_it_by_itself(machines: list[Machine], tmp_path: Path) -> None:
    assert machines
    with training(tmp_path / "run", "cluster.engines=1", "cluster.address=auto", "train.steps=1") as run:
        told = run.communicate(timeout=200)[1]
    assert run.returncode == 0, told
    assert len(logged(tmp_path / "run")) == 1


def test_an_address_where_nobody_answers_is_one_line() -> None:
    with pytest.raises(UserError, match=r"cluster.address=127.0.0.1:1: there is no Ray to join"):
        check_address("127.0.0.1:1")
