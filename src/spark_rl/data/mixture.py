"""The order in which training problems are drawn, from one source or from several by weight (Sec. 3.1, step 1).

A pass over N problems draws N of them. Without weights every problem once, in a new random order each pass. With
weights a source of share w gets w * N of the N draws, rounded so that they add up (largest remainders, at least one
each): the shares are exact in every pass and random in a batch. Each source is gone through in an endless order of its
own, shuffled anew whenever it is through, and goes on in the next pass where it stopped: none of its problems comes a
second time before all came once.

The order is a function of the problems, the seed and the pass alone, not of where the sources lie: a resumed run goes
on with the same batches, also after they have moved.

Departure: the paper draws from one set (25k, put together beforehand); the weights are ours.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from spark_rl.errors import DataError
from spark_rl.problem import Problem
from spark_rl.seeds import stream_seed


def pass_order(problems: Sequence[Problem], number: int, seed: int, shares: Mapping[str, float] | None) -> list[int]:
    """Positions of ``problems`` in the order of the pass ``number``, as many as there are problems.

    Raises:
        DataError: a source with a share has no problem.
    """
    if shares is None:
        return _shuffled(len(problems), stream_seed(seed, "order", number))
    places: dict[str, list[int]] = {source: [] for source in shares}
    for at, problem in enumerate(problems):
        places[problem.source].append(at)
    empty = next((source for source, own in places.items() if not own), None)
    if empty is not None:
        raise DataError(f"no problem of {empty} is left to train on; take it out of data.train")
    drawn: list[int] = []
    for nth, (source, count) in enumerate(draws(len(problems), shares).items()):
        own = places[source]
        for position in range(number * count, (number + 1) * count):
            turn, at = divmod(position, len(own))
            if at == 0 or position == number * count:
                order = _shuffled(len(own), stream_seed(seed, "order of source", nth, turn))
            drawn.append(own[order[at]])
    return [drawn[at] for at in _shuffled(len(drawn), stream_seed(seed, "order", number))]


def draws(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Of ``count`` draws how many each source gets: ``draws(10, {"a": 0.75, "b": 0.25})`` is ``{"a": 8, "b": 2}``."""
    exact = {source: share * count for source, share in shares.items()}
    whole = {source: max(1, int(value)) for source, value in exact.items()}
    by_rest = sorted(exact, key=lambda source: exact[source] - int(exact[source]), reverse=True)
    for source in by_rest[: max(0, count - sum(whole.values()))]:
        whole[source] += 1
    while sum(whole.values()) > count and max(whole.values()) > 1:
        whole[max(whole, key=lambda source: whole[source])] -= 1
    return whole


def _shuffled(count: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(count), count)
