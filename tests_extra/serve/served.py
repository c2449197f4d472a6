"""A server started as people start it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx
from openai import OpenAI
from started import Started


class Served(Started):
    """``spark-rl serve`` in a process of its own, on a free port."""

    def __init__(self, *options: str, **variables: str) -> None:
        command = ["-m", "spark_rl", "serve", "--port", "0", *options]
        super().__init__(command, r"on (http://\S+)/v1", **variables)

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
