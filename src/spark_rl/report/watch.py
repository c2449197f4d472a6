"""What a run tells whoever watches it, and the console as a watcher."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.text import Text

from spark_rl.report.console import HeldOut, TrainView
from spark_rl.report.live import Steady, draws
from spark_rl.report.metrics import read_rows


class Watcher(Protocol):
    """Hears what a run does, as it does it."""

    def phase(self, text: str) -> None:
        """Something long begins, in a few words."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know, in one line."""
        ...

    def begin(self, total_steps: int, done: int) -> None:
        """The steps begin; ``done`` of them were finished in earlier sessions."""
        ...

    def step(self, metrics: Mapping[str, Any]) -> None:
        """A step has finished."""
        ...

    def end(self) -> None:
        """The steps are over."""
        ...

    def progress(self, done: int, total: int) -> None:
        """How far the phase is that began last."""
        ...

    def evaluated(self, step: int, scores: Mapping[str, float | None]) -> None:
        """The held-out problems were evaluated after a step."""
        ...

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""
        ...

    def hint(self, text: str) -> None:
        """Something in the numbers that the user should look at, with the setting that helps, in one line."""
        ...


class Silent:
    """Watches and says nothing."""

    def phase(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def begin(self, total_steps: int, done: int) -> None: ...

    def step(self, metrics: Mapping[str, Any]) -> None: ...

    def end(self) -> None: ...

    def progress(self, done: int, total: int) -> None: ...

    def evaluated(self, step: int, scores: Mapping[str, float | None]) -> None: ...

    def saved(self, path: Path) -> None: ...

    def hint(self, text: str) -> None: ...


class ConsoleWatcher:
    """Shows a run on the terminal: phases as lines that count, steps as a live view.

    Lines that are written while the view is live stand above it. Where the output is no terminal nothing is counted.
    """

    def __init__(self, console: Console, run_dir: Path | None = None) -> None:
        """``run_dir`` holds the evaluations of earlier sessions, among which the best so far may be."""
        self.console = console
        self.run_dir = run_dir
        self._held_out = HeldOut()
        self._view: TrainView | None = None
        self._phase = ""
        """What is going on between two lines."""
        self._count: Steady | None = None
        """The line of the phase that is being counted, which is drawn over itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal is gone, which may be why a run ends
            self.end()

    def phase(self, text: str) -> None:
        self._close()
        self._phase = text
        self._doing(f"{text} ...")

    def progress(self, done: int, total: int) -> None:
        if self._phase and (self._view is not None or draws(self.console)):
            self._doing(f"{self._phase} ... {done:,}/{total:,}")

    def note(self, text: str) -> None:
        self._close()
        self._write(text, "yellow")

    def hint(self, text: str) -> None:
        self.note(f"hint: {text}")

    def evaluated(self, step: int, scores: Mapping[str, float | None]) -> None:
        self._held_out.add(step, scores)
        self._close()
        self._write(self._held_out.line())

    def saved(self, path: Path) -> None:
        """Nothing: the view has no line for it."""

    def begin(self, total_steps: int, done: int) -> None:
        self._close()
        if done and self.run_dir is not None and (path := self.run_dir / "evaluations.jsonl").exists():
            for record in read_rows(path)[0]:
                self._held_out.add(record["step"], record)
        self._view = TrainView(total_steps, done, self.console, held_out=self._held_out).__enter__()

    def step(self, metrics: Mapping[str, Any]) -> None:
        assert self._view is not None, "begin comes first"
        self._view.step(metrics)

    def end(self) -> None:
        self._close()
        if self._view is not None:
            view, self._view = self._view, None
            view.__exit__(None, None, None)

    def _doing(self, text: str) -> None:
        if self._view is not None:
            self._view.doing(text)
        elif not draws(self.console):
            self._write(text, "dim")
        else:
            if self._count is None:
                self._count = Steady(console=self.console, auto_refresh=False, transient=True)
                self._count.start()
            self._count.update(Text(text, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)

    def _close(self) -> None:
        """What was counted is over: its line stays."""
        if self._view is not None:
            self._view.doing("")
        if self._count is not None:
            count, self._count = self._count, None
            count.stop()
            self._write(str(count.get_renderable()), "dim")
        self._phase = ""

    def _write(self, text: str, style: str = "") -> None:
        """One line, as it is."""
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
