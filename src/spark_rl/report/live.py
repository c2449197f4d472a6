"""Views that are drawn over themselves on a terminal, and leave no line behind that belongs to an older one.

Rich's ``Live`` moves up as many rows as it has drawn. Three things make that wrong, and leave doubled lines or take
lines that belong to others:

- A window that is made narrower: terminals of today (VTE, kitty, iTerm2, Windows Terminal, tmux) wrap what stands there
  already. :class:`Steady` knows how long its lines were and counts the rows that they take now. A terminal that cuts
  them instead (xterm) loses as many of the lines above.
- What others write to the terminal while a view stands there: what goes to ``sys.stdout`` or a ``sys.stderr`` that is a
  terminal is written above the view.
- Two threads that write at once: the view is drawn by a thread of its own, and a line that was made for the view as it
  stood is written when a higher or lower one stands there. On a :class:`OneByOne` console one waits for the other.

What a window has pushed out at its top can't be taken back: a view as high as its window leaves a line there when the
window is made narrower.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from spark_rl.errors import plain

ECHO = 4
"""Columns to leave free at the end of a view's last line: the terminal writes ``^C`` there."""


def draws(console: Console) -> bool:
    """Whether what was written can be written over."""
    return console.is_terminal and not console.is_dumb_terminal


class OneByOne(Console):
    """A console on which a thread prints when what another has begun to print is written."""

    def __init__(self, **options: Any) -> None:
        self.turn = threading.RLock()
        super().__init__(**options)

    def __enter__(self) -> Self:
        self.turn.acquire()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self.turn.release()


class Steady(Live):
    """A live view for terminals whose windows change."""

    def __init__(
        self,
        view: RenderableType | None = None,
        *,
        console: Console,
        refresh_per_second: float = 2,
        auto_refresh: bool = True,
        transient: bool = False,
    ) -> None:
        super().__init__(
            view, console=console, refresh_per_second=refresh_per_second, auto_refresh=auto_refresh,
            transient=transient, vertical_overflow="crop",
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )  # fmt: skip
        if isinstance(console, OneByOne):
            self._lock = console.turn  # one lock, as two that are taken in different orders wait for each other forever
        self._lengths: list[int] = []
        """Columns that each line took when it was drawn last."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        shown = super().process_renderables(renderables)
        if not draws(self.console):
            return shown
        *before, view = shown
        width = max(1, self.console.width)
        wrapped = sum(max(0, -(-length // width) - 1) for length in self._lengths)
        up = Control(*((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * wrapped)
        erase: list[ConsoleRenderable] = [Control((ControlType.ERASE_IN_LINE, 2)), up] if wrapped else []
        return [*erase, *before, _Measured(view, self._note)]

    def _note(self, lengths: list[int]) -> None:
        self._lengths = lengths


class _Measured:
    """Draws a view, without anything in it that steers a terminal, and tells how long its lines are."""

    def __init__(self, view: ConsoleRenderable, tell: Callable[[list[int]], None]) -> None:
        self.view, self.tell = view, tell

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lengths = [0]
        for text, style, control in console.render(self.view, options):
            segment = Segment(text if control else plain(text), style, control)
            if not control:
                first, *more = segment.text.split("\n")
                lengths[-1] += Segment(first).cell_length
                lengths += [Segment(part).cell_length for part in more]
            yield segment
        self.tell(lengths)
