"""The arms side by side: what each arm is, and that finished runs are neither repeated nor mistaken for others."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from running import BASE, SMALL
from spark_rl.ablate import ARMS, ablate, ablation_table, arm_config, compare_arms, scores
from spark_rl.config import RecycleConfig
from spark_rl.errors import ConfigError, UserError
from spark_rl.report.ablation import TONES
from spark_rl.report.arms import ConsoleArms

OVERRIDES = (*SMALL, f"model.path={BASE}", "data.heldout=procedural:missing", "train.steps=1")


def spoken(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def makes(recycle: RecycleConfig) -> tuple[bool, bool, bool]:
    return recycle.pointwise, recycle.pairwise, recycle.reflection


@pytest.mark.parametrize("recipe", ["", "recycle: {pointwise: true, pairwise: true, reflection: true}\n"])
def test_the_arms_differ_as_the_paper_says_whatever_the_recipe_spells_out(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "r.yaml").write_text(recipe)
    made = {arm: arm_config(str(tmp_path / "r.yaml"), arm, 3, tmp_path, ()) for arm in ARMS}
    assert {arm: makes(config.recycle) for arm, config in made.items()} == {
        "policy-only": (False, False, False),
        "reward-only": (True, True, False),
        "policy-and-reward": (True, True, False),
        "spark": (True, True, True),
    }
    assert [arm for arm, config in made.items() if not config.train.policy_update] == ["reward-only"]
    assert {config.seed for config in made.values()} == {3}
    assert len({config.run_dir for config in made.values()}) == len(ARMS)


def test_every_arm_has_its_colour_in_the_report() -> None:
    assert list(TONES) == list(ARMS)
    assert len(set(TONES.values())) == len(ARMS)


def test_finished_runs_are_kept_and_other_settings_refused(tmp_path: Path) -> None:
    said = Console(file=StringIO(), width=400)
    results = ablate("tiny", ["policy-only", "spark"], [0], tmp_path, OVERRIDES, ConsoleArms(said), 2)
    page = tmp_path / "report.html"
    lines = spoken(said)
    for number, arm in enumerate(("policy-only", "spark"), start=1):
        mine = [line for line in lines if line.startswith(f"[{number}/2] {arm}, seed 0")]
        assert mine[0].endswith(f"-> {tmp_path / arm}-seed0")
        after = 100 * results[arm][0]["after"]["policy_accuracy"]
        assert f" -> {after:.1f}%, judge " in mine[-1]
    assert lines[-1].endswith("| 2 of 2 done, 0.0 s left")
    written = page.read_text()
    page.unlink()
    again = ablate("tiny", ["policy-only", "spark"], [0], tmp_path, OVERRIDES, ConsoleArms(said))
    assert spoken(said)[len(lines) :] == [
        f"[{number}/2] {arm}, seed 0 was finished before" for number, arm in ((1, "policy-only"), (2, "spark"))
    ]
    assert page.read_text() == written
    assert again == results
    assert results["spark"][0] == json.loads((tmp_path / "spark-seed0" / "summary.json").read_text())
    with pytest.raises(UserError, match=r"^1 of 1 runs failed, spark, seed 0 because: .* was made with optimiser\.lr"):
        ablate("tiny", ["spark"], [0], tmp_path, [*OVERRIDES, "optimiser.lr=1"])

    console = Console(record=True, width=160)
    console.print(ablation_table(results))
    shown = console.export_text()
    assert "policy-only" in shown
    accuracy = f"{100 * results['spark'][0]['after']['policy_accuracy']:.1f}"
    compared = compare_arms(results)
    assert (compared.head[-1], compared.rows[0][0], compared.rows[0][-1]) == ("spark", "policy", accuracy)
    assert f"<td>{accuracy}</td>" in written
    assert "Reward: reflection" in written
    measured = scores(results["spark"], "after")
    assert measured["policy_accuracy"] == [100 * results["spark"][0]["after"]["policy_accuracy"]]
    assert measured["tts_gain"] == [measured["tts_accuracy"][0] - measured["policy_accuracy"][0]]


def test_nothing_to_compare_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set data\.heldout"):
        ablate("tiny", ["spark"], [0], tmp_path, [*OVERRIDES, "data.heldout=null"])
    assert not list(tmp_path.iterdir())
