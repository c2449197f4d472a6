"""Runs with ``engine.name=vllm``, end to end, on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from running import json_lines, small
from spark_rl import UserError, train
from spark_rl.config import load_config

VLLM = "engine.name=vllm"


def test_the_tiny_default_learns(tmp_path: Path) -> None:
    """The policy's share of right answers, 20% at the start."""
    config = load_config(
        "tiny", [VLLM, "model.threads=1", "data.heldout=null", "data.transfer=null", "train.steps=25"],
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    train(config)
    records = json_lines(tmp_path / "run" / "metrics.jsonl")
    rewards = [record["reward/policy"] for record in records]
    assert sum(rewards[:5]) / 5 < 0.3
    assert sum(rewards[-5:]) / 5 > 0.4
    kls = [value for record in records for name, value in record.items() if name.startswith("engine_kl")]
    assert max(kls) < 1e-4


def test_without_learning_engine_and_learner_stay_together_for_50_steps(tmp_path: Path) -> None:
    """A learning rate too small to change a float32; in MarinFold#236 the two parted, from 0.017 to 66.5 nats."""
    config = small(tmp_path / "run", VLLM, "optimiser.lr=1e-30", "train.steps=50", "engine.max_kl=1e-6")
    train(config)
    records = json_lines(tmp_path / "run" / "metrics.jsonl")
    gaps = [value for record in records for name, value in record.items() if name.startswith("engine_gap")]
    assert len(records) == 50
    assert max(gaps) < 1e-4


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """The engine of a resumed run has the checkpoint's weights, not those of ``model.path``."""
    config = small(tmp_path / "run", VLLM, "optimiser.lr=1e-3", "train.steps=3", "train.save_every=1")
    train(config)
    more = config.model_copy(update={"train": config.train.model_copy(update={"steps": 4})})
    train(more, resume=True)
    records = json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["engine_gap"] < 1e-3


def test_a_run_whose_engine_has_other_weights_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM takes no weights over while the learner changes."""
    monkeypatch.setattr("spark_rl.engine.vllm.engine.send", lambda *_: None)
    with pytest.raises(UserError, match=r"^VllmEngine and the learner are .* nats a token apart after"):
        train(small(tmp_path / "run", VLLM, "optimiser.lr=3e-2", "train.steps=10"))
