"""The norm by which gradients are clipped, against sums in float64 and in whole numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.learner.clipping import BLOCK, clip, squared_norm


def test_the_norm_of_a_large_gradient_is_exact() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(8192, 512) * 1e-4
    exact = float(gradient.double().square().sum())
    assert squared_norm([gradient]) == pytest.approx(exact, rel=1e-7)
    assert abs(float(torch.linalg.vector_norm(gradient)) / math.sqrt(exact) - 1) > 1e-5, "torch mended its own"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 90), max_size=3), max_size=6), st.integers(1, 9))
def test_the_norm_of_any_shapes(shapes: list[list[int]], value: int) -> None:
    gradients = [torch.full(shape, float(value)) for shape in shapes]
    assert squared_norm(gradients) == pytest.approx(value**2 * sum(g.numel() for g in gradients), rel=1e-6)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_the_norm_at_the_edges_of_blocks(size: int) -> None:
    assert squared_norm([torch.full((size,), 2.0)]) == pytest.approx(4 * size, rel=1e-6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [0, BLOCK, BLOCK + 1])
def test_a_number_that_is_not_finite_shows(bad: float, place: int) -> None:
    gradient = torch.zeros(BLOCK + 2)
    gradient[place] = bad
    assert not math.isfinite(squared_norm([torch.ones(3), gradient]))


def test_a_gradient_is_clipped_to_the_norm_asked_for_and_a_smaller_one_left() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    clip(gradients, 5.0, 6.0)
    assert gradients[0].tolist() == [3.0, 0.0]
    clip(gradients, 5.0, 1.0)
    assert math.sqrt(squared_norm(gradients)) == pytest.approx(1.0, rel=1e-5)
