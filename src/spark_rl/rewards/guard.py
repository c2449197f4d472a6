"""What ends a run without gold answers before it collapses: pseudo golds that a slice with gold answers proves wrong.

Every intrinsic reward rises and then falls (https://arxiv.org/abs/2603.08660), so the run looks at what it can check.
On problems with gold answers it makes pseudo golds too, does not use them, and counts how many are right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from spark_rl.config import SelfRewardConfig


class Guard:
    """Hears the metrics of each step; a resumed run tells it those of the log, so it is in no checkpoint."""

    def __init__(self, settings: SelfRewardConfig) -> None:
        self.settings = settings
        self._steps: deque[tuple[int, float]] = deque(maxlen=settings.window)
        """(pseudo golds that were accepted on the slice, how many of them are right) of the last steps."""

    def hear(self, metrics: Mapping[str, Any]) -> None:
        """Take down a step."""
        accepted = int(metrics.get("self/accepted", 0))
        self._steps.append((accepted, accepted * float(metrics.get("self/accuracy", 0.0))))

    def recall(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take down the steps of earlier sessions."""
        self._steps.clear()
        for record in records:
            self.hear(record)

    def why_to_stop(self) -> str | None:
        """Why the run ends here: too few pseudo golds of the last ``window`` steps are right, or none can be told."""
        floor, window = self.settings.floor, self.settings.window
        accepted, right = sum(count for count, _ in self._steps), sum(count for _, count in self._steps)
        if floor is None or len(self._steps) < window or not accepted or right >= floor * accepted - 1e-6:
            return None
        return (f"without gold answers this would be training on wrong ones: where there is one to compare with, "
                f"{100 * right / accepted:.0f}% of {accepted} pseudo golds of the last {window} steps are right, below "
                f"reward.self.floor ({100 * floor:.0f}%)")  # fmt: skip
