"""The learning rate of an update."""

from __future__ import annotations

import math

from spark_rl.config import OptimiserConfig


def learning_rate(config: OptimiserConfig, update: int, done: float | None) -> float:
    """Warm-up over the first updates, then constant, linear or cosine decay to ``final_lr * lr`` at the run's end.

    ``done`` is the share of the run after the warm-up that is over. It is a share of steps and not of updates, because
    nobody knows beforehand how many updates a run will make: the second period runs when enough was recycled.

    Raises:
        ValueError: a decaying schedule without ``done``.
    """
    if update < config.warmup:
        return config.lr * (update + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    if done is None:
        raise ValueError(f"optimiser.schedule {config.schedule} needs to know how far the run is")
    done = min(1.0, max(0.0, done))
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape)
