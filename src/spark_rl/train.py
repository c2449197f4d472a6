"""The SPARK loop (Fig. 2a): sample, verify, update, recycle, and update again on what was recycled.

Recycled problems take the same path as problems from the data: the same engine, verifier, advantage and objective.
Policy-only, reward-only, policy-and-reward and SPARK are four configurations of this one loop.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from spark_rl import checkpoint
from spark_rl.actor import Actor, open_actor
from spark_rl.checkpoint import Progress
from spark_rl.clock import Clock
from spark_rl.config import Config
from spark_rl.data import load_problems, remove_overlap
from spark_rl.data.mixture import pass_order
from spark_rl.errors import ConfigError
from spark_rl.evals.heldout import HeldOutEvaluation, Pair, Scores, draw_pairs
from spark_rl.files import write_json
from spark_rl.learner.base import Learner, Span
from spark_rl.learner.local import LocalLearner
from spark_rl.measure import Metrics, batch_metrics, left_out_metrics, rollout_records
from spark_rl.model.load import fitted_to_model, load_model
from spark_rl.parts import with_resolved_paths
from spark_rl.problem import TASKS, Group, Problem
from spark_rl.recycle import Pool, recycle
from spark_rl.report.html import write_report
from spark_rl.report.metrics import MetricsLog
from spark_rl.report.watch import Silent, Watcher
from spark_rl.rollout import Sampled, Sampler
from spark_rl.seeds import stream_seed
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
        combined, middle = config.train.periods == "combined", second_period(config)

        batch = batch_of(self.problems, step, config.rollout.problems, config.seed, config.data.shares)
        groups, too_long = self.sampler.sample(batch, stream_seed(config.seed, "policy", step), clock)
        again, also_too_long = self._sample_recycled(step, clock) if combined else Sampled([], [])
        trained = [*(groups if config.train.policy_update else ()), *again]
        updates = self._update(trained, 0.0, middle, clock)
        groups, again = _without_pixels(groups), _without_pixels(again)

        rng, dropped = random.Random(stream_seed(config.seed, "recycle", step)), self.pool.dropped
        self.pool.add(clock.timed("recycle", recycle, groups, config.recycle, rng, config.verify.thinking))
        if not combined:
            again, also_too_long = self._sample_recycled(step, clock)
            updates |= {f"{name}/recycled": value for name, value in self._update(again, middle, 1.0, clock).items()}
            again = _without_pixels(again)

        self.progress.step += 1
        everything = [*groups, *again]
        left_out = left_out_metrics([*too_long, *also_too_long], self.pool.dropped - dropped)
        metrics = {"step": self.progress.step, **batch_metrics(everything), **updates, **clock.seconds}
        return metrics | {"pool": len(self.pool)} | left_out, everything

    def _update(self, groups: Sequence[Group], begin: float, end: float, clock: Clock) -> Metrics:
        """Train on the groups and hand the new weights to the engine, whatever way it takes them.

        ``begin`` and ``end`` say which part of the step this is, from 0 to 1.
        """
        if not groups:
            return {}
        done = self.progress.step
        span = Span(done + begin, done + end, self.progress.steps)
        updates = clock.timed("update", self.learner.update, groups, span)
        clock.timed("update", self.sampler.engine.sync, self.learner)
        return updates

    def _sample_recycled(self, step: int, clock: Clock) -> Sampled:
        """Groups of the oldest recycled problems, from the current weights, once enough have gathered.

        For each that is too long to ask the next one takes its place, as long as there is one.
        """
        count = self.config.recycle.ready
        if not self.pool.ready(count):
            return Sampled([], [])
        return self.sampler.sample(self.pool.oldest(), stream_seed(self.config.seed, "recycled", step), clock, count)


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
    run_dir, watcher, config = Path(config.run_dir), watcher or Silent(), with_resolved_paths(config)
    checkpoint.check_run(run_dir, config, resume)
    saved = checkpoint.checkpoints(run_dir)[-1:] if resume else []
    weights = saved[0] / "model" if saved else None
    asked, config = config.rollout.max_prompt_tokens, fitted_to_model(config, weights)
    if (limit := config.rollout.max_prompt_tokens) < asked:
        watcher.phase(f"prompts have at most {limit} tokens: with a response, the model holds no more")
    watcher.phase("loading the data and the model")
    problems, exams = load_all_problems(config)
    actor = open_actor(config, weights)
    steps = config.train.steps or -(-config.train.episodes * len(problems) // config.rollout.problems)
    needs_reference = config.objective.kl > 0 and config.model.lora is None
    reference = load_model(config) if needs_reference else None
    learner = LocalLearner(actor.loaded, config, reference)
    pool, found = Pool(config.recycle.pool_size), Progress()
    if saved:
        pool, found = checkpoint.load_checkpoint(saved[0], learner, config.recycle.pool_size)
    if found.step > steps:
        raise ConfigError(f"{run_dir} has done {found.step} steps already, more than the {steps} asked for")
    progress = replace(found, steps=steps, terms=checkpoint.arithmetic(config, actor.loaded.device))
    if saved:
        for line in checkpoint.resume_notes(found, progress, learner, config.optimiser.schedule):
            watcher.note(line)
    check_prompts(problems, actor, config)

    checkpoint.open_run(run_dir, config, resume)  # not before data and model are known to load
    with Verifier(config.verify) as verifier:
        sampler = Sampler(actor.engine, actor.chat, verifier, config.rollout, config.reward)
        loop = Loop(config, problems, sampler, learner, pool, progress)
        pairs = checkpoint.remembered(run_dir / "pairs.json", lambda: draw_all_pairs(actor, verifier, exams, watcher))
        before = checkpoint.remembered(
            run_dir / "before.json", lambda: examine(actor, verifier, exams, pairs, "before training", watcher)
        )
        run_steps(loop, steps, run_dir, watcher)
        learner.save_pretrained(run_dir / "model")
        after = examine(actor, verifier, exams, pairs, "after training", watcher)
    summary = checkpoint.summarise(config, before, after, progress)
    write_json(run_dir / "summary.json", summary)
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
    batch = batch_of(problems, 0, config.rollout.problems, config.seed, config.data.shares)
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
            for task in TASKS:
                progress.skipped[task] = progress.skipped.get(task, 0) + metrics[f"skipped/{task}"]
            metrics |= {"seconds": seconds, "tokens_per_second": metrics["tokens"] / seconds}
            log.append(metrics)
            for record in rollout_records(groups, progress.step, settings.sample_rollouts, loop.config.chat):
                rollouts.append(record)
            watcher.step(metrics)
            if progress.step % settings.save_every == 0 or progress.step == steps:
                checkpoint.save_checkpoint(run_dir, loop.learner, loop.pool, progress, settings.keep)
        watcher.end()
    if any(progress.skipped.values()):
        counts = ", ".join(f"{count:,} {task}" for task, count in progress.skipped.items() if count)
        watcher.note(f"problems not asked, because longer than rollout.max_prompt_tokens: {counts}")


def load_all_problems(config: Config) -> tuple[tuple[Problem, ...], dict[str, tuple[Problem, ...]]]:
    """Training problems, and the held-out and transfer problems by name, none of which is trained on.

    What is split off the training data is in no other exam: files are read first, then each split is drawn from what is
    left of the data.
    """
    problems = load_problems(config.data.train, config.data, "train")
    sources = {"heldout": config.data.heldout, "transfer": config.data.transfer}
    splits = {name: source for name, source in sources.items() if source is not None and source.startswith("split:")}
    exams: dict[str, tuple[Problem, ...]] = {}
    for name in ("heldout", "transfer"):
        if (source := sources[name]) is not None and name not in splits:
            exams[name] = load_problems(source, config.data, name)
    problems, _ = remove_overlap(problems, [problem for exam in exams.values() for problem in exam])
    for name, source in splits.items():
        count = _split_size(name, source, len(problems))
        exams[name] = tuple(random.Random(f"split:{config.seed}").sample(problems, count))
        problems, _ = remove_overlap(problems, exams[name])
    return problems, {name: exams[name][: config.evaluation.problems] for name in sources if name in exams}


def _split_size(name: str, source: str, available: int) -> int:
    """N of ``split:N``. Raises :class:`ConfigError` if it is not a number that leaves something to train on."""
    text = source.removeprefix("split:")
    if not text.isdecimal() or not 0 < int(text) < available:
        raise ConfigError(f"data.{name} {source!r}: N in split:N must be from 1 to {available - 1}, what the data has")
    return int(text)


def draw_all_pairs(
    actor: Actor, verifier: Verifier, exams: Mapping[str, Sequence[Problem]], watcher: Watcher
) -> dict[str, list[dict[str, str]]]:
    """The pairs of responses that the model compares before and after training, by exam, as JSON values."""
    if exams:
        watcher.phase("drawing pairs of responses to compare")
    return {
        name: [asdict(pair) for pair in draw_pairs(actor.reasoner(), verifier, exam)] for name, exam in exams.items()
    }


def examine(
    actor: Actor,
    verifier: Verifier,
    exams: Mapping[str, Sequence[Problem]],
    pairs: Mapping[str, Sequence[Mapping[str, str]]],
    when: str,
    watcher: Watcher,
) -> dict[str, Scores]:
    """The scores of every exam with the current weights."""
    scores = {}
    for name, problems in exams.items():
        watcher.phase(f"evaluating {len(problems)} {name} problems {when}")
        compared = [Pair(**pair) for pair in pairs[name]]
        scores[name] = HeldOutEvaluation(actor.reasoner(), verifier, problems, compared).run()
    return scores


def second_period(config: Config) -> float:
    """Where in a step, from 0 to 1, the update on recycled problems begins; 1 if it has no update of its own."""
    recycling = config.recycle.pointwise or config.recycle.pairwise or config.recycle.reflection
    if not recycling or config.train.periods == "combined":
        return 1.0
    return 0.5 if config.train.policy_update else 0.0


def batch_of(
    problems: Sequence[Problem], step: int, size: int, seed: int, shares: Mapping[str, float] | None = None
) -> list[Problem]:
    """The batch of a step: the data in a new random order each pass, a function of the step alone. ``shares`` are those
    of several sources in a pass, see :mod:`spark_rl.data.mixture`."""
    batch: list[Problem] = []
    for position in range(step * size, (step + 1) * size):
        number, place = divmod(position, len(problems))
        if not batch or place == 0:
            order = pass_order(problems, number, seed, shares)
        batch.append(problems[order[place]])
    return batch
