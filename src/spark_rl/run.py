"""One training run from its configuration to its report: build, resume, examine, train, write."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from spark_rl import checkpoint
from spark_rl.backend import Backend, build_learner, open_backend
from spark_rl.checkpoint import Progress
from spark_rl.config import Config
from spark_rl.data import load_problems, remove_overlap
from spark_rl.data.batches import Shuffled
from spark_rl.errors import ConfigError
from spark_rl.evals.heldout import HeldOutEvaluation, Pair, Scores, draw_pairs
from spark_rl.files import write_json
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.loop import Loop
from spark_rl.measure import Metrics, rollout_records
from spark_rl.model.load import fitted_to_model
from spark_rl.model.loaded import LoadedModel
from spark_rl.parts import with_resolved_paths
from spark_rl.problem import TASKS, Problem
from spark_rl.recycle import Pool, load_templates
from spark_rl.report.card import write_card
from spark_rl.report.html import write_report
from spark_rl.report.metrics import MetricsLog
from spark_rl.report.watch import Silent, Watcher
from spark_rl.rollout import Sampler
from spark_rl.runs import checkpoints
from spark_rl.verify import Verifier


@dataclass(frozen=True, slots=True)
class Given:
    """What a run is handed from Python in place of what its configuration names."""

    model: LoadedModel | None = None
    """A model in memory, in place of ``model.path``."""
    train: Sequence[Problem] | None = None
    """Problems, in place of ``data.train``."""
    heldout: Sequence[Problem] | None = None
    """Problems, in place of ``data.heldout``."""


def train(
    config: Config, *, resume: bool = False, watcher: Watcher | None = None, given: Given | None = None
) -> Metrics:
    """Run the loop to its end, write the report, and return what ``summary.json`` holds.

    Args:
        config: a resolved configuration with ``run_dir`` set.
        resume: continue the run in ``config.run_dir`` from its last checkpoint.
        watcher: hears of phases and steps as they happen.
        given: a model or problems that are in memory.

    Raises:
        ConfigError: settings, model or run directory can't be used.
        DataError: the data can't be used.
    """
    with Run(config, resume=resume, watcher=watcher, given=given) as run:
        return run.train()


class Run:
    """A run that is ready to be trained: everything is loaded, and its directory is written."""

    def __init__(
        self, config: Config, *, resume: bool = False, watcher: Watcher | None = None, given: Given | None = None
    ) -> None:
        """Load data and model, and open the run directory. See :func:`train`."""
        assert config.run_dir is not None, "whoever starts a run says where it is written"
        given, config = given or Given(), with_resolved_paths(config)
        self.run_dir, self.watcher = Path(str(config.run_dir)), watcher or Silent()
        checkpoint.check_run(self.run_dir, config, resume)
        saved = checkpoints(self.run_dir)[-1:] if resume else []
        weights = saved[0] / "model" if saved else None
        asked, config = config.rollout.max_prompt_tokens, fitted_to_model(config, weights)
        if (limit := config.rollout.max_prompt_tokens) < asked:
            self.watcher.phase(f"prompts have at most {limit} tokens: with a response, the model holds no more")
        load_templates(config.recycle.templates, config.verify.thinking)  # what is wrong with them is told first
        self.watcher.phase("loading the data and the model")
        self.config = config
        problems, self.exams = load_all_problems(config, given)
        self.problems = {"train": len(problems), **{name: len(exam) for name, exam in self.exams.items()}}
        self.backend = open_backend(config, weights, given.model)
        self.learner = build_learner(config, self.backend.loaded)
        self.steps = config.train.steps or -(-config.train.episodes * len(problems) // config.rollout.problems)
        pool, found = Pool(config.recycle.pool_size), Progress()
        if saved:
            pool, found = checkpoint.load_checkpoint(saved[0], self.learner, config.recycle.pool_size)
        if found.step > self.steps:
            raise ConfigError(
                f"{self.run_dir} has done {found.step} steps already, more than the {self.steps} asked for"
            )
        terms = checkpoint.arithmetic(config, self.backend.loaded.device)
        self.progress = replace(found, steps=self.steps, terms=terms)
        if saved:
            for line in checkpoint.resume_notes(found, self.progress, self.learner, config.optimiser.schedule):
                self.watcher.note(line)
        batches = Shuffled(problems, config.rollout.problems, config.seed, config.data.shares)
        check_prompts(problems, batches.of(0), self.backend)
        checkpoint.open_run(self.run_dir, config, resume)  # not before data and model are known to load
        self.backend.engine.sync(self.learner.weights())
        self.verifier = Verifier(config.verify)
        sampler = Sampler(self.backend.engine, self.backend.chat, self.verifier, config.rollout, config.reward)
        self.loop = Loop(config, batches, sampler, self.learner, pool, found.step, self.steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the verifier's workers and free what the engine holds."""
        self.verifier.close()
        self.backend.engine.close()

    @property
    def reasoner(self) -> Reasoner:
        """The model with its current weights, answering, judging and reflecting."""
        return build_reasoner(self.backend.engine, self.backend.chat, self.config)

    def train(self) -> Metrics:
        """All remaining steps between two examinations; returns what ``summary.json`` holds."""
        pairs = checkpoint.remembered(self.run_dir / "pairs.json", self._draw_pairs)
        before = checkpoint.remembered(self.run_dir / "before.json", lambda: self.examine(pairs, "before training"))
        self._steps()
        self.learner.export(self.run_dir / "model")
        after = self.examine(pairs, "after training")
        summary = checkpoint.summarise(self.config, before, after, self.progress) | {"problems": self.problems}
        write_json(self.run_dir / "summary.json", summary)
        write_report(self.run_dir)
        write_card(self.run_dir)
        return summary

    def examine(self, pairs: Mapping[str, Sequence[Mapping[str, str]]], when: str) -> dict[str, Scores]:
        """The scores of every exam with the current weights."""
        scores = {}
        for name, problems in self.exams.items():
            self.watcher.phase(f"evaluating {len(problems)} {name} problems {when}")
            compared = [Pair(**pair) for pair in pairs[name]]
            scores[name] = HeldOutEvaluation(self.reasoner, self.verifier, problems, compared).run()
        return scores

    def _draw_pairs(self) -> dict[str, list[dict[str, str]]]:
        """The pairs of responses that the model compares before and after training, by exam, as JSON values."""
        if self.exams:
            self.watcher.phase("drawing pairs of responses to compare")
        return {
            name: [asdict(pair) for pair in draw_pairs(self.reasoner, self.verifier, exam)]
            for name, exam in self.exams.items()
        }

    def _steps(self) -> None:
        """The remaining steps, logged, counted and saved."""
        settings, progress, run_dir = self.config.train, self.progress, self.run_dir
        with MetricsLog(run_dir / "metrics.jsonl") as log, MetricsLog(run_dir / "rollouts.jsonl") as rollouts:
            log.truncate(progress.step)
            rollouts.truncate(progress.step)
            self.watcher.begin(self.steps, progress.step)
            while progress.step < self.steps:
                started = time.perf_counter()
                metrics, groups = self.loop.advance()
                seconds = time.perf_counter() - started
                progress.step = self.loop.step
                progress.tokens += metrics["tokens"]
                progress.seconds += seconds
                for task in TASKS:
                    progress.skipped[task] = progress.skipped.get(task, 0) + metrics[f"skipped/{task}"]
                metrics |= {"seconds": seconds, "tokens_per_second": metrics["tokens"] / seconds}
                log.append(metrics)
                for record in rollout_records(groups, progress.step, settings.sample_rollouts, self.config.chat):
                    rollouts.append(record)
                self.watcher.step(metrics)
                if progress.step % settings.save_every == 0 or progress.step == self.steps:
                    checkpoint.save_checkpoint(run_dir, self.learner, self.loop.pool, progress, settings.keep)
            self.watcher.end()
        if any(progress.skipped.values()):
            counts = ", ".join(f"{count:,} {task}" for task, count in progress.skipped.items() if count)
            self.watcher.note(f"problems not asked, because longer than rollout.max_prompt_tokens: {counts}")


def check_prompts(problems: Sequence[Problem], batch: Sequence[Problem], backend: Backend) -> None:
    """Finds out before the first step whether the model can be asked these problems.

    Raises:
        ChatError: there are images, in whatever batch, and the model has no place for them.
        ConfigError: no prompt of the first batch is short enough, so that the run would do nothing.
    """
    sighted = next((problem for problem in problems if problem.images), None)
    if sighted is not None:
        backend.chat.encode(sighted)
    limit, lengths = backend.config.rollout.max_prompt_tokens, []
    for problem in batch:
        lengths.append(len(backend.chat.encode(problem).token_ids))
        if lengths[-1] <= limit:  # one is enough: images take long to prepare
            return
    raise ConfigError(
        f"every prompt of the first batch is longer than rollout.max_prompt_tokens ({limit}); "
        f"the shortest has {min(lengths)} tokens, so allow more"
    )


def load_all_problems(
    config: Config, given: Given | None = None
) -> tuple[tuple[Problem, ...], dict[str, tuple[Problem, ...]]]:
    """Training problems, and the held-out and transfer problems by name, none of which is trained on.

    What is split off the training data is in no other exam: files are read first, then each split is drawn from what is
    left of the data.
    """
    given = given or Given()
    problems = load_problems(config.data.train, config.data, "train") if given.train is None else tuple(given.train)
    sources = {"heldout": config.data.heldout, "transfer": config.data.transfer}
    exams: dict[str, tuple[Problem, ...]] = {}
    if given.heldout is not None:
        sources["heldout"], exams["heldout"] = None, tuple(given.heldout)
    splits = {name: source for name, source in sources.items() if source is not None and source.startswith("split:")}
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
