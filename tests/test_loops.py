"""A link that leads to itself, wherever a path is given: one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spark_rl.cli import main
from spark_rl.files import resolved

COMMANDS = (
    "runs self",
    "report self",
    "report latest",
    "export self --out out",
    "export latest --out out",
    "solve 1+1 --model self",
    "solve 1+1 --model latest",
    "solve 1+1 --model self/model",
    "data self",
    "data self/rows.jsonl",
    "plan --model self",
    "eval --model self --limit 1",
    "eval --data self",
    "eval --table self",
    "eval --bench self.py",
    "eval --limit 1 --out self",
    "train --run-dir self train.steps=1",
    "train --run-dir self --resume",
    "train --run-dir run --model self",
    "train --run-dir run --data self",
    "train --run-dir run --config self",
    "train --run-dir run data.images.root=self train.steps=1",
    "train --run-dir run recycle.templates=self",
    "train --run-dir run reward.function=self.py:reward",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_loop_of_links_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for link in ("self", "self.py", "runs/latest"):
        (tmp_path / link).symlink_to(Path(link).name)
    assert main(command.split()) == 2
    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spark-rl: ")]
    assert len(complaints) == 1
    assert re.search("self|latest", complaints[0])


def test_a_place_is_told_as_far_as_links_lead(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "self").symlink_to("self")
    assert resolved(tmp_path / "link" / "file") == (tmp_path / "there" / "file").resolve()
    assert not resolved(tmp_path / "self").exists()
