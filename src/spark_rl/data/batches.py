"""The batch of each step (Sec. 3.1, step 1): from problems in memory, drawn in a new random order each pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spark_rl.data.mixture import pass_order
from spark_rl.problem import Problem


class Batches(Protocol):
    """Where a loop gets its problems from."""

    def of(self, step: int) -> list[Problem]:
        """The problems of a step, counted from 0: the same whenever it is asked."""
        ...


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Problems in memory, in a new random order each pass."""

    problems: Sequence[Problem]
    size: int
    """Problems a batch."""
    seed: int
    shares: Mapping[str, float] | None = None
    """Those of several sources in a pass, see :mod:`spark_rl.data.mixture`."""

    def of(self, step: int) -> list[Problem]:
        """See :class:`Batches`: a function of the step alone."""
        batch: list[Problem] = []
        for position in range(step * self.size, (step + 1) * self.size):
            number, place = divmod(position, len(self.problems))
            if not batch or place == 0:
                order = pass_order(self.problems, number, self.seed, self.shares)
            batch.append(self.problems[order[place]])
        return batch
