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

from spark_rl.evals.ask.records import REFUSED
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
        self.asked = self.right = self.refused = 0
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
        self.refused += sum(row["status"] == REFUSED for row in rows)
        rate = f"{plain(self.asked / max(1e-9, self._clock() - self._started))} problems/s"
        if self._progress is None:
            found = f"{self.right} right" + (f" | {self.refused} refused" if self.refused else "")
            line = f"{short_name(name)} | {self.asked}/{self.problems} | {found} | {rate} | {self.left()} left"
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


def evaluation_tables(found: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """What was asked and what came of it, from :func:`spark_rl.evals.score.totals.results` by name.

    One row a set, or a set and protocol. Columns that would be empty everywhere are left out, and so is the table of
    judgements if there are none.
    """
    seen = any(one["about"]["images"] for one in found.values())
    measured = any(one["about"]["smallest"] for one in found.values())
    told = any(one["about"]["prompt_tokens"]["max"] for one in found.values())
    asked = _table("asked", "set", {name: one["about"] for name, one in found.items()}, (
        ("rows", True, lambda about: f"{sum(about['statuses'].values()) + about['refused']:,}"),
        ("skipped", any(one["about"]["skipped"] for one in found.values()), lambda about: f"{about['skipped']:,}"),
        ("refused", any(one["about"]["refused"] for one in found.values()), lambda about: f"{about['refused']:,}"),
        ("no response", any(one["about"]["missing"] for one in found.values()), lambda about: f"{about['missing']:,}"),
        ("no answer", True, lambda about: f"{about['statuses']['no_answer'] - about['missing']:,}"),
        ("unreadable", True, lambda about: f"{about['statuses']['unparsable'] + about['statuses']['timeout']:,}"),
        ("images", seen, lambda about: f"{about['images']:,}"),
        ("smallest", measured, lambda about: _size(about["smallest"])),
        ("largest", measured, lambda about: _size(about["largest"])),
        ("prompt tokens", told, lambda about: f"{about['prompt_tokens']['mean']:,.0f}"),
        ("longest", told, lambda about: f"{about['prompt_tokens']['max']:,}"),
        ("time", any(one["about"]["seconds"] for one in found.values()), lambda about: duration(about["seconds"])),
    ))  # fmt: skip
    scores = {
        (name, protocol): number
        for name, one in found.items()
        for protocol, number in one.items()
        if protocol not in {"about", "judge", "positions"}
    }
    sampled = dict.fromkeys(key for number in scores.values() for key in number if "@" in key)
    right = _table("scores", "set", scores, (
        ("n", True, lambda number: f"{number['n']:,}"),
        ("of", any(number.get("of") for number in scores.values()), lambda number: _whole(number.get("of"))),
        ("score", True, _share),
        ("95% interval", True, _interval),
        *((key, True, _sampled(key)) for key in sampled),
    ))  # fmt: skip
    right.caption = (
        "Percent. A number by reference is never to be compared with one by rule; +tts is with test-time scaling."
    )
    judged = {name: one["judge"] for name, one in found.items() if "judge" in one}
    if not judged:
        return [asked, right]
    own = _table("own answers judged", "set", judged, (
        ("n", True, lambda judge: f"{judge['accuracy']['n']:,}"),
        ("recall", True, lambda judge: _share(judge["recall"])),
        ("precision", True, lambda judge: _share(judge["precision"])),
        ("F1", True, lambda judge: _share(judge["f1"])),
        ("accuracy", True, lambda judge: _share(judge["accuracy"])),
        ("balanced", True, lambda judge: _share(judge["balanced_accuracy"])),
        ("constant", True, lambda judge: _share(judge["constant_accuracy"])),
        ("no verdict", True, lambda judge: _share(judge["unparsable_rate"])),
    ))  # fmt: skip
    own.caption = (
        "Percent. The model's own verdicts on its first answers; right answers are the positive class. Constant: "
        "the accuracy of always saying the commoner of Yes and No."
    )
    return [asked, right, own]


def _table(
    title: str, head: str, rows: Mapping[Any, Mapping[str, Any]], columns: Sequence[tuple[str, bool, _Write]]
) -> Table:
    """A table with one line a row, whose key stands in front: a name, or a name and a protocol."""
    shown = [(name, write) for name, there, write in columns if there]
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column(head, overflow="fold")
    if any(isinstance(key, tuple) for key in rows):
        table.add_column("protocol", no_wrap=True)
    for name, _ in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for key, row in rows.items():
        name, *protocol = key if isinstance(key, tuple) else (key,)
        table.add_row(Text(short_name(name)), *map(Text, protocol), *(write(row) for _, write in shown))
    return table


def short_name(name: str) -> str:
    """The last two parts of a path, which tell published sets apart."""
    parts = PurePath(name).parts
    return name if len(parts) <= 2 else str(PurePath(*parts[-2:]))


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _share(found: Mapping[str, Any]) -> str:
    return DASH if found["score"] is None else f"{100 * found['score']:.1f}"


def _interval(found: Mapping[str, Any]) -> str:
    return DASH if found["score"] is None else f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"


def _sampled(key: str) -> _Write:
    return lambda found: DASH if found.get(key) is None else f"{100 * found[key]:.1f}"


def _whole(count: int | None) -> str:
    return DASH if count is None else f"{count:,}"


def _size(size: Sequence[int] | None) -> str:
    return DASH if size is None else f"{size[0]}×{size[1]}"
