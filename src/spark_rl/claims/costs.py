"""The claim about cost (Table 7), which compares what two arms took and not what they answered.

RM-based RL and SPARK run one after the other, alone on the machine, by :func:`spark_rl.cost.arms.measure_cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spark_rl.ablate import arm_config
from spark_rl.claims.bootstrap import Floats, Paired, hierarchical
from spark_rl.claims.catalogue import Comparison
from spark_rl.claims.run import Campaign, Decision, Finding, decision_of
from spark_rl.cost.arms import measure_cost
from spark_rl.cost.estimate import SCALES, estimate
from spark_rl.cost.record import RM, SPARK, Cost
from spark_rl.cost.table import markdown
from spark_rl.errors import UserError
from spark_rl.files import write_atomically
from spark_rl.report.arms import Arms
from spark_rl.seeds import stream_seed

MEASURES = ("seconds", "flops")
"""Of all stages: what a claim is decided on."""


def measure_costs(campaign: Campaign, watcher: Arms) -> dict[str, Cost]:
    """Base -> what both arms took in the steps of the campaign; those that can't be measured are named and left out.

    Measured parts are kept in ``FOLDER/BASE/cost``, and the tables of each base are ``FOLDER/BASE/cost.md``.
    """
    found: dict[str, Cost] = {}
    for base, model in campaign.bases.items():
        overrides = [*campaign.overrides, f"model.path={model}"]
        folder: Path = campaign.folder / base
        config = arm_config(campaign.recipe, SPARK, campaign.seeds[0], folder, overrides)
        if config.train.steps is None:
            watcher.note(f"cost of {base}: not measured; it compares equal steps, so set train.steps")
            continue
        watcher.note(f"cost of {base}: RM-based RL and SPARK, runs of each: {campaign.repeats}, one at a time")
        try:
            cost = measure_cost(
                campaign.recipe, [*overrides, f"seed={config.seed}"], folder / "cost", steps=config.train.steps,
                repeats=campaign.repeats,
            )  # fmt: skip
        except UserError as error:
            watcher.note(f"cost of {base}: not measured; {error}")
            continue
        found[base] = cost
        write_atomically(folder / "cost.md", markdown(cost, [estimate(scale) for scale in SCALES]).encode())
    return found


def find_costs(costs: Mapping[str, Cost]) -> tuple[Finding, ...]:
    """What SPARK saved of RM-based RL's seconds and operations, all stages, with intervals over bases and repeats."""
    return tuple(_find(measure, costs) for measure in MEASURES) if costs else ()


def _find(measure: str, costs: Mapping[str, Cost]) -> Finding:
    pairs = [
        [
            Paired(("run",), np.array([[rm.total(measure)], [spark.total(measure)]]))
            for rm, spark in zip(cost.arms[RM], cost.arms[SPARK], strict=True)
        ]
        for cost in costs.values()
    ]
    estimate_ = hierarchical(pairs, _saved, stream_seed(0, "claims", "cost", measure))
    comparison = Comparison(measure, SPARK, RM, only="steps")
    runs = sum(map(len, pairs))
    decision: Decision = "UNDECIDED"
    if estimate_ is not None and runs > 1:  # one run has no spread: its interval is a point
        decision = decision_of(estimate_, comparison.bounds)
    return Finding(comparison, "steps", estimate_, decision, len(pairs), runs, 0)


def _saved(sums: Floats) -> Floats:
    """The share of RM-based RL's that SPARK did not take."""
    return 1 - sums[..., 1] / sums[..., 0]
