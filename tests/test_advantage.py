"""Eq. 3: golden values worked out by hand, and the properties an advantage must have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_rl.advantage import group_advantages, is_flat

GROUPS = st.lists(st.lists(st.floats(-4, 4, width=32), min_size=5, max_size=5), min_size=1, max_size=4)


def advantages(rewards: list[list[float]], **options: object) -> list[list[float]]:
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), **options).tolist()


def test_golden_binary_rewards() -> None:
    # mean 1/4, population variance 3/16; the sample variance would be 1/4 and give 1.5 and -0.5.
    root = math.sqrt(3 / 16 + 1e-6)
    assert advantages([[1, 0, 0, 0]])[0] == pytest.approx([0.75 / root, *[-0.25 / root] * 3], abs=1e-12)
    assert advantages([[1, 0, 0, 0]])[0] == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], abs=1e-4)


def test_eps_is_inside_the_root() -> None:
    # 0.5 / sqrt(0.25 + 0.75) = 0.5; with eps outside the root it would be 0.5 / (0.5 + 0.75) = 0.4.
    assert advantages([[1, 0]], eps=0.75)[0] == pytest.approx([0.5, -0.5], abs=1e-12)


def test_golden_graded_rewards() -> None:
    # mean 2, deviations -2 0 0 2 -1 1, variance 10 / 6.
    deviations = [-2, 0, 0, 2, -1, 1]
    expected = [d / math.sqrt(10 / 6 + 1e-6) for d in deviations]
    assert advantages([[0, 2, 2, 4, 1, 3]])[0] == pytest.approx(expected, abs=1e-12)


def test_scale_none_only_centres() -> None:
    assert advantages([[1, 0, 0, 0], [2, 4, 6, 8]], scale="none") == [[0.75, -0.25, -0.25, -0.25], [-3, -1, 1, 3]]


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, -7.3])
def test_a_flat_group_has_exactly_no_advantage(reward: float, scale: str) -> None:
    assert advantages([[reward] * 7], scale=scale) == [[0.0] * 7]


@pytest.mark.parametrize("scale", ["group", "none"])
def test_rounding_noise_is_no_signal(scale: str) -> None:
    noisy = [0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2]
    assert noisy[0] != noisy[1]
    assert advantages([noisy], eps=1e-40, scale=scale) == [[0.0] * 4]
    assert is_flat(torch.tensor([noisy], dtype=torch.float64)).tolist() == [True]


def test_groups_do_not_touch_each_other() -> None:
    rows = [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 5.0]]
    assert advantages(rows) == [advantages([row])[0] for row in rows]
    assert is_flat(torch.tensor(rows)).tolist() == [False, True, False]


def test_a_vector_is_one_group_and_the_dtype_stays() -> None:
    found = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float32))
    assert (found.shape, found.dtype) == ((4,), torch.float32)
    assert found.tolist() == pytest.approx(advantages([[1, 0, 0, 0]])[0], abs=1e-6)


@given(rewards=GROUPS, scale=st.sampled_from(["group", "none"]))
def test_mean_zero(rewards: list[list[float]], scale: str) -> None:
    for row in advantages(rewards, scale=scale):
        assert sum(row) == pytest.approx(0, abs=1e-9)


@given(rewards=GROUPS, shift=st.floats(-10, 10))
def test_the_same_reward_for_all_changes_nothing(rewards: list[list[float]], shift: float) -> None:
    for row in rewards:
        assume(not 0 < max(row) - min(row) < 1e-4)  # at the tolerance itself either answer is right
    shifted = advantages([[r + shift for r in row] for row in rewards])
    for row, other in zip(advantages(rewards), shifted, strict=True):
        assert row == pytest.approx(other, abs=1e-4)


@given(rewards=GROUPS)
def test_sign_and_order_follow_the_reward(rewards: list[list[float]]) -> None:
    for row, found in zip(rewards, advantages(rewards), strict=True):
        mean = math.fsum(row) / len(row)
        if max(row) - min(row) <= 1e-6:
            assert found == [0.0] * len(row)
            continue
        for reward, advantage in zip(row, found, strict=True):
            if abs(reward - mean) > 1e-9:
                assert (advantage > 0) == (reward > mean)
        best, worst = row.index(max(row)), row.index(min(row))
        assert found[best] == max(found)
        assert found[worst] == min(found)


@given(rewards=GROUPS)
def test_scaled_advantages_have_unit_variance_at_most(rewards: list[list[float]]) -> None:
    for row, found in zip(rewards, advantages(rewards), strict=True):
        power = math.fsum(a * a for a in found) / len(found)
        assert power <= 1 + 1e-9
        if max(row) - min(row) > 0.1:
            assert power == pytest.approx(1, abs=1e-2)
