"""The runs that claims take, made once each for all of them, and what they decide.

Runs are ``FOLDER/BASE/ARM-seedN``, and ``ARM-tokens-seedN`` for those that end at the tokens of ``spark-seedN``. SPARK
and policy-only at equal tokens are evaluated during training too: their curves show how many tokens an accuracy costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from spark_rl.ablate import arm_config
from spark_rl.claims.bootstrap import DRAWS, Estimate, Paired, hierarchical, widened
from spark_rl.claims.catalogue import BASE, SPARK, Budget, Claim, Comparison
from spark_rl.claims.measures import columns, difference
from spark_rl.config import Config
from spark_rl.errors import ConfigError
from spark_rl.evals.outcomes import Outcomes, read_outcomes
from spark_rl.matrix import Job, Outcome, room, run_matrix
from spark_rl.report.arms import Arms
from spark_rl.seeds import stream_seed

MODELS = ("bases/shared-0", "bases/shared-1", "bases/shared-2")
"""The bases on which the claims are run by default; ``make bases`` makes them."""
SEEDS = 5
REPEATS = 2
"""Of the runs whose cost is measured, on each base: either arm is first once."""
QUICK_RECIPE = "tiny"
"""What a quick look runs: the shipped base on the default's own data, both of which are there already."""
QUICK_PROBLEMS, QUICK_STEPS = 100, 40
CURVE = 3
"""Parts of SPARK's run after each of which it is evaluated."""

Decision = Literal["HOLDS", "FAILS", "UNDECIDED", "NOT RUN"]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is run: which claims on which bases with which seeds."""

    claims: tuple[Claim, ...]
    recipe: str
    overrides: tuple[str, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Arm of one's own -> the settings in which it differs from SPARK; it ends at SPARK's tokens."""
    repeats: int = REPEATS
    """Runs of each arm whose cost is measured, on each base."""

    @property
    def bases(self) -> dict[str, str]:
        """Name of each base, which is that of its folder -> model."""
        names: dict[str, str] = {}
        for model in self.models:
            path = Path(model)
            short = path.parent.name if path.name == "model" and path.parent.name else path.name
            name, number = short or "base", 1
            while name in names:
                number += 1
                name = f"{short}-{number}"
            names[name] = model
        return names

    @property
    def arms(self) -> list[tuple[str, Budget]]:
        """The arms to train, SPARK first: the others at equal tokens wait for its tokens."""
        comparisons = [comparison for claim in self.claims for comparison in claim.comparisons]
        wanted = {(SPARK, "steps"): None} if comparisons else {}
        for comparison in comparisons:
            for budget in comparison.budgets:
                for arm in comparison.arms:
                    wanted[arm, "steps" if arm == SPARK else budget] = None
        return [(arm, "tokens" if budget == "tokens" else "steps") for arm, budget in wanted]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a campaign."""

    base: str
    arm: str
    budget: Budget
    seed: int

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.base}, {self.named}, seed {self.seed}"

    @property
    def named(self) -> str:
        """The arm, and where it ends if not at equal steps."""
        return self.arm if self.budget == "steps" else f"{self.arm} at equal tokens"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one comparison found."""

    comparison: Comparison
    budget: Budget
    estimate: Estimate | None
    decision: Decision
    bases: int
    runs: int
    """Pairs of runs, one a base and seed."""
    problems: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a claim."""

    claim: Claim
    decision: Decision
    findings: tuple[Finding, ...]


Evaluations = Mapping[str, Mapping[int, tuple[int, Outcomes]]]
"""Of one run: exam -> step -> (tokens, outcomes)."""


def jobs(campaign: Campaign) -> dict[Run, Job]:
    """The runs of a campaign, seed by seed, so that what is known early is known of all bases.

    Raises:
        ConfigError: a setting is wrong, or there is nothing to compare on.
    """
    made: dict[Run, Job] = {}
    for seed in campaign.seeds:
        for base, model in campaign.bases.items():
            for arm, budget in campaign.arms:
                overrides = [*campaign.overrides, f"model.path={model}"]
                like, more = (SPARK, campaign.own[arm]) if arm in campaign.own else (arm, ())
                config = arm_config(campaign.recipe, like, seed, campaign.folder / base, [*overrides, *more])
                if config.data.heldout is None:
                    raise ConfigError("without held-out problems there is nothing to compare; set data.heldout")
                equal = budget == "tokens"
                if equal:
                    run_dir = str(campaign.folder / base / f"{arm}-tokens-seed{seed}")
                    config = config.model_copy(update={"run_dir": run_dir})
                if (arm, budget) in {(SPARK, "steps"), ("policy-only", "tokens")}:
                    config = _with_a_curve(config)
                spark = Run(base, SPARK, "steps", seed)
                run = Run(base, arm, budget, seed)
                made[run] = Job(run.label, run.named, config, spark.label if equal else None)
    return made


def _with_a_curve(config: Config) -> Config:
    """Evaluated during training, where the settings don't say when."""
    if config.train.eval_every is not None or config.train.steps is None:
        return config
    every = max(1, config.train.steps // CURVE)
    return config.model_copy(update={"train": config.train.model_copy(update={"eval_every": every})})


def fewer(config: Config) -> list[str]:
    """The settings of a quick look, where they are less than those of ``config``."""
    steps = min(QUICK_STEPS, config.train.steps or QUICK_STEPS)
    return [f"train.steps={steps}", f"evaluation.problems={min(QUICK_PROBLEMS, config.evaluation.problems)}"]


def run_claims(
    campaign: Campaign, watcher: Arms | None = None, at_once: int | None = None
) -> tuple[Outcome, dict[Run, Evaluations]]:
    """Make the runs; returns what became of them, and the evaluations of those that are finished.

    Raises:
        ConfigError: a setting is wrong, or there is nothing to compare on.
        Stopped: a signal came; the same call goes on.
    """
    made = jobs(campaign)
    if not made:  # the claim about cost measures by itself
        return Outcome(), {}
    first = next(iter(made.values())).config
    outcome = run_matrix(list(made.values()), at_once or room(first), watcher)
    return outcome, {run: read_outcomes(job.run_dir) for run, job in made.items() if job.label in outcome.results}


def decide(
    claims: Sequence[Claim], found: Mapping[Run, Evaluations], costs: Sequence[Finding] = (), draws: int = DRAWS
) -> list[Verdict]:
    """What the runs say of each claim; ``costs`` is what has been found of the claim that compares no answers.

    A claim holds if all its comparisons do, and fails if one of them fails.
    """
    verdicts = []
    for claim in claims:
        findings = tuple(
            _find(comparison, budget, found, draws)
            for comparison in claim.comparisons for budget in comparison.budgets
        ) or tuple(costs)  # fmt: skip
        decisions = {finding.decision for finding in findings}
        whole: Decision = "UNDECIDED"
        if not decisions or decisions == {"NOT RUN"}:
            whole = "NOT RUN"
        elif "FAILS" in decisions:
            whole = "FAILS"
        elif decisions == {"HOLDS"}:
            whole = "HOLDS"
        verdicts.append(Verdict(claim, whole, findings))
    return verdicts


def decision_of(estimate: Estimate, bounds: tuple[float, float]) -> Decision:
    """``HOLDS`` if the whole interval is above the first bound, else ``FAILS`` if it is below the second."""
    if estimate.low > bounds[0]:
        return "HOLDS"
    return "FAILS" if estimate.high < bounds[1] else "UNDECIDED"


def _find(comparison: Comparison, budget: Budget, found: Mapping[Run, Evaluations], draws: int) -> Finding:
    pairs: dict[str, list[Paired]] = {}
    for run in found:
        if run.arm == SPARK:
            sides = [_side(arm, budget, run, comparison.exam, found) for arm in _arms(comparison)]
            taken = [side for side in sides if side is not None]
            if len(taken) == len(sides):
                pairs.setdefault(run.base, []).append(_paired(taken))
    estimate, problems = None, len({name for ones in pairs.values() for pair in ones for name in pair.problems})
    if pairs:
        statistic = difference(comparison.measure, 0, None if comparison.than is None else 1)
        seed = stream_seed(0, "claims", *_arms(comparison), comparison.measure, comparison.exam, budget)
        estimate = hierarchical(list(pairs.values()), statistic, seed, draws)
    decision: Decision = "NOT RUN" if not pairs else "UNDECIDED"
    if estimate is not None:
        estimate = widened(estimate, problems)
        decision = decision_of(estimate, comparison.bounds)
    return Finding(comparison, budget, estimate, decision, len(pairs), sum(map(len, pairs.values())), problems)


def _arms(comparison: Comparison) -> Iterator[str]:
    yield comparison.arm
    if comparison.than is not None:
        yield comparison.than


def _side(arm: str, budget: Budget, spark: Run, exam: str, found: Mapping[Run, Evaluations]) -> Outcomes | None:
    """What an arm made of an exam at the end of its run, with the base and seed of a run of SPARK."""
    run = spark if arm in {BASE, SPARK} else Run(spark.base, arm, budget, spark.seed)
    steps = found.get(run, {}).get(exam)
    if not steps:
        return None
    return steps[min(steps) if arm == BASE else max(steps)][1]


def _paired(sides: Sequence[Outcomes]) -> Paired:
    """The problems that both sides answered, in the order of the first."""
    common = set(sides[0].problems).intersection(*(side.problems for side in sides[1:]))
    names = tuple(name for name in sides[0].problems if name in common)
    stacked = []
    for side in sides:
        place = {name: at for at, name in enumerate(side.problems)}
        stacked.append(columns(side)[:, [place[name] for name in names]])
    return Paired(names, np.concatenate(stacked))
