"""Sec. 3.1, steps 1 and 2: problems become groups. Prompts go to the engine, texts to the verifier; never a label to
the engine.

Templates of some models that think end the prompt with the opening tag (``<think>``). The response goes on from there,
so its text begins with that tag for whoever reads it: a thought that is cut is one then, whatever is boxed in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from spark_rl.chat import Chat, ChatFormat, Prompt
from spark_rl.clock import Clock
from spark_rl.config import RewardConfig, RolloutConfig, Thinking
from spark_rl.engine.base import Engine, Sampling
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.verify import Verifier


def as_read(
    drawn: Sequence[Sequence[Completion]], prompts: Sequence[Prompt], chat: Chat, thinking: Thinking
) -> list[list[Completion]]:
    """The completions of each prompt, with the thinking tag before their text that the prompt ends with, if any."""
    tags = [_opened(prompt, chat, thinking) for prompt in prompts]
    return [
        [replace(completion, text=tag + completion.text) if tag else completion for completion in completions]
        for tag, completions in zip(tags, drawn, strict=True)
    ]


def _opened(prompt: Prompt, chat: Chat, thinking: Thinking) -> str:
    """The opening tag at the end of a prompt, unless decoding drops its closing tag as a special token: then no thought
    could ever be seen to end. A server writes its prompts itself and keeps thoughts apart by its own settings."""
    end = prompt.text.rstrip().lower()
    pair = next((pair for pair in thinking if end.endswith(pair[0].lower())), None)
    if pair is None or not isinstance(chat, ChatFormat):
        return ""
    opening, closing = pair
    return opening if closing in chat.decode(chat.tokenizer(closing, add_special_tokens=False)["input_ids"]) else ""


class Sampled(NamedTuple):
    """What became of some problems."""

    groups: list[Group]
    too_long: list[Problem]
    """Those whose prompt is longer than ``rollout.max_prompt_tokens``: they were not asked."""


@dataclass(slots=True)
class Sampler:
    """Everything that turns problems into verified groups."""

    engine: Engine
    chat: Chat
    verifier: Verifier
    config: RolloutConfig
    reward: RewardConfig = field(default_factory=RewardConfig)

    def groups(self, problems: Sequence[Problem], seed: int, clock: Clock) -> list[Group]:
        """The groups of :meth:`sample`, fewer than ``problems`` where prompts are too long."""
        return self.sample(problems, seed, clock).groups

    def sample(self, problems: Iterable[Problem], seed: int, clock: Clock, count: int | None = None) -> Sampled:
        """One group of ``config.samples`` verified rollouts a problem (Eq. 1 and 2), and what was too long to ask.

        With ``count``, as many problems are taken from ``problems`` as it needs to ask ``count`` of them.
        """
        kept: list[tuple[Problem, Prompt]] = []
        too_long: list[Problem] = []
        for problem in problems:
            prompt = self.chat.encode(problem)
            if len(prompt.token_ids) <= self.config.max_prompt_tokens:
                kept.append((problem, prompt))
            else:
                too_long.append(problem)
            if len(kept) == count:
                break
        sampling = Sampling(self.config.samples, self.config.temperature, self.config.max_new_tokens, seed)
        asked = [prompt for _, prompt in kept]
        drawn = clock.timed("sample", self.engine.generate, asked, sampling)
        answers = as_read(drawn, asked, self.chat, self.verifier.config.thinking)
        groups = clock.timed("verify", self._verified, [problem for problem, _ in kept], asked, answers)
        return Sampled(groups, too_long)

    def _verified(
        self, problems: Sequence[Problem], prompts: Sequence[Prompt], answers: Sequence[Sequence[Completion]]
    ) -> list[Group]:
        items = [
            (completion.text, problem.golds, problem.kind, problem.choices)
            for problem, completions in zip(problems, answers, strict=True)
            for completion in completions
        ]
        verdicts = iter(self.verifier.verify_many(items, self.reward.form))
        return [
            Group(
                problem,
                tuple(Rollout(c, self._shaped(c, next(verdicts))) for c in completions),
                tuple(prompt.token_ids),
                prompt.vision,
            )
            for problem, prompt, completions in zip(problems, prompts, answers, strict=True)
        ]

    def _shaped(self, completion: Completion, verdict: Verdict) -> Verdict:
        """The verdict, without its reward if the response was cut and ``overlong_reward`` says so."""
        if completion.finish == "length" and self.config.overlong_reward == "zero":
            return Verdict(0.0, verdict.status, verdict.extracted)
        return verdict
