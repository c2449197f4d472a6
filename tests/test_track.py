"""Trackers beside a run: names, and that nothing one does wrong can harm a run. The real ones: ``make test-track``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from running import ENVIRONMENT, SMALL, complaints, json_lines, spark_rl_process
from spark_rl.config import ChatConfig, load_config
from spark_rl.errors import ConfigError
from spark_rl.measure import rollout_records
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.track import trackers as module
from spark_rl.track.names import eval_names, table_rows, train_names
from spark_rl.track.trackers import Trackers, check_trackers

FAKE = """
import os, time
LOG = os.environ.get("FAKE_TRACKIO", "")
class Table:
    def __init__(self, dataframe): pass
class Run:
    name = "known"
    def log(self, numbers, step=None):
        {log}
    def finish(self):
        {finish}
def init(**given):
    print("noise of a tracker")
    {init}
    return Run()
"""
"""A ``trackio`` that is told what to do wrong, where the real one is not installed."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes a module ``trackio`` and puts it where it is found."""

    def write(log: str = "pass", finish: str = "pass", init: str = "pass") -> Path:
        folder = tmp_path / "modules"
        folder.mkdir(exist_ok=True)
        (folder / "trackio.py").write_text(FAKE.format(log=log, finish=finish, init=init))
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop("trackio", None)
        return folder

    yield write
    sys.modules.pop("trackio", None)


def followed(tmp_path: Path) -> tuple[Trackers, list[str]]:
    said: list[str] = []
    return Trackers(load_config("tiny", ["track=trackio"]), tmp_path, said.append), said


STEP = {"step": 1, "tokens": 7, "lr": 1e-3, "reward/policy": 0.5, "length/mean": 3.0, "loss/recycled": 0.1, "loss": 0.2}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"init": "raise RuntimeError('no\\x1b[31mnetwork\\nhere')"},
            "RuntimeError: no\\x1b[31mnetwork here (start)",
        ),
        ({"init": "raise SystemExit(3)"}, "SystemExit: 3 (start)"),
        ({"log": "raise OSError(28, 'No space left on device')"}, "OSError: [Errno 28] No space left on device (log)"),
        ({"finish": "raise ValueError()"}, "ValueError (finish)"),
        ({"finish": "time.sleep(3600)"}, "it did not finish in 1 s; what it has not taken is in the run's files"),
        ({"init": "time.sleep(3600)"}, "it did not start in 1 s"),
        ({"log": "time.sleep(3600)"}, "it hangs, or is 3 calls behind"),
    ],
    ids=["no network", "exit", "full disk", "finish", "hangs at the end", "hangs at the start", "hangs"],
)
def test_a_tracker_that_fails_is_one_line_and_no_more(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    fake(**wrong)
    for name in ("START_SECONDS", "FINISH_SECONDS"):
        monkeypatch.setattr(module, name, 1.0)
    if "calls behind" in said:
        monkeypatch.setattr(module, "WAITING", 3)
    trackers, notes = followed(tmp_path)
    trackers.start(0, 0)
    for step in range(1, 8):
        trackers.step(STEP | {"step": step}, [])
    trackers.evaluated(7, {"heldout": {"policy_accuracy": 0.5}})
    trackers.finish(failed=False)
    trackers.finish(failed=False)
    left = [line for line in notes if "is left" in line]
    assert left == [f"tracker trackio is left, and the run goes on: {said}"]


def test_what_a_tool_prints_is_not_shown_and_its_name_is_kept(
    tmp_path: Path, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake()
    trackers, notes = followed(tmp_path)
    trackers.start(0, 0)
    trackers.finish(failed=False)
    assert notes == ["trackio trackio show --project spark-rl"]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"trackio": "known"}
    assert capsys.readouterr() == ("", "")


def test_a_tracker_that_is_not_installed_is_one_line_before_anything_loads(tmp_path: Path) -> None:
    config = load_config("tiny", ["track=wandb"])
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"track: wandb is not installed; pip install wandb"):
            check_trackers(config)
        done = spark_rl_process("train", "track=[wandb]", "--run-dir", "run", cwd=tmp_path)
        assert done.returncode == 2
        assert "pip install 'spark-rl[track]'" in done.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["track=[wandb, trackio]", "track=wandb,trackio"])
def test_trackers_are_named_as_people_name_them(given: str) -> None:
    assert load_config("tiny", [given]).track == ("wandb", "trackio")


def test_an_unknown_tracker_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"track\.0: input should be 'tensorboard', 'wandb' or 'trackio'"):
        load_config("tiny", ["track=[mlflow]"])
    with pytest.raises(ConfigError, match="here it is track"):
        load_config("tiny", ["train.report_to=wandb"])


def test_numbers_have_the_names_that_trl_gives_them() -> None:
    numbers = train_names(STEP | {"length/mean/recycled": 4.0, "note": "x", "nan": float("nan")}, 70)
    assert numbers == {
        "train/global_step": 1.0, "train/num_tokens": 70.0, "train/tokens": 7.0, "train/learning_rate": 1e-3,
        "train/rewards/policy/mean": 0.5, "train/completions/mean_length": 3.0, "train/loss/recycled": 0.1,
        "train/loss": 0.2, "train/completions/mean_length/recycled": 4.0,
    }  # fmt: skip
    assert eval_names({"tts_accuracy": 0.5, "none": None}) == {"eval/tts_accuracy": 0.5}
    assert eval_names({"tts_accuracy": 1}, "transfer") == {"eval/transfer_tts_accuracy": 1.0}


def test_the_table_has_a_row_for_each_response_of_a_group() -> None:
    rollouts = [Rollout(Completion(text, (1,), (-0.1,), "stop"), Verdict(reward, status))
                for text, reward, status in (("r", 1.0, "correct"), ("s", 0.0, "wrong"))]  # fmt: skip
    groups = [Group(Problem("p-1", "2+5", "7"), tuple(some), (1,)) for some in (rollouts, rollouts[:1])]
    rows = table_rows(rollout_records(groups, 1, 2, ChatConfig(policy="{question}")))
    r, s = [1, "policy", "2+5", "r", "7", 1.0, "correct"], [1, "policy", "2+5", "s", "7", 0.0, "wrong"]
    assert rows == [r, s, r]


def test_a_run_with_a_tracker_that_fails_is_the_run_without_one(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake(log="raise RuntimeError('gone')")
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{folder}")
    ends = {}
    for name, more in (("plain", []), ("tracked", ["track=[trackio]"])):
        done = spark_rl_process("train", "--config", "tiny", "--run-dir", name, *SMALL, *more, cwd=tmp_path)
        assert (done.returncode, complaints(done.stderr)) == (0, "")
        ends[name] = done.stdout
    assert ends["tracked"].count("tracker trackio is left, and the run goes on: RuntimeError: gone (log)") == 1
    assert "noise of a tracker" not in ends["tracked"]
    rows = [json_lines(tmp_path / name / "rollouts.jsonl") for name in ("plain", "tracked")]
    assert rows[0] == rows[1]
