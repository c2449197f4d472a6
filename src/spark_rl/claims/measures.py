"""Measures of one evaluation as functions of sums over problems, so that a bootstrap can weigh the problems.

They are those of :mod:`spark_rl.evals.heldout` and :mod:`spark_rl.evals.judge_accuracy`; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from spark_rl.claims.bootstrap import Floats
from spark_rl.evals.outcomes import Outcomes

COLUMNS = ("n", "right", "accepted", "hits", "rejections", "final", "pairs", "pair_hits")
"""What is summed over problems: 1 for each problem, each right first answer, each accepted one, each that is right and
accepted, each that is wrong and rejected, each that is right after test-time scaling, each pair, each pair well judged.
"""


def columns(outcomes: Outcomes) -> Floats:
    """The columns of one evaluation, (K, P)."""
    right = np.array(outcomes.first, dtype=bool)
    accepted = np.array([said is True for said in outcomes.accepted], dtype=bool)
    rejected = np.array([said is False for said in outcomes.accepted], dtype=bool)
    pairs = np.array([hit is not None for hit in outcomes.compared], dtype=bool)
    pair_hits = np.array([hit is True for hit in outcomes.compared], dtype=bool)
    rows = (
        np.ones_like(right), right, accepted, right & accepted, ~right & rejected,
        np.array(outcomes.final, dtype=bool), pairs, pair_hits,
    )  # fmt: skip
    return np.stack(rows).astype(np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    found: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return found


def _of(sums: Floats, name: str) -> Floats:
    found: Floats = sums[..., COLUMNS.index(name)]
    return found


def _judge(s: Floats) -> Floats:
    return _ratio(_of(s, "hits") + _of(s, "rejections"), _of(s, "n"))


def _balanced(s: Floats) -> Floats:
    wrong = _of(s, "n") - _of(s, "right")
    return (_ratio(_of(s, "hits"), _of(s, "right")) + _ratio(_of(s, "rejections"), wrong)) / 2


def _above_constant(s: Floats) -> Floats:
    right = _of(s, "right")
    return _judge(s) - _ratio(np.maximum(right, _of(s, "n") - right), _of(s, "n"))


MEASURES: Mapping[str, tuple[str, Callable[[Floats], Floats]]] = {
    "policy": ("first answers", lambda s: _ratio(_of(s, "right"), _of(s, "n"))),
    "judge": ("judge", _judge),
    "balanced": ("judge, balanced", _balanced),
    "above_constant": ("judge above a constant verdict", _above_constant),
    "recall": ("recall", lambda s: _ratio(_of(s, "hits"), _of(s, "right"))),
    "precision": ("precision", lambda s: _ratio(_of(s, "hits"), _of(s, "accepted"))),
    "f1": ("F1", lambda s: _ratio(2 * _of(s, "hits"), _of(s, "right") + _of(s, "accepted"))),
    "pairwise": ("pairwise", lambda s: _ratio(_of(s, "pair_hits"), _of(s, "pairs"))),
    "tts": ("with TTS", lambda s: _ratio(_of(s, "final"), _of(s, "n"))),
    "tts_gain": ("gain of TTS", lambda s: _ratio(_of(s, "final") - _of(s, "right"), _of(s, "n"))),
    "tts_loss": ("loss by TTS", lambda s: _ratio(_of(s, "right") - _of(s, "final"), _of(s, "n"))),
}
"""Name -> (what it is called in tables, function of the sums (..., K) of :data:`COLUMNS`)."""


def difference(measure: str, minuend: int, subtrahend: int | None) -> Callable[[Floats], Floats]:
    """The measure of one arm minus that of another, whose columns stand at these places of the stack, each K long."""
    function, size = MEASURES[measure][1], len(COLUMNS)

    def effect(sums: Floats) -> Floats:
        first = function(sums[..., minuend * size : (minuend + 1) * size])
        if subtrahend is None:
            return first
        return first - function(sums[..., subtrahend * size : (subtrahend + 1) * size])

    return effect
