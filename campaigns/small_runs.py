"""What the campaigns share: a run that takes seconds, in a process of its own, and what of it must be equal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from spark_rl.config import Config
from spark_rl.run import train

SETTINGS = (
    "model.threads=1", "rollout.problems=3", "rollout.samples=4", "rollout.max_new_tokens=16", "recycle.judge_cap=3",
    "recycle.reflection_cap=2", "recycle.ready=3", "evaluation.problems=4", "inference.max_new_tokens=16",
    "inference.rounds=1", "verify.workers=1",
)  # fmt: skip
"""Of the recipe ``tiny``."""
CLOCK = ("time/", "seconds", "tokens_per_second", "restarts")
"""What of a record is the clock's, or tells of processes that died and were started again."""


def train_in_a_process(config: Config, *, resume: bool) -> int:
    """Train in a child that has imported everything already; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(config.model.threads or 1)
            train(config, resume=resume)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def without_clock(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what a clock says."""
    return {key: value for key, value in record.items() if not key.startswith(CLOCK)}


def rows(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file, without what a clock says."""
    return [without_clock(json.loads(line)) for line in path.read_text().splitlines()]
