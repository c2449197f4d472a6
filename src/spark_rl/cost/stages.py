"""The stages of both arms, each measured: preferences, the reward model, and reinforcement learning with either reward.

Seconds are those of the phases of a step (:mod:`spark_rl.clock`), tokens those of ``metrics.jsonl``; what an update is
trained on is counted here, since responses without an advantage are left out of it and a KL term reads once more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from spark_rl.ablate import ARMS
from spark_rl.backend import Backend, open_backend
from spark_rl.chat import chat_of
from spark_rl.clock import Clock
from spark_rl.config import Config, merge_settings, parse_config
from spark_rl.control import Control
from spark_rl.cost.memory import peak_mib, restart_peak
from spark_rl.cost.preferences import Pair, pairs_of
from spark_rl.cost.record import Phase, Stage
from spark_rl.cost.reward_model import RATE, RewardModel, RewardTraining, new_reward_model
from spark_rl.data.batches import Shuffled
from spark_rl.errors import UserError
from spark_rl.given import Given
from spark_rl.learner.base import Learner, Span
from spark_rl.learner.samples import Sample, to_samples
from spark_rl.model.load import load_model, resolve_device
from spark_rl.model.weights import Weights
from spark_rl.problem import Group, Problem
from spark_rl.report.metrics import read_metrics
from spark_rl.report.watch import Watcher
from spark_rl.rewards import Grader, WeightedReward, open_rewards
from spark_rl.rollout import Sampler, build_grader
from spark_rl.run import Run
from spark_rl.seeds import stream_seed

NAME = "reward_model"
"""The reward function's name in the metrics of a run."""
GO_ON = "the same command goes on: stages that are done are kept, this one begins again"
PATIENCE = 1e6
"""Seconds that the reward model may take for a batch: it is not a user's code, which may hang."""


def rm_config(config: Config, threshold: float) -> Config:
    """RM-based RL: nothing is recycled, and the reward model alone gives rewards. The log calls a response right from
    ``threshold`` on; no update depends on it.
    """
    reward = {"function": None, "verifier": None, "timeout": PATIENCE, "threshold": threshold}
    tree = config.model_dump()
    merge_settings(tree, {**ARMS["policy-only"], "reward": reward})
    return parse_config(tree)


@contextmanager
def grading(backend: Backend, config: Config) -> Iterator[Grader]:
    """What says which responses are right: the verifier, or the recipe's own reward functions."""
    rewards = open_rewards(config.reward)
    try:
        with backend.verifier() as verifier:
            yield build_grader(backend.chat, verifier, config.reward, rewards)
    finally:
        if rewards is not None:
            rewards.close()


def draw_preferences(
    config: Config, problems: Sequence[Problem], training: RewardTraining, weights: int
) -> tuple[Stage, list[Pair]]:
    """Responses of the base to training problems, graded once, as pairs.

    Args:
        config: of the recipe, with the repeat's seed.
        problems: those that are trained on.
        training: how many of them are asked.
        weights: of the policy, that each token is multiplied with.

    Raises:
        UserError: the base gave no problem a right and a wrong response.
    """
    restart_peak(resolve_device(config.model.device))
    seed, clock, rollout = config.seed, Clock(), config.rollout
    backend, groups = open_backend(config), list[Group]()
    try:
        with grading(backend, config) as grader:
            sampler = Sampler(backend.engine, backend.chat, grader.verifier, rollout, config.reward, grader.rewards)
            batches = Shuffled(problems, rollout.problems, stream_seed(seed, "preferences"), config.data.shares)
            for number in range(-(-training.problems // rollout.problems)):
                asked = batches.of(number)[: training.problems - number * rollout.problems]
                groups += sampler.sample(asked, stream_seed(seed, "preferences", number), clock).groups
    finally:
        backend.close()
    pairs = pairs_of(groups, seed)
    if not pairs:
        raise UserError(f"the base gave none of {len(groups)} problems a right and a wrong response, so there is no "
                        "preference to learn; ask more with --rm-problems, or choose another base")  # fmt: skip
    prompts = sum(len(group.prompt_ids) for group in groups)
    generated = sum(rollout.completion.tokens for group in groups for rollout in group.rollouts)
    seconds = clock.seconds
    phases = (
        Phase("sample", seconds.get("time/sample", 0.0), generated, prompts + generated, weights=weights),
        Phase("verify", seconds.get("time/verify", 0.0)),
    )
    return Stage("preferences", phases, peak_mib(backend.device), len(pairs)), pairs


def train_reward_model(config: Config, pairs: Sequence[Pair], training: RewardTraining, folder: Path) -> Stage:
    """A reward model from the base, trained on pairs and written into ``folder``."""
    device = resolve_device(config.model.device)
    restart_peak(device)
    base = config.with_model(lora=None)
    loaded = load_model(base)
    model = new_reward_model(loaded, chat_of(base, loaded), config)
    del loaded
    began = time.perf_counter()
    tokens = model.fit(pairs, training, training.lr or RATE * config.optimiser.lr, config.seed)
    phase = Phase("train", time.perf_counter() - began, trained=tokens, weights=model.multiplied)
    peak = peak_mib(device)
    model.save(folder)
    return Stage("reward model", (phase,), peak)


class Counted:
    """A learner for the loop that counts what it is trained on."""

    def __init__(self, learner: Learner, config: Config) -> None:
        self.learner, self.config = learner, config
        self.trained = 0
        """Tokens that gradients were computed for: prompts once a group, and responses."""
        self.forward = 0
        """Tokens read beside that: by the reference of a KL term, and before several updates on one batch."""

    def update(self, groups: Sequence[Group], span: Span | None = None) -> dict[str, float]:
        """See :meth:`spark_rl.learner.base.Learner.update`."""
        kl, passes = self.config.objective.kl > 0, self.config.learner.epochs
        samples, _ = to_samples(groups, self.config)
        tokens = tokens_of([sample for sample in samples if kl or sample.advantage != 0.0])
        self.trained += passes * tokens
        self.forward += passes * tokens * kl
        if self.config.learner.minibatches * passes > 1:
            self.forward += tokens_of(samples)
        return self.learner.update(groups, span)

    def weights(self) -> Weights:
        """See :meth:`spark_rl.learner.base.Learner.weights`."""
        return self.learner.weights()


def tokens_of(samples: Sequence[Sample]) -> int:
    """Tokens of the responses, and of each group's prompt once."""
    prompts = {sample.group: len(sample.prompt_ids) for sample in samples}
    return sum(prompts.values()) + sum(len(sample.token_ids) for sample in samples)


@contextmanager
def learning(
    config: Config, problems: Sequence[Problem], judge: RewardModel | None, weights: int, watcher: Watcher
) -> Iterator[tuple[Stage, Run]]:
    """Reinforcement learning to its end: its cost, and the run with the trained model, to be examined within.

    Args:
        config: of the arm, with its ``run_dir`` and without held-out problems.
        problems: those that are trained on.
        judge: gives the rewards; without it the recipe does.
        weights: of the policy, that each token is multiplied with.
        watcher: hears of the run.

    Raises:
        UserError: the reward model failed on a response.
    """
    device = resolve_device(config.model.device)
    rewards = () if judge is None else (WeightedReward(judge, 1.0, NAME),)
    if judge is not None:
        judge.tokens, judge.seconds = 0, 0.0
    restart_peak(device)
    control = Control(watcher.note)
    given = Given(train=problems, rewards=rewards)
    with control.listening(), Run(config, watcher=watcher, given=given, control=control, advice=GO_ON) as run:
        counted = Counted(run.learner, config)
        run.loop.learner = cast("Learner", counted)  # the loop asks for no more
        run.train()
        peak = peak_mib(device)
        records = read_metrics(run.run_dir / "metrics.jsonl")
        failed = sum(record.get(f"reward_failed/{NAME}", 0.0) for record in records)
        if failed:
            raise UserError("the reward model failed on responses, so the arm is not what it is named; see the line "
                            "about the reward function above")  # fmt: skip

        def total(name: str) -> float:
            return float(sum(record.get(name, 0) for record in records))

        generated, prompts, verify = int(total("tokens")), int(total("prompt_tokens")), total("time/verify")
        graded = sum(round(record["tokens"] / record["length/mean"]) for record in records if record["tokens"])
        phases = [
            Phase("sample", total("time/sample"), generated, prompts + generated, weights=weights),
            Phase(
                "verify", verify if judge is None else max(0.0, verify - judge.seconds), graded=graded * (judge is None)
            ),
            Phase("update", total("time/update"), 0, counted.forward, counted.trained, weights),
            Phase("recycle", total("time/recycle")),
        ]
        if judge is not None:
            phases.insert(2, Phase("score", judge.seconds, 0, judge.tokens, 0, judge.multiplied, graded))
        yield Stage("reinforcement learning", tuple(phases), peak), run
