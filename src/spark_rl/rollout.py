"""Sec. 3.1, steps 1 and 2: problems become groups. Prompts go to the engine, texts to the verifier; never a label to
the engine.

Templates of some models that think end the prompt with the opening tag (``<think>``). The response goes on from there,
so its text begins with that tag for whoever reads it: a thought that is cut is one then, whatever is boxed in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from spark_rl.chat import Chat, ChatFormat, Prompt, policy_prompt
from spark_rl.clock import Clock
from spark_rl.config import RewardConfig, RolloutConfig, Thinking
from spark_rl.engine.base import Engine, Sampling
from spark_rl.engine.checked import promised
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.rewards import Grader, RewardSet
from spark_rl.verify import Verifier
from spark_rl.verify.pool import Finish


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


def build_grader(chat: Chat, verifier: Verifier, reward: RewardConfig, rewards: RewardSet | None = None) -> Grader:
    """What says what responses are worth, to problems that are asked in this chat format."""

    def encode(text: str) -> list[int]:
        if not isinstance(chat, ChatFormat):  # a server keeps its tokens to itself
            return []
        return list(chat.tokenizer(text, add_special_tokens=False)["input_ids"])

    return Grader(verifier, reward, rewards, partial(policy_prompt, config=chat.config), encode)


@dataclass(slots=True)
class Sampler:
    """Everything that turns problems into verified groups."""

    engine: Engine
    chat: Chat
    verifier: Verifier
    config: RolloutConfig
    reward: RewardConfig = field(default_factory=RewardConfig)
    rewards: RewardSet | None = None
    """Reward functions of the user's, beside the verifier or in its place."""

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
        return Sampled(self._groups(kept, sampling, clock), too_long)

    def _groups(self, kept: Sequence[tuple[Problem, Prompt]], sampling: Sampling, clock: Clock) -> list[Group]:
        """The groups. What a prompt was answered goes to the verifier as soon as it is all there, whose workers grade
        beside the engine: ``time/sample`` is what was waited for the engine, ``time/verify`` what this process graded
        and then waited for the workers."""
        prompts = [prompt for _, prompt in kept]
        grader = build_grader(self.chat, self.verifier, self.reward, self.rewards)
        found: dict[int, tuple[list[Completion], list[Finish | None]]] = {}
        with grader.grading(self.reward.form) as begin, closing(promised(self.engine, prompts, sampling)) as arriving:

            def begun(place: int, completions: Sequence[Completion]) -> None:
                problem, prompt = kept[place]
                (answers,) = as_read([completions], [prompt], self.chat, self.verifier.config.thinking)
                found[place] = answers, [begin(problem, answer.text) for answer in answers]

            while (arrival := clock.timed("sample", next, arriving, None)) is not None:
                clock.timed("verify", begun, *arrival)
            in_order = [found[place] for place in range(len(kept))]
            return clock.timed("verify", self._finished, grader, kept, in_order)

    def _finished(
        self,
        grader: Grader,
        kept: Sequence[tuple[Problem, Prompt]],
        found: Sequence[tuple[Sequence[Completion], Sequence[Finish | None]]],
    ) -> list[Group]:
        """The groups in the order of the problems, once all is there."""
        problems = [problem for (problem, _), (answers, _) in zip(kept, found, strict=True) for _ in answers]
        given = [answer for answers, _ in found for answer in answers]
        begun = [finish for _, finishes in found for finish in finishes]
        texts, ids = [answer.text for answer in given], [answer.token_ids for answer in given]
        verdicts = iter(grader.finished(problems, texts, begun, ids))
        return [
            Group(
                problem,
                tuple(Rollout(answer, self._shaped(answer, next(verdicts))) for answer in answers),
                tuple(prompt.token_ids),
                prompt.vision,
            )
            for (problem, prompt), (answers, _) in zip(kept, found, strict=True)
        ]

    def _shaped(self, completion: Completion, verdict: Verdict) -> Verdict:
        """The verdict, without its reward if the response was cut and ``overlong_reward`` says so."""
        if completion.finish == "length" and self.config.overlong_reward == "zero":
            verdict = replace(verdict, reward=0.0)
        return verdict
