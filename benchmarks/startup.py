"""Processor seconds from the shell to the first step of ``spark-rl train``, beside what its libraries take alone.

    python benchmarks/startup.py [--repeats 5] [--json FILE] [KEY=VALUE ...]

Each is a process of its own, in turns. ``train`` is the embedded default without examinations; it and the verifiers it
starts are read from ``/proc`` once ``metrics.jsonl`` has its first row. Settings are passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

LIBRARIES = {
    "import torch": "import torch",
    "and transformers, peft": "import torch, transformers.models.qwen2.modeling_qwen2, peft",
    "and spark_rl.run": "import torch, transformers.models.qwen2.modeling_qwen2, peft, spark_rl.run",
}
TRAIN = ("train", "--run-dir", "run", "data.heldout=null", "data.transfer=null", "train.steps=1000")
TICKS = os.sysconf("SC_CLK_TCK")


def imported(code: str) -> tuple[float, float]:
    """(processor seconds, seconds) of an interpreter that runs ``code``, which collects no garbage, as ours."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import gc; gc.disable()\n{code}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - began


def first_step(overrides: list[str]) -> tuple[float, float]:
    """(processor seconds, seconds) until the first step is written down."""
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "spark_rl", *TRAIN, *overrides]
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        metrics = Path(folder, "run", "metrics.jsonl")
        try:
            while not (metrics.is_file() and metrics.stat().st_size):
                if process.poll() is not None:
                    assert process.stderr is not None, "piped"
                    sys.exit(process.stderr.read().decode())
                time.sleep(0.01)
            return used_by(process.pid), time.perf_counter() - began
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def used_by(session: int) -> float:
    """Processor seconds of all processes of a session, and of those that they have waited for."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked, overrides = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the run that is timed, too
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (*LIBRARIES, "train, to the first step")}
    for _ in range(asked.repeats):
        for name, code in LIBRARIES.items():
            found[name].append(imported(code))
        found["train, to the first step"].append(first_step(overrides))
    table = Table("from the shell", "processor s", "min to max", "s")
    for name, runs in found.items():
        used = [cpu for cpu, _ in runs]
        table.add_row(
            name, f"{median(used):.2f}", f"{min(used):.2f} to {max(used):.2f}", f"{median(s for _, s in runs):.2f}"
        )
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
