"""Sec. 3.1, steps 1 and 2: problems become groups. Prompts go to the engine, texts to the verifier; never a label to
the engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.clock import Clock
from spark_rl.config import RolloutConfig
from spark_rl.engine.base import Engine, Sampling
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.verify import Verifier


def stream_seed(seed: int, *purpose: object) -> int:
    """A seed for one random stream of a run: a hash of the run's seed and what the stream is for.

    Streams depend on nothing but their names, so a resumed run draws the same numbers without saving any state.
    """
    text = ":".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@dataclass(slots=True)
class Sampler:
    """Everything that turns problems into verified groups."""

    engine: Engine
    chat: ChatFormat
    verifier: Verifier
    config: RolloutConfig

    def groups(self, problems: Sequence[Problem], seed: int, clock: Clock) -> list[Group]:
        """One group of ``config.samples`` verified rollouts a problem (Eq. 1 and 2).

        Problems whose prompt is longer than ``config.max_prompt_tokens`` are left out; the caller sees fewer groups.
        """
        encoded = ((problem, self.chat.encode(problem)) for problem in problems)
        kept = [(p, prompt) for p, prompt in encoded if len(prompt.token_ids) <= self.config.max_prompt_tokens]
        sampling = Sampling(self.config.samples, self.config.temperature, self.config.max_new_tokens, seed)
        asked = [prompt for _, prompt in kept]
        answers = clock.timed("sample", self.engine.generate, asked, sampling)
        return clock.timed("verify", self._verified, [problem for problem, _ in kept], asked, answers)

    def _verified(
        self, problems: Sequence[Problem], prompts: Sequence[Prompt], answers: Sequence[Sequence[Completion]]
    ) -> list[Group]:
        items = [
            (completion.text, problem.answer, problem.kind, problem.choices)
            for problem, completions in zip(problems, answers, strict=True)
            for completion in completions
        ]
        verdicts = iter(self.verifier.verify_many(items))
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
