"""report.html while a run goes on: written again every so many steps, within a share of the run's time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from spark_rl.errors import UserError
from spark_rl.report.html import write_report

SHARE = 0.02
"""Of a session's time, what all renewals together may take."""


class Renewal:
    """Writes the report of a run again, and never ends the run: what is wrong with a file is said once.

    ::

        renewal = Renewal(run_dir, every=10, say=watcher.note)
        renewal.after(step)     # after each step
    """

    def __init__(self, run_dir: Path, every: int | None, say: Callable[[str], None]) -> None:
        self.run_dir, self.every, self._say = run_dir, every, say
        self._started = time.perf_counter()
        self._spent = 0.0
        self._told: set[str] = set()
        self._last = 0

    def after(self, step: int) -> bool:
        """Write the report if it is due after this step and time for it is left; returns whether it was written."""
        if self.every is None or step < self._last + self.every:
            return False
        begun = time.perf_counter()
        if self._spent > SHARE * (begun - self._started):
            return False
        self._last = step - step % self.every
        try:
            write_report(self.run_dir)
        except (UserError, ValueError) as error:
            self._tell(f"report.html is not renewed: {error}")
            return False
        finally:
            self._spent += time.perf_counter() - begun
        return True

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._say(line)
