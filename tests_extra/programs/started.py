"""A command that stays, started as people start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Started:
    """A command of Python in a process of its own, until it has said where it is."""

    def __init__(self, command: Sequence[str], place: str, **variables: str) -> None:
        """Start it, and wait.

        Args:
            command: behind ``python``.
            place: a pattern of what it says, whose first group is its address.
            variables: of its environment.
        """
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            )  # fmt: skip
        end = time.monotonic() + 300
        while (found := re.search(place, self.said())) is None:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)
        self.url = found[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.unlink()

    def said(self) -> str:
        """Everything that it has printed."""
        return self.log.read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop, as Ctrl-C does; its exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)
