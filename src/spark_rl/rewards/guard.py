"""What keeps a run without gold answers from training on wrong ones: a slice with gold answers, where it can be told.

Every intrinsic reward rises and then falls (https://arxiv.org/abs/2603.08660). So on problems with gold answers the run
makes pseudo golds too, does not use them, and counts how many are right. Before enough of them are, it trains on gold
answers alone; when too few are afterwards, it ends.
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
        self.trusts = settings.floor is None
        """Whether pseudo golds are used: since enough of those of a window were right, one a step at least; or always,
        without a floor."""
        self._steps: deque[tuple[int, float]] = deque(maxlen=settings.window)
        """(pseudo golds that were accepted on the slice, how many of them are right) of the last steps."""
        self._holds = False

    def recall(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take down the steps of earlier sessions."""
        for record in records:
            self.hear(record)

    def hear(self, metrics: Mapping[str, Any]) -> None:
        """Take down a step."""
        accepted = int(metrics.get("self/accepted") or 0)
        self._steps.append((accepted, accepted * float(metrics.get("self/accuracy") or 0.0)))
        accepted, right = self._sums()
        floor, full = self.settings.floor or 0.0, len(self._steps) == self.settings.window
        self._holds = bool(accepted) and right >= floor * accepted - 1e-6
        self.trusts = self.trusts or (full and self._holds and accepted >= self.settings.window)

    def why_to_stop(self) -> str | None:
        """Why the run ends here: pseudo golds are used, and of the last ``window`` steps too few are right, or none was
        accepted where it could be told."""
        floor, window = self.settings.floor, self.settings.window
        if floor is None or not self.trusts or len(self._steps) < window or self._holds:
            return None
        accepted, right = self._sums()
        if not accepted:
            return (f"the judge has accepted no answer in {window} steps where there is a gold one to compare with, so "
                    "nothing is known of its pseudo golds (reward.self.window)")  # fmt: skip
        return (f"where there is a gold answer to compare with, {100 * right / accepted:.0f}% of {accepted} pseudo "
                f"golds of the last {window} steps are right, and reward.self.floor is {100 * floor:.0f}%")  # fmt: skip

    def _sums(self) -> tuple[int, float]:
        return sum(count for count, _ in self._steps), sum(count for _, count in self._steps)
