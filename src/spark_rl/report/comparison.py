"""The before-and-after rows: what training changed on held-out problems (paper Tables 1, 2, 5 and Fig. 4).

Departures from the paper's tables: every share carries its interval; statuses
other than "correct" are rows of their own, so an unreadable answer is never silently a wrong one; the gain of test-time
scaling is a row, because it can be negative (Table 5: 49.1 to 39.9 before training).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spark_rl.intervals import wilson
from spark_rl.problem import STATUSES
from spark_rl.report.metrics import finite
from spark_rl.report.notation import DASH, points


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an evaluation (:mod:`spark_rl.evals.heldout`) and how to read it."""

    key: str
    label: str
    lower_is_better: bool = False


MEASURES = (
    Measure("policy_accuracy", "Policy accuracy"),
    Measure("tts_accuracy", "Accuracy with test-time scaling"),
    Measure("judge_accuracy", "Judge accuracy on own answers"),
    Measure("judge_balanced_accuracy", "Judge balanced accuracy"),
    Measure("judge_constant_accuracy", "Accuracy of a constant verdict"),
    Measure("judge_precision", "Judge precision"),
    Measure("judge_recall", "Judge recall"),
    Measure("judge_f1", "Judge F1"),
    Measure("judge_unreadable", "Judge verdicts unreadable", lower_is_better=True),
    Measure("judge_ece", "Judge calibration error of P(Yes)", lower_is_better=True),
    Measure("judge_brier", "Judge Brier score of P(Yes)", lower_is_better=True),
    Measure("judge_auroc", "Judge AUROC of P(Yes)"),
    Measure("pairwise_accuracy", "Pairwise accuracy"),
    Measure("reflection_fix", "Reflection fixes a wrong answer"),
    Measure("reflection_break", "Reflection breaks a right answer", lower_is_better=True),
)

_OPTIONAL = {
    "judge_balanced_accuracy", "judge_constant_accuracy", "judge_unreadable", "judge_ece", "judge_brier", "judge_auroc"
}  # fmt: skip
"""Rows that are left out where neither evaluation has them."""

_CONDITIONAL = {"judge_precision", "judge_recall", "reflection_fix", "reflection_break"}
"""Shares of what another outcome picks: verdicts that said Yes, answers that were right, or wrong."""

_STATUS_LABELS = {
    "wrong": "Answers: wrong",
    "no_answer": "Answers: no box",
    "unparsable": "Answers: unparsable",
    "timeout": "Answers: verifier timeout",
    "failed": "Answers: reward function failed",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in 0..1 with its 95 % interval, where one can be stated. A gain is a difference of shares."""

    value: float | None
    interval: tuple[float, float] | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


@dataclass(frozen=True, slots=True)
class Row:
    """One measure before and after training.

    ``Row("policy_accuracy", "Policy accuracy", Estimate(0.25, ...), Estimate(0.40, ...)).change`` is 0.15.
    """

    key: str
    label: str
    before: Estimate
    after: Estimate
    lower_is_better: bool = False
    is_gain: bool = False
    """Whether the values are differences of shares already, to be written with a sign."""
    trials: tuple[int | None, int | None] = (None, None)
    """Of how many trials the shares are, before and after, where it is told."""

    @property
    def same_trials(self) -> bool:
        """Whether both shares are of the same problems. Else they are of other ones, of those that were answered wrong,
        say: where fewer and harder errors are left, a smaller share of them mended is no loss."""
        return self.key not in _CONDITIONAL

    @property
    def change(self) -> float | None:
        """After minus before, as a difference of shares; ``None`` if either is unknown."""
        if self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value

    @property
    def better(self) -> bool | None:
        """Whether the change, as it is printed, is for the better; ``None`` if there is none to speak of, if the two
        shares are of other problems, or if they are no merit: what a constant verdict earns."""
        if self.change is None or round(1000 * self.change) == 0 or not self.same_trials:
            return None
        if self.key == "judge_constant_accuracy":
            return None
        return (self.change < 0) == self.lower_is_better

    def written(self) -> tuple[str, str, str]:
        """(before, after, change) in percent and points: ("25.0 ± 4.9", "40.0 ± 5.5", "+15.0")."""
        return _written(self.before, self.is_gain), _written(self.after, self.is_gain), points(self.change)


def compare(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Row]:
    """Rows in reading order for two evaluations, each with keys of :data:`MEASURES` (0..1 or ``None``) and ``n``;
    ``<key>_low`` and ``<key>_high`` are a share's interval.

    ``status/<status>`` keys, or a mapping under ``status``, hold counts of answers; they become shares of their sum,
    and a status that never occurred gets no row.

    Raises:
        ValueError: if a share lies outside 0..1.
    """
    before, after = before or {}, after or {}
    rows: list[Row] = []
    for measure in MEASURES:
        old, new = estimate(before, measure.key), estimate(after, measure.key)
        if measure.key in _OPTIONAL and old.value is None and new.value is None:
            continue
        trials = (_trials(before, measure.key), _trials(after, measure.key))
        rows.append(Row(measure.key, measure.label, old, new, measure.lower_is_better, trials=trials))
        if measure.key == "tts_accuracy":
            rows.append(Row("tts_gain", "Gain of test-time scaling", _gain(before), _gain(after), is_gain=True))
    old_counts, new_counts = _statuses(before), _statuses(after)
    for status, label in _STATUS_LABELS.items():
        if old_counts.get(status) or new_counts.get(status):
            old, new = _share(old_counts, status), _share(new_counts, status)
            rows.append(Row(f"status/{status}", label, old, new, lower_is_better=True))
    return rows


def problems_note(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """``n = 300`` for a caption, both numbers if they differ, or nothing if unknown."""
    old, new = _count(before or {}, "n"), _count(after or {}, "n")
    if old is None and new is None:
        return ""
    if old == new:
        return f"n = {new:,}"
    return f"n = {DASH if old is None else format(old, ',')} before, {DASH if new is None else format(new, ',')} after"


def estimate(evaluation: Mapping[str, Any], key: str) -> Estimate:
    """One share of an evaluation, with its interval where it has one.

    Raises:
        ValueError: if the share lies outside 0..1.
    """
    share = finite(evaluation.get(key))
    if share is None:
        return Estimate(None)
    if not 0 <= share <= 1:
        raise ValueError(f"{key} is {share:g}, but an evaluation holds shares between 0 and 1, not percent")
    low, high = (finite(evaluation.get(f"{key}_{end}")) for end in ("low", "high"))
    return Estimate(share, None if low is None or high is None else (low, high))


def _trials(evaluation: Mapping[str, Any], key: str) -> int | None:
    """Of how many problems a share is, if its evaluation tells."""
    if key == "pairwise_accuracy":
        return _count(evaluation, "pairwise_accuracy_n")
    whole, right = _count(evaluation, "n"), _statuses(evaluation).get("correct")
    if key not in _CONDITIONAL:
        return whole
    if whole is None or right is None:
        return None
    if key == "judge_precision":  # the right answers it accepted, over the share that they are of all it accepted
        recall, precision = finite(evaluation.get("judge_recall")), finite(evaluation.get(key))
        return round(recall * right / precision) if recall and precision else None
    return round(whole - right if key == "reflection_fix" else right)


def _gain(evaluation: Mapping[str, Any]) -> Estimate:
    scaled, single = finite(evaluation.get("tts_accuracy")), finite(evaluation.get("policy_accuracy"))
    return Estimate(None if scaled is None or single is None else scaled - single)


def _statuses(evaluation: Mapping[str, Any]) -> dict[str, float]:
    nested = evaluation.get("status")
    counts = nested if isinstance(nested, Mapping) else {}
    found = {status: finite(counts.get(status, evaluation.get(f"status/{status}"))) for status in STATUSES}
    return {status: count for status, count in found.items() if count is not None and count >= 0}


def _share(counts: Mapping[str, float], status: str) -> Estimate:
    total = sum(counts.values())
    if not total:
        return Estimate(None)
    count = counts.get(status, 0.0)
    return Estimate(count / total, wilson(count, round(total)) if total == round(total) else None)


def _count(evaluation: Mapping[str, Any], key: str) -> int | None:
    number = finite(evaluation.get(key))
    return None if number is None or number < 0 else round(number)


def _written(estimate: Estimate, is_gain: bool) -> str:
    if estimate.value is None:
        return DASH
    if is_gain:
        return points(estimate.value)
    text = f"{100 * estimate.value:.1f}"
    return text if estimate.half_width is None else f"{text} ± {100 * estimate.half_width:.1f}"
