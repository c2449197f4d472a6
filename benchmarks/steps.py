"""What a training step costs: our GRPO step, our SPARK step and TRL's GRPO step, side by side in one table.

``make bench-steps`` makes TRL's environment and prints the table of one shape; ``BENCH="--shape 0.5b --dtype
bfloat16"`` passes options. Every tool trains the same weights on the same prompts, in the same number format, with as
many threads, in a process of its own that does a few steps, of which the first does not count. The tools take turns, so
that what else the machine does falls on all of them alike.

``roofline`` is the time that a step's operations and memory traffic take at the speed which a large matrix product and
a large copy reach on this machine in the same run, over the time that it took (``roofline.py``). Each prompt counts
once for all of its responses, whatever the tool does, and a response counts as trained where its tool trains it. What
the tower of a model that sees does is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from roofline import Asked, Roofline, least_seconds, measure_roofline
from step_shapes import SHAPES, config_of, make_model, problems_of
from transformers.utils import logging

from spark_rl.backend import open_backend
from spark_rl.plan.shape import Sizes, sizes_of

HERE = Path(__file__).parent
TRL_PYTHON = HERE.parent / ".venv-trl" / "bin" / "python"
TOOLS = {"grpo": "GRPO", "spark": "SPARK", "trl": "TRL's GRPO"}
KL = 0.001


@dataclass(frozen=True, slots=True)
class Row:
    """A tool with one KL weight and one kind of lengths. The lists hold a number for each step that counts."""

    tool: str
    kl: float
    lengths: str
    seconds: list[float]
    cpu: list[float]
    """Seconds of all threads together."""
    least: list[float]
    """Seconds at the roofline."""
    tokens: list[int]
    """Generated."""
    recycled: list[int]
    """Recycled problems that were trained on."""
    flat: list[float]
    """Share of responses without an advantage, of ours."""
    peak_mib: float
    """Of the process that took most, until the end of its last step."""
    phases: dict[str, float]
    """The median seconds of each phase that is known."""


def main() -> None:
    """The table of one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = "; ".join(f"{name}: {shape.about}" for name, shape in SHAPES.items())
    parser.add_argument("--shape", choices=SHAPES, default="3m", help=shapes)
    parser.add_argument("--base", type=Path, help="of --shape embedded: the model of a run, in place of the base")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--decoding", choices=("float32", "bfloat16"), help="engine.dtype, of ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--trl-python", type=Path, default=TRL_PYTHON, help="of an environment that has TRL")
    parser.add_argument(
        "--kl", choices=("on", "off", "both"), default="both", help=f"a KL term of weight {KL}, or none"
    )
    parser.add_argument("--lengths", choices=("fixed", "natural", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each tool, which take turns")
    parser.add_argument("--steps", type=int, default=2, help="steps a process, beside the first, which doesn't count")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--trl-rows", type=int, help="TRL's per_device_train_batch_size, in place of the shape's")
    parser.add_argument("--quick", action="store_true", help="does it all work: a very small model, one round")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.shape, asked.lengths, asked.rounds, asked.steps = "quick", "fixed", 1, 1
    if asked.base is not None and SHAPES[asked.shape].settings:
        parser.error(f"--base is of --shape embedded; the weights of {asked.shape} are random")
    if "trl" in asked.tools and not asked.trl_python.exists():
        parser.error("TRL's environment is not there: run make bench-steps, or name --tools grpo spark")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(asked.threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the tool that runs, too
    with TemporaryDirectory() as folder:
        rows, roof = compare(asked, Path(folder))
    show(rows, roof, asked)
    if asked.json:
        settings = {
            name: getattr(asked, name)
            for name in ("shape", "dtype", "decoding", "threads", "device", "rounds", "steps")
        }
        settings["base"] = None if asked.base is None else str(asked.base)
        facts = {**settings, "torch": torch.__version__, "roofline": asdict(roof), "rows": list(map(asdict, rows))}
        asked.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def compare(asked: argparse.Namespace, folder: Path) -> tuple[list[Row], Roofline]:
    """Every case in rounds in which the tools take turns, and the best that the machine reached between them."""
    shape, dtype = SHAPES[asked.shape], getattr(torch, asked.dtype)
    device = torch.device(asked.device)
    roof, found = measure_roofline(dtype, device), dict[tuple[str, float, str], list[list[dict[str, Any]]]]()
    for lengths in ("fixed", "natural") if asked.lengths == "both" else (asked.lengths,):
        model = folder / lengths
        make_model(shape, model, fixed=lengths == "fixed", base=asked.base)
        prompts, sizes = read(asked.shape, model, asked.threads)
        for kl in {"on": [KL], "off": [0.0], "both": [KL, 0.0]}[asked.kl]:
            job = {
                "shape": asdict(shape), "model": str(model), "folder": str(folder / "trl"), "prompts": prompts,
                "samples": shape.samples, "limit": shape.limit, "rows": asked.trl_rows or shape.trl_rows, "kl": kl,
                "dtype": asked.dtype, "threads": asked.threads, "steps": asked.steps + 1, "device": asked.device,
                "decoding": asked.decoding,
                "trl": str(asked.trl_python),
            }  # fmt: skip
            for number in range(asked.rounds):
                for tool in asked.tools:
                    print(f"{lengths} lengths, KL {kl}, round {number + 1}: {TOOLS[tool]}", file=sys.stderr)
                    found.setdefault((tool, kl, lengths), []).append(measured({**job, "tool": tool}, folder))
                    roof = roof.best(measure_roofline(dtype, device))
    width = torch.empty(0, dtype=dtype).element_size()
    return [row_of(*case, made, sizes, roof, width) for case, made in found.items()], roof


def read(shape: str, model: Path, threads: int) -> tuple[list[dict[str, Any]], Sizes]:
    """The prompts of a step as we read them, which TRL must read alike, and the sizes of the model."""
    config = config_of(SHAPES[shape], model, model, spark=False, kl=0.0, dtype="float32", threads=threads, steps=1)
    backend = open_backend(config)
    problems = problems_of(SHAPES[shape], config)
    prompts = [(problem, backend.chat.encode(problem)) for problem in problems]
    backend.close()
    return [
        {"text": problem.question if problem.images else prompt.text, "ids": list(prompt.token_ids),
         "images": list(problem.images)}
        for problem, prompt in prompts
    ], sizes_of(backend.loaded)  # fmt: skip


def measured(job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The steps of a tool, in a process of its own."""
    python, program = (job["trl"], "step_trl.py") if job["tool"] == "trl" else (sys.executable, "step_ours.py")
    told = folder / "job.json"
    told.write_text(json.dumps(job), encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    command = [python, str(HERE / program), str(told)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{done.stderr}\n{TOOLS[job['tool']]} failed")
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(
    tool: str, kl: float, lengths: str, made: list[list[dict[str, Any]]], sizes: Sizes, roof: Roofline, width: int
) -> Row:
    """What the processes of a tool found."""
    pairs = [pair for steps in made for pair in pairwise(steps)]
    updates = [[[Asked(**one) for one in asked] for asked in step["updates"]] for _, step in pairs]
    return Row(
        tool, kl, lengths, seconds=[step["clock"] - before["clock"] for before, step in pairs],
        cpu=[step["cpu"] - before["cpu"] for before, step in pairs],
        least=[least_seconds(step, sizes, roof, width, kl) for step in updates],
        tokens=[sum(sum(one.lengths) for asked in step for one in asked) for step in updates],
        recycled=[sum(map(len, step[1:])) for step in updates],
        flat=[sum(step["flat"]) / len(step["flat"]) for _, step in pairs if step["flat"]],
        peak_mib=max(steps[-1]["peak_mib"] for steps in made),
        phases={name: median(step["phases"][name] for _, step in pairs) for name in pairs[0][1]["phases"]},
    )  # fmt: skip


def show(rows: list[Row], roof: Roofline, asked: argparse.Namespace) -> None:
    """Print the table: of each case the tools beneath each other."""
    shape = SHAPES[asked.shape]
    titles = ("lengths", "KL", "step of", "seconds", "min to max", "of TRL's", "CPU-s", "peak GB", "tokens", "recycled",
              "flat", "roofline", "where the time goes")  # fmt: skip
    table = Table(*titles)
    theirs = {(row.kl, row.lengths): median(row.seconds) for row in rows if row.tool == "trl"}
    for row in sorted(rows, key=lambda row: (row.lengths, -row.kl)):
        seconds, them = median(row.seconds), theirs.get((row.kl, row.lengths))
        phases = ", ".join(f"{name} {part:.2f}" for name, part in row.phases.items() if part >= 0.005)
        table.add_row(
            row.lengths, f"{row.kl:g}", TOOLS[row.tool], f"{seconds:.2f}",
            f"{min(row.seconds):.2f} to {max(row.seconds):.2f}", "" if them is None else f"{seconds / them:.2f}",
            f"{median(row.cpu):.1f}", f"{row.peak_mib / 1024:.2f}", f"{median(row.tokens):,.0f}",
            f"{median(row.recycled):.0f}", f"{median(row.flat):.0%}" if row.flat else "",
            f"{median(row.least) / seconds:.1%}", phases,
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(
        f"{asked.base or shape.about}: {shape.problems} problems x {shape.samples}, {shape.limit} new tokens at most; "
        f"{asked.dtype}, {asked.threads} threads, {asked.device}, torch {torch.__version__}; {asked.rounds} rounds of "
        f"{asked.steps} steps; {roof.flops / 1e9:,.0f} GFLOP/s, {roof.bandwidth / 1e9:.1f} GB/s"
    )
    console.print(table)


if __name__ == "__main__":
    main()
