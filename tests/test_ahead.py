"""Sampling ahead of training: which policy samples what, the same numbers after a resume, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from running import json_lines, small
from spark_rl import ConfigError, train
from spark_rl.ahead import load_ahead, state
from spark_rl.config import Config
from spark_rl.errors import EngineError
from spark_rl.problem import Group
from spark_rl.report.watch import Silent
from spark_rl.run import Run

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_engine.py"
SPEC = f"engine.name={EXAMPLE}:TransformersEngine"
FEW = (SPEC, "rollout.problems=4", "rollout.samples=3", "recycle.ready=3", "rollout.max_new_tokens=16",
       "optimiser.lr=1e-3")  # fmt: skip
CLOCK = ("seconds", "time/", "tokens_per_second")


def config_of(folder: Path, ahead: int, steps: int, *more: str) -> Config:
    return small(folder, *FEW, f"rollout.ahead={ahead}", f"train.steps={steps}", "train.save_every=1", *more)


def versions(groups: list[Group], *, policy: bool) -> set[int | None]:
    chosen = [group for group in groups if (group.problem.task == "policy") == policy]
    return {rollout.completion.version for group in chosen for rollout in group.rollouts}


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_batch_is_as_old_as_was_asked_for_and_no_older(tmp_path: Path, ahead: int) -> None:
    with Run(config_of(tmp_path / "run", ahead, 5)) as run:
        began = []  # the policy that the engine had at the beginning of each step
        for step in range(5):
            began.append(run.loop.sampler.engine.version)
            metrics, groups = run.loop.advance()
            assert versions(groups, policy=True) == {began[max(0, step - ahead)]}
            assert metrics.get("stale", 0.0) == float(ahead > 0 and step > 0), "all of a batch is of one policy"
            assert "stale/recycled" not in metrics
            if recycled := versions(groups, policy=False):
                assert recycled == {run.learner.weights().version - 1}, "what is recycled is never ahead"
        assert began[-1] > 4, "some steps had two updates"


class Killer(Silent):
    """Ends the run in the middle."""

    def step(self, metrics: Mapping[str, Any]) -> None:
        if metrics["step"] == 3:
            raise RuntimeError("killed")


def test_a_resumed_run_trains_on_what_was_sampled_before(tmp_path: Path) -> None:
    train(config_of(tmp_path / "whole", 2, 5))
    config = config_of(tmp_path / "killed", 2, 5)
    with pytest.raises(RuntimeError, match="killed"):
        train(config, watcher=Killer())
    waiting = json.loads((tmp_path / "killed" / "checkpoints" / "step-000002" / "ahead.json").read_text())
    assert list(waiting) == ["2", "3"]
    train(config, resume=True)
    whole, killed = (
        [{k: v for k, v in record.items() if not k.startswith(CLOCK)} for record in json_lines(run / "metrics.jsonl")]
        for run in (tmp_path / "whole", tmp_path / "killed")
    )
    assert whole == killed
    assert len(whole) == 5


def test_groups_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    with Run(config_of(tmp_path / "run", 1, 3)) as run:
        run.loop.advance()
        assert run.upcoming is not None
        assert list(run.upcoming.ready) == [1]
        (tmp_path / "ahead.json").write_text(json.dumps(state(run.upcoming.ready)))
        assert load_ahead(tmp_path, run.backend.chat) == run.upcoming.ready
        (tmp_path / "ahead.json").write_text('{"1": {"groups": [{}], "too_long": []}}')
        with pytest.raises(ConfigError, match=r"ahead.json can't be read \('problem'\); remove the checkpoint"):
            load_ahead(tmp_path, run.backend.chat)


def test_an_engine_that_fails_ahead_fails_the_step(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXAMPLE.parent)!r})\n"
        "from own_engine import TransformersEngine\n"
        "class Bad(TransformersEngine):\n"
        "    calls = 0\n"
        "    def generate(self, prompts, sampling):\n"
        "        self.calls += 1\n"
        "        if self.calls == 2:\n"
        "            raise OSError('the cable is out')\n"
        "        return super().generate(prompts, sampling)\n"
    )
    config = config_of(tmp_path / "run", 1, 3, f"engine.name={tmp_path / 'bad.py'}:Bad")
    with pytest.raises(EngineError, match="Bad raised OSError: the cable is out"):
        train(config)


def test_the_learners_own_weights_are_not_sampled_from_while_they_change(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.ahead samples while the learner updates, and the embedded engine"):
        train(small(tmp_path / "run", "rollout.ahead=1"))
