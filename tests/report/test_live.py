"""A view that is drawn by a thread of its own, while others print."""

from __future__ import annotations

import itertools
import threading

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from spark_rl.report.live import OneByOne, Steady
from window import Window

NOTES = 300


class Uneven:
    """A view that is higher or lower each time it is drawn."""

    def __init__(self) -> None:
        self._heights = itertools.cycle((3, 1, 4, 2))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for _ in range(next(self._heights)):
            yield Text("view")


def test_every_line_stays_above_a_view_that_another_thread_draws() -> None:
    window = Window(80, 1000)
    console = OneByOne(file=window, force_terminal=True, color_system=None, width=80)
    with Steady(Uneven(), console=console, refresh_per_second=10_000):
        for number in range(NOTES):
            console.print(f"note {number}")
    lines = window.lines()
    assert lines[:NOTES] == [f"note {number}" for number in range(NOTES)]
    assert set(lines[NOTES:]) == {"view"}
    assert len(lines) <= NOTES + 4


def test_threads_that_print_update_and_stop_never_wait_for_each_other_forever() -> None:
    window = Window(80, 1000)
    console = OneByOne(file=window, force_terminal=True, color_system=None, width=80)
    live = Steady(Uneven(), console=console, refresh_per_second=10_000)

    def prints() -> None:
        for _ in range(100):
            console.print("note")

    def updates() -> None:
        for _ in range(100):
            live.update(Uneven(), refresh=True)

    live.start()
    threads = [threading.Thread(target=work, daemon=True) for work in (prints, updates, prints)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    live.stop()
    assert window.lines()[:200] == ["note"] * 200
