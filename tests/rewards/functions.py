"""Reward functions that tests load from this file by ``functions.py:NAME``."""

from __future__ import annotations

import asyncio
import sys
import time

from spark_rl import verify

ROOM = []
"""What the functions keep between calls."""


def half(completions):
    return [0.5] * len(completions)


def exact(completions, answer):
    """What the verifier says of the embedded base's puzzles."""
    return [verify(text, gold, "exact").reward for text, gold in zip(completions, answer, strict=True)]


def by_column(completions, answer, hint, task):
    """Needs a column of the data, for reflections too."""
    assert all(text.startswith("hint") for text in hint), hint
    ROOM.extend(task)
    return exact(completions, answer)


def raises(completions):
    raise ValueError("no luck\ntoday")


def leaves(completions):
    sys.exit(3)


def hangs(completions):
    while True:
        pass


def sleeps(completions):
    time.sleep(1.2)
    return [1.0] * len(completions)


async def waits(completions):
    await asyncio.sleep(600)


async def blocks(completions):
    while True:
        pass


def nan(completions):
    return [float("nan")] * len(completions)


def first_is_infinite(completions):
    return [float("inf"), *([1.0] * (len(completions) - 1))]


def nothing(completions):
    return [None] * len(completions)


def short(completions):
    return [1.0]


def words(completions):
    return ["good"] * len(completions)


def none(completions):
    return None


def lazy(completions):
    return (1.0 for _ in completions)


class RudeError(Exception):
    def __str__(self):
        raise RuntimeError


def rude(completions):
    raise RudeError


def interrupts(completions):
    raise KeyboardInterrupt
