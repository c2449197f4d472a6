"""Which prompts decode now and which wait: rows and key-value positions that exist together are bounded.

Rows of a cache are as wide as the longest of them, so that a row is charged the most that any row beside it may reach:
its prompt and all the tokens it may still be given. What is let in can therefore always be decoded to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
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

    def __init__(
        self, order: Iterable[int], reach: Sequence[int], n: int, max_rows: int, max_tokens: int | None,
        patience: int = 0,
    ) -> None:  # fmt: skip
        """Queue prompts.

        Args:
            order: the prompts, first to enter first.
            reach: for each prompt of the call, the positions that it and a response of it take at most.
            n: rows a prompt.
            max_rows: rows together at most, but never less than the rows of one prompt.
            max_tokens: key-value positions of all rows together at most; ``None`` for no bound. No reach is larger.
            patience: times that prompts which fit are let wait for others to enter with, because they are few.
        """
        self.patience, self.passed_over = patience, 0
        self.left = deque[int]()
        self.max_rows, self.max_tokens = max_rows, max_tokens
        self.begun = 0
        """Rows of the first prompt that have entered already."""
        self._taken: dict[int, tuple[int, int]] = {}
        for prompt in order:
            self.add(prompt, reach[prompt], n)

    def add(self, prompt: int, reach: int, n: int) -> None:
        """Queue one more prompt behind the others."""
        self.left.append(prompt)
        self._taken[prompt] = reach, n

    def remove(self, prompt: int) -> None:
        """Let a prompt wait no more, whose rows that have not entered never will."""
        if prompt in self._taken:
            if self.left[0] == prompt:
                self.begun = 0
            self.left.remove(prompt)
            del self._taken[prompt]

    def enter(self, rows: int, widest: int) -> Entry:
        """The prompts that enter beside ``rows`` rows, of which none takes more than ``widest`` positions; maybe none.

        They have as many rows each, and wait no more.
        """
        fitting, n, full = 0, self._taken[self.left[0]][1] if self.left else 0, bool(self.begun)
        for prompt in islice(self.left, 0 if self.begun else None):
            reach, copies = self._taken[prompt]
            if copies != n:
                break
            widest, held = max(widest, reach), rows + (fitting + 1) * n
            if held > max(self.max_rows, n) or (self.max_tokens is not None and held * widest > self.max_tokens):
                full = True
                break
            fitting += 1
        if 0 < fitting * n < ENTER_SHARE * rows and (full or self.passed_over < self.patience):
            fitting, self.passed_over = 0, self.passed_over + 1
        elif fitting:
            self.passed_over = 0
        if fitting or rows or not self.left:
            return Entry([self._next() for _ in range(fitting)], range(n))
        return self._some_rows()

    def _some_rows(self) -> Entry:
        """As many rows as fit of the first prompt, whose rows do not all fit: the others wait."""
        prompt, begin = self.left[0], self.begun
        reach, n = self._taken[prompt]
        most = n if self.max_tokens is None else self.max_tokens // reach
        end = min(n, begin + max(1, most))
        self.begun = end % n
        if not self.begun:
            self._next()
        return Entry([prompt], range(begin, end))

    def _next(self) -> int:
        prompt = self.left.popleft()
        del self._taken[prompt]
        return prompt
