"""What checkpoints take on a disk, beside logs of some megabytes."""

from __future__ import annotations

from spark_rl.config import Config
from spark_rl.plan.shape import Sizes, width_of

MOMENTS, MASTER = 8, 4
"""Bytes that a trained weight takes in ``shards/``: AdamW's two moments in float32, and the weight itself in float32
where ``model/`` holds it rounded."""


def checkpoint_bytes(config: Config, sizes: Sizes) -> float:
    """Of one checkpoint: ``model/``, which of adapters holds these alone, and what the optimiser needs to go on."""
    half = width_of(config) < MASTER
    return _model_bytes(config, sizes) + float((MOMENTS + MASTER * half) * sizes.trained)


def run_bytes(config: Config, sizes: Sizes) -> float:
    """Of a run at most: ``train.keep`` checkpoints, that of the best evaluation, one that is being written before
    another goes, and the ``model/`` at the end.
    """
    best = config.train.best is not None
    return (config.train.keep + 1 + best) * checkpoint_bytes(config, sizes) + _model_bytes(config, sizes)


def _model_bytes(config: Config, sizes: Sizes) -> float:
    return float(width_of(config) * (sizes.weights if config.model.lora is None else sizes.trained))
