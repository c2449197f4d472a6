"""The claim about cost: what is compared, and the command that measures it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from running import SMALL, spark_rl_process
from spark_rl.claims.catalogue import CLAIMS
from spark_rl.claims.costs import find_costs
from spark_rl.claims.run import decide
from spark_rl.cost.record import RM, SPARK, Arm, Cost, Phase, Stage


def cost(*seconds: tuple[float, float]) -> Cost:
    """Repeats in which RM-based RL and SPARK took so many seconds, RM-based RL half of them before RL."""

    def arm(name: str, *parts: float) -> Arm:
        stages = tuple(Stage("stage", (Phase("update", part, trained=round(part), weights=10),)) for part in parts)
        return Arm(name, 0, stages, {})

    arms = {
        RM: tuple(arm(RM, rm / 2, rm / 2) for rm, _ in seconds),
        SPARK: tuple(arm(SPARK, spark) for _, spark in seconds),
    }
    return Cost(2, {}, arms)


def test_what_is_saved_is_a_share_of_rm_based_rl() -> None:
    one, other = cost((100, 50), (100, 70)), cost((200, 180), (200, 160))
    seconds, flops = find_costs({"a": one, "b": other})
    assert seconds.estimate is not None
    assert seconds.estimate.effect == pytest.approx((0.4 + 0.15) / 2)  # means of the repeats, then of the bases
    assert (seconds.estimate.low, seconds.estimate.high) == pytest.approx((0.1, 0.5), abs=0.051)
    assert flops.estimate is not None
    assert flops.estimate.effect == pytest.approx(seconds.estimate.effect)
    assert (seconds.decision, seconds.bases, seconds.runs) == ("HOLDS", 2, 4)
    claim = next(claim for claim in CLAIMS if claim.name == "cost")
    assert decide([claim], {}, (seconds, flops))[0].decision == "HOLDS"
    dearer = find_costs({"a": cost((100, 110), (100, 120))})
    assert decide([claim], {}, dearer)[0].decision == "FAILS"
    assert decide([claim], {}, find_costs({}))[0].decision == "NOT RUN"
    once = find_costs({"a": cost((100, 50))})
    assert decide([claim], {}, once)[0].decision == "UNDECIDED", "one run has no spread"


@pytest.mark.timeout(600)
def test_cost_is_measured_by_the_command_and_quickly(tmp_path: Path) -> None:
    settings = ("--quick", *SMALL, "data.heldout=procedural:missing", "inference.rounds=1", "train.steps=2")
    done = spark_rl_process("claims", "cost", "--run-dir", "c", "--json", "c.json", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cost of embedded: RM-based RL and SPARK, runs of each: 1" in done.stdout
    assert not list(tmp_path.glob("c/embedded/spark-seed0*")), "no run of another claim"
    (claim,) = json.loads((tmp_path / "c.json").read_text())["claims"]
    assert [one["measure"] for one in claim["comparisons"]] == ["seconds", "flops"]
    assert all((one["than"], one["runs"], one["decision"]) == ("rm", 1, "UNDECIDED") for one in claim["comparisons"])
    assert "operations saved, % of RM-based RL's" in (tmp_path / "c" / "claims.md").read_text()
    assert "Cost by phase, 2 steps" in (tmp_path / "c" / "embedded" / "cost.md").read_text()
