"""Whether an engine with weights of its own still is the learner's policy: asked after every sync, on a few sequences.

Weights that are not taken over, or are tied wrongly, show nowhere else until the run is ruined (docs/vllm.md). The
measure is the mean over sampled tokens of k3 = r - 1 - log r, r = learner / engine probability, in nats a token: an
estimate of KL(engine || learner) that is never negative (http://joschu.net/blog/kl-approx.html).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from spark_rl.chat import Prompt
from spark_rl.engine.base import Around, Arrival, Engine, Sampling, arrivals, gathered, innermost
from spark_rl.errors import UserError
from spark_rl.model.weights import Weights
from spark_rl.objective import kl_estimate
from spark_rl.problem import Completion
from spark_rl.seeds import stream_seed

PROMPTS = 4
"""Prompts that are asked: of those that were asked last, the first."""
TOKENS = 32
"""Tokens of each response at most."""


class Probed(Around):
    """An engine that is compared with the learner after every sync."""

    def __init__(
        self,
        engine: Engine,
        logprobs: Callable[..., Sequence[Tensor]],
        bound: float,
        temperature: float = 1.0,
    ) -> None:
        """Compare nothing yet.

        Args:
            engine: what generates.
            logprobs: :meth:`spark_rl.learner.base.Learner.logprobs`.
            bound: nats a token that the two may be apart.
            temperature: at which the learner's log-probabilities are.
        """
        self.engine, self.logprobs, self.bound, self.temperature = engine, logprobs, bound, temperature
        self.recent: tuple[Prompt, ...] = ()
        self.kl: float | None = None
        """Nats a token between engine and learner after the last sync; ``None`` before there was anything to ask."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return gathered(self.arriving(prompts, sampling), len(prompts))

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        yield from arrivals(self.engine, prompts, sampling)
        self.recent = tuple(prompts[:PROMPTS]) or self.recent

    def sync(self, weights: Weights) -> None:
        """Take over the weights, and compare.

        Raises:
            UserError: engine and learner are further apart than the bound.
        """
        self.engine.sync(weights)
        self.kl = self._compare()
        if self.kl is not None and self.kl > self.bound:
            name = type(innermost(self.engine)).__name__
            raise UserError(
                f"{name} and the learner are {self.kl:.3g} nats a token apart after the weights "
                f"of update {weights.version} were handed over, more than engine.max_kl ({self.bound:g}): the engine "
                "samples from another policy; mend its sync, give both one number format, or raise the bound"
            )

    def _compare(self) -> float | None:
        """Nats a token on new samples of the recent prompts, from a random stream of their own; infinite if it is no
        number, ``None`` without samples."""
        if not self.recent:
            return None
        sampling = Sampling(1, self.temperature, TOKENS, stream_seed(self.engine.version, "probe"))
        groups = self.engine.generate(self.recent, sampling)
        drawn = [(prompt, group[0]) for prompt, group in zip(self.recent, groups, strict=True) if group[0].token_ids]
        if not drawn:
            return None
        learner = self.logprobs(
            [prompt.token_ids for prompt, _ in drawn], [completion.token_ids for _, completion in drawn],
            [prompt.vision for prompt, _ in drawn],
        )  # fmt: skip
        apart = 0.0
        for at_T, (_, completion) in zip(learner, drawn, strict=True):
            engine_T = at_T.new_tensor(completion.logprobs)
            apart += float(kl_estimate(engine_T.double(), at_T.double(), "k3").sum())
        kl = apart / sum(len(completion.token_ids) for _, completion in drawn)
        return kl if math.isfinite(kl) else math.inf
