"""Which prompts decode now and which wait: rows and key-value positions that exist together are bounded.

Rows of a cache are as wide as the longest of them, so that a row is charged the most that any row beside it may reach:
its prompt and all the tokens it may still be given. What is let in can therefore always be decoded to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

ENTER_SHARE = 1 / 8
"""Prompts enter beside rows that decode when theirs are at least this share of them: each time the cache is copied."""


class Entry(NamedTuple):
    """Prompts that enter together."""

    prompts: list[int]
    rows: range
    """Which of the n rows of each: all, but for a prompt whose rows do not fit together."""


class Waiting:
    """Prompts in the order in which they enter.

    ::

        waiting = Waiting([0, 1, 2], reach=[10, 10, 20], n=4, max_rows=8, max_tokens=None)
        waiting.enter(0, 0)      # Entry([0, 1], range(4)): eight rows
        waiting.enter(4, 10)     # Entry([2], range(4)): four have ended, and four take their place
    """

    def __init__(self, order: Sequence[int], reach: Sequence[int], n: int, max_rows: int, max_tokens: int | None):
        """Queue prompts.

        Args:
            order: the prompts, first to enter first.
            reach: for each prompt of the call, the positions that it and a response of it take at most.
            n: rows a prompt.
            max_rows: rows together at most, but never less than the n rows of one prompt.
            max_tokens: key-value positions of all rows together at most; ``None`` for no bound. No reach is larger.
        """
        self.left = deque(order)
        self.reach, self.n = reach, n
        self.max_rows, self.max_tokens = max(n, max_rows), max_tokens
        self.begun = 0
        """Rows of the first prompt that have entered already."""

    def enter(self, rows: int, widest: int) -> Entry:
        """The prompts that enter beside ``rows`` rows, of which none takes more than ``widest`` positions; maybe none.

        They wait no more.
        """
        fitting = 0
        for prompt in islice(self.left, 0 if self.begun else None):
            widest, held = max(widest, self.reach[prompt]), rows + (fitting + 1) * self.n
            if held > self.max_rows or (self.max_tokens is not None and held * widest > self.max_tokens):
                break
            fitting += 1
        if rows and fitting < len(self.left) and fitting * self.n < ENTER_SHARE * rows:
            fitting = 0
        if fitting or rows or not self.left:
            return Entry([self.left.popleft() for _ in range(fitting)], range(self.n))
        return self._some_rows()

    def _some_rows(self) -> Entry:
        """As many rows as fit of the first prompt, whose rows do not all fit: the others wait."""
        prompt, begin = self.left[0], self.begun
        most = self.n if self.max_tokens is None else self.max_tokens // self.reach[prompt]
        end = min(self.n, begin + max(1, most))
        self.begun = end % self.n
        if not self.begun:
            self.left.popleft()
        return Entry([prompt], range(begin, end))
