"""Learners and engines in processes of their own: the numbers of one process, whoever dies, and however many there are.

Needs Ray: ``PYTHONPATH=src PYTHON -m pytest tests_extra/cluster`` with a Python that has it.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from same import Disk, check_same, logged, settings

from running import small
from spark_rl.cluster.engines import RayEngine
from spark_rl.cluster.learners import RayLearner
from spark_rl.errors import ConfigError
from spark_rl.run import Run, train

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")


class Killer:
    """Ends one process in the third step, once, as the kernel does when memory is short: while it is at work."""

    def __init__(self, run: Run, kind: str) -> None:
        self.run, self.done = run, False
        self.proxy: Any = run.backend.engine if kind == "engine" else run.learner
        self.method = "arriving" if kind == "engine" else "update"
        self.real = getattr(self.proxy, self.method)
        setattr(self.proxy, self.method, self)

    def __call__(self, *arguments: Any) -> Any:
        if self.run.progress.step == 2 and not self.done:
            self.done = True
            pid = ray.get(self.proxy._workers[-1].pid.remote())
            threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()
        return self.real(*arguments)


@pytest.mark.parametrize(("learners", "engines"), [(0, 2), (2, 0), (2, 2)])
def test_they_give_the_numbers_of_one_process(learners: int, engines: int, alone: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", f"cluster.learners={learners}", f"cluster.engines={engines}")
    with Run(config) as run:
        assert isinstance(run.backend.engine, RayEngine) == bool(engines)
        assert isinstance(run.learner, RayLearner) == bool(learners)
        summary = run.train()
    check_same(tmp_path / "run", alone)
    assert "restarts" not in summary


@pytest.mark.parametrize("kind", ["engine", "learner"])
def test_who_is_killed_is_named_started_again_and_counted_with_the_same_numbers(
    kind: str, alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path / "run", "cluster.learners=2", "cluster.engines=2")
    with Run(config) as run:
        if kind == "learner":
            Disk(run.learner, [2])  # so that the checkpoint of the second step is not complete in the third
        killer = Killer(run, kind)
        summary = run.train()
    assert killer.done
    assert f"{kind} 2 of 2 died" in caplog.text
    assert summary["restarts"] == {"learner": 0, "engine": 0, "verifier": 0} | {kind: 1}
    assert sum(record.get(f"restarts/{kind}", 0) for record in logged(tmp_path / "run")[2:]) == 1
    check_same(tmp_path / "run", alone)


def test_a_run_goes_on_with_another_number_of_learners(alone: Path, tmp_path: Path) -> None:
    train(settings(tmp_path / "run", "cluster.learners=2", "train.steps=2"))
    train(settings(tmp_path / "run", "cluster.learners=1", "cluster.engines=1"), resume=True)
    check_same(tmp_path / "run", alone)


def test_learners_and_engines_learn(tmp_path: Path) -> None:
    sizes = ("rollout.problems=16", "rollout.samples=8", "train.steps=12", "optimiser.lr=3e-4")
    train(small(tmp_path / "run", *sizes, "cluster.learners=2", "cluster.engines=2"))
    rewards = [record["reward/policy"] for record in logged(tmp_path / "run")]
    assert all(math.isfinite(reward) for reward in rewards)
    assert sum(rewards[-4:]) > sum(rewards[:4])


def test_vllm_generates_in_processes_of_its_own(tmp_path: Path) -> None:
    """Two engines of vLLM take two learners' weights over: after every update no token is further off than rounding."""
    pytest.importorskip("vllm")
    train(
        settings(tmp_path / "run", "cluster.learners=2", "cluster.engines=2", "engine.name=vllm", "optimiser.lr=1e-3")
    )
    records = logged(tmp_path / "run")
    gaps = [value for record in records for name, value in record.items() if name.startswith("engine_gap")]
    assert len(gaps) > len(records), "some steps had two updates"
    assert max(gaps) < 1e-3


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", "cluster.engines=1", f"model.path={tmp_path}/nothing")
    with pytest.raises(ConfigError):
        Run(config)
