"""Confidence intervals for the shares in the before-and-after tables.

The paper gives accuracies without intervals (Sec. 4). A few hundred held-out problems leave several points of sampling
noise, so every table here shows it. Wilson's score interval (1927) is used instead of the textbook normal one because
it stays inside 0..1 and keeps its coverage near both ends, where small models start.
"""

from __future__ import annotations

import math


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
    share = successes / n
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)
