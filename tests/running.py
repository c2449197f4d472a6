"""What the tests of whole runs share: a small configuration on the embedded base, and the command line as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import spark_rl
from spark_rl.backend import Backend, open_backend
from spark_rl.config import Config, load_config
from spark_rl.data.batches import Shuffled
from spark_rl.given import load_all_problems
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.learner.local import LocalLearner
from spark_rl.loop import Loop
from spark_rl.recycle import Pool
from spark_rl.rollout import Sampler
from spark_rl.verify import Verifier

BASE = "embedded"

SMALL = (
    "model.threads=1", "rollout.problems=6", "rollout.samples=4", "rollout.max_new_tokens=40", "recycle.judge_cap=4",
    "recycle.reflection_cap=3", "recycle.ready=5", "data.heldout=null", "data.transfer=null", "evaluation.problems=8",
    "inference.max_new_tokens=40", "train.steps=2", "train.sample_rollouts=64",
)  # fmt: skip
"""Settings that make a run of the tiny recipe take about a second; every rollout group is written down."""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(spark_rl.__file__).parents[1]),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "120",
}


def small(run_dir: Path, *overrides: str) -> Config:
    """The tiny recipe, made small."""
    return load_config("tiny", [*SMALL, *overrides], model={"path": BASE}, run_dir=str(run_dir))


def command(*arguments: str | Path) -> list[str]:
    """The command line as a user starts it."""
    return [sys.executable, "-m", "spark_rl", *map(str, arguments)]


def spark_rl_process(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end in a process of its own."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def facts(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what a clock says."""
    return [
        {k: v for k, v in record.items() if not k.startswith("time/") and k not in {"seconds", "tokens_per_second"}}
        for record in json_lines(run_dir / "metrics.jsonl")
    ]


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reasoner_of(backend: Backend) -> Reasoner:
    """The model of a backend in its three roles."""
    return build_reasoner(backend.engine, backend.chat, backend.config)


@contextmanager
def loop_of(config: Config, steps: int = 9) -> Iterator[Loop]:
    """A loop of the embedded base, without a run directory."""
    backend = open_backend(config)
    with Verifier(config.verify) as verifier:
        sampler = Sampler(backend.engine, backend.chat, verifier, config.rollout)
        problems, pool = load_all_problems(config)[0], Pool(config.recycle.pool_size)
        batches = Shuffled(problems, config.rollout.problems, config.seed)
        yield Loop(config, batches, sampler, LocalLearner(backend.loaded, config), pool, steps=steps)


def complaints(stderr: str) -> str:
    """What stderr holds beside the lines that say what is being waited for (``loading torch ...``)."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.endswith(" ...\n"))
