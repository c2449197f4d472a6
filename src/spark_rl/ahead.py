"""Overlap (``rollout.ahead``): the policy batches of the next steps are sampled while this step's update runs.

Departure from Sec. 3.1, in which every batch is sampled from the weights that it updates: a batch that is ``ahead``
steps ahead was sampled by the policy of as many steps before. Its completions say so (``Completion.version``), and the
learner weighs them by the engine's log-probabilities.

What is sampled when does not depend on how fast anything is. The update of step s starts the batch of step s + ahead
(the first one all the batches up to there), from the weights that the engine has at that moment, and the engine takes
no other weights before that batch is done. So two runs of one seed are the same, and no sample is more than ``ahead``
steps old. Batches that are done and not trained on yet are in the checkpoint: a resumed run trains on the same ones.

The engine must have weights of its own: one that decodes on the learner's would sample while they change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spark_rl.chat import Chat, Prompt
from spark_rl.clock import Clock
from spark_rl.data.batches import Batches
from spark_rl.engine.base import Arrival, Engine, Sampling, arrivals
from spark_rl.errors import ConfigError
from spark_rl.files import parse_json
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.recycle.pool import problem_from_dict, problem_to_dict
from spark_rl.rollout import Sampled, Sampler
from spark_rl.seeds import stream_seed


class Upcoming:
    """The policy batches that are sampled before their step."""

    def __init__(self, sampler: Sampler, batches: Batches, seed: int, ahead: int, step: int, steps: int) -> None:
        """Nothing is sampled yet.

        Args:
            sampler: samples with the engine itself.
            batches: the problems of each step.
            seed: of the run.
            ahead: steps.
            step: steps that are done.
            steps: of the whole run; no batch is sampled beyond.
        """
        self.sampler, self.batches, self.seed, self.ahead, self.steps = sampler, batches, seed, ahead, steps
        self.step = step
        """The step whose policy batch is taken next."""
        self.ready: dict[int, Sampled] = {}
        self._running: dict[int, Future[Sampled]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def seed_of(self, step: int) -> int:
        """That of a step's policy batch, in the loop as well."""
        return stream_seed(self.seed, "policy", step)

    def take(self) -> Sampled | None:
        """The policy batch of the next step, if it is there."""
        self.step += 1
        return self.ready.pop(self.step - 1, None)

    def begin(self) -> None:
        """Start what is missing up to ``ahead`` steps from the one whose batch was taken last."""
        for step in range(self.step, min(self.step + self.ahead, self.steps)):
            if step not in self.ready and step not in self._running:
                problems = self.batches.of(step)  # here: a stream is read by one thread
                self._running[step] = self._thread.submit(self.sampler.sample, problems, self.seed_of(step), Clock())

    def wait(self) -> None:
        """Until everything that was started is done. Raises what the engine or the verifier raised."""
        while self._running:
            step = next(iter(self._running))
            self.ready[step] = self._running.pop(step).result()

    def close(self) -> None:
        """Let what is running end, and start nothing more."""
        self._thread.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True)
class Overlapped:
    """An engine that samples the next batches while the learner updates, and takes weights when they are done."""

    engine: Engine
    upcoming: Upcoming

    @property
    def version(self) -> int:
        return self.engine.version

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return self.engine.generate(prompts, sampling)

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        return arrivals(self.engine, prompts, sampling)

    def sleep(self) -> None:
        """An update begins: instead of sleeping, sample. The engine keeps its memory, which the learner can't have."""
        self.upcoming.begin()

    def wake(self) -> None:
        """It did not sleep."""

    def sync(self, weights: Weights) -> None:
        self.upcoming.wait()
        self.engine.sync(weights)

    def close(self) -> None:
        self.engine.close()


@dataclass(slots=True)
class AheadSampler(Sampler):
    """A sampler of which the loop gets a policy batch that was sampled before, where there is one."""

    upcoming: Upcoming = field(kw_only=True)

    def sample(self, problems: Iterable[Problem], seed: int, clock: Clock, count: int | None = None) -> Sampled:
        """See :meth:`spark_rl.rollout.Sampler.sample`."""
        upcoming = self.upcoming
        if seed == upcoming.seed_of(upcoming.step) and (found := upcoming.take()) is not None:
            return found
        return upcoming.sampler.sample(problems, seed, clock, count)


def ahead_of(sampler: Sampler, upcoming: Upcoming) -> AheadSampler:
    """The sampler for a loop, and with it the engine, that ``upcoming`` samples ahead of."""
    parts = {part.name: getattr(sampler, part.name) for part in fields(Sampler)}
    return AheadSampler(**parts | {"engine": Overlapped(sampler.engine, upcoming)}, upcoming=upcoming)


def state(ready: Mapping[int, Sampled]) -> dict[str, Any]:
    """What was sampled and not trained on yet, ready for JSON, by step; without pixels, which are made again."""
    return {
        str(step): {
            "groups": [_group_to_dict(group) for group in sampled.groups],
            "too_long": [problem_to_dict(problem) for problem in sampled.too_long],
        }
        for step, sampled in ready.items()
    }


def load_ahead(checkpoint: Path, chat: Chat) -> dict[int, Sampled]:
    """What a checkpoint holds of :func:`state`; nothing where no batch was ahead.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        return _from_state(parse_json((checkpoint / "ahead.json").read_text(encoding="utf-8")), chat)
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"{checkpoint / 'ahead.json'} can't be read ({why}); remove the checkpoint to resume from "
                          "the one before") from None  # fmt: skip


def _from_state(saved: Mapping[str, Any], chat: Chat) -> dict[int, Sampled]:
    return {
        int(step): Sampled(
            [_group_from_dict(group, chat) for group in sampled["groups"]],
            [problem_from_dict(problem) for problem in sampled["too_long"]],
        )
        for step, sampled in saved.items()
    }


def _values(record: Any) -> dict[str, Any]:
    return {part.name: getattr(record, part.name) for part in fields(record)}


def _group_to_dict(group: Group) -> dict[str, Any]:
    return {
        "problem": problem_to_dict(group.problem),
        "prompt_ids": list(group.prompt_ids),
        "rollouts": [
            {"completion": _values(rollout.completion), "verdict": _values(rollout.verdict)}
            for rollout in group.rollouts
        ],
    }


def _group_from_dict(saved: Mapping[str, Any], chat: Chat) -> Group:
    problem = problem_from_dict(saved["problem"])
    rollouts = []
    for values in saved["rollouts"]:
        completion, verdict = values["completion"], values["verdict"]
        lists = {name: tuple(completion[name]) for name in ("token_ids", "logprobs", "top")}
        rollouts.append(
            Rollout(Completion(**completion | lists), Verdict(**verdict | {"failed": tuple(verdict["failed"])}))
        )
    vision = chat.encode(problem).vision if problem.images else {}
    return Group(problem, tuple(rollouts), tuple(saved["prompt_ids"]), vision)
