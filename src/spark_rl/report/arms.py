"""What an ablation tells whoever watches it: which run of how many, its steps, its result, and the time left for all.

The time left is the mean duration of the runs of this session for each run to come; before the first has ended, the
mean duration of a step for each step to come, without evaluations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from spark_rl.report.metrics import finite
from spark_rl.report.notation import DASH, duration, fixed, percent
from spark_rl.report.watch import Silent

_REWARDS = {"reward/policy": "policy", "reward/pointwise": "point", "reward/pairwise": "pair",
            "reward/reflection": "reflect"}  # fmt: skip
_SCORES = {"policy_accuracy": "policy", "judge_accuracy": "judge", "tts_accuracy": "with TTS"}


class Arms(Silent):
    """Watches an ablation and says nothing; each of its runs is watched as any run is."""

    def kept(self, number: int, total: int, label: str) -> None:
        """A run was finished before and is kept."""

    def run_begins(self, number: int, total: int, label: str, run_dir: Path) -> None:
        """The run ``number`` of ``total`` begins."""

    def run_ends(self, summary: Mapping[str, Any]) -> None:
        """It has ended with this ``summary.json``."""


class ConsoleArms(Arms):
    """Shows an ablation on the terminal as one live line, elsewhere as a line a step; results stay in either."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._status: Status | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._status = console.status("")
        self._number = self._total = self._steps = self._step = self._resumed_at = 0
        self._label = self._phase = ""
        self._run_began = self._steps_began = clock()
        self._durations: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def kept(self, number: int, total: int, label: str) -> None:
        self._say(f"[{number}/{total}] {label} was finished before")

    def run_begins(self, number: int, total: int, label: str, run_dir: Path) -> None:
        self._number, self._total, self._label = number, total, label
        self._steps = self._step = self._resumed_at = 0
        self._run_began = self._steps_began = self._clock()
        self._say(f"[{number}/{total}] {label} -> {run_dir}")

    def run_ends(self, summary: Mapping[str, Any]) -> None:
        seconds = self._clock() - self._run_began
        self._durations.append(seconds)
        before, after = (summary.get(when) or {} for when in ("before", "after"))
        changes = (
            f"{name} {percent(finite(before.get(key)), 1)} -> {percent(finite(after.get(key)), 1)}"
            for key, name in _SCORES.items()
        )
        self._say(f"[{self._number}/{self._total}] {self._label}: {', '.join(changes)} | {duration(seconds)}")

    def phase(self, text: str) -> None:
        self._phase = text
        self._show(f"{text} ...")

    def note(self, text: str) -> None:
        self._say(f"[{self._number}/{self._total}] {self._label}: {text}")

    def hint(self, text: str) -> None:
        """What would help, in one line."""
        self.note(text)

    def progress(self, done: int, total: int) -> None:
        """How far the phase is; a moment's news, so only a terminal shows it."""
        if self._status is not None:
            self._show(f"{self._phase} {done}/{total}")

    def begin(self, total_steps: int, done: int) -> None:
        self._steps, self._step, self._resumed_at = total_steps, done, done
        self._steps_began = self._clock()

    def step(self, metrics: Mapping[str, Any]) -> None:
        self._step = int(finite(metrics.get("step")) or self._step + 1)
        rewards = " ".join(
            f"{name} {fixed(finite(metrics[key]))}" for key, name in _REWARDS.items() if metrics.get(key) is not None
        )
        parts = (f"step {self._step:>{len(str(self._steps))}}/{self._steps}", f"reward {rewards}" if rewards else "",
                 duration(finite(metrics.get("seconds"))))  # fmt: skip
        self._show(" | ".join(part for part in parts if part))

    def left(self) -> float | None:
        """Seconds until all runs are done, ``None`` before anything can be said."""
        now, to_come = self._clock(), self._total - self._number
        if self._durations:
            mean = statistics.fmean(self._durations)
            return max(0.0, mean - (now - self._run_began)) + to_come * mean
        done = self._step - self._resumed_at
        if not done:
            return None
        return (now - self._steps_began) / done * (self._steps - self._step + to_come * self._steps)

    def _show(self, text: str) -> None:
        left = duration(self.left())
        ends = "" if left == DASH else f" | all runs: {left} left"
        line = f"[{self._number}/{self._total}] {self._label} | {text}{ends}"
        if self._status is None:
            self._say(line)
        else:
            self._status.update(escape(line))
            self._status.start()

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
