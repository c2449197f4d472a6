"""The paired hierarchical bootstrap of a difference between two arms, over bases, seeds and problems.

Efron's percentile bootstrap (1979) with three levels. In each draw the bases are drawn with replacement, in each of
them its seeds, and the problems once for all runs: every run answers the same exam, so problems are crossed with bases
and seeds and not nested in them (Owen 2007, the pigeonhole bootstrap, https://arxiv.org/abs/0712.1111). What is drawn
is a pair: both arms of one base and one seed, on the same problems.

With few bases or seeds its ends are close to the worst and the best of them: of three bases a draw in 27 holds the
worst alone, of two seeds one in four. Of one base or one seed it knows nothing, and says nothing about others.

A bootstrap is certain of what it never saw: if one problem of thirty was lost and none gained, no draw has a gain. So
:func:`widened` keeps both ends at a distance, by the rule of three: what none of n problems shows is in fewer than
3 / n of all with 95 % confidence (Hanley and Lippman-Hand 1983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
"""The ends of an interval then move by about a hundredth of its width from seed to seed."""
CHUNK = 500
"""Draws whose problem counts exist at a time."""

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From sums of columns (..., K) to the effect (...); not a number where there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What both arms made of one exam, with one base and one seed."""

    problems: tuple[str, ...]
    """Ids, P of them."""
    columns_KP: Floats
    """K columns of both arms, each a number a problem; the statistic is a function of their sums."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect and its 95 % interval: ``Estimate(0.031, 0.012, 0.052)`` is 3.1 points."""

    effect: float
    low: float
    high: float


def hierarchical(
    bases: Sequence[Sequence[Paired]], statistic: Statistic, seed: int, draws: int = DRAWS, level: float = 0.95
) -> Estimate | None:
    """The mean of a statistic over the seeds of each base and then over the bases, with its bootstrap interval.

    Seeds and bases without a value, in the whole or in a draw, are left out of it.

    Args:
        bases: for each base, one pair of runs a seed.
        statistic: the effect in one pair of runs.
        seed: of the draws.
        draws: how many.
        level: of the interval.

    Returns:
        ``None`` where the statistic has no value in any pair of runs.
    """
    runs = [run for base in bases for run in base]
    whole = [statistic(run.columns_KP.sum(axis=1)[None])[0] for run in runs]
    shape = [len(base) for base in bases]
    effect = _mean([_mean(part) for part in _split(np.array(whole), shape)])
    if np.isnan(effect):
        return None
    rng = np.random.default_rng(seed)
    drawn_DR = _of_drawn_problems(runs, statistic, rng, draws)
    found_D = _over_drawn_runs(_split(drawn_DR.T, shape), rng)
    low, high = np.quantile(found_D[~np.isnan(found_D)], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(effect), float(low), float(high))


def widened(estimate: Estimate, problems: int) -> Estimate:
    """The estimate with ends that are at least 3 / ``problems`` from the effect."""
    least = 3 / problems
    return Estimate(
        estimate.effect, min(estimate.low, estimate.effect - least), max(estimate.high, estimate.effect + least)
    )


def _of_drawn_problems(
    runs: Sequence[Paired], statistic: Statistic, rng: np.random.Generator, draws: int
) -> Floats:  # fmt: skip
    """The statistic of every run in every draw of problems, (draws, runs): the same draw for all runs."""
    places = {name: place for place, name in enumerate(dict.fromkeys(name for run in runs for name in run.problems))}
    total = len(places)
    columns_RPK = np.zeros((len(runs), total, len(runs[0].columns_KP)))
    for number, run in enumerate(runs):
        columns_RPK[number, [places[name] for name in run.problems]] = run.columns_KP.T
    found = []
    for begin in range(0, draws, CHUNK):
        counts_DP = rng.multinomial(total, np.full(total, 1 / total), size=min(CHUNK, draws - begin))
        sums_RDK = counts_DP.astype(np.float64) @ columns_RPK
        found.append(statistic(sums_RDK).T)
    return np.concatenate(found)


def _over_drawn_runs(bases: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """The mean over drawn bases of the mean over their drawn seeds, (draws,); ``bases`` are (seeds, draws) each."""
    draws = bases[0].shape[1]
    chosen_BD = rng.integers(len(bases), size=(len(bases), draws))
    means_BD = np.full(chosen_BD.shape, np.nan)
    for place, chosen_D in enumerate(chosen_BD):
        for number, values_SD in enumerate(bases):
            here = np.flatnonzero(chosen_D == number)
            seeds_SN = rng.integers(len(values_SD), size=(len(values_SD), len(here)))
            means_BD[place, here] = _mean(values_SD[seeds_SN, here])
    return _mean(means_BD)


def _split(values: Floats, sizes: Sequence[int]) -> list[Floats]:
    """Consecutive parts along the first axis."""
    return np.split(values, np.cumsum(sizes)[:-1])


def _mean(values: Floats | Sequence[Floats]) -> Floats:
    """The mean along the first axis of what is a number; not a number where nothing is."""
    array = np.asarray(values)
    known = ~np.isnan(array)
    count = known.sum(axis=0)
    sums = np.where(known, array, 0.0).sum(axis=0)
    found: Floats = np.divide(sums, count, out=np.full(np.shape(sums), np.nan), where=count > 0)
    return found
