"""What the tests of Ray share: a small run, whether another has the same numbers, and faults."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from running import small
from spark_rl.config import Config

STEPS = ("train.steps=4", "train.save_every=2", "evaluation.problems=4")
NUMBERS = ("loss", "grad_norm", "reward/policy", "entropy", "tokens", "loss/recycled", "grad_norm/recycled")


def settings(run_dir: Path, *overrides: str) -> Config:
    return small(run_dir, *STEPS, *overrides)


def logged(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def check_same(run_dir: Path, other: Path, rel: float = 1e-4) -> None:
    """The same tokens, rewards and updates in every step."""
    found, expected = logged(run_dir), logged(other)
    assert len(found) == len(expected)
    for mine, its in zip(found, expected, strict=True):
        for name in NUMBERS:
            assert (name in mine) == (name in its)
            if name in its:
                assert mine[name] == pytest.approx(its[name], rel=rel, abs=1e-6), (mine["step"], name)


def kill(*workers: Any) -> None:
    """End processes as the kernel does."""
    for pid in ray.get([worker.pid.remote() for worker in workers]):
        os.kill(pid, signal.SIGKILL)


class Disk:
    """Holds the second rank up when it writes its part of the checkpoints of some steps, until it is killed: a pipe
    that nobody reads is in the place of its file."""

    def __init__(self, learner: Any, steps: Sequence[int]) -> None:
        self.waiting = {f".step-{step:06d}.partial" for step in steps}
        self.real, learner.begin_save = learner.begin_save, self

    def __call__(self, path: Path) -> Callable[[], None]:
        if path.name in self.waiting:
            self.waiting.remove(path.name)
            (path / "shards").mkdir(parents=True)
            os.mkfifo(path / "shards" / "shard-00002-model-00001-of-00001.safetensors")
        finish: Callable[[], None] = self.real(path)
        return finish
