"""The arms side by side: what each arm is, and that finished runs are neither repeated nor mistaken for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from running import BASE, SMALL
from spark_rl.ablate import ARMS, ablate, ablation_table, arm_config, compare_arms, scores
from spark_rl.config import RecycleConfig
from spark_rl.errors import ConfigError
from spark_rl.report.ablation import TONES

OVERRIDES = (*SMALL, f"model.path={BASE}", "data.heldout=procedural:missing", "train.steps=1")


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
    said: list[str] = []
    results = ablate("tiny", ["policy-only", "spark"], [0], tmp_path, OVERRIDES, said.append)
    page = tmp_path / "report.html"
    trained = [f"{arm}, seed 0 -> {tmp_path / arm}-seed0" for arm in ("policy-only", "spark")]
    assert said == [*trained, f"report  {page}"]
    written = page.read_text()
    page.unlink()
    again = ablate("tiny", ["policy-only", "spark"], [0], tmp_path, OVERRIDES, said.append)
    assert said[3:] == [f"report  {page}"]
    assert page.read_text() == written
    assert again == results
    assert results["spark"][0] == json.loads((tmp_path / "spark-seed0" / "summary.json").read_text())
    with pytest.raises(ConfigError, match=r"was made with optimiser\.lr"):
        ablate("tiny", ["spark"], [0], tmp_path, [*OVERRIDES, "optimiser.lr=1"], said.append)
    more = ablate("tiny", ["spark"], [0], tmp_path, [*OVERRIDES, "train.steps=2"], said.append)
    assert more["spark"][0]["config"]["train"]["steps"] == 2
    assert more["spark"][0]["tokens"] > results["spark"][0]["tokens"]

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
        ablate("tiny", ["spark"], [0], tmp_path, [*OVERRIDES, "data.heldout=null"], print)
    assert not list(tmp_path.iterdir())
