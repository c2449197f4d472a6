"""What the embedded engine gains where prompts wait: rows entering as others finish, beside batch after batch.

    python benchmarks/continuous_batching.py [--problems 128] [--samples 4] [--rows 64] [--limit 256] [--threads 1]

The same engine, weights and draws: batch after batch is one call a batch, with its place in the whole. Responses end
when the model ends them, so that a few are many times as long as most. The order alternates; the program stops if the
two do not give the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import ModelConfig, load_config
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.load import load_model, set_arithmetic

Tokens = list[tuple[int, ...]]


def tokens(engine: EmbeddedEngine, prompts: list[Prompt], sampling: Sampling, size: int) -> tuple[Tokens, float]:
    """The tokens of each row and the seconds they took, ``size`` prompts a call."""
    started, found = time.perf_counter(), []
    for first in range(0, len(prompts), size):
        own = Sampling(sampling.n, 1.0, sampling.max_new_tokens, sampling.seed, first=first)
        found += engine.generate(prompts[first : first + size], own)
    seconds = time.perf_counter() - started
    return [completion.token_ids for completions in found for completion in completions], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--limit", type=int, default=256, help="new tokens at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    set_arithmetic(ModelConfig(device="cpu", threads=arguments.threads))
    config = load_config("tiny", model={"path": arguments.model})
    loaded = load_model(config)
    chat = ChatFormat(loaded.tokenizer, config.chat)
    problems = load_problems("procedural:missing", config.data, "heldout")[: arguments.problems]
    prompts = sorted((chat.encode(p) for p in problems), key=lambda prompt: len(prompt.token_ids))
    engine = EmbeddedEngine(loaded, [loaded.tokenizer.eos_token_id], chat.decode, max_rows=arguments.rows)
    ratios, lengths = [], [0]
    for turn in range(arguments.repeats + 1):
        sampling = Sampling(arguments.samples, 1.0, arguments.limit, seed=turn)
        calls = [len(prompts), max(1, arguments.rows // arguments.samples)]
        runs = {size: tokens(engine, prompts, sampling, size) for size in (calls if turn % 2 else reversed(calls))}
        (ours, seconds), (others, longer) = (runs[size] for size in calls)
        if ours != others:
            raise SystemExit("the two ways gave other tokens")
        if turn:  # the first turn warms up
            ratios.append((sum(map(len, ours)) / seconds, sum(map(len, ours)) / longer))
            lengths += [len(row) for row in ours]
    table = Table("continuous tok/s", "batch after batch tok/s", "ratio (median)", "ratio (min to max)")
    gains = [a / b for a, b in ratios]
    table.add_row(
        *(f"{statistics.median(x):,.0f}" for x in zip(*ratios, strict=True)),
        f"{statistics.median(gains):.2f}", f"{min(gains):.2f} to {max(gains):.2f}",
    )  # fmt: skip
    Console().print(
        f"{len(prompts)} x {arguments.samples} responses through {arguments.rows} rows, {arguments.threads} threads; "
        f"a response has {statistics.median(lengths):.0f} tokens in the median and {max(lengths)} at most"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
