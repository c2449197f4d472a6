"""How far P(Yes) can be taken at its word: golden values by hand, bounds, and what does not change a number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.evals.calibration import Bin, calibration, calibration_shares
from spark_rl.evals.judge_accuracy import Judged

STATED = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40)


def answers(stated: list[tuple[bool, float]]) -> list[Judged]:
    return [Judged(right, None, probability) for right, probability in stated]


def test_calibration_by_hand() -> None:
    found = calibration(
        [Judged(True, True, 0.95), Judged(False, True, 0.85), Judged(True, True, 0.85), Judged(False, False, 0.05)]
    )
    assert found is not None
    assert found.bins == (Bin(0.0, 0.1, 1, 0.05, 0.0), Bin(0.8, 0.9, 2, 0.85, 0.5), Bin(0.9, 1.0, 1, 0.95, 1.0))
    assert found.ece == pytest.approx((0.05 + 2 * 0.35 + 0.05) / 4)
    assert found.brier == pytest.approx((0.05**2 + 0.85**2 + 0.15**2 + 0.05**2) / 4)
    assert found.auroc == pytest.approx((1 + 1 + 1 + 0.5) / 4), "0.95 beats both wrong ones, 0.85 one and ties one"
    assert found.n == 4


def test_certain_and_right_is_perfect_calibration_and_the_last_bin_holds_1() -> None:
    found = calibration([Judged(True, True, 1.0), Judged(False, False, 0.0)])
    assert found is not None
    assert (found.ece, found.brier, found.auroc) == (0.0, 0.0, 1.0)
    assert [one.high for one in found.bins] == [0.1, 1.0]


def test_calibration_is_unknown_without_probabilities() -> None:
    assert calibration([Judged(True, True)]) is None
    mixed = calibration([Judged(True, True), Judged(True, True, 0.5)])
    assert mixed is not None
    assert mixed.n == 1


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40), st.integers(1, 20))
def test_calibration_stays_within_bounds(stated: list[tuple[bool, float]], bins: int) -> None:
    found = calibration([Judged(right, None, probability) for right, probability in stated], bins)
    assert found is not None
    assert 0 <= found.ece <= 1
    assert 0 <= found.brier <= 1
    assert sum(one.n for one in found.bins) == len(stated)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_0_and_1_is_an_error(probability: float) -> None:
    with pytest.raises(ValueError, match="does not lie between 0 and 1"):
        calibration([Judged(True, True, probability)])


def test_no_bins_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1 bin"):
        calibration([], 0)


@given(STATED)
def test_auroc_is_the_share_of_pairs_in_order(stated: list[tuple[bool, float]]) -> None:
    found = calibration(answers(stated))
    assert found is not None
    pairs = [
        1.0 if p > q else 0.5 if p == q else 0.0
        for right, p in stated if right
        for is_right, q in stated if not is_right
    ]  # fmt: skip
    if not pairs:
        assert found.auroc is None
    else:
        assert found.auroc == pytest.approx(sum(pairs) / len(pairs))


@given(STATED)
def test_auroc_knows_no_scale_and_turns_with_the_judge(stated: list[tuple[bool, float]]) -> None:
    """Steps of a 64th: squares of two other numbers could round to one."""
    steps = [(right, round(p * 64) / 64) for right, p in stated]
    plain, squared, turned = (
        calibration(answers([(right, change(p)) for right, p in steps]))
        for change in (float, lambda p: p * p, lambda p: 1 - p)
    )
    assert plain is not None
    assert squared is not None
    assert turned is not None
    assert squared.auroc == plain.auroc
    if plain.auroc is not None and turned.auroc is not None:
        assert turned.auroc == pytest.approx(1 - plain.auroc)


def test_intervals_hold_the_score_and_shrink_with_problems() -> None:
    rng = random.Random(0)

    def drawn(count: int) -> list[Judged]:
        chances = [rng.random() for _ in range(count)]
        return [Judged(rng.random() < p, None, p, unit=str(i // 2)) for i, p in enumerate(chances)]

    few, many = (calibration_shares(drawn(count), random.Random(1), 200) for count in (60, 600))
    assert list(few) == ["ece", "brier", "auroc"]
    for name in ("brier", "auroc"):
        assert few[name]["low"] < few[name]["score"] < few[name]["high"]
        assert many[name]["high"] - many[name]["low"] < few[name]["high"] - few[name]["low"]
    assert many["brier"]["score"] == pytest.approx(1 / 6, abs=0.03), "the mean of p(1-p) for uniform p"
    assert many["auroc"]["score"] == pytest.approx(5 / 6, abs=0.05), "the integral of 2p (2p - p^2)"
    assert many["ece"]["score"] < 0.1
    assert calibration_shares([Judged(True, True)], random.Random(0)) == {}
