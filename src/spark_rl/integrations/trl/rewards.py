"""A user's reward functions beside recycled problems: they grade answers, never verdicts.

The responses to policy problems and to reflections answer the question of the row, so the functions see them, in TRL's
own convention. Judge problems are graded by their label alone: the functions are not called with them, and give
``None`` there, which TRL leaves out of the reward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from trl.trainer.utils import get_callable_name, is_async_callable

from spark_rl.integrations.trl.rows import COLUMN
from spark_rl.problem import Problem
from spark_rl.rewards.grade import ANSWERS

Function = Callable[..., Any]


def answers(problem: Problem | None) -> bool:
    """Whether the responses to a row answer its question."""
    return problem is None or problem.task in ANSWERS


def answers_only(function: Function) -> Function:
    """The function, asked about the rows whose responses answer the question; ``None`` at the others."""

    async def awaited(**named: Any) -> list[float | None]:
        places, count, kept = _picked(named)
        return _spread(await function(**kept) if places else [], places, count)

    def graded(**named: Any) -> list[float | None]:
        places, count, kept = _picked(named)
        return _spread(function(**kept) if places else [], places, count)

    wrapper: Function = awaited if is_async_callable(function) else graded
    functools.update_wrapper(wrapper, function)
    del wrapper.__wrapped__  # type: ignore[attr-defined]  # it takes other arguments
    wrapper.__name__ = get_callable_name(function)
    return wrapper


def _picked(named: dict[str, Any]) -> tuple[list[int], int, dict[str, Any]]:
    """Where the answers are among how many rows, and the arguments with these alone."""
    problems: Sequence[Problem | None] = named[COLUMN]
    count, places = len(problems), [place for place, problem in enumerate(problems) if answers(problem)]
    kept: dict[str, Any] = {
        name: [value[place] for place in places] if isinstance(value, list) and len(value) == count else value
        for name, value in named.items()
        if name != COLUMN
    }
    if callable(log := kept.get("log_extra")):  # TRL's table has a cell for every row
        kept["log_extra"] = lambda column, values: log(column, _spread(values, places, count))
    return places, count, kept


def _spread(values: Sequence[Any], places: Sequence[int], count: int) -> list[Any]:
    """One value a row, ``None`` where there is none; the values as they are if they are not one for each place."""
    if len(values) != len(places):
        return list(values)  # TRL says what is wrong with them
    spread: list[Any] = [None] * count
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread
