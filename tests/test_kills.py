"""The short form of the kill campaign (``campaigns/kills.py``), which CI runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from running import ENVIRONMENT

KILLS = 30
CAMPAIGN = Path(__file__).parents[1] / "campaigns" / "kills.py"


@pytest.mark.timeout(600)
def test_runs_survive_kills_at_any_moment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CAMPAIGN, "--kills", str(KILLS), "--seed", "1", "--json", tmp_path / "found.json"],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=590, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert (sum(found["kills"].values()), found["lost"]) == (KILLS, [])
    assert len(found["kills"]) >= 4, "of several phases"
