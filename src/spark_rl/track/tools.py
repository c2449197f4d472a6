"""The three trackers, each by its own public interface. All may raise or hang here: :mod:`.trackers` bears it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from spark_rl.errors import UserError
from spark_rl.track.names import COLUMNS, STEP

PROJECT = "spark-rl"
"""The project of runs, where ``WANDB_PROJECT`` or ``TRACKIO_PROJECT`` name no other."""
TABLE = "completions"
"""The name of the table of rollouts, as in TRL."""
MOST_CHARACTERS = 2000
"""Of a text in TensorBoard's table."""


class Tool(Protocol):
    """One tracker of one run."""

    def start(self, run_dir: Path, config: Mapping[str, Any], known: str | None, done: int) -> tuple[str | None, str]:
        """Begin, or go on with the run that is known by ``known`` after ``done`` steps.

        Returns:
            What the run is known by when it is resumed, and where people find it.
        """
        ...

    def log(self, numbers: Mapping[str, float], step: int) -> None: ...

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None: ...

    def finish(self, failed: bool) -> None: ...


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def start(self, run_dir: Path, config: Mapping[str, Any], known: str | None, done: int) -> tuple[str | None, str]:
        from torch.utils.tensorboard import SummaryWriter

        folder = run_dir / "tensorboard"
        # what a session that was killed wrote after its last checkpoint is done again
        purge = done + 1 if folder.is_dir() else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)
        self._writer.add_text("args", f"    {json.dumps(config, indent=2)}".replace("\n", "\n    "), done)
        return None, f"tensorboard --logdir {folder}"

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            if name != STEP:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        lines = [f"| {' | '.join(map(_cell, row))} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
        self._writer.add_text(TABLE, "\n".join(lines), step)

    def finish(self, failed: bool) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases: online where somebody is logged in, offline with ``WANDB_MODE=offline``."""

    def start(self, run_dir: Path, config: Mapping[str, Any], known: str | None, done: int) -> tuple[str | None, str]:
        import wandb

        mode = os.environ.get("WANDB_MODE", "online")
        if mode in {"online", "shared"} and not wandb.api.api_key:  # it would ask at the terminal
            raise UserError("nobody is logged in; `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=os.environ.get("WANDB_NAME", run_dir.name),
            id=known, resume="allow", config=dict(config), dir=str(run_dir),
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )  # fmt: skip
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP, step_sync=True)
        where = None if self._run.offline else self._run.url
        where = where or f"wandb sync {Path(self._run.dir).parent}"
        return self._run.id, where

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log({**numbers, STEP: step})

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        table = self._wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({TABLE: table, STEP: step})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio:
    """Trackio: local (``TRACKIO_DIR``), or on a Space (``TRACKIO_SPACE_ID``)."""

    def start(self, run_dir: Path, config: Mapping[str, Any], known: str | None, done: int) -> tuple[str | None, str]:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._trackio = trackio
        self._run = trackio.init(
            project=project, name=known or run_dir.name, resume="never" if known is None else "allow",
            config=dict(config), embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        space = os.environ.get("TRACKIO_SPACE_ID")
        where = f"https://huggingface.co/spaces/{space}" if space else f"trackio show --project {project}"
        return self._run.name, where

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        import pandas as pd  # type: ignore[import-untyped, unused-ignore]

        table = self._trackio.Table(dataframe=pd.DataFrame([list(row) for row in rows], columns=list(COLUMNS)))
        self._run.log({TABLE: table}, step=step)

    def finish(self, failed: bool) -> None:
        self._run.finish()


TOOLS: Mapping[str, Callable[[], Tool]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


def _cell(value: Any) -> str:
    """A value in a cell of a Markdown table."""
    text = str(value)
    text = text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("\n", "<br>")
