"""Eq. 3: golden values worked out by hand, and the properties an advantage must have."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_rl.advantage import batch_advantages, group_advantages, is_flat

GROUPS = st.lists(st.lists(st.floats(-4, 4, width=32), min_size=5, max_size=5), min_size=1, max_size=4)


UNEVEN = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6)),
    min_size=1,
    max_size=6,
)
"""Groups of two tasks and of different sizes."""


def by_task(groups: list[tuple[str, list[float]]], scale: str = "task") -> list[list[float]]:
    rewards = [torch.tensor(row, dtype=torch.float64) for _, row in groups]
    return [found.tolist() for found in batch_advantages(rewards, [task for task, _ in groups], 1e-6, scale)]


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


def test_golden_task_scale() -> None:
    # a: deviations 1/2 -1/2 | 3/4 -1/4 -1/4 -1/4 | 0 0; squares 1/2 + 3/4 over 8 responses. b: 2 -2, square 4.
    groups = [("a", [1.0, 0.0]), ("b", [4.0, 0.0]), ("a", [1.0, 0.0, 0.0, 0.0]), ("a", [1.0, 1.0])]
    root = math.sqrt(1.25 / 8 + 1e-6)
    expected = [[0.5 / root, -0.5 / root], [2 / math.sqrt(4 + 1e-6), -2 / math.sqrt(4 + 1e-6)],
                [0.75 / root, *[-0.25 / root] * 3], [0.0, 0.0]]  # fmt: skip
    for found, wanted in zip(by_task(groups), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-12)


@given(groups=UNEVEN)
def test_each_task_has_unit_variance_at_most_and_each_group_mean_zero(groups: list[tuple[str, list[float]]]) -> None:
    found = by_task(groups)
    for row in found:
        assert sum(row) == pytest.approx(0, abs=1e-6)
    for task in "ab":
        squares = [a * a for (name, _), row in zip(groups, found, strict=True) if name == task for a in row]
        spread = [max(row) - min(row) for name, row in groups if name == task]
        if squares:
            assert math.fsum(squares) / len(squares) <= 1 + 1e-9
        if spread and max(spread) > 0.5:
            assert math.fsum(squares) / len(squares) == pytest.approx(1, abs=1e-2)


@given(groups=UNEVEN, factor=st.floats(0.5, 20))
def test_one_task_does_not_touch_another(groups: list[tuple[str, list[float]]], factor: float) -> None:
    louder = [(task, [factor * r for r in row] if task == "b" else row) for task, row in groups]
    for (task, row), before, after in zip(groups, by_task(groups), by_task(louder), strict=True):
        if task == "a":
            assert after == before
        elif max(row) - min(row) > 0.5:
            assert after == pytest.approx(before, rel=1e-3, abs=1e-3), "and its own scale does not matter"


@given(groups=UNEVEN, seed=st.randoms())
def test_the_order_of_the_groups_does_not_matter(groups: list[tuple[str, list[float]]], seed: random.Random) -> None:
    order = list(range(len(groups)))
    seed.shuffle(order)
    found, shuffled = by_task(groups), by_task([groups[i] for i in order])
    for place, i in enumerate(order):
        assert shuffled[place] == pytest.approx(found[i], abs=1e-9)


@given(groups=UNEVEN)
def test_groups_of_equal_spread_have_the_same_advantages_by_task_and_by_group(
    groups: list[tuple[str, list[float]]],
) -> None:
    same = [(task, groups[0][1]) for task, _ in groups]
    for one, other in zip(by_task(same), by_task(same, "group"), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_batch_is_its_groups(scale: str) -> None:
    groups = [("a", [1.0, 0.0, 0.0]), ("b", [2.0, 5.0])]
    assert by_task(groups, scale) == [advantages([row], scale=scale)[0] for _, row in groups]
