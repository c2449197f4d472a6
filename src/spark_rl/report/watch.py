"""What a run tells whoever watches it, and the console as a watcher."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console

from spark_rl.report.console import TrainView


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


class Silent:
    """Watches and says nothing."""

    def phase(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def begin(self, total_steps: int, done: int) -> None: ...

    def step(self, metrics: Mapping[str, Any]) -> None: ...

    def end(self) -> None: ...


class ConsoleWatcher:
    """Shows a run on the terminal: phases as lines, steps as a live view."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._view: TrainView | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def phase(self, text: str) -> None:
        self.console.print(f"[dim]{text} ...[/dim]", highlight=False)

    def note(self, text: str) -> None:
        self.console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def begin(self, total_steps: int, done: int) -> None:
        self._view = TrainView(total_steps, done, self.console).__enter__()

    def step(self, metrics: Mapping[str, Any]) -> None:
        assert self._view is not None, "begin comes first"
        self._view.step(metrics)

    def end(self) -> None:
        if self._view is not None:
            self._view.__exit__(None, None, None)
            self._view = None
