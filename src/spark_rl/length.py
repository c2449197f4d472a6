"""How long a run is: in steps, in generated tokens, or whichever ends first.

Arms that recycle generate more tokens a step than arms that do not. ``train.tokens`` ends them at the same cost of
sampling, where ``train.steps`` ends them after as many batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.config import Config


@dataclass(frozen=True, slots=True)
class Length:
    """Where a run ends. At least one of the two is set."""

    steps: int | None
    """Steps of the whole run."""
    tokens: int | None
    """Tokens generated in training, of policy and recycled responses: the step that reaches them is the last."""
    most: int
    """Tokens that a step can have at most."""

    def is_over(self, step: int, tokens: int) -> bool:
        """Whether a run is at its end that has done so many steps and generated so many tokens."""
        return (self.steps is not None and step >= self.steps) or (self.tokens is not None and tokens >= self.tokens)

    def expected(self, step: int, tokens: int) -> int:
        """Steps of the whole run, which the schedule of the learning rate and the time left follow.

        Of a run that ends by tokens they are an estimate from the steps so far, before the first step the fewest that
        it can have. It depends on the counters alone, so a resumed run has the same.
        """
        if self.tokens is None:
            assert self.steps is not None, "a run ends by one of the two"
            return self.steps
        if tokens >= self.tokens:
            estimate = step
        else:
            done, of = (step, tokens) if tokens else (1, self.most)
            estimate = max(step + 1, -(-done * self.tokens // of))
        return estimate if self.steps is None else min(self.steps, estimate)


def length_of(config: Config, problems: int | None) -> Length:
    """The length of a run on so many problems; ``None`` is a stream, whose passes have no end.

    ``train.steps`` and ``train.tokens`` are what is set; ``train.episodes`` counts where neither is.
    """
    train, rollout = config.train, config.rollout
    steps = train.steps
    if steps is None and train.tokens is None:
        assert problems is not None, "a stream needs train.steps or train.tokens"
        steps = -(-train.episodes * problems // rollout.problems)
    asked = rollout.problems + config.recycle.ready
    return Length(steps, train.tokens, asked * rollout.samples * rollout.max_new_tokens)
