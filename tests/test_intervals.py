from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.intervals import bootstrap, clustered
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


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval() -> None:
    rng = random.Random(3)
    units = [rng.gauss(5.0, 2.0) for _ in range(400)]
    low, high = bootstrap(units, statistics.fmean, random.Random(0), resamples=2000)
    centre, half = statistics.fmean(units), 1.96 * statistics.stdev(units) / 400**0.5
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=0.2 * half)


def test_the_bootstrap_of_two_units_by_hand() -> None:
    # Means of two draws from {0, 1}: 0, 0.5, 0.5, 1 with equal chances, so a 40 % interval is (0.5, 0.5).
    assert bootstrap([0, 1], statistics.fmean, random.Random(0), level=0.4) == (0.5, 0.5)
    assert bootstrap([0, 1], statistics.fmean, random.Random(0), level=0.9) == (0.0, 1.0)


def test_whole_units_are_drawn() -> None:
    """Rows of one group never part, so all-or-nothing groups keep their wide interval."""
    groups = [[1.0] * 10] * 5 + [[0.0] * 10] * 5
    rows = [[value] for group in groups for value in group]

    def mean(drawn: Sequence[Sequence[float]]) -> float:
        return statistics.fmean(value for group in drawn for value in group)

    wide, narrow = (bootstrap(units, mean, random.Random(1)) for units in (groups, rows))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_the_same_seed_gives_the_same_bootstrap() -> None:
    units = list(range(30))
    first, second, other = (bootstrap(units, statistics.fmean, random.Random(seed)) for seed in (7, 7, 8))
    assert first == second != other


def test_undefined_draws_are_left_out_of_a_bootstrap() -> None:
    def share_of_ones(drawn: Sequence[int | None]) -> float | None:
        known = [value for value in drawn if value is not None]
        return statistics.fmean(known) if known else None

    assert bootstrap([1, None], share_of_ones, random.Random(0)) == (1.0, 1.0)
    assert bootstrap([None, None], share_of_ones, random.Random(0)) == (0.0, 1.0)
    assert bootstrap([], share_of_ones, random.Random(0)) == (0.0, 1.0)


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_impossible_bootstraps_are_errors(resamples: int, level: float) -> None:
    with pytest.raises(ValueError, match="a bootstrap needs"):
        bootstrap([1.0], statistics.fmean, random.Random(0), resamples, level)


def test_trials_of_one_problem_each_are_independent() -> None:
    assert clustered([(1, 1)] * 8 + [(0, 1)] * 2) == wilson(8, 10)
    assert clustered([(1, 1), (0, 0), (0, 1)]) == wilson(1, 2), "a problem without trials says nothing"
    assert clustered([]) == (0.0, 1.0)


def test_dependent_trials_by_hand() -> None:
    """Ten problems tried twice, five always right: the scatter 10 * 1 / 9 * 10 / 400 gives 9 independent trials."""
    low, high = clustered([(2, 2)] * 5 + [(0, 2)] * 5)
    t, n = 2.262157, 9.0  # Student's 97.5 % quantile with 9 degrees of freedom
    half = t * (0.25 / n + t * t / (4 * n * n)) ** 0.5 / (1 + t * t / n)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=2e-4)


def test_problems_that_are_all_alike_count_once_each() -> None:
    assert clustered([(4, 4)] * 10) == wilson(10, 10)
    assert clustered([(0, 4)] * 10) == wilson(0, 10)
    assert clustered([(3, 4)]) == wilson(0.75, 1)


@given(st.lists(st.integers(1, 6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=30))
def test_the_clustered_interval_holds_the_share_and_is_no_narrower_than_independent_trials(
    units: list[tuple[float, int]],
) -> None:
    hits, trials = sum(unit[0] for unit in units), sum(unit[1] for unit in units)
    low, high = clustered(units)
    free = wilson(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1
    assert high - low >= free[1] - free[0] - 1e-12


def test_scores_beyond_one_are_an_error() -> None:
    with pytest.raises(ValueError, match="between 0 and 1 each"):
        clustered([(3, 2)])


@pytest.mark.parametrize("problems", [10, 40, 150])
@pytest.mark.parametrize(("mean", "alike"), [(0.5, 0.7), (0.5, 0.2), (0.85, 0.7), (0.85, 0.2)])
def test_95_percent_intervals_cover_the_truth(problems: int, mean: float, alike: float) -> None:
    """Six answers a problem, whose chances are drawn with an intraclass correlation of ``alike``."""
    rng, total = random.Random(5), (1 - alike) / alike
    covered = independent = 0
    for _ in range(500):
        chances = [rng.betavariate(mean * total, (1 - mean) * total) for _ in range(problems)]
        hits = [sum(rng.random() < chance for _ in range(6)) for chance in chances]
        low, high = clustered([(hit, 6) for hit in hits])
        covered += low <= mean <= high
        low, high = wilson(sum(hits), 6 * problems)
        independent += low <= mean <= high
    assert 0.90 <= covered / 500 <= 0.99
    assert independent < covered
