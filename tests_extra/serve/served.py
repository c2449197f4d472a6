"""A server started as people start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from openai import OpenAI


class Served:
    """``spark-rl serve`` in a process of its own, on a free port."""

    def __init__(self, *options: str, **variables: str) -> None:
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spark_rl", "serve", "--port", "0", *options],
                stdout=log, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip
        end = time.monotonic() + 300
        while (found := re.search(r"on (http://\S+)/v1", self.said())) is None:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)
        self.url = found[1]

    def __enter__(self) -> Served:
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

    def client(self, key: str = "none", **options: Any) -> OpenAI:
        """OpenAI's own client."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 120, **options})

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """A plain request."""
        return httpx.post(self.url + path, json=body, headers=headers, timeout=120)

    def measured(self) -> dict[str, float]:
        """The numbers of ``/metrics``."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def idle(self) -> bool:
        """Whether nothing is under way within some seconds."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            now = self.measured()
            if not any(now[f"spark_rl_{name}"] for name in ("requests", "engine_rows", "engine_waiting")):
                return True
            time.sleep(0.05)
        return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)
