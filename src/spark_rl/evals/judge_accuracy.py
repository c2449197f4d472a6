"""How well a model judges (paper Sec. 4.4, Fig. 4): its own answers, and pairs in two orders.

**Own answers.** The model answers, then judges that answer. "Right" is the positive class:

=================== ================================================================================================
recall              right answers that it accepts
precision           accepted answers that are right
f1                  their harmonic mean
specificity         wrong answers that it rejects
accuracy            right answers accepted and wrong ones rejected
balanced_accuracy   mean of recall and specificity: 0.5 for a model that always says the same
constant_accuracy   accuracy of always saying whichever of Yes and No is right more often: what accuracy starts from
verdict_rate        judgements that end in a readable verdict
unparsable_rate     judgements that don't
yes_rate            readable verdicts that accept
right_rate          judged answers that are right, to read the others against
=================== ================================================================================================

An unreadable verdict neither accepts nor rejects: it is missed by recall, specificity and accuracy, and no part of
precision. Every number is ``{"score", "n", "low", "high"}`` as in a result file, ``n`` its denominator; ``score`` is
``None``, never 0, where there was nothing to count. Answers to one problem, and the orders of one pair, are not
independent: intervals go by problem (:func:`spark_rl.intervals.clustered`); F1, balanced accuracy and the
constant answer are resampled by problem. This is the one definition of these numbers: tables of benchmarks and the
scores before and after a run (:mod:`spark_rl.evals.heldout`) are made of it.

**Pairs.** :func:`position_bias` tells a judge that reads from one that prefers a place;
:mod:`spark_rl.evals.score.positions` finds the comparisons of the reward benchmarks.

**Stated chances** are measured in :mod:`spark_rl.evals.calibration`.

Departures: the paper shows recall, precision and F1 as bars without numbers and doesn't say what an unreadable verdict
is, nor whether answers without a box were judged. Here every answer that was judged counts.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spark_rl.intervals import RESAMPLES, bootstrap, clustered, wilson

Share = dict[str, Any]
"""``{"score": 0.41, "n": 60, "low": 0.29, "high": 0.53}``."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer of a model, and the model's own verdict on it."""

    right: bool
    """What the verifier says."""
    accepted: bool | None
    """What the model says; ``None`` is an unreadable verdict."""
    probability: float | None = None
    """The chance that the model gives to the answer being right, 0 to 1."""
    unit: str = ""
    """Answers of one unit, such as versions of one problem, are counted together; one without a unit counts alone."""


def judged(
    rows: Iterable[Mapping[str, Any]], unit: Callable[[Mapping[str, Any]], str] = lambda row: str(row["id"])
) -> list[Judged]:
    """The judged answers among the rows of a run (:mod:`spark_rl.evals.ask.records`).

    Rows without a ``judgement`` (skipped, or scored without a model) are left out. ``unit`` names the problem of a row.
    """
    return [
        Judged(row["status"] == "correct", row["accepted"], row.get("verdict_probability"), unit(row))
        for row in rows
        if row.get("judgement") is not None
    ]


def judge_accuracy(answers: Sequence[Judged], rng: random.Random, resamples: int = RESAMPLES) -> dict[str, Share]:
    """Every number of the table above, by name."""
    units = list(_units(answers))
    counts = _sum(units)

    def share(hits: Callable[[_Counts], int], trials: Callable[[_Counts], int]) -> Share:
        return _share([(hits(unit), trials(unit)) for unit in units])

    def resampled(statistic: Callable[[_Counts], float | None]) -> Share:
        score = statistic(counts)
        low, high = bootstrap(units, lambda drawn: statistic(_sum(drawn)), rng, resamples)
        if low == high == score and score in {0.0, 1.0}:  # units that are all alike
            low, high = wilson(score * len(units), len(units))
        return {"score": score, "n": counts.n, "low": low, "high": high}

    return {
        "recall": share(lambda c: c.hits, lambda c: c.right),
        "precision": share(lambda c: c.hits, lambda c: c.yes),
        "f1": resampled(_f1),
        "specificity": share(lambda c: c.rejections, lambda c: c.wrong),
        "accuracy": share(lambda c: c.hits + c.rejections, lambda c: c.n),
        "balanced_accuracy": resampled(_balanced),
        "constant_accuracy": resampled(_constant),
        "verdict_rate": share(lambda c: c.yes + c.no, lambda c: c.n),
        "unparsable_rate": share(lambda c: c.n - c.yes - c.no, lambda c: c.n),
        "yes_rate": share(lambda c: c.yes, lambda c: c.yes + c.no),
        "right_rate": share(lambda c: c.right, lambda c: c.n),
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
    def yes(self) -> int:
        return self.hits + self.false_alarms

    @property
    def no(self) -> int:
        return self.misses + self.rejections

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


def _constant(counts: _Counts) -> float | None:
    return max(counts.right, counts.wrong) / counts.n if counts.n else None


def _share(units: Sequence[tuple[int, int]]) -> Share:
    """The share of hits among trials, from (hits, trials) of each problem."""
    hits, n = sum(unit[0] for unit in units), sum(unit[1] for unit in units)
    low, high = clustered(units)
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
    def label(self) -> int:
        """The place where the better candidate stands."""
        return self.shown.index(self.better)

    @property
    def winner(self) -> int | None:
        """The candidate that the verdict names."""
        return None if self.chosen is None else self.shown[self.chosen]


def position_bias(comparisons: Sequence[Comparison]) -> dict[str, Share]:
    """Whether a judge prefers the place where an answer is shown to the answer itself.

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
    pairs: dict[str, list[Comparison]] = defaultdict(list)
    for one in comparisons:
        pairs[one.pair].append(one)
    groups = list(pairs.values())
    several = [group for group in groups if len({one.shown for one in group}) > 1]
    read = [group for group in several if all(one.chosen is not None for one in group)]

    def share(hit: Callable[[Comparison], bool], trials: Sequence[Sequence[Comparison]] = groups) -> Share:
        return _share([(sum(map(hit, group)), len(group)) for group in trials])

    def names(place: int) -> Callable[[Comparison], bool]:
        return lambda one: one.chosen == place

    def stands(place: int) -> Callable[[Comparison], bool]:
        return lambda one: one.label == place

    def right(one: Comparison) -> bool:
        return one.winner == one.better

    stated = [[one for one in group if one.chosen is not None] for group in groups]
    return {
        **{f"verdict/{letters[p]}": share(names(p), stated) for p in places},
        **{f"label/{letters[p]}": share(stands(p)) for p in places},
        "accuracy": share(right),
        **{
            f"accuracy/{letters[p]}": share(right, [list(filter(stands(p), group)) for group in groups]) for p in places
        },
        "consistency": _share([(len({one.winner for one in group}) == 1, 1) for group in read]),
        "right_in_all_orders": _share([(all(map(right, group)), 1) for group in several]),
        "unparsable_rate": share(lambda one: one.chosen is None),
    }
