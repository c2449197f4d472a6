"""Run directories: what makes a folder one, and which weights it holds. Nothing here imports torch."""

from __future__ import annotations

import itertools
import logging
import re
import time
from pathlib import Path

from spark_rl.errors import ConfigError
from spark_rl.files import read_object

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{6,})")


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run, begun or finished."""
    try:
        return path.is_dir() and ((path / "metrics.jsonl").exists() or "rollout" in read_object(path / "config.json"))
    except (OSError, ValueError):  # too long to be a path, or with a NUL in it
        return False


def new_run_dir(seed: int) -> str:
    """``runs/<time>-seed<seed>``, where nothing is yet."""
    name = f"runs/{time.strftime('%Y%m%d-%H%M%S')}-seed{seed}"
    taken = (number for number in itertools.count(2) if not Path(f"{name}-{number}").exists())
    return f"{name}-{next(taken)}" if Path(name).exists() else name


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in (run_dir / "checkpoints").glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def checkpoint_at(path: Path) -> Path | None:
    """The checkpoint that a path leads to, as ``RUN/checkpoints/step-000030`` or the link ``RUN/best``; or ``None``."""
    try:
        found = path.resolve()
        whole = found.parent.name == "checkpoints" and _NAME.fullmatch(found.name) and (found / "model").is_dir()
    except (OSError, ValueError):  # too long to be a path, or with a NUL in it
        return None
    return found if whole else None


def trained_weights(run: Path) -> Path:
    """The weights of a run: its final ones, else those of its last checkpoint, which is said.

    Raises:
        ConfigError: it has neither.
    """
    if (run / "model").is_dir():
        return run / "model"
    saved = checkpoints(run)
    if not saved:
        raise ConfigError(f"the run {run} has no trained model yet; it has neither finished nor saved a checkpoint")
    logger.warning("the run %s has not finished; the model of its checkpoint %s is taken", run, saved[-1].name)
    return saved[-1] / "model"


def run_of(folder: Path) -> Path | None:
    """The run that a directory of weights belongs to, as ``RUN/model`` or ``RUN/checkpoints/step-N/model``."""
    if folder.name != "model":
        return None
    above = [folder.parent, *folder.parents[2:3]]
    return next((run for run in above if is_run(run)), None)
