"""What goes wrong around a run, done from outside the product: one line, exit code 2, nothing half written, and once it
is mended the same command ends as if nothing had been."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from running import ENVIRONMENT, SMALL, command, facts, small
from spark_rl.errors import DiskError
from spark_rl.manifest import damage_of
from spark_rl.report.watch import Silent
from spark_rl.run import train
from spark_rl.runs import checkpoints

SETTINGS = ("train.steps=4", "train.save_every=2", "train.keep=2")


def weights(run_dir: Path) -> bytes:
    return (run_dir / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(small(run_dir, *SETTINGS))
    return run_dir


def begin(run_dir: Path, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line, on a run directory."""
    words = ("train", "--config", "tiny", "--run-dir", run_dir, *SMALL, *SETTINGS, *more)
    return subprocess.run(
        command(*words), capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False, **options
    )


def check_refusal(done: subprocess.CompletedProcess[str], run_dir: Path, *said: str) -> None:
    """One line and exit code 2; nothing half written, and every checkpoint that there is is whole."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("spark-rl: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in lines[0]
    leftovers = [path for path in run_dir.rglob(".*") if path.name != ".lock"]
    assert leftovers == []
    assert [damage_of(path) for path in checkpoints(run_dir)] == [None] * len(checkpoints(run_dir))


def check_the_same(run_dir: Path, undisturbed: Path) -> None:
    assert facts(run_dir) == facts(undisturbed)
    assert weights(run_dir) == weights(undisturbed)


@pytest.mark.parametrize("most", [20_000, 2_000_000, 4_000_000], ids=["log", "weights", "moments"])
def test_files_that_may_not_grow(tmp_path: Path, undisturbed: Path, most: int) -> None:
    """A quota on the size of files: of the log, of the weights, of the optimiser's moments."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
    done = begin(tmp_path / "run", preexec_fn=limit)
    check_refusal(done, tmp_path / "run", "cannot read or write", "File too large", "--resume")
    again = begin(tmp_path / "run", "--resume")
    assert again.returncode == 0, again.stderr
    check_the_same(tmp_path / "run", undisturbed)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one checkpoint, where this process may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    asked = [str(mount), "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(place)]
    if mount is None or subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        pytest.skip("this process may not mount anything")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_disk_that_is_full_or_read_only(disk: Path, undisturbed: Path) -> None:
    run_dir = disk / "run"
    done = begin(run_dir)
    check_refusal(done, run_dir, "No space left on device; free some space; continue with: spark-rl train --run-dir")
    still = begin(run_dir, "--resume")
    check_refusal(still, run_dir, "No space left on device")
    remount(disk, "size=100m,ro")
    assert "Read-only file system" in begin(run_dir, "--resume").stderr
    remount(disk, "rw")
    again = begin(run_dir, "--resume")
    assert again.returncode == 0, again.stderr
    check_the_same(run_dir, undisturbed)


def test_a_run_directory_that_vanishes(tmp_path: Path, undisturbed: Path) -> None:
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    class Moves(Silent):
        def step(self, metrics: Mapping[str, Any]) -> None:
            if metrics["step"] == 3:
                run_dir.rename(elsewhere)

    config = small(run_dir, *SETTINGS)
    with pytest.raises(DiskError, match=r"run is gone; continue with: spark-rl train --run-dir .* --resume"):
        train(config, watcher=Moves())
    assert not run_dir.exists(), "another one is not made in its place"
    elsewhere.rename(run_dir)
    train(config, resume=True)
    check_the_same(run_dir, undisturbed)
