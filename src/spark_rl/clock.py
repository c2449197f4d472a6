"""How long the phases of a step take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Seconds spent in each phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, phase: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call, and add the time it took to ``time/phase``."""
        started = time.perf_counter()
        result = call(*args, **kwargs)
        name = f"time/{phase}"
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return result
