"""What a server counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

KNOWN = frozenset(("/v1/chat/completions", "/v1/judge", "/v1/models", "/health", "/metrics"))
"""Paths that are counted by name; all others together, or strangers could make names without end."""
BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Seconds of requests."""
HELP = {
    "rows": ("gauge", "Rows that decode."),
    "waiting": ("gauge", "Prompts that wait for room."),
    "steps": ("counter", "Tokens a row that the model was asked for."),
    "tokens": ("counter", "Tokens of completions."),
}


class Metrics:
    """Requests by path and status, and how long they took. Of one thread: the event loop's."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds, self._count, self._open = 0.0, 0, 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """One request has ended."""
        self._requests[path if path in KNOWN else "other", status] += 1
        self._count += 1
        self._seconds += seconds
        for bound in BUCKETS:
            self._buckets[bound] += seconds <= bound

    def under_way(self, count: int) -> None:
        """How many are answered at the moment."""
        self._open = count

    def text(self, load: Mapping[str, float]) -> str:
        """All of it, with what the engine says of itself."""
        lines = [
            "# HELP spark_rl_requests_total Requests by path and status.",
            "# TYPE spark_rl_requests_total counter",
        ]
        lines += [f'spark_rl_requests_total{{path="{path}",status="{status}"}} {count}'
                  for (path, status), count in sorted(self._requests.items())]  # fmt: skip
        lines += ["# HELP spark_rl_requests Requests under way.", "# TYPE spark_rl_requests gauge",
                  f"spark_rl_requests {self._open}",
                  "# HELP spark_rl_request_seconds Seconds of requests.", "# TYPE spark_rl_request_seconds histogram",
                  *(f'spark_rl_request_seconds_bucket{{le="{bound:g}"}} {self._buckets[bound]}' for bound in BUCKETS),
                  f'spark_rl_request_seconds_bucket{{le="+Inf"}} {self._count}',
                  f"spark_rl_request_seconds_sum {self._seconds:.6f}",
                  f"spark_rl_request_seconds_count {self._count}"]  # fmt: skip
        for name, value in load.items():
            kind, about = HELP[name]
            full = f"spark_rl_engine_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {full} {about}", f"# TYPE {full} {kind}", f"{full} {value:g}"]
        return "\n".join(lines) + "\n"
