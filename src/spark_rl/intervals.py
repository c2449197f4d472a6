"""Confidence intervals for everything that a table shows.

The paper gives accuracies without intervals (Sec. 4). A few hundred held-out problems leave several points of sampling
noise, so every table here shows it. Wilson's score interval (1927) is used for shares instead of the textbook normal
one because it stays inside 0..1 and keeps its coverage near both ends, where small models start. Trials of one problem
(several samples, both orders of a pair, versions of a question) are not independent: :func:`clustered` counts them for
what they are worth. What is no share (F1, a mean of subset means, all-or-nothing over a group) is resampled by problem:
Efron's percentile bootstrap (1979).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

RESAMPLES = 1000
"""Draws of a bootstrap: its ends then move by about a twentieth of its width from seed to seed."""


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share, as (low, high) between 0 and 1.

    ``wilson(8, 10)`` is about (0.490, 0.943). ``successes`` may be a fraction, since tables store shares. With no
    trials nothing is known: (0, 1). ``z`` is the normal quantile; 1.96 gives 95 %.

    Raises:
        ValueError: if ``n`` is negative or ``successes`` lies outside 0..n.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is not a share; successes must lie between 0 and n")
    if n == 0:
        return 0.0, 1.0
    return _wilson(successes / n, n, z)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def _student(freedom: int, z: float = 1.96) -> float:
    """The quantile of Student's t that belongs to the normal quantile ``z`` (Abramowitz and Stegun 1964, 26.7.5)."""
    if freedom == 1:
        return 12.7062
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / float(freedom**power) for power, term in enumerate(terms))


def clustered(units: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The interval of a share whose trials come in units of dependent ones, as (low, high) between 0 and 1.

    ``clustered([(2, 2), (0, 2), (1, 2)])`` is the interval of 3 of 6 where each problem was tried twice. The scatter of
    the units says how many independent trials the trials are worth (Kish 1965, the design effect), never more than
    there are and never fewer than one; Wilson's interval of that many follows, with Student's quantile, since the
    scatter itself is an estimate (Korn and Graubard 1998, for another interval). Units of one trial each are
    :func:`wilson`; units that are all wrong or all right are worth one trial each.

    In simulations with 10 to 200 problems of 2 to 10 trials, true shares from 0.5 to 0.97, it covered the truth in 88
    to 98 % of draws, the percentile bootstrap over problems in 38 to 96 %, Wilson's of all trials in 50 to 95 %
    (a part of them: ``tests/test_intervals.py``).

    Args:
        units: (sum of the scores, number of trials) of each problem; scores lie between 0 and 1.

    Raises:
        ValueError: a sum lies outside 0..trials.
    """
    units = [(hits, trials) for hits, trials in units if trials]
    hits, trials = sum(unit[0] for unit in units), sum(unit[1] for unit in units)
    if any(not 0 <= part <= size for part, size in units):
        raise ValueError("the scores of a unit must lie between 0 and 1 each")
    if len(units) == trials:
        return wilson(min(hits, trials), trials)
    share = hits / trials
    scatter = sum((part - share * size) ** 2 for part, size in units)
    if not 0 < share < 1 or len(units) == 1:
        return wilson(share * len(units), len(units))
    variance = scatter * len(units) / (len(units) - 1) / trials**2
    worth = max(1.0, min(trials, share * (1 - share) / variance if variance else trials))
    return _wilson(share, worth, _student(len(units) - 1))


def bootstrap(
    units: Sequence[T],
    statistic: Callable[[Sequence[T]], float | None],
    rng: random.Random,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of any statistic, as (low, high).

    ``units`` are what is drawn as a whole, with replacement: rows, or lists of rows that belong together, such as the
    variants of one question. Draws in which ``statistic`` is undefined (``None``) are left out. Without units, or if it
    is undefined in every draw, nothing is known: (0, 1), as of a share.

    Units that are all alike give an interval of no width: resampling can't know what it never saw. Prefer
    :func:`wilson` wherever the statistic is a plain share.

    Raises:
        ValueError: unless ``resamples`` is positive and ``level`` lies between 0 and 1.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"a bootstrap needs at least 1 draw and a level between 0 and 1, got {resamples} and {level}")
    drawn = (statistic(rng.choices(units, k=len(units))) for _ in range(resamples if units else 0))
    found = sorted(value for value in drawn if value is not None)
    if not found:
        return 0.0, 1.0
    return quantile(found, (1 - level) / 2), quantile(found, (1 + level) / 2)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest values."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
