"""The batch of each step (Sec. 3.1, step 1): from problems in memory, drawn in a new random order each pass, or from a
stream, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spark_rl.data.mixture import pass_order
from spark_rl.data.overlap import HeldOut
from spark_rl.errors import DataError
from spark_rl.problem import Problem

LOOK_BACK = 2
"""Batches of a stream that are kept, to be asked for again."""


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


@dataclass(slots=True)
class Streamed:
    """Problems of a stream, in its order, from the beginning again when it is through.

    A step further on is reached by reading up to it, a step further back than :data:`LOOK_BACK` by reading from the
    beginning, so every step has the same problems whenever it is asked for, as long as the stream is the same each time
    it is read.
    """

    once: Callable[[], Iterator[Problem]]
    """Begins one pass over the stream."""
    size: int
    """Problems a batch."""
    heldout: HeldOut = field(default_factory=HeldOut)
    """What is left out because it is examined."""
    _step: int = 0
    """The step that is read next."""
    _kept: dict[int, list[Problem]] = field(default_factory=dict, repr=False)
    _left: Iterator[Problem] | None = field(default=None, repr=False)

    def hold_out(self, problems: Iterable[Problem]) -> None:
        """Leave these out of every batch from now on, and begin anew."""
        self.heldout = HeldOut(problems)
        self._begin()

    def of(self, step: int) -> list[Problem]:
        """See :class:`Batches`.

        Raises:
            DataError: a whole pass held nothing that can be trained on.
        """
        if step < self._step and step not in self._kept:
            self._begin()
        while self._step <= step:
            problems = self._endless()
            self._kept[self._step] = [next(problems) for _ in range(self.size)]
            self._kept.pop(self._step - LOOK_BACK, None)
            self._step += 1
        return self._kept[step]

    def _begin(self) -> None:
        self._step, self._kept, self._left = 0, {}, None

    def _endless(self) -> Iterator[Problem]:
        """The problems from where the last batch ended."""
        barren = False
        while True:
            if self._left is None:
                self._left = self.once()
            for problem in self._left:
                if problem not in self.heldout:
                    barren = False
                    yield problem
            self._left = None
            if barren:
                raise DataError("a whole pass over train_dataset had no problem that is not held out; train on others")
            barren = True
