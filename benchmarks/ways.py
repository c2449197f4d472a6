"""Ways of doing the same work, each in processes of its own, so that the peak of their resident memory is its own.

The process of a way is the same program with the same options, and is told its way and the folder of the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def add_options(parser: argparse.ArgumentParser, ways: Sequence[str]) -> None:
    """Options that every program with ways has: threads, repeats, where the numbers go, and what a process is told."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=ways, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)


def run(way: str, model: Path) -> dict[str, float]:
    """What the process of a way prints in its last line."""
    command = [sys.executable, *sys.argv, "--way", way, "--model", str(model)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
