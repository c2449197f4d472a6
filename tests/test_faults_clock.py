"""A clock that is set back an hour and forward a day while a run goes on, as time servers and virtual machines do, and
one on which the run takes most of a day."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from running import ENVIRONMENT, SMALL, command, complaints, facts, json_lines, small
from spark_rl.report.metrics import finite
from spark_rl.run import train

JUMPS = '''
import time

real, strftime, began = time.time, time.strftime, time.monotonic()
SHIFTS = (0, -3600, 86_400, -7200)


def shifted():
    """Another time of day every tenth of a second."""
    return real() + SHIFTS[int((time.monotonic() - began) * 10) % len(SHIFTS)]


time.time = shifted
time.time_ns = lambda: int(shifted() * 1e9)
time.strftime = lambda form, *at: strftime(form, *(at or (time.localtime(shifted()),)))
'''
FAST = """
import time

monotonic, began = time.monotonic, time.monotonic()
time.monotonic = time.perf_counter = lambda: began + (monotonic() - began) * 3000
time.time = lambda real=time.time(): real + (monotonic() - began) * 3000
"""
"""A day in 29 seconds: every step takes an hour or so, as far as the run can tell."""
SETTINGS = ("train.steps=3", "train.save_every=1")


@pytest.mark.parametrize(("clock", "longest"), [(JUMPS, 3000.0), (FAST, 1e6)], ids=["jumps", "fast"])
def test_no_clock_changes_anything(tmp_path: Path, clock: str, longest: float) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(clock)
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path / 'clock'}:{ENVIRONMENT['PYTHONPATH']}"}

    def spark_rl(*words: str | Path) -> str:
        done = subprocess.run(
            command(*words), capture_output=True, text=True, env=environment, timeout=300, check=True, cwd=tmp_path
        )
        assert complaints(done.stderr) == ""
        return done.stdout

    spark_rl("train", "--config", "tiny", "--seed", "0", *SMALL, *SETTINGS[1:], "train.steps=2")
    (run_dir,) = (path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
    spark_rl("train", "--resume", *SETTINGS[:1])
    assert run_dir.name in spark_rl("runs")
    train(small(tmp_path / "straight", *SETTINGS, "seed=0"))
    assert facts(run_dir) == facts(tmp_path / "straight")
    one, other = (path / "model" / "model.safetensors" for path in (run_dir, tmp_path / "straight"))
    assert one.read_bytes() == other.read_bytes()
    times = [value for record in json_lines(run_dir / "metrics.jsonl") for name, value in record.items()
             if name.startswith("time/") or name in {"seconds", "tokens_per_second"}]  # fmt: skip
    assert len(times) > 9
    assert all((number := finite(value)) is not None and 0 <= number < longest for value in times)
    if clock == FAST:
        assert max(finite(record["seconds"]) or 0.0 for record in json_lines(run_dir / "metrics.jsonl")) > 300
