"""The paired hierarchical bootstrap: against formulas, against enumeration, and what has to be true of any."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.claims.bootstrap import Estimate, Floats, Paired, hierarchical, widened


def mean_difference(sums: Floats) -> Floats:
    """Of columns (n, first arm, second arm)."""
    return (sums[..., 1] - sums[..., 2]) / np.where(sums[..., 0] > 0, sums[..., 0], np.nan)


def paired(first: Sequence[float], second: Sequence[float], prefix: str = "p") -> Paired:
    names = tuple(f"{prefix}{number}" for number in range(len(first)))
    return Paired(names, np.array([[1.0] * len(first), first, second]))


def constant(effect: float, count: int = 4) -> Paired:
    """A pair of runs whose effect is the same whatever problems are drawn."""
    return paired([effect] * count, [0.0] * count)


def quantile(values: Sequence[tuple[float, float]], share: float) -> float:
    """Of (value, probability): the smallest value at or below which so much of the probability lies."""
    below = 0.0
    for value, probability in sorted(values):
        below += probability
        if below >= share - 1e-12:
            return value
    raise AssertionError


def test_one_run_has_the_interval_of_a_mean_of_paired_differences() -> None:
    """The normal one of the textbook, with the deviation of the sample itself, as the bootstrap has it."""
    first = [1.0] * 130 + [0.0] * 70
    second = [1.0] * 100 + [0.0] * 30 + [1.0] * 10 + [0.0] * 60  # 30 gained, 10 lost, 160 the same
    found = hierarchical([[paired(first, second)]], mean_difference, seed=1)
    assert found is not None
    assert found.effect == pytest.approx(0.1)
    deviation = math.sqrt((40 / 200 - 0.1**2) / 200)  # of the mean of differences that are 1, -1 or 0
    assert found.low == pytest.approx(0.1 - 1.96 * deviation, abs=0.005)
    assert found.high == pytest.approx(0.1 + 1.96 * deviation, abs=0.005)
    unpaired = math.sqrt((0.65 * 0.35 + 0.55 * 0.45) / 200)
    assert found.high - found.low < 3.92 * unpaired * 0.75, "pairs know more than two samples"


def test_bases_and_seeds_are_drawn_as_all_ways_of_drawing_them_say() -> None:
    """Two bases of two seeds each: the 16 equally likely draws of each pair of bases, counted by hand."""
    effects = ((0.0, 0.4), (1.0, 1.1))
    ways: Counter[float] = Counter()
    for bases in product((0, 1), repeat=2):
        for seeds in product((0, 1), repeat=4):
            drawn = [[effects[base][seed] for seed in seeds[2 * at : 2 * at + 2]] for at, base in enumerate(bases)]
            ways[round(statistics.fmean(map(statistics.fmean, drawn)), 9)] += 1
    total = sum(ways.values())
    exact = [(value, count / total) for value, count in ways.items()]
    found = hierarchical([[constant(e) for e in ones] for ones in effects], mean_difference, seed=3)
    assert found is not None
    assert found.effect == pytest.approx(0.625)
    assert found.low == pytest.approx(quantile(exact, 0.025))
    assert found.high == pytest.approx(quantile(exact, 0.975))


def test_of_three_bases_the_interval_reaches_to_the_worst_and_the_best() -> None:
    found = hierarchical([[constant(-0.1)], [constant(0.2)], [constant(0.3)]], mean_difference, seed=0)
    assert found == Estimate(pytest.approx(0.4 / 3), pytest.approx(-0.1), pytest.approx(0.3))


def test_problems_are_drawn_once_for_all_runs() -> None:
    """Ten seeds that answer the same problems alike know no more of the problems than one; of others they do."""
    hits = [1.0, 0.0] * 50
    one = hierarchical([[paired(hits, [0.0] * 100)]], mean_difference, seed=5)
    same = hierarchical([[paired(hits, [0.0] * 100)] * 10], mean_difference, seed=5)
    others = hierarchical([[paired(hits, [0.0] * 100, f"exam{n}-") for n in range(10)]], mean_difference, seed=5)
    assert one is not None
    assert same is not None
    assert others is not None
    assert same.high - same.low == pytest.approx(one.high - one.low)
    assert others.high - others.low < 0.5 * (one.high - one.low)


shares = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(shares, min_size=1, max_size=3), min_size=1, max_size=3), st.integers(0, 5))
def test_whatever_is_compared(drawn: list[list[list[tuple[bool, bool]]]], seed: int) -> None:
    bases = [[paired(*zip(*run, strict=True)) for run in base] for base in drawn]
    found = hierarchical(bases, mean_difference, seed, draws=200)
    assert found is not None
    exact = [[statistics.fmean(a - b for a, b in run) for run in base] for base in drawn]
    assert found.effect == pytest.approx(statistics.fmean(map(statistics.fmean, exact)))
    assert found.low <= found.high
    assert hierarchical(bases, mean_difference, seed, draws=200) == found, "a function of the seed"
    back = hierarchical(
        [[Paired(run.problems, run.columns_KP[[0, 2, 1]]) for run in base] for base in bases],
        mean_difference, seed, draws=200,
    )  # fmt: skip
    assert back == Estimate(pytest.approx(-found.effect), pytest.approx(-found.high), pytest.approx(-found.low))


def test_what_has_no_value_is_left_out_or_nothing() -> None:
    empty = Paired(("p0",), np.zeros((3, 1)))
    assert hierarchical([[empty]], mean_difference, seed=0) is None
    found = hierarchical([[empty, constant(0.5)]], mean_difference, seed=0)
    assert found == Estimate(0.5, 0.5, 0.5)


def test_few_problems_that_are_all_alike_decide_nothing() -> None:
    found = hierarchical([[constant(0.0, 8)]], mean_difference, seed=0)
    assert found == Estimate(0.0, 0.0, 0.0)
    assert widened(found, 8) == Estimate(0.0, -3 / 8, 3 / 8)
    lost = hierarchical([[paired([0.0] + [1.0] * 29, [1.0] * 30)]], mean_difference, seed=0)
    assert lost is not None
    assert lost.high == 0, "no draw has a gain"
    assert widened(lost, 30) == Estimate(lost.effect, lost.effect - 0.1, pytest.approx(lost.effect + 0.1))
    wide = Estimate(0.1, 0.05, 0.15)
    assert widened(wide, 400) == wide
