"""What a run tells whoever watches it, and the console as a watcher."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console

from spark_rl.report.console import TrainView
from spark_rl.report.notation import percent

_EVALUATED = (("policy", "policy_accuracy"), ("judge", "judge_accuracy"), ("with TTS", "tts_accuracy"))
"""What the line of an evaluation shows; the report has the rest."""


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

    def __init__(self, console: Console) -> None:
        self.console = console
        self._view: TrainView | None = None
        self._phase = ""
        """The line of the phase that is being counted, which the next line writes over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal is gone, which may be why a run ends
            self.end()

    def phase(self, text: str) -> None:
        if self._view is not None:
            self._phase = text
            self._view.doing(f"{text} ...")
        else:
            self._close()
            self._phase = text
            self._write(f"{text} ...", "dim", end="\r" if self._counts else "\n")

    def progress(self, done: int, total: int) -> None:
        text = f"{self._phase} ... {done:,}/{total:,}"
        if self._view is not None:
            self._view.doing(text)
        elif self._counts and self._phase:
            self._write(text, "dim", end="\r")

    def note(self, text: str) -> None:
        self._close()
        self._write(text, "yellow")

    def hint(self, text: str) -> None:
        self.note(f"hint: {text}")

    def evaluated(self, step: int, scores: Mapping[str, float | None]) -> None:
        shown = ((name, scores.get(key)) for name, key in _EVALUATED)
        shares = ", ".join(f"{name} {percent(value, 1)}" for name, value in shown if value is not None)
        self._close()
        self._write(f"step {step} on held-out problems: {shares}")

    def saved(self, path: Path) -> None:
        """Nothing: the view has no line for it."""

    def begin(self, total_steps: int, done: int) -> None:
        self._close()
        self._view = TrainView(total_steps, done, self.console).__enter__()

    def step(self, metrics: Mapping[str, Any]) -> None:
        assert self._view is not None, "begin comes first"
        self._view.step(metrics)

    def end(self) -> None:
        self._close()
        if self._view is not None:
            view, self._view = self._view, None
            view.__exit__(None, None, None)

    @property
    def _counts(self) -> bool:
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def _close(self) -> None:
        """What was counted is over: its line stays."""
        if self._view is not None:
            self._view.doing("")
        elif self._counts and self._phase:
            self.console.print()
        self._phase = ""

    def _write(self, text: str, style: str = "", end: str = "\n") -> None:
        """One line, as it is."""
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True, end=end)
