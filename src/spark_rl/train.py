"""The SPARK loop (Fig. 2a): sample, verify, update, recycle, and update again on what was recycled.

Recycled problems take the same path as problems from the data: the same engine, verifier, advantage and objective.
Policy-only, reward-only, policy-and-reward and SPARK are four configurations of this one loop.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spark_rl import checkpoint
from spark_rl.actor import Actor, open_actor
from spark_rl.checkpoint import Progress
from spark_rl.clock import Clock
from spark_rl.config import Config, ConfigError
from spark_rl.data import load_problems, remove_overlap
from spark_rl.evals.heldout import HeldOutEvaluation, Scores
from spark_rl.learner.base import Learner
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.model import load_model
from spark_rl.measure import Metrics, batch_metrics, rollout_records
from spark_rl.problem import Group, Problem
from spark_rl.recycle import Pool, recycle
from spark_rl.report.html import write_report
from spark_rl.report.metrics import MetricsLog
from spark_rl.report.watch import Silent, Watcher
from spark_rl.rollout import Sampler, stream_seed
from spark_rl.verify import Verifier


@dataclass(slots=True)
class Loop:
    """The moving parts of a run, and one method a step."""

    config: Config
    problems: Sequence[Problem]
    sampler: Sampler
    learner: Learner
    pool: Pool
    progress: Progress

    def step(self) -> tuple[Metrics, list[Group]]:
        """Sec. 3.1 and 3.2, once. Returns the step's metrics and all its groups, without the pixels of their images."""
        config, step, clock = self.config, self.progress.step, Clock()
        combined = config.train.periods == "combined"

        batch = batch_of(self.problems, step, config.rollout.problems, config.seed)
        groups = self.sampler.groups(batch, stream_seed(config.seed, "policy", step), clock)
        again = self._sample_recycled(step, clock) if combined else []
        updates = self._update([*(groups if config.train.policy_update else ()), *again], clock)
        groups, again = _without_pixels(groups), _without_pixels(again)

        rng = random.Random(stream_seed(config.seed, "recycle", step))
        self.pool.add(clock.timed("recycle", recycle, groups, config.recycle, rng, config.verify.thinking))
        if not combined:
            again = self._sample_recycled(step, clock)
            updates |= {f"{name}/recycled": value for name, value in self._update(again, clock).items()}
            again = _without_pixels(again)

        self.progress.step += 1
        everything = [*groups, *again]
        metrics = {"step": self.progress.step, **batch_metrics(everything), **updates, **clock.seconds}
        return metrics | {"pool": len(self.pool), "skipped": len(batch) - len(groups)}, everything

    def _update(self, groups: Sequence[Group], clock: Clock) -> Metrics:
        """Train on the groups and hand the new weights to the engine, whatever way it takes them."""
        if not groups:
            return {}
        updates = clock.timed("update", self.learner.update, groups)
        clock.timed("update", self.sampler.engine.sync, self.learner)
        return updates

    def _sample_recycled(self, step: int, clock: Clock) -> list[Group]:
        """Groups of the oldest recycled problems, from the current weights, once enough have gathered."""
        count = self.config.recycle.ready
        if not self.pool.ready(count):
            return []
        seed = stream_seed(self.config.seed, "recycled", step)
        return self.sampler.groups(self.pool.take(count), seed, clock)


def _without_pixels(groups: Sequence[Group]) -> list[Group]:
    """The groups, trained on, for the log: a picture of a million pixels is 25 MB, a batch of 64 of them 1.6 GB."""
    return [replace(group, vision={}) for group in groups]


def train(
    config: Config,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Metrics:
    """Run the loop to its end, write the report, and return what ``summary.json`` holds.

    Args:
        config: a resolved configuration with ``run_dir`` set.
        resume: continue the run in ``config.run_dir`` from its last checkpoint.
        watcher: hears of phases and steps as they happen.

    Raises:
        ConfigError: settings, model or run directory can't be used.
        DataError: the data can't be used.
    """
    assert config.run_dir is not None, "whoever starts a run says where it is written"
    run_dir, watcher = Path(config.run_dir), watcher or Silent()
    checkpoint.check_run(run_dir, config, resume)
    watcher.phase("loading the data and the model")
    problems, exams = load_all_problems(config)
    saved = checkpoint.checkpoints(run_dir)[-1:] if resume else []
    actor = open_actor(config, saved[0] / "model" if saved else None)
    steps = config.train.steps or -(-config.train.episodes * len(problems) // config.rollout.problems)
    needs_reference = config.objective.kl > 0 and config.model.lora is None
    reference = load_model(config) if needs_reference else None
    learner = LocalLearner(actor.loaded, config, reference, steps * updates_a_step(config))
    pool, progress = Pool(config.recycle.pool_size), Progress()
    if saved:
        pool, progress = checkpoint.load_checkpoint(saved[0], learner, config.recycle.pool_size)
    if progress.step > steps:
        raise ConfigError(f"{run_dir} has done {progress.step} steps already, more than the {steps} asked for")
    check_prompts(problems, actor, config)

    checkpoint.open_run(run_dir, config, resume)  # not before data and model are known to load
    with Verifier(config.verify) as verifier:
        sampler = Sampler(actor.engine, actor.chat, verifier, config.rollout, config.reward)
        loop = Loop(config, problems, sampler, learner, pool, progress)
        before = checkpoint.remembered(
            run_dir / "before.json", lambda: examine(actor, verifier, exams, "before training", watcher)
        )
        run_steps(loop, steps, run_dir, watcher)
        learner.save_pretrained(run_dir / "model")
        after = examine(actor, verifier, exams, "after training", watcher)
    summary = checkpoint.summarise(config, before, after, progress)
    checkpoint.write_json(run_dir / "summary.json", summary)
    write_report(run_dir)
    return summary


def check_prompts(problems: Sequence[Problem], actor: Actor, config: Config) -> None:
    """Finds out before the first step whether the model can be asked these problems.

    Raises:
        ChatError: there are images, in whatever batch, and the model has no place for them.
        ConfigError: no prompt of the first batch is short enough, so that the run would do nothing.
    """
    sighted = next((problem for problem in problems if problem.images), None)
    if sighted is not None:
        actor.chat.encode(sighted)
    batch = batch_of(problems, 0, config.rollout.problems, config.seed)
    limit, lengths = config.rollout.max_prompt_tokens, []
    for problem in batch:
        lengths.append(len(actor.chat.encode(problem).token_ids))
        if lengths[-1] <= limit:  # one is enough: images take long to prepare
            return
    raise ConfigError(
        f"every prompt of the first batch is longer than rollout.max_prompt_tokens ({limit}); "
        f"the shortest has {min(lengths)} tokens, so allow more"
    )


def run_steps(loop: Loop, steps: int, run_dir: Path, watcher: Watcher) -> None:
    """The remaining steps, logged, counted and saved."""
    settings, progress = loop.config.train, loop.progress
    with MetricsLog(run_dir / "metrics.jsonl") as log, MetricsLog(run_dir / "rollouts.jsonl") as rollouts:
        log.truncate(progress.step)
        rollouts.truncate(progress.step)
        watcher.begin(steps, progress.step)
        while progress.step < steps:
            started = time.perf_counter()
            metrics, groups = loop.step()
            seconds = time.perf_counter() - started
            progress.tokens += metrics["tokens"]
            progress.seconds += seconds
            metrics |= {"seconds": seconds, "tokens_per_second": metrics["tokens"] / seconds}
            log.append(metrics)
            for record in rollout_records(groups, progress.step, settings.sample_rollouts, loop.config.chat):
                rollouts.append(record)
            watcher.step(metrics)
            if progress.step % settings.save_every == 0 or progress.step == steps:
                checkpoint.save_checkpoint(run_dir, loop.learner, loop.pool, progress, settings.keep)
        watcher.end()


def load_all_problems(config: Config) -> tuple[tuple[Problem, ...], dict[str, tuple[Problem, ...]]]:
    """Training problems, and the held-out and transfer problems by name, none of which is trained on."""
    problems = load_problems(config.data.train, config.data, "train")
    exams: dict[str, tuple[Problem, ...]] = {}
    for name in ("heldout", "transfer"):
        source: str | None = getattr(config.data, name)
        if source is None:
            continue
        if source.startswith("split:"):
            count = _split_size(source, len(problems))
            exams[name] = tuple(random.Random(f"split:{config.seed}").sample(problems, count))
        else:
            exams[name] = load_problems(source, config.data, name)
    problems, _ = remove_overlap(problems, [p for exam in exams.values() for p in exam])
    return problems, {name: exam[: config.evaluation.problems] for name, exam in exams.items()}


def _split_size(source: str, available: int) -> int:
    """N of ``split:N``. Raises :class:`ConfigError` if it is not a number that leaves something to train on."""
    text = source.removeprefix("split:")
    if not text.isdecimal() or not 0 < int(text) < available:
        raise ConfigError(f"data.heldout {source!r}: N in split:N must be from 1 to {available - 1}, what the data has")
    return int(text)


def examine(
    actor: Actor,
    verifier: Verifier,
    exams: Mapping[str, Sequence[Problem]],
    when: str,
    watcher: Watcher,
) -> dict[str, Scores]:
    """The scores of every exam with the current weights."""
    scores = {}
    for name, problems in exams.items():
        watcher.phase(f"evaluating {len(problems)} {name} problems {when}")
        scores[name] = HeldOutEvaluation(actor.reasoner(), verifier, problems).run()
    return scores


def updates_a_step(config: Config) -> int:
    """Optimiser steps in one step of the loop: where the learning-rate schedule ends is ``steps`` times this."""
    recycling = config.recycle.pointwise or config.recycle.pairwise or config.recycle.reflection
    both = recycling and config.train.policy_update and config.train.periods == "two"
    return (2 if both else 1) * config.learner.minibatches * config.learner.epochs


def batch_of(problems: Sequence[Problem], step: int, size: int, seed: int) -> list[Problem]:
    """The batch of a step: the data in a new random order each pass, a function of the step alone."""
    batch: list[Problem] = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, len(problems))
        if not batch or place == 0:
            order = random.Random(stream_seed(seed, "order", epoch)).sample(range(len(problems)), len(problems))
        batch.append(problems[order[place]])
    return batch
