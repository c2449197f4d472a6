"""One training run from its configuration to its report: build, resume, examine, train, write."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError

from spark_rl import checkpoint
from spark_rl.ahead import Upcoming, ahead_of, load_ahead
from spark_rl.ahead import state as ahead_state
from spark_rl.backend import Backend, build_learner, check_engine, frozen_engine, open_backend, probed
from spark_rl.checkpoint import Progress
from spark_rl.config import Config
from spark_rl.control import Control
from spark_rl.data.batches import Batches, Shuffled
from spark_rl.errors import ConfigError, DataError, DiskError, EngineError, Stopped, UserError, VerifierError
from spark_rl.examination import DURING, EVALUATIONS, LOGS, Examination
from spark_rl.files import disk_error, write_json
from spark_rl.given import Given, load_all_problems
from spark_rl.health import Health
from spark_rl.hints import Hints
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.length import length_of
from spark_rl.lock import hold
from spark_rl.loop import Loop
from spark_rl.manifest import changes, held
from spark_rl.measure import Metrics, rollout_records
from spark_rl.model.load import fitted_to_model
from spark_rl.model.memory import is_out_of_memory
from spark_rl.parts import with_resolved_paths
from spark_rl.problem import TASKS, Problem
from spark_rl.recycle import Pool, load_templates
from spark_rl.report.card import write_card
from spark_rl.report.html import write_report
from spark_rl.report.metrics import Damage, MetricsLog, finite, read_metrics
from spark_rl.report.renewal import Renewal
from spark_rl.report.watch import Silent, Watcher
from spark_rl.rewards import Guard, open_rewards, with_hidden
from spark_rl.rollout import Sampler, build_grader
from spark_rl.runs import WRITTEN_ONCE, kept_bytes, mark_latest, new_run_dir, newest_whole, seen_by, set_aside
from spark_rl.selfreward import SelfSampler, self_sampler
from spark_rl.track import Trackers, check_trackers


def train(
    config: Config, *, resume: bool = False, watcher: Watcher | None = None, given: Given | None = None,
    advice: str | None = None,
) -> Metrics:  # fmt: skip
    """Run the loop to its end, write the report, and return what ``summary.json`` holds.

    Args:
        config: a resolved configuration; without ``run_dir`` it is written to ``runs/<time>-seed<seed>``.
        resume: continue the run in ``config.run_dir`` from its last checkpoint.
        watcher: hears of phases and steps as they happen.
        given: a model or problems that are in memory.
        advice: what the line of a stopped run says to do; the command that continues it by default.

    Raises:
        ConfigError: settings, model or run directory can't be used.
        DataError: the data can't be used.
        UserError: what is trained is no model any more, because its numbers are not finite.
        Stopped: a signal came; what was done is saved, and the line says how to go on. A ``KeyboardInterrupt``.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"config is a {type(config).__name__}; give what load_config() returns")
    control = Control(watcher.note if watcher else None)
    with _told_of_signals(control), control.listening():
        run = Run(config, resume=resume, watcher=watcher, given=given, control=control, advice=advice)
        with run:
            return run.train()


@contextmanager
def _told_of_signals(control: Control) -> Iterator[None]:
    """Within, what a signal made of an import or of a library that loads is the stop that it was."""
    try:
        yield
    except Exception:
        if control.signal is not None:
            raise control.stopped() from None
        raise


class Run:
    """A run that is ready to be trained: everything is loaded, and its directory is written."""

    def __init__(
        self,
        config: Config,
        *,
        resume: bool = False,
        watcher: Watcher | None = None,
        given: Given | None = None,
        control: Control | None = None,
        advice: str | None = None,
    ) -> None:
        """Load data and model, and open the run directory. See :func:`train`; ``control`` can stop the run."""
        if config.run_dir is None:
            config = config.model_copy(update={"run_dir": new_run_dir(config.seed)})
        given, config = given or Given(), with_resolved_paths(config)
        given.check(config)
        check_engine(config, given.engine)
        check_trackers(config)
        self.run_dir, self.watcher = Path(str(config.run_dir)), watcher or Silent()
        self.control = control or Control(self.watcher.note)
        named = str(config.run_dir)
        named = f"./{named}" if named.startswith("-") else named  # or it would be an option
        go_on = f"continue with: spark-rl train --run-dir {shlex.quote(named)} --resume"
        if given != Given():
            go_on = f"continue with train(resume_from_checkpoint={named!r}) and the same arguments"
        go_on = advice or go_on
        if resume:
            self.control.advice = go_on
        checkpoint.check_run(self.run_dir, config, resume)
        self.hold = hold(self.run_dir)
        try:
            self._load(config, resume, given, go_on)
        except BaseException:
            self.hold.release()
            if hasattr(self, "backend"):
                self.backend.close()
            raise

    def _load(self, config: Config, resume: bool, given: Given, go_on: str) -> None:
        """Load data and model and write the run directory, whose lock is held."""
        saved = self._newest_checkpoint() if resume else None
        self.seen: dict[str, Any] = {} if saved is None else seen_by(saved)["files"]
        for line in () if saved is None else checkpoint.check_files(self.run_dir, saved):
            self.watcher.note(line)
        weights = None if saved is None else saved / "model"
        asked, config = config.rollout.max_prompt_tokens, fitted_to_model(config, weights, given.model)
        if (limit := config.rollout.max_prompt_tokens) < asked:
            self.watcher.phase(f"prompts have at most {limit} tokens: with a response, the model holds no more")
        load_templates(config.recycle.templates, config.verify.thinking)  # what is wrong with them is told first
        self.config, self.rewards = config, open_rewards(config.reward, given.rewards, self.watcher.note)
        self.watcher.phase("loading the data and the model")
        problems, exams = load_all_problems(config, given)
        counted = {} if given.batches is not None else {"train": len(problems)}
        self.problems = counted | {name: len(exam) for name, exam in exams.items()}
        batches = with_hidden(self._batches(problems, exams, given), problems, config)
        self.backend = open_backend(config, weights, given.model, given.engine)
        self.learner = build_learner(self.backend, given.reference, weights)
        pool = self._go_on(saved, resume)
        check_prompts(problems, batches.of(0), self.backend)
        self.backend.engine.sync(self.learner.weights())
        checkpoint.open_run(self.run_dir, config, resume)  # not before data and model are known to load
        mark_latest(self.run_dir)
        self.control.advice = go_on
        self.verifier, chat = self.backend.verifier(), self.backend.chat
        self.grader = build_grader(chat, self.verifier, config.reward, self.rewards)
        engine = probed(config, self.backend.engine, self.learner)
        sampler = Sampler(engine, chat, self.verifier, config.rollout, config.reward, self.rewards)
        self.guard: Guard | None = None
        if (own := config.reward.self) is not None:
            judge = frozen_engine(self.backend, given.reference) if own.judge == "frozen" else engine
            self.guard = Guard(own)
            sampler = self_sampler(sampler, config, judge, self.guard)
        self.sampler = sampler
        self.upcoming: Upcoming | None = None
        if config.rollout.ahead:
            done, ahead = self.progress.step, config.rollout.ahead
            end = sys.maxsize if self.length.tokens is not None else self.progress.steps
            self.upcoming = Upcoming(sampler, batches, config.seed, ahead, done, end)
            self.upcoming.ready = {} if saved is None else load_ahead(saved, chat)
            sampler = ahead_of(sampler, self.upcoming)
        self.loop = Loop(config, batches, sampler, self.learner, pool, self.progress.step, self.progress.steps)
        self.examination = Examination(
            self.run_dir, exams, config.train, lambda: self.reasoner, self.grader, self.watcher
        )
        self.health, self.hints, self._saved = Health(self.run_dir, config), Hints(), self.progress.step
        self.saver, self._deaths = checkpoint.Saver(), 0
        self.renewal = Renewal(self.run_dir, config.train.report_every, self.watcher.note)
        self.trackers = Trackers(config, self.run_dir, self.watcher.note)

    def _newest_checkpoint(self) -> Path | None:
        """The newest checkpoint that is as it was written; those that are damaged are said and set aside."""
        saved, damaged = newest_whole(self.run_dir)
        for path, why in damaged.items():
            self.watcher.note(f"checkpoint {path.name} is damaged ({why}), so it is not used; it is kept as "
                              f"{set_aside(path).name}")  # fmt: skip
        return saved

    def _batches(self, problems: Sequence[Problem], exams: Mapping[str, Sequence[Problem]], given: Given) -> Batches:
        """Where the batches come from, and how many steps they make; says what can't be trained on as it is."""
        config = self.config
        if config.train.eval_every is not None and DURING not in exams:
            raise ConfigError("train.eval_every needs held-out problems; set data.heldout, e.g. to split:100")
        if self.rewards is not None:
            if config.reward.self is not None:
                raise ConfigError("reward.self puts the model's verdict in the place of gold answers, so reward "
                                  "functions can't stand beside it; leave out one of the two")  # fmt: skip
            self.rewards.check(problems)
        if given.batches is not None:
            if config.train.steps is None and config.train.tokens is None:
                raise ConfigError("a stream has no end to be counted to; say with train.steps how many steps to train")
            self.length = length_of(config, None)
            return given.batches
        if len(problems) < config.rollout.problems:
            self.watcher.note(f"rollout.problems asks for {config.rollout.problems} problems a step, and the data has "
                              f"{len(problems)}: a batch holds some of them more than once")  # fmt: skip
        self.length = length_of(config, len(problems))
        return Shuffled(problems, config.rollout.problems, config.seed, config.data.shares)

    def _go_on(self, saved: Path | None, resume: bool) -> Pool:
        """The pool and the counters, of a checkpoint if there is one; says what a resumed run goes on from."""
        config, pool, found = self.config, Pool(self.config.recycle.pool_size), Progress()
        if saved is not None:
            pool, found = checkpoint.load_checkpoint(saved, self.learner, config.recycle.pool_size)
        steps = self.length.expected(found.step, found.tokens)
        if found.step > steps:
            raise ConfigError(f"{self.run_dir} has done {found.step} steps already, more than the {steps} asked for")
        terms = checkpoint.arithmetic(config, self.backend.device)
        self.progress = replace(found, steps=steps, terms=terms)
        if saved is not None:
            for line in checkpoint.resume_notes(found, self.progress, self.learner, config.optimiser.schedule):
                self.watcher.note(line)
        if resume:
            self.watcher.note(checkpoint.resume_line(self.run_dir, self.progress))
        return pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold.failed = kind is not None and issubclass(kind, Exception)
        self.close()

    def close(self) -> None:
        """End workers and reward functions, free what the engine holds, and let others write the run directory."""
        with ExitStack() as stack:
            stack.callback(self.hold.release)
            stack.callback(self.trackers.finish, failed=self.hold.failed)
            stack.callback(self.backend.close)
            if self.upcoming is not None:
                stack.callback(self.upcoming.close)
            if self.rewards is not None:
                stack.callback(self.rewards.close)
            stack.callback(self.verifier.close)

    @property
    def reasoner(self) -> Reasoner:
        """The model with its current weights, answering, judging and reflecting."""
        return build_reasoner(self.backend.engine, self.backend.chat, self.config)

    @property
    def _is_over(self) -> bool:
        """Whether the last step is done."""
        return self.length.is_over(self.progress.step, self.progress.tokens)

    def train(self) -> Metrics:
        """All remaining steps between two examinations; returns what ``summary.json`` holds. See :func:`train`."""
        with self.control.listening(), self._within_limits():
            self.trackers.start(self.progress.step, self.progress.tokens)
            before = self.examination.before(self.progress.step, self.seen)
            if self.progress.step == 0:
                self.trackers.evaluated(0, before)
            self.whole = {name: held(self.run_dir / name) for name in WRITTEN_ONCE}
            self._steps()
            checkpoint.export_model(self.run_dir, self.learner, self.progress.step)
            after = self.examination.after(self.progress.step, self.progress.tokens)
            self.trackers.evaluated(self.progress.step, after)
            summary = checkpoint.summarise(self.config, before, after, self.progress) | self._outcome()
            summary["problems"] = self.problems
            write_json(self.run_dir / "summary.json", summary)
            write_report(self.run_dir)
            write_card(self.run_dir)
        return summary

    @contextmanager
    def _within_limits(self) -> Iterator[None]:
        """Within, what fails around the run (memory, disk, engine, verifier) is one line, which says how to go on once
        it is mended."""
        try:
            yield
        except (EngineError, VerifierError) as error:
            raise type(error)(f"{error}; once that is mended, {self.control.advice}") from error.__cause__
        except (RuntimeError, MemoryError) as error:
            if "does not have a deterministic implementation" in str(error):
                raise ConfigError(
                    f"model.deterministic=true can't be had here: {str(error).split(',')[0]}; with "
                    f"model.deterministic=false, {self.control.advice}"
                ) from None
            if not is_out_of_memory(error):
                raise
            said = " ".join(str(error).split())[:160] or "MemoryError"
            raise UserError(
                f"out of memory at step {self.loop.step + 1} ({said}); `spark-rl plan` says what fits: less "
                "rollout.max_new_tokens or engine.max_rows, model.gradient_checkpointing=true, model.lora, or "
                f"learners on more GPUs; with as much memory as it needs, {self.control.advice}"
            ) from None
        except (OSError, SafetensorError) as error:
            if isinstance(error, BrokenPipeError) or (why := disk_error(error)) is None:
                raise
            run, place = self.run_dir, getattr(error, "filename", None)
            where = f"{run} is gone" if not run.is_dir() else f"cannot read or write {place or run}: {why}"
            room = "; free some space" if any(word in why.lower() for word in ("space", "quota")) else ""
            raise DiskError(f"{where}{room}; {self.control.advice}") from None

    def _steps(self) -> None:
        """The remaining steps: each is logged, shown, evaluated if it is due, and saved if it is due."""
        run_dir, progress = self.run_dir, self.progress
        with MetricsLog(run_dir / "metrics.jsonl") as log, MetricsLog(run_dir / "rollouts.jsonl") as rollouts:
            self.logs = (log, rollouts)
            for one in self.logs:
                self._tell(one.truncate(progress.step, kept_bytes(self.seen, one.path.name)))
            damaged = self.examination.open(progress.step, self.seen)
            for damage in damaged:
                self._tell(damage)
            if self.guard is not None:
                self.guard.recall(read_metrics(run_dir / "metrics.jsonl"))
            best = self.examination.best  # a session that was ended may not have removed what it should
            if any(one.path.name == EVALUATIONS for one in damaged) or changes(run_dir, self.seen, [EVALUATIONS]):
                checkpoint.check_best(run_dir, None if best is None else best.step)
            checkpoint.rotate(run_dir, self.config.train.keep, None if best is None else best.step)
            self.watcher.begin(progress.steps, progress.step)
            try:
                self._after_step()  # what a stop left undone
                while not self._is_over and self.control.reason is None:
                    with self.control.finishing():
                        metrics = self._step(log, rollouts)
                    self.watcher.step(metrics)
                    for hint in self.hints.hear(metrics):
                        self.watcher.hint(hint)
                    self._after_step()
            except (DataError, EngineError, VerifierError, BrokenPipeError):  # of a stream, or of who reads the output
                if self._saved != progress.step == self.loop.step and not self._half_done:
                    self._save()
                self._collect(wait=True)
                raise
            except Stopped:
                if self.control.forced:  # perhaps in the middle of an update
                    raise
                if self._saved != progress.step:
                    self._save()
                self._collect(wait=True)
                raise self.control.stopped(f"at step {progress.step} of {progress.steps}, which is saved"
                                           if progress.step else "before the first step") from None  # fmt: skip
            self.watcher.end()
        if any(progress.skipped.values()):
            counts = ", ".join(f"{count:,} {task}" for task, count in progress.skipped.items() if count)
            self.watcher.note(f"problems not asked, because longer than rollout.max_prompt_tokens: {counts}")

    def _tell(self, damage: Damage | None) -> None:
        """Say which rows of a file are damaged, in each session again."""
        if damage is not None:
            damage.tell(self.watcher.note, again=True)

    def _step(self, log: MetricsLog, rollouts: MetricsLog) -> Metrics:
        """One step of the loop, counted and logged."""
        progress, started = self.progress, time.perf_counter()
        metrics, groups = self.loop.advance()
        if isinstance(self.sampler, SelfSampler):
            metrics |= (told := self.sampler.tell()) | {"tokens": metrics["tokens"] + told["self/tokens"]}
        seconds = time.perf_counter() - started
        progress.step = self.loop.step
        progress.tokens += metrics["tokens"]
        progress.seconds += seconds
        progress.steps = self.loop.steps = self.length.expected(progress.step, progress.tokens)
        for task in TASKS:
            progress.skipped[task] = progress.skipped.get(task, 0) + metrics[f"skipped/{task}"]
        metrics |= self._restarts() | {"seconds": seconds, "tokens_per_second": metrics["tokens"] / seconds}
        if self.length.tokens is not None:
            metrics["steps"] = progress.steps
        if fewer := [metrics[name] for name in ("micro_tokens", "micro_tokens/recycled") if name in metrics]:
            progress.terms = {**progress.terms, "learner.micro_tokens": int(min(fewer))}
        log.append(metrics)
        if self.guard is not None:
            self.guard.hear(metrics)
        records = list(rollout_records(groups, progress.step, self.config.train.sample_rollouts, self.config.chat))
        for record in records:
            rollouts.append(record)
        self.trackers.step(metrics, records)
        self.health.check(metrics, groups)
        return metrics

    def _after_step(self) -> None:
        """The evaluation and the checkpoint that the last step asks for, and whether the run ends with it."""
        settings, step, control, examination = self.config.train, self.progress.step, self.control, self.examination
        self._collect(wait=False)
        if self.guard is not None and (why := self.guard.why_to_stop()) is not None:
            control.stop(why)
        last = self._is_over or control.reason is not None
        if examination.is_due(step, last=last) or (control.evaluate and DURING in examination.exams):
            control.evaluate = False
            examination.during(step, self.progress.tokens)
            self.trackers.evaluated(step, {DURING: examination.records[-1]})
        if (why := examination.why_to_stop()) is not None:
            control.stop(why)
        best = examination.best
        is_best = best is not None and best.step == step
        due = step % settings.save_every == 0 or last or is_best or control.save or control.reason is not None
        if due and self._saved != step:
            control.save = False
            with control.finishing():
                self._save()
        if last:
            self._collect(wait=True)
        if best is not None:
            checkpoint.mark_best(self.run_dir, best.step)
        if not self._is_over:  # else it is written with the summary
            self.renewal.after(step)

    def _save(self) -> None:
        """Write a checkpoint, or begin to, unless the weights are broken."""
        self._collect(wait=True)
        self.health.check_weights(self.learner, self.progress.step)
        best = self.examination.best
        files = self.whole | {log.path.name: log.held for log in self.logs}
        files |= {name: held(path) for name in LOGS if (path := self.run_dir / name).exists()}
        self.saver.save(
            self.run_dir, self.learner, self.loop.pool, self.progress, self.config.train.keep,
            None if best is None else best.step, ahead_state(self.upcoming.ready) if self.upcoming else None,
            {"config": self.config.model_dump(mode="json"), "files": files},
        )  # fmt: skip
        self._saved = self.progress.step
        self._collect(wait=False)

    @property
    def _half_done(self) -> bool:
        """Whether what would be saved now is the state of no step: a batch that was sampled ahead may be taken too."""
        return self.loop.half_done or (self.upcoming is not None and self.upcoming.step != self.loop.step)

    def _collect(self, *, wait: bool) -> None:
        """Say that a checkpoint is written, when it is."""
        if (path := self.saver.collect(wait=wait)) is not None:
            self.watcher.saved(path)

    def _restarts(self) -> Metrics:
        """Processes that died and were started again since this was asked last, the verifier's workers too where no
        cluster has them."""
        found: Metrics = dict(self.backend.restarts())
        if self.backend.cluster is None and (new := self.verifier.deaths - self._deaths):
            found["restarts/verifier"], self._deaths = new, self.verifier.deaths
        return found

    def _outcome(self) -> Metrics:
        """What the summary says about the end of the run and its best evaluation, where there is something to say."""
        outcome: Metrics = {}
        logged = read_metrics(self.run_dir / "metrics.jsonl")
        last = self._restarts()  # since the last step
        kinds = ("learner", "engine", "verifier")
        restarts = {
            kind: int(sum(finite(record.get(f"restarts/{kind}")) or 0 for record in [*logged, last])) for kind in kinds
        }  # fmt: skip
        if any(restarts.values()):
            outcome["restarts"] = restarts
        if self.control.reason is not None:
            self.watcher.note(f"ended at step {self.progress.step} of {self.progress.steps}: {self.control.reason}")
            outcome["stopped"] = {"step": self.progress.step, "reason": self.control.reason}
        if (best := self.examination.best) is not None:
            model = self.run_dir / "checkpoints" / f"step-{best.step:06d}"
            use = f"--model {shlex.quote(str(model))}"
            self.watcher.note(f"best {best.metric} was {best.score:.3f} at step {best.step}: {use}")
            outcome["best"] = {"metric": best.metric, "score": best.score, "step": best.step, "use": use}
        return outcome


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
