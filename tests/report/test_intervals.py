from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.report import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # By hand with z^2 = 3.8416: centre (0.8 + 0.19208) / 1.38416, half 1.96 * sqrt(0.016 + 0.009604) / 1.38416.
        (8, 10, 0.490157, 0.943319),
        # Centre 0.5; half 1.96 * sqrt(0.0025 + 0.00009604) / 1.038416.
        (50, 100, 0.403830, 0.596170),
        # No success: from 0 to z^2 / (n + z^2) = 3.8416 / 13.8416.
        (0, 10, 0.0, 0.277540),
        (10, 10, 0.722460, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_golden_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=2e-6)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(n: int, share: float) -> None:
    low, high = wilson(share * n, n)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_more_trials_narrow_the_interval() -> None:
    widths = [high - low for low, high in (wilson(n // 4, n) for n in (20, 80, 320))]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < widths[0] / 3


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (0, -1), (float("nan"), 10)])
def test_impossible_counts_are_errors(successes: float, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        wilson(successes, n)
