"""Damage on the disk, done from outside the product: a flipped bit, a cut file, a file that is gone."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import SMALL, facts, small, spark_rl_process
from spark_rl.checkpoint import Progress, export_model, open_run, save_checkpoint
from spark_rl.config import Config
from spark_rl.errors import ConfigError
from spark_rl.export import weights_at
from spark_rl.files import replace_folder, write_json
from spark_rl.learner.local import LocalLearner
from spark_rl.manifest import MANIFEST, damage_of, write_manifest, written_at
from spark_rl.model.places import find_model
from spark_rl.recycle import Pool
from spark_rl.run import train
from spark_rl.runs import checkpoints, newest_whole, trained_weights
from tiny import learner_of, random_groups


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path: Path, where: int) -> None:
    os.truncate(path, where % path.stat().st_size)


def remove(path: Path, _where: int) -> None:
    path.unlink()


HARM: dict[str, Callable[[Path, int], None]] = {"flip": flip, "cut": cut, "remove": remove}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> Path:
    """A checkpoint with everything that one can hold."""
    learner = learner_of(tiny_models["llama"], optimiser={"lr": 0.01})
    learner.update(random_groups(2, 4))
    return save_checkpoint(tmp_path_factory.mktemp("run"), learner, Pool(8), Progress(5), 2, None, {"6": []})


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("harm", HARM)
def test_harm_to_any_file_of_a_checkpoint_is_named(saved: Path, tmp_path: Path, harm: str) -> None:
    names = files_of(saved)
    assert {MANIFEST, "state.json", "ahead.json", "learner.json", "model/model.safetensors"} <= set(names)
    assert any(name.startswith("shards/") for name in names)
    assert damage_of(saved) is None
    rng = random.Random(0)
    for number, name in enumerate(names):
        folder = shutil.copytree(saved, tmp_path / str(number) / saved.name)
        assert damage_of(folder) is None, "a checkpoint can be moved"
        HARM[harm](folder / name, rng.randrange(1, 1 << 40))
        found = damage_of(folder)
        assert found is not None, (harm, name)
        assert name in found or name == MANIFEST


@given(bit=st.integers(0, 1 << 40))
def test_every_bit_counts(saved: Path, tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    """150 of 150 in ``learner.pt`` went unnoticed before."""
    folder = tmp_path_factory.mktemp("bit")
    (folder / "weights").write_bytes((saved / "model" / "model.safetensors").read_bytes())
    write_manifest(folder, 5)
    assert (damage_of(folder), written_at(folder)) == (None, 5)
    flip(folder / "weights", bit)
    assert damage_of(folder) == "weights holds other bytes than were written"


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"files": {}}', '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {"bytes": 1}}}',
        '{"files": {"../a": {"bytes": 1, "sha256": ""}}}', '{"files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}}',
        '{"files": {"a\\u0000": {"bytes": 1, "sha256": ""}}}', '{"files": ' + "[" * 100_000,
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / MANIFEST).write_text(content)
    assert damage_of(tmp_path) == "manifest.json is damaged"
    (tmp_path / MANIFEST).unlink()
    assert damage_of(tmp_path) == "manifest.json is missing"


def test_the_newest_whole_checkpoint_is_taken(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert newest_whole(tmp_path) == (None, {})
    for step in (1, 2, 3):
        shutil.copytree(saved, folder / f"step-00000{step}")
    flip(folder / "step-000003" / "learner.json", 3)
    (folder / "step-000002" / "model" / "tokenizer_config.json").unlink()
    found, damaged = newest_whole(tmp_path)
    assert found == folder / "step-000001"
    assert {path.name: why for path, why in damaged.items()} == {
        "step-000003": "learner.json holds other bytes than were written",
        "step-000002": "model/tokenizer_config.json is missing",
    }
    (folder / "step-000001" / "state.json").unlink()
    with pytest.raises(ConfigError, match=r"is damaged \(step-000003: learner.json .*; step-000002: .*\); restore one"):
        newest_whole(tmp_path)


def test_weights_that_are_damaged_or_old_are_not_taken(
    tmp_path: Path, tiny_models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    learner: LocalLearner = learner_of(tiny_models["llama"], optimiser={"lr": 0.01})
    open_run(tmp_path, Config(), resume=False)
    for step in (2, 4):
        save_checkpoint(tmp_path, learner, Pool(8), Progress(step), 4)
    final = export_model(tmp_path, learner, 4)
    assert trained_weights(tmp_path) == final
    save_checkpoint(tmp_path, learner, Pool(8), Progress(6), 4)
    assert trained_weights(tmp_path) == tmp_path / "checkpoints" / "step-000006" / "model", "the run went on"
    newest = tmp_path / "checkpoints" / "step-000006" / "model"
    flip(newest / "model.safetensors", 12345)
    assert trained_weights(tmp_path) == final
    assert "damaged and left out: step-000006: model/model.safetensors holds other bytes" in caplog.text
    with pytest.raises(ConfigError, match=r"step-000006 is damaged: model/model.safetensors holds other bytes"):
        find_model(tmp_path / "checkpoints" / "step-000006")
    with pytest.raises(ConfigError, match="is damaged"):
        weights_at(tmp_path, 6)
    cut(final / "model.safetensors", 99)
    assert trained_weights(tmp_path) == tmp_path / "checkpoints" / "step-000004" / "model"
    for step in (2, 4):
        remove(tmp_path / "checkpoints" / f"step-00000{step}" / "state.json", 0)
    with pytest.raises(ConfigError, match=r"no model of the run .* is whole"):
        trained_weights(tmp_path)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    settings = ("train.steps=6", "train.save_every=2", "train.keep=2")
    train(small(tmp_path / "whole", *settings))
    train(small(tmp_path / "run", "train.steps=4", *settings[1:]))
    (shard,) = (tmp_path / "run" / "checkpoints" / "step-000004" / "shards").iterdir()
    flip(shard, 4711)
    shutil.copytree(tmp_path / "run" / "checkpoints" / "step-000002", tmp_path / "run" / ".model.partial")
    done = spark_rl_process(
        "train", "--config", "tiny", "--run-dir", "run", "--resume", *SMALL, *settings, cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "checkpoint step-000004 is damaged (shards/shard-00001-model-00001-of-00001.safetensors holds other" in said
    assert "it is kept as step-000004.damaged" in said
    assert "goes on at step 3 of 6; drops 2 steps logged after checkpoint step-000002" in said
    assert facts(tmp_path / "run") == facts(tmp_path / "whole")
    weights = "model/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"step-000004", "step-000006", "step-000004.damaged"}
    assert not list((tmp_path / "run").rglob(".*")), "what was half written is gone"


def test_rotation_never_removes_what_was_just_written(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    learner: LocalLearner = learner_of(tiny_models["llama"])
    save_checkpoint(tmp_path, learner, Pool(8), Progress(9), 1)
    path = save_checkpoint(tmp_path, learner, Pool(8), Progress(3), 1)
    assert path in checkpoints(tmp_path)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name, content in (("final", "old"), ("partial", "new")):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "it", content)
    (tmp_path / ".final.removed").mkdir()
    replace_folder(tmp_path / "final", tmp_path / "partial")
    assert (tmp_path / "final" / "it").read_text() == '"new"\n'
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
