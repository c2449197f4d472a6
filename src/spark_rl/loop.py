"""The SPARK loop (Fig. 2a): sample, verify, update, recycle, and update again on what was recycled.

Recycled problems take the same path as problems from the data: the same engine, verifier, advantage and objective.
Policy-only, reward-only, policy-and-reward and SPARK are four configurations of this one loop.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spark_rl.clock import Clock
from spark_rl.config import Config
from spark_rl.data.batches import Batches
from spark_rl.learner.base import Learner, Span
from spark_rl.measure import Metrics, batch_metrics, left_out_metrics
from spark_rl.problem import Group
from spark_rl.recycle import Pool, recycle
from spark_rl.rollout import Sampled, Sampler
from spark_rl.seeds import stream_seed


@dataclass(slots=True)
class Loop:
    """The moving parts of a run, and one method a step."""

    config: Config
    batches: Batches
    sampler: Sampler
    learner: Learner
    pool: Pool
    step: int = 0
    """Steps that are done."""
    steps: int = 0
    """Steps of the whole run: where the schedule of the learning rate ends."""
    half_done: bool = False
    """Whether a step has begun to change weights or pool: what would be saved now is the state of no step."""

    def advance(self) -> tuple[Metrics, list[Group]]:
        """Sec. 3.1 and 3.2, once. Returns the step's metrics and all its groups, without the pixels of their images."""
        config, step, clock = self.config, self.step, Clock()
        combined, middle = config.train.periods == "combined", second_period(config)

        batch = self.batches.of(step)
        groups, too_long = self.sampler.sample(batch, stream_seed(config.seed, "policy", step), clock)
        again, also_too_long = self._sample_recycled(clock) if combined else Sampled([], [])
        trained = [*(groups if config.train.policy_update else ()), *again]
        self.half_done = True
        updates = self._update(trained, 0.0, middle, clock)
        groups, again = _without_pixels(groups), _without_pixels(again)

        rng, dropped = random.Random(stream_seed(config.seed, "recycle", step)), self.pool.dropped
        self.pool.add(clock.timed("recycle", recycle, groups, config.recycle, rng, config.verify.thinking))
        if not combined:
            again, also_too_long = self._sample_recycled(clock)
            updates |= {f"{name}/recycled": value for name, value in self._update(again, middle, 1.0, clock).items()}
            again = _without_pixels(again)

        self.step, self.half_done = self.step + 1, False
        everything = [*groups, *again]
        left_out = left_out_metrics([*too_long, *also_too_long], self.pool.dropped - dropped)
        metrics = {"step": self.step, **batch_metrics(everything), **updates, **clock.seconds}
        return metrics | {"pool": len(self.pool)} | left_out, everything

    def _update(self, groups: Sequence[Group], begin: float, end: float, clock: Clock) -> Metrics:
        """Train on the groups and hand the new weights to the engine, whatever way it takes them.

        ``begin`` and ``end`` say which part of the step this is, from 0 to 1.
        """
        if not groups:
            return {}
        span, engine = Span(self.step + begin, self.step + end, self.steps), self.sampler.engine
        engine.sleep()
        updates = clock.timed("update", self.learner.update, groups, span)
        engine.wake()
        clock.timed("update", engine.sync, self.learner.weights())
        return updates

    def _sample_recycled(self, clock: Clock) -> Sampled:
        """Groups of the oldest recycled problems, from the current weights, once enough have gathered.

        For each that is too long to ask the next one takes its place, as long as there is one.
        """
        count = self.config.recycle.ready
        if not self.pool.ready(count):
            return Sampled([], [])
        seed = stream_seed(self.config.seed, "recycled", self.step)
        return self.sampler.sample(self.pool.oldest(), seed, clock, count)


def second_period(config: Config) -> float:
    """Where in a step, from 0 to 1, the update on recycled problems begins; 1 if it has no update of its own."""
    if not config.recycle.on or config.train.periods == "combined":
        return 1.0
    return 0.5 if config.train.policy_update else 0.0


def _without_pixels(groups: Sequence[Group]) -> list[Group]:
    """The groups, trained on, for the log: a picture of a million pixels is 25 MB, a batch of 64 of them 1.6 GB."""
    return [replace(group, vision={}) for group in groups]
