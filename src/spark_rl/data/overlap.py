"""Held-out problems never reach training.

A problem is its question and its images, I and q of d = (q, a, I) (Sec. 3.1). Questions are compared as text, white
space apart; where they are the same, images by the bytes of their files: "solve for x" over another picture is another
problem. The same picture encoded again, as another format or size, counts as another.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from spark_rl.data.images import image_digest
from spark_rl.errors import DataError
from spark_rl.problem import Problem

Key = tuple[str, tuple[bytes, ...]]

logger = logging.getLogger(__name__)


def check_disjoint(train: Iterable[Problem], heldout: Iterable[Problem]) -> int:
    """How many problems the two share; 0 is what a run needs."""
    held = HeldOut(heldout)
    return len({held.key(problem) for problem in train if problem in held})


def remove_overlap(train: Sequence[Problem], heldout: Iterable[Problem]) -> tuple[tuple[Problem, ...], int]:
    """(the training problems that are not held out, how many were removed); the count is logged.

    Raises:
        DataError: none is left.
    """
    held = HeldOut(heldout)
    kept = tuple(problem for problem in train if problem not in held)
    removed = len(train) - len(kept)
    if train and not kept:
        sources = dict.fromkeys(problem.source for problem in train)
        raise DataError(
            f"all {removed} training problems of {', '.join(sources)} are held out, {train[0].id} for one; "
            "give data.heldout another source or split, or null"
        )
    if removed:
        logger.warning("removed %d of %d training problems whose question is held out", removed, len(train))
    return kept, removed


class HeldOut:
    """What is held out. Images are read only where a question occurs on both sides, and each file once."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._asked: defaultdict[str, list[Problem]] = defaultdict(list)
        self._keys: dict[str, frozenset[Key]] = {}
        self._digests: dict[str, bytes] = {}
        for problem in problems:
            self._asked[_question(problem)].append(problem)

    def __contains__(self, problem: Problem) -> bool:
        question = _question(problem)
        if question not in self._asked:
            return False
        if question not in self._keys:
            self._keys[question] = frozenset(self.key(other) for other in self._asked[question])
        return self.key(problem) in self._keys[question]

    def key(self, problem: Problem) -> Key:
        return _question(problem), tuple(self._digest(image) for image in problem.images)

    def _digest(self, image: Any) -> bytes:
        if not isinstance(image, str):
            return image_digest(image)
        if image not in self._digests:
            self._digests[image] = image_digest(image)
        return self._digests[image]


def _question(problem: Problem) -> str:
    return " ".join(problem.question.split())
