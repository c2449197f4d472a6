"""Sec. 3.1, steps 1 and 2: problems become groups. Prompts go to the engine, texts to the verifier; never a label to
the engine.

Templates of some models that think end the prompt with the opening tag (``<think>``). The response goes on from there,
so its text begins with that tag for whoever reads it: a thought that is cut is one then, whatever is boxed in it.
"""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from spark_rl.chat import Chat, ChatFormat, Prompt, policy_prompt
from spark_rl.clock import Clock
from spark_rl.config import RewardConfig, RolloutConfig, Thinking
from spark_rl.engine.base import Arrival, Engine, Sampling, arrivals, innermost
from spark_rl.errors import EngineError, UserError
from spark_rl.plugins import said
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


def checked(arrived: Iterable[Arrival], prompts: int, sampling: Sampling, engine: str) -> Iterator[Arrival]:
    """What an engine gives, if it is what it promises, before anything is graded or trained on.

    Raises:
        EngineError: it is not; one line that names the engine and the first fault.
    """
    seen: set[int] = set()
    for arrival in arrived:
        place = _place(arrival)
        if place not in range(prompts):
            raise EngineError(f"{engine} gave {arrival!r:.80} in place of (one of {prompts} places, its completions)")
        group = arrival[1]
        if place in seen:
            raise EngineError(f"{engine} gave the completions of prompt {place + 1} of {prompts} twice")
        seen.add(place)
        _check_group(group, sampling, f"{engine}, prompt {place + 1} of {prompts}")
        yield place, group
    if len(seen) != prompts:
        raise EngineError(f"{engine} gave completions for {len(seen)} prompts and was asked {prompts}")


def _place(arrival: object) -> int:
    """The place that an engine gave completions for; -1 for what is no pair with a whole number, whatever counts as
    one: NumPy's and torch's compare equal to places and are none to a dict or a list."""
    if not isinstance(arrival, tuple) or len(arrival) != 2:
        return -1
    try:
        return operator.index(arrival[0])
    except (TypeError, ValueError, RuntimeError):
        return -1


def _check_group(group: Sequence[Completion], sampling: Sampling, where: str) -> None:
    if not isinstance(group, list | tuple):
        raise EngineError(f"{where}: a {type(group).__name__} in place of a list of completions")
    if len(group) != sampling.n:
        raise EngineError(f"{where}: {len(group)} completions in place of {sampling.n}")
    for completion in group:
        if not isinstance(completion, Completion) or completion.finish not in {"stop", "length", "refused"}:
            raise EngineError(f"{where}: {completion!r:.80} is no Completion that ended by stop or length")
        if not isinstance(completion.text, str):
            raise EngineError(f"{where}: {completion!r:.80} has a text that is none")
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
        return Sampled(self._groups(kept, sampling, clock), too_long)

    def _groups(self, kept: Sequence[tuple[Problem, Prompt]], sampling: Sampling, clock: Clock) -> list[Group]:
        """The groups. What a prompt was answered goes to the verifier as soon as it is all there, whose workers grade
        beside the engine: ``time/sample`` is what was waited for the engine, ``time/verify`` what this process graded
        and then waited for the workers."""
        prompts = [prompt for _, prompt in kept]
        grader = build_grader(self.chat, self.verifier, self.reward, self.rewards)
        found: dict[int, tuple[list[Completion], list[Finish | None]]] = {}
        with grader.grading(self.reward.form) as begin, closing(self._arriving(prompts, sampling)) as arriving:

            def begun(place: int, completions: Sequence[Completion]) -> None:
                problem, prompt = kept[place]
                (answers,) = as_read([completions], [prompt], self.chat, self.verifier.config.thinking)
                found[place] = answers, [begin(problem, answer.text) for answer in answers]

            while (arrival := clock.timed("sample", next, arriving, None)) is not None:
                clock.timed("verify", begun, *arrival)
            in_order = [found[place] for place in range(len(kept))]
            return clock.timed("verify", self._finished, grader, kept, in_order)

    def _arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[Arrival]:
        """What the engine gives. What an engine of the user's own raises is an :class:`EngineError`."""
        kind = type(innermost(self.engine))
        try:
            with closing(arrivals(self.engine, prompts, sampling)) as arriving:
                yield from checked(arriving, len(prompts), sampling, kind.__name__)
        except Exception as error:
            if isinstance(error, UserError) or kind.__module__.startswith("spark_rl."):
                raise
            raise EngineError(f"{kind.__name__} raised {said(error)}") from error

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
