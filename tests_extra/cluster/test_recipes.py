"""Each recipe for GPUs, its model shrunk to two layers, takes two steps with two learners and two engines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.plan.test_recipes import RECIPES, shrunken

from spark_rl.run import train

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps_of_the_recipe_in_processes_of_their_own(recipe: str, tmp_path: Path) -> None:
    """Images go to the processes as the data has them: each is prepared where its group is computed or asked."""
    train(shrunken(recipe, tmp_path, "cluster.learners=2", "cluster.engines=2"))
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["kl"] >= 0 for step in steps), "the reference is asked"
    assert max(step["engine_gap"] for step in steps) < 1e-3
    assert (tmp_path / "run" / "model" / "config.json").exists()
