"""What ``spark-rl eval`` shows: how far it is while it asks, and a table of all sets at the end.

The time left is a moving average of recent batches, without the first of the session (it pays for warm-up); rows of
earlier sessions count neither for it nor for the rate. Where stdout is not a terminal each batch is one plain line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from spark_rl.report.console import Pace
from spark_rl.report.notation import DASH, duration, plain

_Write = Callable[[Mapping[str, Any]], str]


class EvaluationView:
    """Fed the rows of one batch at a time::

        with EvaluationView(batches=4, problems=120, console=console) as view:
            view.batch("test.jsonl", rows)

    ``batches`` and ``problems`` are those of this session. ``clock`` is for tests.
    """

    def __init__(
        self, batches: int, problems: int, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.batches, self.problems, self.console = batches, problems, console
        self.asked = self.right = 0
        self._clock, self._started = clock, clock()
        self._pace = Pace(clock)
        self._progress: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[rate]}"), _Left(self), console=console,
            )  # fmt: skip
            self._task = self._progress.add_task("", total=problems, rate="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def batch(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of a batch that has just been asked."""
        self._pace.tick()
        self.batches -= 1
        self.asked += len(rows)
        self.right += sum(row["status"] == "correct" for row in rows)
        rate = f"{plain(self.asked / max(1e-9, self._clock() - self._started))} problems/s"
        if self._progress is None:
            line = (
                f"{short_name(name)} | {self.asked}/{self.problems} | {self.right} right | {rate} | {self.left()} left"
            )
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._progress.update(self._task, completed=self.asked, description=_plain(short_name(name)), rate=rate)

    def left(self) -> str:
        """The time left, or a dash before there is anything to tell it from."""
        return duration(self._pace.left(self.batches))


class _Left(ProgressColumn):
    """Counts down between batches too."""

    def __init__(self, view: EvaluationView) -> None:
        super().__init__()
        self.view = view

    def render(self, task: Task) -> Text:
        return Text(f"{self.view.left()} left", style="green")


def evaluation_tables(found: Mapping[str, Mapping[str, Any]]) -> tuple[Table, Table]:
    """What was asked and what came of it, one row a set, from :func:`spark_rl.evals.runner.results` by name.

    Columns that would be empty for every set are left out.
    """
    seen = any(one["about"]["images"] for one in found.values())
    asked = _table("asked", found, (
        ("n", True, lambda one: f"{one['rule']['n']:,}"),
        ("skipped", any(one["about"]["skipped"] for one in found.values()), lambda one: f"{one['about']['skipped']:,}"),
        ("images", seen, lambda one: f"{one['about']['images']:,}"),
        ("smallest", seen, lambda one: _size(one["about"]["smallest"])),
        ("largest", seen, lambda one: _size(one["about"]["largest"])),
        ("prompt tokens", True, lambda one: f"{one['about']['prompt_tokens']['mean']:,.0f}"),
        ("longest", True, lambda one: f"{one['about']['prompt_tokens']['max']:,}"),
        ("time", True, lambda one: duration(one["about"]["seconds"])),
    ))  # fmt: skip
    right = _table("found", found, (
        ("n", True, lambda one: f"{one['rule']['n']:,}"),
        ("right", True, lambda one: _share(one["rule"])),
        ("right with TTS", any(one["rule+tts"] for one in found.values()), lambda one: _share(one["rule+tts"])),
        ("judge right", True, lambda one: _share(one["judge"])),
        ("no answer", True, lambda one: f"{one['about']['statuses']['no_answer']:,}"),
        ("no verdict", True, lambda one: f"{one['about']['unreadable']:,}"),
    ))  # fmt: skip
    right.caption = "Percent, ± half the 95% Wilson interval. Judge: the model's own verdicts on its first answers."
    return asked, right


def _table(
    title: str, found: Mapping[str, Mapping[str, Any]], columns: Sequence[tuple[str, bool, _Write]]
) -> Table:  # fmt: skip
    shown = [(head, write) for head, there, write in columns if there]
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("set", overflow="fold")
    for head, _ in shown:
        table.add_column(head, justify="right", no_wrap=True)
    for name, one in found.items():
        table.add_row(Text(short_name(name)), *(write(one) for _, write in shown))
    return table


def short_name(name: str) -> str:
    """The last two parts of a path, which tell published sets apart."""
    parts = PurePath(name).parts
    return name if len(parts) <= 2 else str(PurePath(*parts[-2:]))


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None or found["score"] is None:
        return DASH
    return f"{100 * found['score']:.1f} ± {50 * (found['high'] - found['low']):.1f}"


def _size(size: Sequence[int] | None) -> str:
    return DASH if size is None else f"{size[0]}×{size[1]}"
