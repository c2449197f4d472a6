"""What an arm cost, by stage and phase, and the arithmetic of its floating-point operations.

Operations are counted by the usual rule (Kaplan et al. 2020, arXiv 2001.08361, Sec. 2.1): :data:`FORWARD` a weight and
token that a model reads, :data:`TRAINED` a weight and token that it is trained on, the forward pass included. Weights
are those that each token is multiplied with: the layers' matrices and the head, without the embedding. Left out:
attention's products of tokens with tokens, recomputation, padding, and the rule-based verifier, which has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_rl.evals.heldout import Scores

FORWARD = 2
TRAINED = 6


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of work: ``Phase("update", 3.1, trained=20_480, weights=803_840)`` is 98.8 GFLOP."""

    name: str
    seconds: float
    """On the clock."""
    generated: int = 0
    """Tokens that were sampled."""
    forward: int = 0
    """Tokens that a model read without learning from them; sampled ones are read too."""
    trained: int = 0
    """Tokens that a model was trained on, prompts included, one by one for each pass over them."""
    weights: int = 0
    """Weights that each of them is multiplied with."""
    graded: int = 0
    """Responses that were given a reward."""

    @property
    def flops(self) -> int:
        """Floating-point operations, by the rule of this module."""
        return (FORWARD * self.forward + TRAINED * self.trained) * self.weights


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of an arm: everything before the next can begin."""

    name: str
    phases: tuple[Phase, ...]
    peak: float | None = None
    """MiB of the process at most (resident; of a GPU allocated); ``None`` where the system does not say."""
    pairs: int = 0
    """Preference pairs that it made."""

    @property
    def seconds(self) -> float:
        """Of all its phases."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def flops(self) -> int:
        """Of all its phases."""
        return sum(phase.flops for phase in self.phases)

    @property
    def generated(self) -> int:
        """Of all its phases."""
        return sum(phase.generated for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of one repeat, done."""

    name: str
    seed: int
    stages: tuple[Stage, ...]
    """The last one is reinforcement learning; those before it are extra."""
    models: Mapping[str, int]
    """Models held in memory during reinforcement learning -> bytes of their weights."""
    scores: Mapping[str, Scores] = field(default_factory=dict)
    """Exam -> scores after training."""

    @property
    def extra(self) -> tuple[Stage, ...]:
        """Stages before reinforcement learning."""
        return self.stages[:-1]

    @property
    def learning(self) -> Stage:
        """Reinforcement learning itself."""
        return self.stages[-1]

    def total(self, what: str) -> float:
        """``seconds``, ``flops`` or ``generated`` of all stages."""
        return float(sum(getattr(stage, what) for stage in self.stages))


@dataclass(frozen=True, slots=True)
class Cost:
    """Both arms, side by side in one process: what :func:`spark_rl.cost.arms.measure_cost` returns."""

    steps: int
    before: Mapping[str, Scores]
    """Exam -> scores of the base."""
    arms: Mapping[str, tuple[Arm, ...]]
    """Arm -> one a repeat."""

    def ratio(self, what: str, *, learning: bool = False) -> float | None:
        """SPARK's ``seconds``, ``flops`` or ``generated`` as a multiple of RM-based RL's, all repeats together.

        ``learning`` leaves the stages before reinforcement learning out. ``None`` where RM-based RL took nothing.
        """
        found = {
            name: sum(getattr(arm.learning, what) if learning else arm.total(what) for arm in arms)
            for name, arms in self.arms.items()
        }
        return found[SPARK] / found[RM] if found[RM] else None

    def facts(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        whats = ("seconds", "generated", "flops")
        return {
            "steps": self.steps,
            "before": {exam: dict(scores) for exam, scores in self.before.items()},
            "arms": {name: [arm_facts(arm) for arm in arms] for name, arms in self.arms.items()},
            "spark_over_rm": {
                "whole": {what: self.ratio(what) for what in whats},
                "reinforcement_learning": {what: self.ratio(what, learning=True) for what in whats},
            },
        }


RM, SPARK = "rm", "spark"
"""The names of the arms: RM-based RL, and recycling."""


def stage_facts(stage: Stage) -> dict[str, Any]:
    """A stage as JSON values, with its sums."""
    return {
        "name": stage.name, "peak_mib": stage.peak, "pairs": stage.pairs, "seconds": stage.seconds,
        "generated": stage.generated, "flops": stage.flops,
        "phases": [{name: getattr(phase, name) for name in (*Phase.__slots__, "flops")} for phase in stage.phases],
    }  # fmt: skip


def read_stage(facts: Mapping[str, Any]) -> Stage:
    """The inverse of :func:`stage_facts`. Raises ``KeyError`` or ``TypeError`` for anything else."""
    phases = tuple(Phase(**{name: phase[name] for name in Phase.__slots__}) for phase in facts["phases"])
    return Stage(facts["name"], phases, facts["peak_mib"], facts["pairs"])


def arm_facts(arm: Arm) -> dict[str, Any]:
    """An arm as JSON values."""
    return {
        "name": arm.name, "seed": arm.seed, "stages": [stage_facts(stage) for stage in arm.stages],
        "models": dict(arm.models), "scores": {exam: dict(scores) for exam, scores in arm.scores.items()},
    }  # fmt: skip


def read_arm(facts: Mapping[str, Any]) -> Arm:
    """The inverse of :func:`arm_facts`. Raises ``KeyError`` or ``TypeError`` for anything else."""
    stages = tuple(read_stage(stage) for stage in facts["stages"])
    return Arm(facts["name"], facts["seed"], stages, facts["models"], facts["scores"])
