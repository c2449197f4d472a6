"""What a reward function is: TRL's convention, a function of the prompts, the completions and the columns of the data.

::

    def brevity(completions, **columns):
        return [1.0 if len(text) < 200 else 0.0 for text in completions]

Departures from TRL: prompts and completions are always texts, never lists of messages; a function is given only the
arguments that it names, unless it takes ``**columns``; there is no ``trainer_state``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Values = Sequence[float | None]
"""One number a completion, in their order; ``None`` where the function does not apply."""


class Reward(Protocol):
    """A plain or an ``async`` function, called with keyword arguments that are lists, one item a completion.

    ``prompts`` (user turns as text), ``completions`` (texts), ``completion_ids`` (their tokens), ``question``,
    ``answer`` (the gold answer, empty if there is none), ``id``, ``task`` (``policy`` or ``reflection``), ``images`` if
    there are any, and every other column of the data under its own name, ``None`` where a row does not have it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Values | Awaitable[Values]: ...


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """A reward function with its weight in the mean: ``WeightedReward(brevity, 0.2, "brevity")``."""

    function: Reward
    weight: float = 1.0
    """Zero measures the function and leaves it out of the reward."""
    name: str = ""
    """What metrics and messages call it; empty: the function's own name."""

    @property
    def called(self) -> str:
        """The name it goes by."""
        inner = getattr(self.function, "func", self.function)  # of functools.partial
        return self.name or str(getattr(inner, "__name__", type(inner).__name__))
