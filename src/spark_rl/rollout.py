"""Sec. 3.1, steps 1 and 2: problems become groups. Prompts go to the engine, texts to the verifier; never a label to
the engine.

Templates of some models that think end the prompt with the opening tag (``<think>``). The response goes on from there,
so its text begins with that tag for whoever reads it: a thought that is cut is one then, whatever is boxed in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from spark_rl.chat import Chat, ChatFormat, Prompt, policy_prompt
from spark_rl.clock import Clock
from spark_rl.config import RewardConfig, RolloutConfig, Thinking
from spark_rl.engine.base import Engine, Sampling, innermost
from spark_rl.errors import EngineError, UserError
from spark_rl.plugins import said
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.rewards import Grader, RewardSet
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


def check_drawn(drawn: Sequence[Sequence[Completion]], prompts: int, sampling: Sampling, engine: str) -> None:
    """Whether an engine did what it promises, before anything is trained on it.

    Raises:
        EngineError: it did not; one line that names the engine and the first fault.
    """
    if not isinstance(drawn, list | tuple) or not all(isinstance(group, list | tuple) for group in drawn):
        raise EngineError(f"{engine} gave a {type(drawn).__name__} of something else than lists of completions")
    if len(drawn) != prompts:
        raise EngineError(f"{engine} gave completions for {len(drawn)} prompts and was asked {prompts}")
    for place, group in enumerate(drawn):
        where = f"{engine}, prompt {place + 1} of {prompts}"
        if len(group) != sampling.n:
            raise EngineError(f"{where}: {len(group)} completions in place of {sampling.n}")
        for completion in group:
            if not isinstance(completion, Completion) or completion.finish not in {"stop", "length", "refused"}:
                raise EngineError(f"{where}: {completion!r:.80} is no Completion that ended by stop or length")
            tokens, logprobs = len(completion.token_ids), completion.logprobs
            if tokens != len(logprobs) and completion.counted is None:
                raise EngineError(f"{where}: {tokens} tokens with {len(logprobs)} log-probabilities")
            if tokens > sampling.max_new_tokens:
                raise EngineError(f"{where}: {tokens} tokens, and {sampling.max_new_tokens} at most were asked for")


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
        asked = [prompt for _, prompt in kept]
        drawn = clock.timed("sample", self._generate, asked, sampling)
        check_drawn(drawn, len(asked), sampling, type(innermost(self.engine)).__name__)
        answers = as_read(drawn, asked, self.chat, self.verifier.config.thinking)
        groups = clock.timed("verify", self._verified, [problem for problem, _ in kept], asked, answers)
        return Sampled(groups, too_long)

    def _generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """What the engine gives. What an engine of the user's own raises is an :class:`EngineError`."""
        try:
            return self.engine.generate(prompts, sampling)
        except Exception as error:
            kind = type(innermost(self.engine))
            if isinstance(error, UserError) or kind.__module__.startswith("spark_rl."):
                raise
            raise EngineError(f"{kind.__name__} raised {said(error)}") from error

    def _verified(
        self, problems: Sequence[Problem], prompts: Sequence[Prompt], answers: Sequence[Sequence[Completion]]
    ) -> list[Group]:
        asked = [problem for problem, completions in zip(problems, answers, strict=True) for _ in completions]
        given = [completion for completions in answers for completion in completions]
        texts, ids = [completion.text for completion in given], [completion.token_ids for completion in given]
        grader = build_grader(self.chat, self.verifier, self.reward, self.rewards)
        verdicts = iter(grader.grade(asked, texts, ids, self.reward.form))
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
            return replace(verdict, reward=0.0)
        return verdict
