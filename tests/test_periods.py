"""What else a batch is trained on (``recycle.credit``), in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from running import json_lines, small
from spark_rl import train


def facts(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what a clock says."""
    clocks = ("time/", "seconds", "tokens_per_second")
    log = json_lines(run_dir / "metrics.jsonl")
    return [{name: value for name, value in record.items() if not name.startswith(clocks)} for record in log]


def test_right_reflections_are_trained_under_the_parents_prompt_too(tmp_path: Path) -> None:
    """Without another token sampled, and the same after an interruption."""
    credit = ("recycle.credit=original", "recycle.pointwise=false", "recycle.pairwise=false", "recycle.ready=3",
              "train.save_every=1")  # fmt: skip
    own = train(small(tmp_path / "own", "train.steps=1", *credit, "recycle.credit=own"))
    train(small(tmp_path / "whole", "train.steps=3", *credit))
    train(small(tmp_path / "parts", "train.steps=2", *credit))
    train(small(tmp_path / "parts", "train.steps=3", *credit), resume=True)
    whole, parts = (facts(tmp_path / run) for run in ("whole", "parts"))
    assert whole == parts
    assert whole[0]["tokens"] == own["tokens"]
    right = [record["reward/reflection"] for record in whole]
    assert any(right)
    assert [bool(record.get("credited/recycled")) for record in whole] == [reward > 0 for reward in right]
    assert not any(name.startswith("credited") for name in facts(tmp_path / "own")[0])


