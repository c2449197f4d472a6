"""What a person sees in the terminal: the live view of a run, and the before-and-after table.

The time left is a moving average of recent step times, without the first step of the session (it pays for warm-up), and
counts everything that happens between two steps, evaluation and checkpoints included. Where stdout is not a terminal
(CI logs, files) each step is one plain line of at most 120 columns instead.

An arrow behind a number compares the two halves of the last twenty steps: up or down where their means differ by more
than two standard errors, level otherwise. The chance level of the judge is what always giving the commoner label of
these steps would have earned.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spark_rl.report.comparison import Row, compare, problems_note
from spark_rl.report.live import ECHO, OneByOne, Steady, draws
from spark_rl.report.metrics import finite
from spark_rl.report.notation import compact, duration, fixed, percent, plain

LINE_WIDTH = 120
"""Columns of a plain line at most."""

_Format = Callable[[float | None], str]
_Cell = tuple[str, str, _Format]
"""Name, metric, how its numbers are written."""

_REWARDS: tuple[_Cell, ...] = (
    ("policy", "reward/policy", fixed), ("pointwise", "reward/pointwise", fixed),
    ("pairwise", "reward/pairwise", fixed), ("reflection", "reward/reflection", fixed),
)  # fmt: skip
_CHANCE = (("Yes/No", "label/yes"), ("A/B", "label/a"), ("letters", "label/letter"))
"""Name of the question that the judge is asked, share of one of its two labels."""

_ROWS: tuple[tuple[str, tuple[tuple[str, str, _Format], ...]], ...] = (
    ("verifier", (("correct", "status/correct", percent), ("wrong", "status/wrong", percent),
                  ("no answer", "status/no_answer", percent), ("unparsable", "status/unparsable", percent),
                  ("timeout", "status/timeout", percent), ("failed", "status/failed", percent))),
    ("no gold", (("used", "self/used", percent), ("pseudo right", "self/accuracy", percent),
                 ("votes right", "self/votes", percent), ("judge right", "self/judge", percent),
                 ("agreement", "reward/pseudo_policy", fixed))),
    ("balance", (("Yes labels", "label/yes", percent), ("Yes verdicts", "verdict/yes", percent),
                 ("A labels", "label/a", percent), ("A verdicts", "verdict/a", percent),
                 ("letter labels", "label/letter", percent), ("letter verdicts", "verdict/letter", percent),
                 ("unread Yes/No", "unreadable/yes", percent), ("unread A/B", "unreadable/a", percent),
                 ("unread letters", "unreadable/letter", percent))),
    ("learner", (("entropy", "entropy", plain), ("KL", "kl", plain), ("grad norm", "grad_norm", plain),
                 ("loss", "loss", plain), ("lr", "lr", plain), ("engine KL", "engine_kl", plain),
                 ("engine gap", "engine_gap", plain), ("ratio", "ratio", plain),
                 ("ratio cut", "ratio_clipped", percent), ("left out", "nonfinite", plain))),
    ("on recycled", (("grad norm", "grad_norm/recycled", plain), ("loss", "loss/recycled", plain),
                     ("KL", "kl/recycled", plain), ("engine KL", "engine_kl/recycled", plain),
                     ("engine gap", "engine_gap/recycled", plain), ("ratio", "ratio/recycled", plain),
                     ("ratio cut", "ratio_clipped/recycled", percent), ("flat groups", "flat/recycled", percent),
                     ("left out", "nonfinite/recycled", plain))),
    ("responses", (("mean length", "length/mean", plain), ("longest", "length/max", plain),
                   ("cut off", "clipped", percent), ("flat groups", "flat", percent),
                   ("prompts", "prompt_tokens", compact), ("images", "images", plain))),
    ("recycling", (("pool", "pool", plain), ("pointwise", "recycled/pointwise", plain),
                   ("pairwise", "recycled/pairwise", plain), ("reflection", "recycled/reflection", plain),
                   ("dropped", "dropped", plain))),
    ("too long", (("policy", "skipped/policy", plain), ("pointwise", "skipped/pointwise", plain),
                  ("pairwise", "skipped/pairwise", plain), ("reflection", "skipped/reflection", plain))),
    ("seconds", (("sample", "time/sample", fixed), ("verify", "time/verify", fixed), ("update", "time/update", fixed),
                 ("recycle", "time/recycle", fixed), ("step", "seconds", fixed))),
)  # fmt: skip

_UNSHOWN = {"step", "steps", "tokens", "tokens_per_second", "skipped", "lr/recycled"}
_SHOWN = {key for _, cells in (("", _REWARDS), *_ROWS) for _, key, _ in cells} | _UNSHOWN
_PREFIXES = (("reward_function/", ""), ("reward_failed/", " failed"), ("time/", ""), ("status/", ""), ("reward/", ""))
"""What stands before the name of a metric that no row names, and what is said of it behind its name."""
_NEWS = ("too long",)
"""Rows that are shown only while they have something else than zeros."""
_TRENDS = {key for _, key, _ in _REWARDS} | {"status/correct", "entropy", "kl", "length/mean"}
"""What gets an arrow."""
_RECENT = 20
"""Steps that arrows and chance levels look back on."""
_LABEL_WIDTH, _CELL_WIDTH = 12, 17
_ROOMY = 72
"""Columns from which the progress line has room for its name and the throughput."""

_EVALUATED = (("policy", "policy_accuracy"), ("judge", "judge_accuracy"), ("with TTS", "tts_accuracy"))
"""What is shown of an evaluation; the report has the rest."""


class HeldOut:
    """The held-out evaluations so far: the last one, and the best of each number with its step."""

    def __init__(self) -> None:
        self.step = 0
        self._last: Mapping[str, Any] = {}
        self._best: dict[str, tuple[float, int]] = {}

    def add(self, step: int, scores: Mapping[str, Any]) -> None:
        """The held-out problems were evaluated after a step; of equal scores the first is the best."""
        self.step, self._last = step, dict(scores)
        for _, key in _EVALUATED:
            score = finite(scores.get(key))
            if score is not None and score > self._best.get(key, (-1.0, 0))[0]:
                self._best = self._best | {key: (score, step)}

    def parts(self) -> Iterator[tuple[str, str]]:
        """Name and score of what was measured last, with the best so far where that is an earlier one.

        The judge's accuracy has its chance level beside it: of always saying the commoner of Yes and No.
        """
        for name, key in _EVALUATED:
            score = finite(self._last.get(key))
            if score is None:
                continue
            chance = finite(self._last.get("judge_constant_accuracy")) if key == "judge_accuracy" else None
            best, at = self._best[key]
            notes = [f"chance {percent(chance, 1)}"] if chance is not None else []
            notes += [f"best {percent(best, 1)} at step {at}"] if at != self.step else []
            yield name, percent(score, 1) + (f" ({', '.join(notes)})" if notes else "")

    def line(self) -> str:
        """The last evaluation as one line."""
        return f"step {self.step} on held-out problems: {', '.join(f'{name} {text}' for name, text in self.parts())}"


class Pace:
    """How fast steps go. ``clock`` gives seconds; only differences matter."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, window: int = 20) -> None:
        self._clock = clock
        self._last = clock()
        self._first_done = False
        self._durations: deque[float] = deque(maxlen=window)

    def tick(self) -> None:
        """A step has just finished."""
        now = self._clock()
        if self._first_done:
            self._durations.append(now - self._last)
        self._first_done = True
        self._last = now

    @property
    def step_seconds(self) -> float | None:
        """Mean of the recent steps, the first left out; ``None`` before the second step is done."""
        return sum(self._durations) / len(self._durations) if self._durations else None

    def left(self, steps: int) -> float | None:
        """Seconds until ``steps`` more steps are done. Counts down within a step, and stalls when a step overruns."""
        if steps <= 0:
            return 0.0
        mean = self.step_seconds
        if mean is None:
            return None
        return steps * mean - min(self._clock() - self._last, mean)


class TrainView:
    """The live view of a run, fed one metric record a step::

        with TrainView(total_steps=300, start_step=resumed) as view:
            for step in range(resumed + 1, 301):
                view.step({"step": step, "reward/policy": 0.62, "seconds": 5.9})

    ``step`` counts finished steps, so the last record's is ``total_steps``; ``steps``, in a run that ends by tokens, is
    the total that is expected now; ``start_step`` is the number done before this session. A metric that the last step
    did not have is shown dim, with its value from before. ``clock`` is for tests.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        held_out: HeldOut | None = None,
    ) -> None:
        self.total_steps = total_steps
        self.done = start_step
        self.console = console or OneByOne()
        self.pace = Pace(clock)
        self._metrics: Mapping[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self._recent: dict[str, tuple[float, ...]] = {}
        self._held_out = held_out or HeldOut()
        self._doing = ""
        self._live = Steady(self, console=self.console) if draws(self.console) else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Show the record of the step that has just finished."""
        self.pace.tick()
        step = finite(metrics.get("step"))
        self.done = self.done + 1 if step is None else int(step)
        self.total_steps = int(finite(metrics.get("steps")) or self.total_steps)
        self._metrics = dict(metrics)
        # A new mapping, not an update: the thread that refreshes the view may be reading the old one.
        self._seen = self._seen | self._metrics
        for key in _TRENDS | {label for _, label in _CHANCE}:
            if (value := finite(metrics.get(key))) is not None:
                self._recent = self._recent | {key: (*self._recent.get(key, ()), value)[-_RECENT:]}
        if self._live is None:
            self.console.print(self.line(), markup=False, highlight=False, soft_wrap=True)
        else:
            self._live.refresh()

    def doing(self, text: str) -> None:
        """What goes on between two steps, in a line of the view; nothing where steps are plain lines."""
        self._doing = text
        if self._live is not None:
            self._live.refresh()

    def line(self) -> str:
        """The current step as one plain line; what matters least is left out when it would pass 120 columns."""
        rewards = (("policy", "policy"), ("pointwise", "point"), ("pairwise", "pair"), ("reflection", "reflect"))
        reward = [self._part(f"reward/{task}", short, fixed) for task, short in rewards]
        parts = [
            (0, f"step {self.done:>{len(str(self.total_steps))}}/{self.total_steps}"),
            (1, f"reward {' '.join(part for part in reward if part)}" if any(reward) else ""),
            (4, self._part("status/correct", "right", percent)),
            (6, self._part("entropy", "entropy", plain)),
            (5, self._part("kl", "KL", plain)),
            (7, self._part("length/mean", "length", plain)),
            (8, self._part("tokens_per_second", "tok/s", compact)),
            (2, self._part("skipped", "too long", plain) if self._metrics.get("skipped") else ""),
            (3, self._part("seconds", "", duration)),
            (2, f"left {duration(self.pace.left(self.total_steps - self.done))}"),
        ]
        parts = [(rank, text) for rank, text in parts if text]
        while len(line := " | ".join(text for _, text in parts)) > LINE_WIDTH and len(parts) > 1:
            parts.remove(max(parts))
        return line[:LINE_WIDTH]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        yield self._progress(width >= _ROOMY)
        if self._doing:
            yield Text(self._doing, style="dim", no_wrap=True, overflow="ellipsis")
        yield from _lines("reward", self._cells(_REWARDS), width)
        yield from _lines("chance", self._chance(), width)
        yield from _lines("held out", [(name, text, True) for name, text in self._held_out.parts()], width)
        for label, cells in (*_ROWS, ("other", self._unknown())):
            if label not in _NEWS or any(finite(self._seen.get(key)) for _, key, _ in cells):
                yield from _lines(label, self._cells(cells), width)

    def _cells(self, cells: Sequence[_Cell]) -> list[tuple[str, str, bool]]:
        """Name, number, and whether the last step had it."""
        return [
            (name, f"{_write(self._seen[key], write)}{self._trend(key)}", key in self._metrics)
            for name, key, write in cells
            if key in self._seen
        ]

    def _chance(self) -> list[tuple[str, str, bool]]:
        shares = {name: statistics.fmean(self._recent[key]) for name, key in _CHANCE if key in self._recent}
        return [(name, fixed(max(share, 1 - share)), True) for name, share in shares.items()]

    def _trend(self, key: str) -> str:
        return f" {arrow}" if key in _TRENDS and (arrow := trend(self._recent.get(key, ()))) else ""

    def _progress(self, roomy: bool) -> Table:
        finished = min(1.0, self.done / self.total_steps) if self.total_steps else 1.0
        rate = finite(self._metrics.get("tokens_per_second"))
        left = duration(self.pace.left(self.total_steps - self.done))
        cells = [
            Text("spark-rl", style="bold magenta") if roomy else None,
            f"step {self.done}/{self.total_steps}",
            ProgressBar(total=1.0, completed=finished),
            percent(finished),
            Text(f"{left} left", style="green"),
            f"{compact(rate)} tok/s" if roomy and rate is not None else None,
        ]
        shown = [cell for cell in cells if cell is not None]
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for cell in shown:
            grid.add_column(no_wrap=True, ratio=1 if isinstance(cell, ProgressBar) else None)
        grid.add_row(*shown)
        return grid

    def _unknown(self) -> tuple[_Cell, ...]:
        keys = (key for key, value in self._seen.items() if isinstance(value, Real) and key not in _SHOWN)
        return tuple((spoken(key), key, plain) for key in keys)

    def _part(self, key: str, name: str, write: _Format) -> str:
        value = self._metrics.get(key)
        return "" if value is None else f"{name} {_write(value, write)}".strip()


def spoken(key: str) -> str:
    """A metric that no row names, in words: ``reward_function/brevity`` is ``brevity``, ``my/own_key`` is
    ``my own key``.
    """
    for prefix, more in _PREFIXES:
        if key.startswith(prefix) and key != prefix:
            key = key.removeprefix(prefix) + more
            break
    return key.replace("/", " ").replace("_", " ")


def trend(values: Sequence[float]) -> str:
    """Where a number is going: ``↗``, ``↘`` or ``→``; nothing before there are eight values."""
    if len(values) < 8:
        return ""
    half = len(values) // 2
    before, after = values[:half], values[-half:]
    change = statistics.fmean(after) - statistics.fmean(before)
    noise = math.sqrt((statistics.variance(before) + statistics.variance(after)) / half)
    if abs(change) <= 2 * noise:
        return "→"
    return "↗" if change > 0 else "↘"


def _lines(label: str, cells: Sequence[tuple[str, str, bool]], width: int) -> Iterator[Text]:
    """Cells of one row of the view in columns, on as many lines as they need."""
    lines: list[Text] = []
    room = max(_LABEL_WIDTH + 1, width - ECHO)
    for name, value, fresh in cells:
        cell = Text.assemble((f"{name} ", "cyan"), (value, "bold" if fresh else "dim"))
        if lines and (column := _next_column(lines[-1].cell_len)) + cell.cell_len <= room:
            lines[-1].append(" " * (column - lines[-1].cell_len))
        else:
            start = "" if lines else label
            lines.append(Text.assemble((f"{start:<{_LABEL_WIDTH}}", "dim"), no_wrap=True, overflow="ellipsis"))
        lines[-1].append_text(cell)
    return iter(lines)


def _next_column(used: int) -> int:
    """Where the next cell begins on a line that is used so far, with a space before it."""
    return _LABEL_WIDTH + -(-(used + 1 - _LABEL_WIDTH) // _CELL_WIDTH) * _CELL_WIDTH


def _write(value: object, write: _Format) -> str:
    # A loss that is no longer a number must be seen, not shown as unknown.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return write(finite(value))


def before_after_table(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    transfer: Mapping[str, Mapping[str, Any]] | None = None,
) -> Table:
    """What training changed, as a table for ``console.print``.

    ``before`` and ``after`` are evaluations as in ``summary.json`` (see :func:`spark_rl.report.comparison.compare`);
    ``transfer`` is a second pair, ``{"before": ..., "after": ...}``, of a family that was not trained on. Shares in
    percent with half the width of their 95% interval, changes in points, unknown values as a dash.
    """
    table = Table(title="Before and after training", title_style="bold", caption_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("change", justify="right")
    _add_rows(table, "Held-out problems", before, after)
    if transfer is not None:
        table.add_section()
        _add_rows(table, "Transfer problems", transfer.get("before"), transfer.get("after"))
    table.caption = "Percent, changes in points; ± is half the 95% interval."
    return table


def _add_rows(table: Table, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
    note = problems_note(before, after)
    table.add_row(Text(f"{name} ({note})" if note else name, style="italic"), "", "", "")
    for row in compare(before, after):
        old, new, change = row.written()
        table.add_row(Text(f"  {row.label}"), old, new, Text(change, style=_style(row)))


def _style(row: Row) -> str:
    return {True: "bold green", False: "bold red", None: ""}[row.better]
