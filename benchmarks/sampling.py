"""What drawing a token a row takes, by one sum over the vocabulary and by blocks: ``python benchmarks/sampling.py``.

The same logits and the same draws, in turns; milliseconds of a row of the table are medians. The tokens are counted
that differ, which rounding alone can make.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from spark_rl.engine import draw

SHAPES = ((256, 4096), (64, 32_000), (64, 151_936), (64, 262_144))
"""Rows, vocabulary."""


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    table = Table("rows", "vocabulary", "one sum, ms", "by blocks, ms", "ratio", "other tokens")
    for rows, vocabulary in SHAPES:
        logits_RV = 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0))
        uniform_R = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        seconds: dict[int, list[float]] = {sys.maxsize: [], draw.BLOCKED: []}
        drawn = {}
        for turn in range(asked.repeats + 1):
            for threshold, taken in seconds.items():
                draw.BLOCKED, before = threshold, draw.BLOCKED
                began = time.perf_counter()
                drawn[threshold] = draw.sample(logits_RV, 1.0, uniform_R)[0]
                if turn:
                    taken.append(time.perf_counter() - began)
                draw.BLOCKED = before
        flat, blocked = map(statistics.median, seconds.values())
        other = int((drawn[sys.maxsize] != drawn[draw.BLOCKED]).sum())
        table.add_row(
            str(rows),
            f"{vocabulary:,}",
            f"{1e3 * flat:.1f}",
            f"{1e3 * blocked:.1f}",
            f"{flat / blocked:.1f}",
            str(other),
        )
    Console().print(f"{asked.threads} threads, torch {torch.__version__}")
    Console().print(table)


if __name__ == "__main__":
    main()
