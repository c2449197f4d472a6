"""What an engine gives is checked before anything is graded, trained on or shown; an engine of the user's own is held
to all that :class:`spark_rl.engine.base.Engine` promises, whoever asks it.

How long it takes is not checked: it runs in this process, where nothing can end a call that hangs. It needs time limits
of its own for what it waits for.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import ParamSpec, TypeVar

from spark_rl.chat import Prompt
from spark_rl.engine.base import ROUNDING, Around, Arrival, Engine, Sampling, arrivals, gathered, innermost
from spark_rl.errors import EngineError, UserError
from spark_rl.model.weights import Weights
from spark_rl.plugins import said
from spark_rl.problem import Completion

P = ParamSpec("P")
R = TypeVar("R")


class Checked(Around):
    """An engine of the user's own that answers as it should, or with an :class:`EngineError`."""

    def __init__(self, engine: Engine, vocabulary: int) -> None:
        """``vocabulary`` is how many tokens the model has."""
        self.engine, self.vocabulary = engine, vocabulary

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return gathered(self.arriving(prompts, sampling), len(prompts))

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        return promised(self.engine, prompts, sampling, self.vocabulary)

    def sync(self, weights: Weights) -> None:
        self._called(self.engine.sync, weights)

    def sleep(self) -> None:
        self._called(self.engine.sleep)

    def wake(self) -> None:
        self._called(self.engine.wake)

    def _called(self, method: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        try:
            return method(*arguments, **named)
        except Exception as error:
            if (told := _own_error(self.engine, error)) is None:
                raise
            raise told from error


def promised(
    engine: Engine, prompts: Sequence[Prompt], sampling: Sampling, vocabulary: int | None = None
) -> Generator[Arrival]:
    """What an engine gives for the prompts, checked; see :func:`checked`.

    Raises:
        EngineError: it gave something else, or is of the user's own and raised something.
    """
    try:
        with closing(arrivals(engine, prompts, sampling)) as arriving:
            name = type(innermost(engine)).__name__
            yield from checked(arriving, len(prompts), sampling, name, vocabulary)
    except Exception as error:
        if (told := _own_error(engine, error)) is None:
            raise
        raise told from error


def _own_error(engine: Engine, error: Exception) -> EngineError | None:
    """What an engine of the user's own raised, in one line; ``None`` for any other error, which is told as it is."""
    kind = type(innermost(engine))
    if isinstance(error, UserError) or kind.__module__.startswith("spark_rl."):
        return None
    return EngineError(f"{kind.__name__} raised {said(error)}")


def checked(
    arrived: Iterable[Arrival], prompts: int, sampling: Sampling, engine: str, vocabulary: int | None = None
) -> Iterator[Arrival]:
    """What an engine gives, if it is what it promises.

    Args:
        arrived: what it gives.
        prompts: how many it was asked.
        sampling: how.
        engine: its name.
        vocabulary: how many tokens the model has; ``None`` looks at counts alone, where the engine is ours: what the
            learner's own weights make of tokens is for :mod:`spark_rl.health` to say.

    Raises:
        EngineError: it is not; one line that names the engine and the first fault.
    """
    seen: set[int] = set()
    for arrival in arrived:
        place = _place(arrival)
        if place not in range(prompts):
            raise EngineError(f"{engine} gave {arrival!r:.80} in place of (one of {prompts} places, its completions)")
        group = arrival[1]
        if place in seen:
            raise EngineError(f"{engine} gave the completions of prompt {place + 1} of {prompts} twice")
        seen.add(place)
        where = f"{engine}, prompt {place + 1} of {prompts}"
        _check_group(group, sampling, where)
        if vocabulary is not None:
            for completion in group:
                _check_tokens(completion, vocabulary, where)
        yield place, group
    if len(seen) != prompts:
        raise EngineError(f"{engine} gave completions for {len(seen)} prompts and was asked {prompts}")


def _place(arrival: object) -> int:
    """The place that an engine gave completions for; -1 for what is no pair with a whole number, whatever counts as
    one: NumPy's and torch's compare equal to places and are none to a dict or a list."""
    if not isinstance(arrival, tuple) or len(arrival) != 2:
        return -1
    try:
        return operator.index(arrival[0])
    except (TypeError, ValueError, RuntimeError):
        return -1


def _check_group(group: Sequence[Completion], sampling: Sampling, where: str) -> None:
    if not isinstance(group, list | tuple):
        raise EngineError(f"{where}: a {type(group).__name__} in place of a list of completions")
    if len(group) != sampling.n:
        raise EngineError(f"{where}: {len(group)} completions in place of {sampling.n}")
    for completion in group:
        if not isinstance(completion, Completion) or completion.finish not in {"stop", "length", "refused"}:
            raise EngineError(f"{where}: {completion!r:.80} is no Completion that ended by stop or length")
        if not isinstance(completion.text, str):
            raise EngineError(f"{where}: {completion!r:.80} has a text that is none")
        for name, values in (("token_ids", completion.token_ids), ("logprobs", completion.logprobs)):
            if not isinstance(values, list | tuple):
                raise EngineError(f"{where}: {name} is of type {type(values).__name__} in place of a tuple")
        tokens, logprobs = len(completion.token_ids), completion.logprobs
        if tokens != len(logprobs) and completion.counted is None:
            raise EngineError(f"{where}: {tokens} tokens with {len(logprobs)} log-probabilities")
        if tokens > sampling.max_new_tokens:
            raise EngineError(f"{where}: {tokens} tokens, and {sampling.max_new_tokens} at most were asked for")


def _check_tokens(completion: Completion, vocabulary: int, where: str) -> None:
    for place, token in enumerate(completion.token_ids, start=1):
        if not _is_token(token, vocabulary):
            raise EngineError(f"{where}: token {place} is {token!r:.40}, none of the {vocabulary} that the model has")
    for place, value in enumerate(completion.logprobs, start=1):
        if not _is_logprob(value):
            raise EngineError(
                f"{where}: the log-probability of token {place} is {value!r:.40}, no finite number of 0 or less"
            )


def _is_token(token: object, vocabulary: int) -> bool:
    try:
        return 0 <= operator.index(token) < vocabulary  # type: ignore[arg-type]  # which is what is asked here
    except (TypeError, ValueError, RuntimeError):
        return False


def _is_logprob(value: object) -> bool:
    try:
        return math.isfinite(value) and value < ROUNDING  # type: ignore[arg-type, operator]
    except (TypeError, ValueError, RuntimeError):
        return False
