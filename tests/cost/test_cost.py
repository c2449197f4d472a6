"""``spark-rl cost`` from the command line to its tables, what is kept of it, and the arithmetic of what it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from running import SMALL, spark_rl_process
from spark_rl.cost.arms import measure_cost
from spark_rl.cost.estimate import SCALES, estimate
from spark_rl.cost.record import RM, SPARK, Arm, Cost, Phase, Stage, arm_facts, read_arm
from spark_rl.cost.reward_model import RewardTraining
from spark_rl.cost.stages import Counted
from spark_rl.cost.table import markdown, paper_table, phase_table, tables
from spark_rl.errors import ConfigError
from tiny import learner_of, random_groups

SETTINGS = (*SMALL, "data.heldout=procedural:missing", "inference.rounds=1", "evaluation.problems=12", "seed=3")
OPTIONS = ("--steps", "2", "--rm-problems", "12")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a user has run the command."""
    folder = tmp_path_factory.mktemp("cost")
    done = spark_rl_process(
        "cost", *OPTIONS, "--run-dir", "runs", "--json", "cost.json", "--out", "cost.md", *SETTINGS, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "Cost by phase, 2 steps" in done.stdout
    assert "step 2/2" in done.stdout
    return folder


def again(folder: Path, *settings: str) -> Cost:
    training = RewardTraining(12, 1)
    return measure_cost("tiny", [*SETTINGS, *settings], folder / "runs", steps=2, training=training)


def phases(arm: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(stage["name"], phase["name"]): phase for stage in arm["stages"] for phase in stage["phases"]}


def test_what_a_user_is_given(measured: Path) -> None:
    facts = json.loads((measured / "cost.json").read_text())
    (rm,), (spark,) = facts["arms"]["rm"], facts["arms"]["spark"]
    assert [stage["name"] for stage in rm["stages"]] == ["preferences", "reward model", "reinforcement learning"]
    assert [stage["name"] for stage in spark["stages"]] == ["reinforcement learning"]
    assert rm["models"].keys() - spark["models"].keys() == {"reward model"}
    assert rm["stages"][0]["pairs"] > 0 == spark["stages"][0]["pairs"]
    assert all(stage["peak_mib"] > 50 for arm in (rm, spark) for stage in arm["stages"])
    assert all(phase["seconds"] >= 0 for arm in (rm, spark) for phase in phases(arm).values())
    learned, own = phases(rm), phases(spark)
    sampled = learned["reinforcement learning", "sample"]
    update = learned["reinforcement learning", "update"]
    assert update["trained"] == sampled["forward"] > sampled["generated"] > 0, "no two scores are equal"
    assert own["reinforcement learning", "update"]["trained"] < own["reinforcement learning", "sample"]["forward"]
    assert learned["reinforcement learning", "score"]["graded"] == 2 * 6 * 4
    assert own["reinforcement learning", "verify"]["graded"] > 2 * 6 * 4, "recycled ones too"
    scores = facts["before"]["heldout"], rm["scores"]["heldout"], spark["scores"]["heldout"]
    assert all(0 <= each["policy_accuracy"] <= 1 and each["judge_same_accuracy"] is not None for each in scores)
    assert {name for name in scores[1] if name.startswith("rm_")} - set(scores[2]) == {
        "rm_judge_accuracy", "rm_judge_same_accuracy", "rm_pairwise_accuracy",
    }  # fmt: skip
    assert facts["by_arithmetic"][0]["model"] == "Qwen/Qwen2.5-7B-Instruct"
    page = (measured / "cost.md").read_text()
    assert "| reward model: scoring |" in page
    assert "RM inference, slower" in page
    assert "Assumed:\n\n- the reward model" in page
    config = json.loads((measured / "runs/repeat0/rm-run/config.json").read_text())
    assert config["recycle"]["reflection"] is False
    assert config["seed"] == 3


def test_what_is_done_is_not_done_again(measured: Path) -> None:
    kept = measured / "runs/repeat0/reward-model/model.safetensors"
    before = json.loads((measured / "cost.json").read_text())
    stamp = kept.stat().st_mtime_ns
    facts = again(measured).facts()
    assert facts == {name: before[name] for name in facts}
    (measured / "runs/repeat0/rm.json").unlink()  # as if it had been cut off
    redone = again(measured)
    assert kept.stat().st_mtime_ns == stamp
    (was,) = before["arms"]["rm"]
    (now,) = redone.arms[RM]
    assert {exam: dict(scores) for exam, scores in now.scores.items()} == was["scores"], "of one seed"
    assert [stage.flops for stage in now.stages] == [stage["flops"] for stage in was["stages"]]
    assert [stage.seconds for stage in now.extra] == [stage["seconds"] for stage in was["stages"][:-1]]


def test_other_settings_are_refused(measured: Path) -> None:
    with pytest.raises(ConfigError, match="measured with other settings; choose another --run-dir"):
        again(measured, "optimiser.lr=1")


def test_pictures_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reads text only"):
        measure_cost("tiny-vl", ["data.limit=8", "evaluation.problems=2"], tmp_path / "runs", steps=1)
    assert not list(tmp_path.glob("runs/*.json"))


def test_the_arithmetic_of_a_phase() -> None:
    assert Phase("sample", 1.0, generated=7, forward=10, weights=1_000).flops == 20_000
    assert Phase("update", 1.0, forward=10, trained=100, weights=1_000).flops == 620_000


def arm(name: str, *stages: Stage) -> Arm:
    return Arm(name, 0, stages, {"policy": 2**20}, {"heldout": {"policy_accuracy": 0.5}})


def test_ratios_are_spark_over_rm() -> None:
    extra = Stage("preferences", (Phase("sample", 3.0, 30, 30, weights=10),), 9.0, pairs=4)
    rl = Stage("reinforcement learning", (Phase("sample", 1.0, 10, 10, weights=10, graded=100),))
    spark = Stage(
        "reinforcement learning", (Phase("sample", 2.0, 20, 20, weights=10), Phase("verify", 0.5, graded=500))
    )
    cost = Cost(1, {"heldout": {}}, {RM: (arm(RM, extra, rl),), SPARK: (arm(SPARK, spark),)})
    assert cost.ratio("generated") == 0.5
    assert cost.ratio("generated", learning=True) == 2.0
    assert cost.ratio("seconds") == 2.5 / 4.0
    assert read_arm(json.loads(json.dumps(arm_facts(cost.arms[RM][0])))) == cost.arms[RM][0]
    rows = {row[0]: row[1:] for row in phase_table(cost).rows}
    assert rows["all stages"][2:4] == ("40", "20")
    assert rows["SPARK / RM, all"][3] == "0.50x"
    paper = {row[0]: row[3:] for row in paper_table(cost).rows}
    assert paper["a response's reward, ms"][1] == "1.00"
    assert paper["operations of the whole, SPARK = 1"] == ("2.00", "1")
    assert paper["peak memory, MiB"] == ("9", "–")
    page = markdown(cost, [])
    assert [line for line in page.splitlines() if line.startswith("Cost")] == [
        "Cost by phase, 1 step, mean of 1 repeat"
    ]
    assert page.count("\n| --- |") == len(tables(cost)) == 3


def test_what_is_trained_on_is_counted(tiny_models: dict[str, Path]) -> None:
    groups = random_groups(3, 3, flat=(1,))
    prompts, responses = (
        [len(group.prompt_ids) for group in groups],
        [sum(len(r.completion.token_ids) for r in group.rollouts) for group in groups],
    )
    every = sum(prompts) + sum(responses)

    def counted(**sections: Any) -> tuple[int, int]:
        learner = learner_of(tiny_models["qwen2"], **sections)
        counting = Counted(learner, learner.config)
        assert counting.update(groups).keys() >= {"loss"}
        assert counting.weights().version == learner.updates
        return counting.trained, counting.forward

    assert counted() == (every - prompts[1] - responses[1], 0)
    assert counted(objective={"kl": 0.1}) == (every, every)
    epochs = {"epochs": 2, "minibatches": 2}
    assert counted(learner=epochs) == (2 * (every - prompts[1] - responses[1]), every)


def test_the_arithmetic_of_7b() -> None:
    found = estimate(SCALES[0])
    layer = 2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944  # q and o, k and v, gate, up and down
    multiplied, head = 28 * layer, 3584 * 152064
    read = 512 + 461  # 60 % of 768
    assert found.score_pflop == pytest.approx(2 * multiplied * 64 * 8 * read / 1e15)
    assert found.training_pflop == pytest.approx(6 * multiplied * 2 * 25_000 * read / 1e15)
    sampled = 2 * (multiplied + head) * (512 + 8 * 461)
    assert found.preferences_pflop == pytest.approx(25_000 * sampled / 1e15)
    assert found.rm_step_pflop == pytest.approx(
        64 * 5 * sampled / 1e15 + found.score_pflop
    )  # sampled, 6 / 2, reference
    assert found.rm_gib == pytest.approx(2 * (7_615_616_512 - head) / 2**30)
    assert found.steps == 782
    assert found.ratio == found.spark_gpu_hours / found.rm_gpu_hours
