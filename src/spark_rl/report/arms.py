"""What many runs tell whoever watches them: which begin and end, what they are at, and the time left for all.

The time left is what the runs in flight and those to come still take, divided by how many run at a time. A run is
expected to take as long as those of its kind took in this session, or those of other kinds where none has ended; before
any has, as long as the steps of those in flight foretell, without their evaluations.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.text import Text

from spark_rl.report.live import Steady, draws
from spark_rl.report.metrics import finite
from spark_rl.report.notation import DASH, duration, percent

_SCORES = {"policy_accuracy": "policy", "judge_accuracy": "judge", "tts_accuracy": "with TTS"}


@dataclass(frozen=True, slots=True)
class Going:
    """A run in flight."""

    label: str
    kind: str
    doing: str
    """The last line that it said."""
    seconds: float
    """Since it began in this session."""
    share: float | None
    """Of its steps in this session, those that are done; ``None`` before the first."""


class Arms:
    """Watches many runs and says nothing."""

    def begin(self, total: int, at_once: int) -> None:
        """So many runs are to be made, so many at a time."""

    def kept(self, number: int, label: str) -> None:
        """A run was finished before and is kept."""

    def begins(self, number: int, label: str, run_dir: Path) -> None:
        """A run begins, or goes on."""

    def ends(self, number: int, label: str, kind: str, summary: Mapping[str, Any], seconds: float) -> None:
        """A run has ended with this ``summary.json``."""

    def fails(self, number: int, label: str, why: str) -> None:
        """A run has failed."""

    def note(self, text: str) -> None:
        """Something that the user should know, in one line."""

    def show(self, going: Sequence[Going], waiting: Sequence[str]) -> None:
        """These runs are in flight, and those of these kinds wait."""


def time_left(
    going: Sequence[Going], waiting: Sequence[str], took: Mapping[str, Sequence[float]], at_once: int
) -> float | None:
    """Seconds until all runs are done, ``None`` before anything can be said.

    Args:
        going: the runs in flight.
        waiting: the kinds of those to come.
        took: kind -> seconds of those that have ended in this session.
        at_once: runs at a time.
    """
    ended = [seconds for ones in took.values() for seconds in ones]
    foretold = [one.seconds / one.share for one in going if one.share]
    known = ended or foretold
    if not known:
        return 0.0 if not going and not waiting else None

    def expected(kind: str) -> float:
        return statistics.fmean(took.get(kind) or known)

    left = [max(0.0, expected(one.kind) - one.seconds) for one in going]
    return max([(sum(left) + sum(map(expected, waiting))) / at_once, *left])


class ConsoleArms(Arms):
    """Shows many runs on the terminal: what has happened as lines, what goes on as a live view below them.

    Where the output is no terminal there is no live view.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Steady | None = None
        if draws(console):
            self._live = Steady(console=console, auto_refresh=False, transient=True)  # no thread: processes are forked
        self._total, self._at_once, self._done = 0, 1, 0
        self._took: dict[str, list[float]] = {}
        self._going: Sequence[Going] = ()
        self._waiting: Sequence[str] = ()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, total: int, at_once: int) -> None:
        self._total, self._at_once = total, at_once

    def kept(self, number: int, label: str) -> None:
        self._done += 1
        self._say(f"[{number}/{self._total}] {label} was finished before")

    def begins(self, number: int, label: str, run_dir: Path) -> None:
        self._say(f"[{number}/{self._total}] {label} -> {run_dir}")

    def ends(self, number: int, label: str, kind: str, summary: Mapping[str, Any], seconds: float) -> None:
        self._done += 1
        self._took.setdefault(kind, []).append(seconds)
        before, after = (summary.get(when) or {} for when in ("before", "after"))
        changes = (
            f"{name} {percent(finite(before.get(key)), 1)} -> {percent(finite(after.get(key)), 1)}"
            for key, name in _SCORES.items()
        )
        self._over(label)
        left = duration(time_left(self._going, self._waiting, self._took, self._at_once))
        self._say(
            f"[{number}/{self._total}] {label}: {', '.join(changes)} | {duration(seconds)} | "
            f"{self._done} of {self._total} done, {left} left"
        )

    def fails(self, number: int, label: str, why: str) -> None:
        self._over(label)
        self._say(f"[{number}/{self._total}] {label} FAILED: {why}")

    def note(self, text: str) -> None:
        self._say(text)

    def show(self, going: Sequence[Going], waiting: Sequence[str]) -> None:
        self._going, self._waiting = going, waiting
        if self._live is None:
            return
        left = duration(time_left(going, waiting, self._took, self._at_once))
        ends = "" if left == DASH else f", {left} left"
        lines = [f"{one.label} | {one.doing or 'starting ...'}" for one in going]
        lines.append(f"{self._done} of {self._total} runs done, {len(going)} in flight{ends}")
        self._live.update(Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines)), refresh=True)

    def _over(self, label: str) -> None:
        """A run that has ended has no time left, also where the next one ends before anything is shown."""
        self._going = [one for one in self._going if one.label != label]

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
