"""The real trackers, offline: what they hold after a run is what the run's own files hold."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from running import ENVIRONMENT, SMALL, command, json_lines
from spark_rl.track.names import train_names

RUN = ("--config", "tiny", "--run-dir", "run", *SMALL, "data.heldout=split:6", "train.eval_every=2",
       "evaluation.problems=4", "train.save_every=2")  # fmt: skip


def train(place: Path, *more: str, **variables: str) -> str:
    """Train in ``place`` with nothing of this machine's, and return what was printed."""
    own = {
        "HOME": str(place),
        "TRACKIO_DIR": str(place / "trackio"),
        "WANDB_MODE": "offline",
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(command("train", *RUN, *more), cwd=place, env=ENVIRONMENT | own | variables,
                          capture_output=True, text=True, timeout=400, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is left" not in done.stdout, done.stdout
    return done.stdout


def expected(place: Path) -> dict[int, dict[str, float]]:
    """Step -> numbers, from ``metrics.jsonl``."""
    total, found = 0, {}
    for row in json_lines(place / "run" / "metrics.jsonl"):
        total += row["tokens"]
        found[row["step"]] = train_names(row, total)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two steps, resumed to four, with all three."""
    place = tmp_path_factory.mktemp("track")
    first = train(place, "track=[tensorboard,wandb,trackio]")
    second = train(place, "--resume", "train.steps=4", "track=[tensorboard,wandb,trackio]")
    return place, first + second


def test_where_each_is_found_is_said(run: tuple[Path, str]) -> None:
    place, said = run
    assert said.count("tensorboard tensorboard --logdir run/tensorboard") == 2
    assert said.count("trackio trackio show --project spark-rl") == 2
    (first, second) = [line for line in said.splitlines() if line.startswith("wandb ")]
    for line in (first, second):
        assert Path(place / line.removeprefix("wandb   wandb sync ")).is_dir()


def test_tensorboard_holds_every_number(run: tuple[Path, str]) -> None:
    place, _ = run
    events = EventAccumulator(str(place / "run" / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    for step, numbers in expected(place).items():
        for name, value in numbers.items():
            if name == "train/global_step":
                continue
            (found,) = [one.value for one in events.Scalars(name) if one.step == step]
            assert found == pytest.approx(value, rel=1e-6), name
    assert {one.step for one in events.Scalars("eval/policy_accuracy")} == {0, 2, 4}
    tags = events.Tags()["tensors"]
    assert "completions/text_summary" in tags
    assert "args/text_summary" in tags
    table = events.Tensors("completions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert table.startswith("| step | task | prompt | completion |")


def test_trackio_holds_every_number_and_a_resumed_run_is_one(run: tuple[Path, str]) -> None:
    place, _ = run
    with sqlite3.connect(place / "trackio" / "spark-rl.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        (config,) = database.execute("SELECT config FROM configs").fetchone()
    assert {name for name, _, _ in rows} == {"run"}
    logged: dict[int, dict[str, Any]] = {}
    for _, step, metrics in rows:
        logged.setdefault(step, {}).update(json.loads(metrics))
    for step, numbers in expected(place).items():
        assert {name: logged[step][name] for name in numbers} == pytest.approx(numbers)
    assert logged[0]["eval/policy_accuracy"] is not None
    assert "completions" in logged[1]
    assert json.loads(config)["rollout"]["problems"] == 6


def test_wandb_keeps_one_id_and_every_number(run: tuple[Path, str]) -> None:
    place, _ = run
    folders = sorted((place / "run" / "wandb").glob("offline-run-*"))
    known = json.loads((place / "run" / "trackers.json").read_text())["wandb"]
    assert len(folders) == 2
    assert {folder.name.rpartition("-")[2] for folder in folders} == {known}
    history = [row for folder in folders for row in _history(next(folder.glob("*.wandb")))]
    logged: dict[int, dict[str, Any]] = {}
    for row in history:
        if "train/global_step" in row:
            logged.setdefault(int(row["train/global_step"]), {}).update(row)
    for step, numbers in expected(place).items():
        assert {name: logged[step][name] for name in numbers} == pytest.approx(numbers)
    assert set(logged) == {0, 1, 2, 3, 4}
    assert logged[1]["completions/_type"] == "table-file"


def test_wandb_without_a_login_is_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    variables = ENVIRONMENT | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    variables = {name: value for name, value in variables.items() if not name.startswith("WANDB_")}
    done = subprocess.run(command("train", *RUN, "track=wandb"), cwd=tmp_path, env=variables, capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tracker wandb is left, and the run goes on: UserError: nobody is logged in") == 1


def test_a_disk_that_is_full_for_trackio_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "trackio").write_text("a file where the folder should be")
    variables = ENVIRONMENT | {"HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(command("train", *RUN, "track=trackio"), cwd=tmp_path, env=variables, capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tracker trackio is left") <= 1  # it may keep what it can't write to itself
    assert len(json_lines(tmp_path / "run" / "metrics.jsonl")) == 2


def _history(path: Path) -> list[dict[str, Any]]:
    """The rows of history of an offline run, whose file is a log of LevelDB: records with heads of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, rows, held = path.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        held += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in {1, 4}:  # whole, or its last part
            record = wandb_internal_pb2.Record.FromString(held)
            items = record.history.item if record.HasField("history") else ()
            if items:
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            held = b""
    return rows
