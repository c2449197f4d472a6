"""Where a run ends: at its steps, or with the step that reaches its tokens; and that the same is known after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import facts, json_lines, small
from spark_rl.config import load_config
from spark_rl.length import Length, length_of
from spark_rl.report.watch import Silent
from spark_rl.run import train

TOKENS = 1500
"""Some three steps of the small configuration."""
BY_TOKENS = ("train.steps=null", f"train.tokens={TOKENS}", "optimiser.schedule=linear")


@given(st.integers(1, 10**6), st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_a_run_ends_with_the_step_that_reaches_its_tokens(budget: int, costs: list[int]) -> None:
    length, tokens = Length(None, budget, most=5000), 0
    for step, cost in enumerate(costs, start=1):
        assert not length.is_over(step - 1, tokens)
        assert length.expected(step - 1, tokens) >= step, "a run that goes on has a step to come"
        tokens += cost
        if length.is_over(step, tokens):
            assert tokens - cost < budget <= tokens
            assert length.expected(step, tokens) == step
            return
    assert tokens < budget


@given(st.integers(1, 1000), st.integers(1, 300), st.integers(1, 300))
def test_equal_steps_are_foreseen_from_the_first(cost: int, steps: int, done: int) -> None:
    length = Length(None, cost * steps, most=cost)
    assert length.expected(0, 0) == steps
    assert length.expected(done, done * cost) == max(done, steps)


def test_what_ends_first_ends_the_run() -> None:
    both = Length(10, 500, most=100)
    assert both.is_over(10, 10)
    assert both.is_over(3, 500)
    assert not both.is_over(9, 499)
    assert both.expected(5, 10) == 10


def test_passes_over_the_data_count_where_nothing_else_does() -> None:
    rollout = {"problems": 4, "samples": 2, "max_new_tokens": 5}
    passes = load_config(rollout=rollout, train={"episodes": 3})
    assert length_of(passes, 10).steps == 8
    assert length_of(load_config(rollout=rollout, train={"tokens": 7, "episodes": 3}), 10).steps is None
    assert length_of(load_config(rollout=rollout, train={"steps": 2, "episodes": 3}), None).steps == 2


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ends by tokens, with a learning rate that falls to its end."""
    run_dir = tmp_path_factory.mktemp("length") / "run"
    train(small(run_dir, *BY_TOKENS))
    return run_dir


def test_a_run_of_tokens_says_how_many_steps_it_expects(straight: Path) -> None:
    steps = json_lines(straight / "metrics.jsonl")
    spent = [sum(step["tokens"] for step in steps[: n + 1]) for n in range(len(steps))]
    assert spent[-2] < TOKENS <= spent[-1]
    assert [step["steps"] for step in steps] == [
        max(-(-(n + 1) * TOKENS // spent[n]), n + 2) if spent[n] < TOKENS else n + 1 for n in range(len(steps))
    ]
    assert steps[-1]["lr"] < steps[0]["lr"]


class Leaves(Silent):
    """Whoever reads a run's output, and goes away after its first step."""

    def step(self, metrics: Mapping[str, Any]) -> None:
        raise BrokenPipeError


def test_a_run_of_tokens_goes_on_exactly(straight: Path, tmp_path: Path) -> None:
    config = small(tmp_path / "run", *BY_TOKENS)
    with pytest.raises(BrokenPipeError):
        train(config, watcher=Leaves())
    train(config, resume=True)
    whole, parts = facts(straight), facts(tmp_path / "run")
    assert len(whole) > 1
    assert parts == whole
