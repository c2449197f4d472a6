"""What it saves that layers with a window forget the columns before it: seconds and peak memory, both ways in turns.

    python benchmarks/windowed_cache.py [--dtype bfloat16] [--problems 4] [--tokens 1536] [--threads 2] [--json FILE]

Rollouts of a random Gemma 3 (the layers of its 270M, of which five in six see 512 tokens, and a vocabulary of 4k) that
all have their full length. Each way is a process of its own, so that the peak of its resident memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from step_shapes import SHAPES, Shape, config_of, make_model, problems_of
from transformers.utils import logging
from ways import add_options, run

from spark_rl.backend import open_backend
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine

WAYS = ("all columns", "what they see")
"""What a layer with a window holds."""


def shape_of(problems: int, tokens: int) -> Shape:
    """Gemma 3, with as much to generate as is asked for."""
    gemma = SHAPES["262k"]
    settings = {**gemma.settings, "vocab_size": 4096, "max_position_embeddings": gemma.prompt + tokens}
    return replace(gemma, problems=problems, limit=tokens, settings=settings)


def measured(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of the rollouts, the MiB that they take at most, and the sum of their log-probabilities."""
    shape = shape_of(asked.problems, asked.tokens)
    config = config_of(
        shape, asked.model, asked.model / "run", spark=False, kl=0.0, dtype=asked.dtype, threads=asked.threads, steps=1
    )
    backend = open_backend(config)
    engine = backend.engine
    assert isinstance(engine, EmbeddedEngine), "engine.name is embedded"
    if asked.way == WAYS[0]:
        engine.windows = [None] * len(engine.windows)
    prompts = [backend.chat.encode(problem) for problem in problems_of(shape, config)]
    engine.generate(prompts[:1], Sampling(1, 1.0, 8))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = engine.generate(prompts, Sampling(shape.samples, 1.0, shape.limit))
    seconds = time.perf_counter() - began
    told = sum(sum(c.logprobs) for completions in found for c in completions)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds, "mib": taken / 1024, "logprobs": told}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--problems", type=int, default=4, help="two at least, with eight rollouts each")
    parser.add_argument("--tokens", type=int, default=1536, help="of each response, behind a prompt of 64")
    add_options(parser, WAYS)
    asked = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if asked.way:
        print(json.dumps(measured(asked)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as folder:
        model = Path(folder)
        make_model(shape_of(asked.problems, asked.tokens), model, fixed=True)
        for _ in range(asked.repeats):
            for way in WAYS:
                found[way].append(run(way, model))
    table = Table("layers with a window hold", "seconds", "min to max", "MiB", "log-probabilities")
    for way, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        table.add_row(
            way, f"{median(seconds):.1f}", f"{min(seconds):.1f} to {max(seconds):.1f}",
            f"{median(run['mib'] for run in runs):.0f}", f"{runs[0]['logprobs']:.2f}",
        )  # fmt: skip
    Console().print(table)
    if asked.json:
        facts = {name: getattr(asked, name) for name in ("dtype", "problems", "tokens", "threads")}
        asked.json.write_text(json.dumps({**facts, "torch": torch.__version__, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
