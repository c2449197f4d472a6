"""How a training step grows: seconds and peak memory against one size at a time.

    python benchmarks/scaling.py [--dtype bfloat16] [--axes weights vocabulary] [--large] [--threads 2] [--json FILE]

Our GRPO step on random Llamas (``step_shapes.py``), all responses of full length, with a KL term: each point is a
process of its own that does a few steps, of which the first does not count. A line is fitted to each axis by least
squares; its slope says what a weight, a response or a token costs, and ``off`` how far the worst point is from it.
``per`` is the seconds over the axis' value, as a multiple of the first point's: 1 all the way down is a line through 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from step_shapes import Shape, llama, make_model
from steps import KL, measured
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

BASE = Shape("Llama of 25 M, vocabulary 4k", 4, 4, 64, 32, 16, llama(4096, 512, 1376, 8, 8, 4))
WIDTHS = ((128, 344, 4, 4), (256, 688, 6, 4), (512, 1376, 8, 8), (768, 2048, 12, 12))
LARGE = ((1024, 2816, 16, 16), (1280, 3456, 24, 20))
"""Hidden width, inner width, layers, heads: 185 and 420 million weights, the latter 10 GB."""


def _sized(width: int, inner: int, layers: int, heads: int) -> Shape:
    return replace(BASE, settings=llama(4096, width, inner, layers, heads, heads // 2))


def _with_vocabulary(rows: int) -> Shape:
    return replace(BASE, settings={**BASE.settings, "vocab_size": rows})


@dataclass(frozen=True, slots=True)
class Axis:
    """One size, and the shapes in which it alone differs."""

    values: tuple[int, ...]
    shape: Callable[[int], Shape]


AXES = {
    "responses a problem": Axis((2, 4, 8, 16, 32), lambda n: replace(BASE, samples=n)),
    "problems": Axis((2, 4, 8, 16), lambda n: replace(BASE, problems=n)),
    "response tokens": Axis((16, 32, 64, 128, 256), lambda n: replace(BASE, limit=n)),
    "prompt tokens": Axis((32, 64, 128, 256, 512), lambda n: replace(BASE, prompt=n)),
    "vocabulary": Axis((4096, 16_384, 65_536, 151_936), _with_vocabulary),
}
"""``weights`` and ``threads`` stand beside these, in :func:`shapes_of`."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a step took at one value of an axis."""

    axis: str
    value: float
    seconds: list[float]
    cpu: list[float]
    peak_mib: float
    phases: dict[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    """``slope * value + start``, and how far the worst point is from it, as a share of that point."""

    slope: float
    start: float
    off: float


def line_through(values: list[float], found: list[float]) -> Line:
    """By least squares."""
    slope, start = np.polyfit(values, found, 1)
    off = max(abs(slope * x + start - y) / y for x, y in zip(values, found, strict=True))
    return Line(float(slope), float(start), float(off))


def shapes_of(axis: str, threads: int, *, large: bool) -> list[tuple[float, Shape, int]]:
    """(value, shape, threads) of each point."""
    if axis == "weights":
        shapes = [_sized(*widths) for widths in WIDTHS + (LARGE if large else ())]
        return [(float(_weights(shape)), shape, threads) for shape in shapes]
    if axis == "threads":
        return [(float(n), BASE, n) for n in range(1, threads + 1)]
    return [(float(n), AXES[axis].shape(n), threads) for n in AXES[axis].values]


def _weights(shape: Shape) -> int:
    settings = dict(shape.settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings, tie_word_embeddings=True)
        )
    return sum(p.numel() for p in model.parameters())


def point_of(axis: str, value: float, shape: Shape, threads: int, asked: argparse.Namespace) -> Point:
    """Train a few steps in a process of its own."""
    with TemporaryDirectory() as folder:
        make_model(shape, Path(folder) / "model", fixed=True)
        job = {
            "tool": "grpo", "shape": asdict(shape), "model": str(Path(folder) / "model"), "kl": KL,
            "dtype": asked.dtype, "threads": threads, "steps": asked.steps + 1, "device": "cpu", "decoding": None,
        }  # fmt: skip
        steps = measured(job, Path(folder))
    pairs = list(pairwise(steps))
    return Point(
        axis, value, [b["clock"] - a["clock"] for a, b in pairs], [b["cpu"] - a["cpu"] for a, b in pairs],
        max(step["peak_mib"] for step in steps),
        {name: median(b["phases"][name] for _, b in pairs) for name in pairs[0][1]["phases"]},
    )  # fmt: skip


def main() -> None:
    """A table an axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["weights", *AXES, "threads"]
    parser.add_argument("--axes", nargs="+", choices=names, default=names)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=3, help="steps a point, beside the first, which doesn't count")
    parser.add_argument("--large", action="store_true", help="up to 420 million weights, which take 10 GB")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    console, points = Console(width=None if sys.stdout.isatty() else 160), list[Point]()
    console.print(
        f"{BASE.about}, unless the axis says otherwise: {BASE.problems} problems x {BASE.samples} responses of "
        f"{BASE.limit} tokens behind {BASE.prompt}; {asked.dtype}, {asked.threads} threads, torch {torch.__version__}"
    )
    for axis in asked.axes:
        found = [point_of(axis, *one, asked) for one in shapes_of(axis, asked.threads, large=asked.large)]
        points += found
        show(console, axis, found)
    if asked.json:
        settings = {name: getattr(asked, name) for name in ("dtype", "threads", "steps")}
        facts = {**settings, "torch": torch.__version__, "base": asdict(BASE), "points": list(map(asdict, points))}
        asked.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def show(console: Console, axis: str, points: list[Point]) -> None:
    """The points of an axis, and the lines through them."""
    values, seconds = [p.value for p in points], [median(p.seconds) for p in points]
    table = Table(axis, "seconds", "min to max", "per", "CPU-s", "peak MiB", "where the time goes")
    for point, middle in zip(points, seconds, strict=True):
        phases = ", ".join(f"{name} {part:.2f}" for name, part in point.phases.items() if part >= 0.005)
        table.add_row(
            f"{point.value:,.0f}", f"{middle:.2f}", f"{min(point.seconds):.2f} to {max(point.seconds):.2f}",
            f"{middle / point.value / (seconds[0] / values[0]):.2f}", f"{median(point.cpu):.1f}",
            f"{point.peak_mib:,.0f}", phases,
        )  # fmt: skip
    console.print(table)
    if len(points) < 3:
        return
    time, memory = line_through(values, seconds), line_through(values, [p.peak_mib for p in points])
    console.print(
        f"  seconds {time.slope:.3g} a unit + {time.start:.2f}, off by {time.off:.0%} at most; memory "
        f"{memory.slope * 2**20:,.4g} bytes a unit + {memory.start:,.0f} MiB, off by {memory.off:.1%}"
    )


if __name__ == "__main__":
    main()
