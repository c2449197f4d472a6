"""A long run, and many resumes: ``python campaigns/soak.py [--steps 3000] [--resumes 100]``.

A very small model is trained for many steps in one process. After each step are noted its memory, its open files, its
threads and child processes, the files of the run directory and the seconds of the step. Of each the slope over the
steps is estimated after a warm-up, with its 95% interval (from means of blocks of steps, which are nearly independent),
as what it would add up to in 1,000 steps. What grows is a leak.

Then a run is continued as often as ``--resumes`` says, one step at a time, each in a process of its own, and compared
bit for bit with a run that made all steps in one.

Exit status 1 if memory or files grow beyond what is allowed, or a bit differs.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from small_runs import SETTINGS, rows, train_in_a_process
from transformers.utils.logging import disable_progress_bar

from spark_rl.config import Config, load_config
from spark_rl.report.charts import HEIGHT, WIDTH, Series, line_chart
from spark_rl.report.watch import Silent
from spark_rl.run import train

RUN = (*SETTINGS, "train.keep=2", "train.sample_rollouts=2", "data.heldout=null", "data.transfer=null")
BLOCKS = 20
"""Of steps, whose means a slope is fitted to."""
T_95 = 2.101
"""Student's t for 95% and ``BLOCKS`` - 2 degrees of freedom."""
ALLOWED = {"memory, MB": 8.0, "open files": 0.5, "threads": 0.5, "children": 0.5, "files": 0.5, "seconds a step": 0.02}
"""What may be added in 1,000 steps, at the lower end of the interval."""


STYLE = """text { fill: #737d87; font: 11px system-ui, sans-serif; }
.line { fill: none; stroke: #2f81f7; stroke-width: 2; }
.dots { fill: none; stroke: #2f81f7; stroke-width: 3; stroke-linecap: round; opacity: 0.25; }
line.grid { stroke: #8b949e; opacity: 0.3; } line.axis { stroke: #737d87; }"""
"""Of the drawing; greys that can be read on white and on black."""


class Meter(Silent):
    """Notes what a process holds after each step of its run."""

    def __init__(self, run_dir: Path, console: Console) -> None:
        self.run_dir, self.console = run_dir, console
        self.rows: list[dict[str, float]] = []

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Called by the run."""
        if len(self.rows) % 50 == 0:
            gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.rows.append({
            "memory, MB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            "open files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            "threads": threading.active_count(),
            "children": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
            "files": sum(len(files) for _, _, files in os.walk(self.run_dir)),
            "seconds a step": metrics["seconds"],
        })  # fmt: skip
        if len(self.rows) % 500 == 0:
            self.console.print(f"step {len(self.rows)}: {self.rows[-1]['memory, MB']:.0f} MB")


@dataclass(frozen=True, slots=True)
class Slope:
    """What is added in 1,000 steps."""

    effect: float
    low: float
    high: float
    begin: float
    """The mean of the first block after the warm-up."""


def slope(values: Sequence[float]) -> Slope:
    """Least squares over the means of blocks."""
    size = len(values) // BLOCKS
    means = [statistics.fmean(values[n * size : (n + 1) * size]) for n in range(BLOCKS)]
    places = [(n + 0.5) * size / 1000 for n in range(BLOCKS)]
    middle, mean = statistics.fmean(places), statistics.fmean(means)
    spread = sum((place - middle) ** 2 for place in places)
    effect = sum((place - middle) * (value - mean) for place, value in zip(places, means, strict=True)) / spread
    rest = sum((v - mean - effect * (p - middle)) ** 2 for p, v in zip(places, means, strict=True))
    error = T_95 * math.sqrt(rest / (BLOCKS - 2) / spread)
    return Slope(effect, effect - error, effect + error, means[0])


def config_of(run_dir: Path, steps: int, *settings: str) -> Config:
    """The tiny recipe, made very small."""
    return load_config("tiny", [*RUN, f"train.steps={steps}", *settings], run_dir=str(run_dir))


def soak(folder: Path, steps: int, console: Console) -> tuple[dict[str, Slope], list[dict[str, float]]]:
    """One long run; the slopes after a tenth of the steps, and all rows."""
    meter = Meter(folder / "long", console)
    train(config_of(folder / "long", steps, "train.save_every=10"), watcher=meter)
    after = meter.rows[steps // 10 :]
    return {name: slope([row[name] for row in after]) for name in ALLOWED}, meter.rows


def resumes(folder: Path, count: int) -> str:
    """A run that is continued for one step, ``count`` times; what differs from one that never ended, or nothing."""
    sessions = [("often", step) for step in range(1, count + 1)] + [("once", count)]
    for name, step in sessions:
        config = config_of(folder / name, step, "train.save_every=1")
        if (status := train_in_a_process(config, resume=name == "often" and step > 1)) != 0:
            return f"the session {name} of step {step} ended with {status}"
    ours, theirs = (_facts(folder / name) for name in ("often", "once"))
    return ", ".join(name for name in theirs if ours.get(name) != theirs[name])


def _facts(run_dir: Path) -> dict[str, Any]:
    return {
        "metrics": rows(run_dir / "metrics.jsonl"),
        "rollouts": (run_dir / "rollouts.jsonl").read_text(),
        "weights": hashlib.sha256((run_dir / "model" / "model.safetensors").read_bytes()).hexdigest(),
    }


def drawing(noted: Sequence[Mapping[str, float]]) -> str:
    """What a process holds over the steps, as SVG: one chart each, three in a row."""
    charts = []
    for number, name in enumerate(ALLOWED):
        points = tuple((float(step), row[name]) for step, row in enumerate(noted, start=1))
        x, y = number % 3 * WIDTH, number // 3 * HEIGHT
        chart = line_chart(name, [Series(name, points)], y_label=name)
        charts.append(f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"{chart.removeprefix("<svg")}')
    width, height = 3 * WIDTH, math.ceil(len(ALLOWED) / 3) * HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return f"{head}<style>{STYLE}</style>{''.join(charts)}</svg>\n"


def main() -> int:
    """Run, resume, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help=f"at least {2 * BLOCKS}")
    parser.add_argument("--resumes", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    console = Console(width=100)
    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        begun = time.monotonic()
        differs = resumes(Path(folder), arguments.resumes) if arguments.resumes else ""
        console.print(f"{arguments.resumes} resumes in a row: {differs or 'the same bits'}, "
                      f"{time.monotonic() - begun:.0f} s")  # fmt: skip
        begun = time.monotonic()
        slopes, noted = soak(Path(folder), arguments.steps, console)
    table = Table("in 1,000 steps", "at first", "added", "95% interval", "allowed",
                  title=f"{arguments.steps} steps, {time.monotonic() - begun:.0f} s")  # fmt: skip
    grows = [name for name, found in slopes.items() if found.low > ALLOWED[name]]
    for name, found in slopes.items():
        interval = f"{found.low:+.3g} to {found.high:+.3g}"
        table.add_row(name, f"{found.begin:.4g}", f"{found.effect:+.3g}", interval, f"{ALLOWED[name]:g}")
    console.print(table)
    for name in grows:
        console.print(f"GROWS: {name}")
    if arguments.plot:
        arguments.plot.write_text(drawing(noted), encoding="utf-8")
    if arguments.json:
        facts = {"slopes": {name: [s.effect, s.low, s.high] for name, s in slopes.items()}, "rows": noted,
                 "resumes": arguments.resumes, "differs": differs}  # fmt: skip
        arguments.json.write_text(json.dumps(facts) + "\n")
    return int(bool(grows or differs))


if __name__ == "__main__":
    sys.exit(main())
