"""A page started as people start it."""

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


class Shown:
    """``spark-rl demo``, or another command that shows the page, in a process of its own."""

    def __init__(
        self, *options: str, command: Sequence[str] = ("-m", "spark_rl", "demo", "--port", "0"), **variables: str
    ) -> None:
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, *options],
                stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            )  # fmt: skip
        end = time.monotonic() + 300
        while (found := re.search(r"on (http://\S+)  \(Ctrl-C stops\)", self.said())) is None:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)
        self.url = found[1]

    def __enter__(self) -> Shown:
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

    def stop(self) -> int:
        """Press Ctrl-C; its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)
