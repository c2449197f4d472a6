"""Experiment trackers beside a run: TensorBoard, Weights & Biases, Trackio (docs/tracking.md).

A tracker is told what ``metrics.jsonl``, the evaluations and ``rollouts.jsonl`` hold, under the names that transformers
and TRL give them. It works in a thread of its own, and whatever it does wrong ends the tracker, never the run.
"""

from __future__ import annotations

from spark_rl.track.trackers import Trackers, check_trackers

__all__ = ["Trackers", "check_trackers"]
