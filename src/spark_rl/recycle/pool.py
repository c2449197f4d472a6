"""The first-in-first-out pool of recycled problems between the two periods of a step (Fig. 2a).

Departures from the paper, which does not describe the pool: it is bounded, what falls out is counted, and its state can
be saved and restored, so that a resumed run trains on the same problems as one that was never interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any

from spark_rl.data.images import image_text
from spark_rl.problem import Problem


class Pool:
    """At most ``size`` problems; when more arrive the oldest fall out and are counted in ``dropped``.

    ::

        pool = Pool(2)
        pool.add([a, b, c])         # a falls out
        pool.dropped, len(pool)     # 1, 2
        pool.take(1)                # [b]
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a pool of size {size} holds nothing; give recycle.pool_size at least 1")
        self.size = size
        self.dropped = 0
        self._queue: deque[Problem] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, problems: Iterable[Problem]) -> None:
        """Append in order; the oldest fall out."""
        self._queue.extend(problems)
        while len(self._queue) > self.size:
            self._queue.popleft()
            self.dropped += 1

    def ready(self, n: int) -> bool:
        """Whether ``take(n)`` would give n problems."""
        return len(self._queue) >= n

    def take(self, n: int) -> list[Problem]:
        """Remove and return the oldest problems, at most ``n``."""
        return list(islice(self.oldest(), n))

    def oldest(self) -> Iterator[Problem]:
        """Remove and give the oldest problem, one at a time: for whoever can't say beforehand how many will do."""
        while self._queue:
            yield self._queue.popleft()

    def state(self) -> list[dict[str, Any]]:
        """The problems from oldest to newest, ready for JSON; ``dropped`` is saved beside it."""
        return [problem_to_dict(problem) for problem in self._queue]

    @classmethod
    def from_state(cls, size: int, state: Iterable[Mapping[str, Any]], dropped: int = 0) -> Pool:
        """The pool that :meth:`state` described; with a smaller ``size`` the oldest fall out and are counted."""
        pool = cls(size)
        pool.dropped = dropped
        pool.add(problem_from_dict(values) for values in state)
        return pool


def problem_to_dict(problem: Problem) -> dict[str, Any]:
    """A problem as plain JSON values; images in memory become ``data:`` strings, with the same pixels.

    Raises:
        ImageError: an image can't be encoded.
    """
    values = {field.name: getattr(problem, field.name) for field in fields(Problem)}
    if not values["columns"]:  # only where reward functions of the user's are in use
        del values["columns"]
    lists = {"choices": list(problem.choices), "alternatives": list(problem.alternatives)}
    return values | lists | {"images": [image_text(image) for image in problem.images]}


def problem_from_dict(values: Mapping[str, Any]) -> Problem:
    """The inverse of :func:`problem_to_dict`. Raises ``ValueError`` on keys that a problem does not have or lacks."""
    known = {field.name for field in fields(Problem)}
    if {*values, "columns"} != known:
        odd = sorted({*values, "columns"} ^ known)
        raise ValueError(
            f"a saved problem has unknown or missing fields: {', '.join(odd)}; was it saved by another version?"
        )
    return Problem(**{**values, **{name: tuple(values[name]) for name in ("images", "choices", "alternatives")}})
