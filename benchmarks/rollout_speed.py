"""How fast the embedded engine decodes, beside transformers' ``generate`` and vLLM, in one run.

    python benchmarks/rollout_speed.py [--shape 3m] [--dtype bfloat16] [--threads 2] [--repeats 5] [--vllm]

Same weights, number format, threads, prompts, temperature and token limit. ``natural`` lets responses end when the
model ends them, as in training, and counts only the tokens up to each end, for all; ``fixed`` makes every row generate
exactly the limit, so all do the same number of row-steps. Shapes are those of ``step_shapes.py``, and decide lengths by
their weights alone. The order alternates; medians are printed. vLLM (``--vllm``, of ``.venv-vllm``) is a process of its
own, which is asked in turn and whose start does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from step_shapes import TEXT_SHAPES, Shape, config_of, make_model, problems_of
from transformers import GenerationConfig
from transformers.utils import logging

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import ModelConfig
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.load import load_model, set_arithmetic
from spark_rl.model.loaded import LoadedModel

VLLM_PYTHON = Path(__file__).parents[1] / ".venv-vllm" / "bin" / "python"
ROWS = 64
"""Rows that transformers generates at a time, at most, where their logits would not fit into the memory."""
LOGITS = 2**26
"""Above which they would not: transformers has several copies of them, of all rows."""


def transformers_tokens(loaded: LoadedModel, prompts: list[Prompt], n: int, limit: int, eos: int | None) -> int:
    """Generate with transformers; returns the tokens up to and including each row's end."""
    longest = max(len(p.token_ids) for p in prompts)
    ids = torch.tensor([[0] * (longest - len(p.token_ids)) + list(p.token_ids) for p in prompts])
    ids = ids.repeat_interleave(n, dim=0)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=limit, pad_token_id=0, eos_token_id=eos
    )
    rows = ROWS if len(ids) * loaded.causal_lm.config.vocab_size > LOGITS else len(ids)
    tokens = 0
    for some in torch.split(ids, rows):
        with torch.no_grad():
            out = loaded.causal_lm.generate(some, attention_mask=(some != 0).long(), generation_config=config)
        new = out[:, longest:].tolist()
        tokens += sum(row.index(eos) + 1 if eos in row else len(row) for row in new)
    return tokens


def engine_tokens(engine: EmbeddedEngine, prompts: list[Prompt], sampling: Sampling) -> int:
    """Generate with the embedded engine; returns the tokens."""
    return sum(len(c.token_ids) for completions in engine.generate(prompts, sampling) for c in completions)


def rate(run: Callable[[], int]) -> float:
    """Tokens per second of one call."""
    started = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - started)


@contextmanager
def vllm(job: dict[str, object], threads: int) -> Iterator[Callable[[], float]]:
    """A vLLM that generates when it is asked, and says its tokens per second."""
    env = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR",
    }  # fmt: skip
    program = Path(__file__).with_name("rollout_vllm.py")
    command = [str(VLLM_PYTHON), str(program), json.dumps(job)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asks, tells = process.stdin, process.stdout
        assert asks is not None
        assert tells is not None

        def ask() -> float:
            asks.write("go\n")
            asks.flush()
            for line in tells:
                if line.startswith("rate "):
                    return float(line.split()[1])
            sys.exit("vLLM ended")

        yield ask  # it ends when its input does


def main() -> None:
    """The table of one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=TEXT_SHAPES, default="embedded")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lengths", choices=("natural", "fixed", "both"), default="both")
    parser.add_argument("--vllm", action="store_true", help="ask vLLM too (make .venv-vllm/.installed)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_arithmetic(ModelConfig(device="cpu", threads=asked.threads))
    shape = TEXT_SHAPES[asked.shape]
    found: dict[str, dict[str, list[float]]] = {}
    for lengths in ("natural", "fixed") if asked.lengths == "both" else (asked.lengths,):
        with TemporaryDirectory() as folder:
            make_model(shape, Path(folder), fixed=lengths == "fixed")
            found[lengths] = compared(shape, Path(folder), lengths, asked)
    show(found, shape, asked)
    if asked.json:
        facts = {name: getattr(asked, name) for name in ("shape", "dtype", "threads", "repeats")}
        asked.json.write_text(json.dumps({**facts, "torch": torch.__version__, "rates": found}, indent=1) + "\n")


def compared(shape: Shape, model: Path, lengths: str, asked: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens per second of each engine, of every turn but the first."""
    config = config_of(
        shape, model, model / "run", spark=False, kl=0.0, dtype=asked.dtype, threads=asked.threads, steps=1
    )  # fmt: skip
    ours, theirs = load_model(config), load_model(config)
    chat = ChatFormat(ours.tokenizer, config.chat)
    prompts = [chat.encode(problem) for problem in problems_of(shape, config)]
    end = None if lengths == "fixed" else ours.tokenizer.eos_token_id
    engine = EmbeddedEngine(ours, [] if end is None else [end], chat.decode, max_rows=shape.problems * shape.samples)
    sampling = Sampling(shape.samples, 1.0, shape.limit)
    runs: dict[str, Callable[[], float]] = {
        "spark-rl": lambda: rate(lambda: engine_tokens(engine, prompts, sampling)),
        "generate": lambda: rate(lambda: transformers_tokens(theirs, prompts, shape.samples, shape.limit, end)),
    }
    job = {
        "model": str(model), "dtype": asked.dtype, "prompts": [list(p.token_ids) for p in prompts], "n": shape.samples,
        "limit": shape.limit, "fixed": end is None,
    }  # fmt: skip
    if not asked.vllm:
        return in_turns(runs, asked.repeats)
    with vllm(job, asked.threads) as ask:
        return in_turns({**runs, "vLLM": ask}, asked.repeats)


def in_turns(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Each run ``repeats`` times after a first that warms up, the order turned about each time."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name in list(runs) if turn % 2 else reversed(list(runs)):
            reached = runs[name]()
            if turn:
                found[name].append(reached)
    return found


def show(found: dict[str, dict[str, list[float]]], shape: Shape, asked: argparse.Namespace) -> None:
    """Print the table."""
    table = Table("lengths", "engine", "tokens/s, median", "ours to it, median", "min to max")
    for lengths, rates in found.items():
        for name, each in rates.items():
            ratios = [a / b for a, b in zip(rates["spark-rl"], each, strict=True)]
            told = ("", "") if name == "spark-rl" else (
                f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip
            table.add_row(lengths, name, f"{statistics.median(each):,.0f}", *told)
    Console().print(
        f"{shape.about}: {shape.problems} problems x {shape.samples}, {shape.limit} new tokens at most; {asked.dtype}, "
        f"{asked.threads} threads, torch {torch.__version__}"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
