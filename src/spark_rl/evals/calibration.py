"""How far a judge's P(Yes) can be taken at its word: the chance that it gives to an answer being right.

=========== =====================================================================================================
ece         expected calibration error (Guo et al. 2017, arXiv 1706.04599, two classes): the mean distance of stated
            chance and share of right answers over :data:`BINS` bins of equal width, weighted by their answers
brier       mean squared distance of chance and truth (Brier 1950): 0.25 for always saying one half
auroc       the chance that a right answer is given more than a wrong one, ties counted half: 0.5 for a judge that
            tells nothing, whatever its scale
=========== =====================================================================================================

Answers to one problem are not independent, so intervals are resampled by problem. A calibration error cannot be below
0, so noise alone raises it, in few answers most: compare numbers of as many answers. None of it is in the paper.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spark_rl.evals.judge_accuracy import Judged, Share
from spark_rl.intervals import RESAMPLES, bootstrap

BINS = 10
"""Bins of the calibration error."""

Stated = tuple[float, bool]
"""(the chance that the judge gives to an answer being right, whether it is)."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of the reliability diagram: probabilities from ``low`` up to ``high``."""

    low: float
    high: float
    n: int
    probability: float
    """Their mean."""
    right: float
    """The share of answers that are right."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far stated chances can be taken at their word."""

    n: int
    ece: float
    brier: float
    auroc: float | None
    """``None`` unless there are right and wrong answers."""
    bins: tuple[Bin, ...]
    """Those that hold an answer."""


def calibration(answers: Iterable[Judged], bins: int = BINS) -> Calibration | None:
    """Calibration of the answers that have a probability, or ``None`` if none has.

    Raises:
        ValueError: a probability lies outside 0..1, or ``bins`` is not positive.
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least 1 bin, got {bins}")
    stated = [pair for unit in _units(answers) for pair in unit]
    if not stated:
        return None
    return Calibration(len(stated), _ece(stated, bins), _brier(stated), _auroc(stated), tuple(_bins(stated, bins)))


def calibration_shares(
    answers: Sequence[Judged], rng: random.Random, resamples: int = RESAMPLES, bins: int = BINS
) -> dict[str, Share]:
    """``ece``, ``brier`` and ``auroc`` with their intervals, as :func:`spark_rl.evals.judge_accuracy.judge_accuracy`
    gives its numbers; empty if no answer has a probability. Errors as for :func:`calibration`."""
    found = calibration(answers, bins)
    if found is None:
        return {}
    units = _units(answers)

    def resampled(score: float | None, statistic: Callable[[Sequence[Stated]], float | None]) -> Share:
        low, high = bootstrap(units, lambda drawn: statistic([pair for unit in drawn for pair in unit]), rng, resamples)
        return {"score": score, "n": found.n, "low": low, "high": high}

    return {
        "ece": resampled(found.ece, lambda stated: _ece(stated, bins)),
        "brier": resampled(found.brier, _brier),
        "auroc": resampled(found.auroc, _auroc),
    }


def _units(answers: Iterable[Judged]) -> list[list[Stated]]:
    units: dict[object, list[Stated]] = defaultdict(list)
    for number, one in enumerate(answers):
        if one.probability is None:
            continue
        if not 0 <= one.probability <= 1:
            raise ValueError(f"the verdict probability {one.probability} does not lie between 0 and 1")
        units[one.unit or number].append((one.probability, one.right))
    return list(units.values())


def _bins(stated: Sequence[Stated], bins: int) -> list[Bin]:
    members: dict[int, list[Stated]] = defaultdict(list)
    for probability, right in stated:
        members[min(int(probability * bins), bins - 1)].append((probability, right))
    return [
        Bin(
            place / bins, (place + 1) / bins, len(inside),
            sum(probability for probability, _ in inside) / len(inside),
            sum(right for _, right in inside) / len(inside),
        )
        for place, inside in sorted(members.items())
    ]  # fmt: skip


def _ece(stated: Sequence[Stated], bins: int) -> float:
    return sum(one.n * abs(one.probability - one.right) for one in _bins(stated, bins)) / len(stated)


def _brier(stated: Sequence[Stated]) -> float:
    return sum((probability - right) ** 2 for probability, right in stated) / len(stated)


def _auroc(stated: Sequence[Stated]) -> float | None:
    """``None`` unless there are right and wrong answers."""
    right = [probability for probability, is_right in stated if is_right]
    wrong = sorted(probability for probability, is_right in stated if not is_right)
    if not right or not wrong:
        return None
    beaten = sum(bisect_left(wrong, one) + bisect_right(wrong, one) for one in right)
    return beaten / (2 * len(right) * len(wrong))
