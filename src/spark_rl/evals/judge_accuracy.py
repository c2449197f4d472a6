"""How well a model judges (paper Sec. 4.4, Fig. 4): its own answers, pairs in two orders, and its stated chances.

**Own answers.** The model answers, then judges that answer. "Right" is the positive class:

=================== ================================================================================================
recall              right answers that it accepts
precision           accepted answers that are right
f1                  their harmonic mean
specificity         wrong answers that it rejects
accuracy            right answers accepted and wrong ones rejected
balanced_accuracy   mean of recall and specificity: 0.5 for a model that always says the same
verdict_rate        judgements that end in a readable verdict
unparsable_rate     judgements that don't
yes_rate            readable verdicts that accept
right_rate          judged answers that are right, to read the others against
=================== ================================================================================================

An unreadable verdict neither accepts nor rejects: it is missed by recall, specificity and accuracy, and no part of
precision. Every number is ``{"score", "n", "low", "high"}`` as in a result file, ``n`` its denominator; ``score`` is
``None``, never 0, where there was nothing to count. Intervals are Wilson's; F1 and balanced accuracy are resampled.

**Pairs.** :func:`position_bias` tells a judge that reads from one that prefers a place; :mod:`spark_rl.evals.positions`
finds the comparisons of the reward benchmarks.

**Calibration** where a row has ``verdict_probability``, the chance that the judge gives to the answer being right
(P(Yes) / (P(Yes) + P(No)) at its verdict): expected calibration error over bins of equal width, Brier score, and the
bins of the reliability diagram.

Departures: the paper shows recall, precision and F1 as bars without numbers and doesn't say what an unreadable verdict
is, nor whether answers without a box were judged. Here every answer that was judged counts.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spark_rl.report.intervals import RESAMPLES, bootstrap, wilson

Share = dict[str, Any]
"""``{"score": 0.41, "n": 60, "low": 0.29, "high": 0.53}``."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One judged answer."""

    right: bool
    """What the verifier says."""
    accepted: bool | None
    """What the model says; ``None`` is an unreadable verdict."""
    probability: float | None = None
    """The chance that the model gives to the answer being right, 0 to 1."""
    unit: str = ""
    """Answers of one unit, such as several samples of one problem, are resampled together; empty stands alone."""


def judged(rows: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """The judged answers among the rows of a run (:mod:`spark_rl.evals.rowfile`).

    Rows without a ``judgement`` (skipped, or scored without a model) are left out.
    """
    return [
        Judged(row["status"] == "correct", row["accepted"], row.get("verdict_probability"), str(row["id"]))
        for row in rows
        if row.get("judgement") is not None
    ]


def judge_accuracy(answers: Sequence[Judged], rng: random.Random, resamples: int = RESAMPLES) -> dict[str, Share]:
    """Every number of the table above, by name."""
    units = list(_units(answers))
    counts = _sum(units)
    yes, no = counts.hits + counts.false_alarms, counts.misses + counts.rejections

    def resampled(statistic: Callable[[_Counts], float | None]) -> Share:
        low, high = bootstrap(units, lambda drawn: statistic(_sum(drawn)), rng, resamples)
        return {"score": statistic(counts), "n": counts.n, "low": low, "high": high}

    return {
        "recall": _share(counts.hits, counts.right),
        "precision": _share(counts.hits, yes),
        "f1": resampled(_f1),
        "specificity": _share(counts.rejections, counts.wrong),
        "accuracy": _share(counts.hits + counts.rejections, counts.n),
        "balanced_accuracy": resampled(_balanced),
        "verdict_rate": _share(yes + no, counts.n),
        "unparsable_rate": _share(counts.n - yes - no, counts.n),
        "yes_rate": _share(yes, yes + no),
        "right_rate": _share(counts.right, counts.n),
    }


class _Counts(NamedTuple):
    """All that the numbers are made of."""

    hits: int = 0
    """Right and accepted."""
    misses: int = 0
    """Right and rejected."""
    right_unreadable: int = 0
    false_alarms: int = 0
    """Wrong and accepted."""
    rejections: int = 0
    """Wrong and rejected."""
    wrong_unreadable: int = 0

    @property
    def right(self) -> int:
        return self.hits + self.misses + self.right_unreadable

    @property
    def wrong(self) -> int:
        return self.false_alarms + self.rejections + self.wrong_unreadable

    @property
    def n(self) -> int:
        return self.right + self.wrong


def _sum(units: Sequence[_Counts]) -> _Counts:
    return _Counts(*map(sum, zip(*units, strict=True)))


def _units(answers: Sequence[Judged]) -> Iterable[_Counts]:
    places = {True: 0, False: 1, None: 2}
    units: dict[object, list[int]] = defaultdict(lambda: [0] * 6)
    for number, one in enumerate(answers):
        units[one.unit or number][places[one.accepted] + (0 if one.right else 3)] += 1
    return (_Counts(*unit) for unit in units.values())


def _f1(counts: _Counts) -> float | None:
    """2 TP / (2 TP + FP + FN); ``None`` where nothing is right and nothing accepted."""
    members = counts.right + counts.hits + counts.false_alarms
    return 2 * counts.hits / members if members else None


def _balanced(counts: _Counts) -> float | None:
    """``None`` unless there are right and wrong answers."""
    if not counts.right or not counts.wrong:
        return None
    return (counts.hits / counts.right + counts.rejections / counts.wrong) / 2


def _share(hits: int, n: int) -> Share:
    low, high = wilson(hits, n)
    return {"score": hits / n if n else None, "n": n, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One verdict on candidates shown in one order."""

    pair: str
    """What was compared; the same in every order."""
    shown: tuple[int, ...]
    """The candidates from the first place to the last: (1, 0) shows candidate 1 as A."""
    better: int
    """The candidate that is better."""
    chosen: int | None
    """The place that the verdict names, 0 for A; ``None`` is an unreadable verdict."""

    @property
    def winner(self) -> int | None:
        """The candidate that the verdict names."""
        return None if self.chosen is None else self.shown[self.chosen]


def position_bias(comparisons: Sequence[Comparison]) -> dict[str, Share]:
    """Whether places decide.

    =================== ============================================================================================
    verdict/A, B, ...   readable verdicts that name this place
    label/A, B, ...     comparisons whose better candidate stands there: without bias the two shares agree
    accuracy            verdicts that name the better candidate; an unreadable one is wrong
    accuracy/A, B, ...  the same where the better candidate stands at that place: a gap between them is bias
    consistency         pairs shown in several orders, every verdict readable, that name one candidate in all of them
    right_in_all_orders pairs shown in several orders that name the better candidate in all of them
    unparsable_rate     unreadable verdicts
    =================== ============================================================================================
    """
    places = range(max((len(one.shown) for one in comparisons), default=2))
    letters = {place: chr(ord("A") + place) for place in places}
    readable = [one for one in comparisons if one.chosen is not None]
    labels = [one.shown.index(one.better) for one in comparisons]
    hits = [one.winner == one.better for one in comparisons]
    pairs: dict[str, list[Comparison]] = defaultdict(list)
    for one in comparisons:
        pairs[one.pair].append(one)
    several = [group for group in pairs.values() if len({one.shown for one in group}) > 1]
    read = [group for group in several if all(one.chosen is not None for one in group)]
    return {
        **{f"verdict/{letters[p]}": _share(sum(one.chosen == p for one in readable), len(readable)) for p in places},
        **{f"label/{letters[p]}": _share(labels.count(p), len(labels)) for p in places},
        "accuracy": _share(sum(hits), len(hits)),
        **{
            f"accuracy/{letters[p]}": _share(
                sum(hit for hit, label in zip(hits, labels, strict=True) if label == p), labels.count(p)
            )
            for p in places
        },
        "consistency": _share(sum(len({one.winner for one in group}) == 1 for group in read), len(read)),
        "right_in_all_orders": _share(
            sum(all(one.winner == one.better for one in group) for group in several), len(several)
        ),
        "unparsable_rate": _share(len(comparisons) - len(readable), len(comparisons)),
    }


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
    """Mean distance of ``probability`` and ``right`` over the bins, weighted by n (Guo et al. 2017, two classes)."""
    brier: float
    """Mean squared distance of chance and truth (Brier 1950): 0.25 for always saying one half."""
    bins: tuple[Bin, ...]
    """Those that hold an answer."""


def calibration(answers: Iterable[Judged], bins: int = 10) -> Calibration | None:
    """Calibration of the answers that have a probability, or ``None`` if none has.

    Raises:
        ValueError: a probability lies outside 0..1, or ``bins`` is not positive.
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least 1 bin, got {bins}")
    stated = [(one.probability, one.right) for one in answers if one.probability is not None]
    if not stated:
        return None
    members: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for probability, right in stated:
        if not 0 <= probability <= 1:
            raise ValueError(f"the verdict probability {probability} does not lie between 0 and 1")
        members[min(int(probability * bins), bins - 1)].append((probability, right))
    found = tuple(
        Bin(
            place / bins, (place + 1) / bins, len(inside),
            sum(probability for probability, _ in inside) / len(inside),
            sum(right for _, right in inside) / len(inside),
        )
        for place, inside in sorted(members.items())
    )  # fmt: skip
    return Calibration(
        n=len(stated),
        ece=sum(one.n * abs(one.probability - one.right) for one in found) / len(stated),
        brier=sum((probability - right) ** 2 for probability, right in stated) / len(stated),
        bins=found,
    )
