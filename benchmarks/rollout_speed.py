"""How fast the embedded engine decodes, beside transformers' ``generate``, in one run.

    python benchmarks/rollout_speed.py [--problems 32] [--samples 8] [--threads 2] [--repeats 5]

Same weights, dtype, threads, prompts, temperature and token limit. Two workloads: ``natural`` lets responses end when
the model ends them, as in training, and counts only the tokens up to each end, for both; ``fixed`` makes every row
generate exactly the limit, so both do the same number of row-steps. The order alternates; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from transformers import GenerationConfig
from transformers.utils import logging

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import load_config
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel


def transformers_tokens(loaded: LoadedModel, prompts: list[Prompt], n: int, limit: int, eos: int | None) -> int:
    """Generate with transformers; returns the tokens up to and including each row's end."""
    longest = max(len(p.token_ids) for p in prompts)
    ids = torch.tensor([[0] * (longest - len(p.token_ids)) + list(p.token_ids) for p in prompts])
    ids = ids.repeat_interleave(n, dim=0)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=limit, pad_token_id=0, eos_token_id=eos
    )
    with torch.no_grad():
        out = loaded.causal_lm.generate(ids, attention_mask=(ids != 0).long(), generation_config=config)
    new = out[:, longest:]
    if eos is None:
        return int(new.numel())
    return sum(row.index(eos) + 1 if eos in row else len(row) for row in new.tolist())


def engine_tokens(engine: EmbeddedEngine, prompts: list[Prompt], sampling: Sampling) -> int:
    """Generate with the embedded engine; returns the tokens."""
    return sum(len(c.token_ids) for completions in engine.generate(prompts, sampling) for c in completions)


def rate(run: Callable[[], int]) -> float:
    """Tokens per second of one call."""
    started = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--limit", type=int, default=48, help="new tokens at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    config = load_config("tiny", model={"path": arguments.model})
    ours, theirs = load_model(config), load_model(config)
    chat = ChatFormat(ours.tokenizer, config.chat)
    problems = load_problems("procedural:missing", config.data, "heldout")[: arguments.problems]
    prompts = [chat.encode(p) for p in problems]
    rows = arguments.problems * arguments.samples
    table = Table("workload", "spark-rl tok/s", "generate tok/s", "ratio (median)", "ratio (min to max)")
    for name, eos in (("natural", ours.tokenizer.eos_token_id), ("fixed", None)):
        engine = EmbeddedEngine(ours, [] if eos is None else [eos], chat.decode, max_rows=rows)
        sampling = Sampling(arguments.samples, 1.0, arguments.limit)
        pairs = []
        for turn in range(arguments.repeats + 1):
            a = rate(lambda: engine_tokens(engine, prompts, sampling))  # noqa: B023 - called at once
            b = rate(lambda: transformers_tokens(theirs, prompts, arguments.samples, arguments.limit, eos))  # noqa: B023
            if turn:  # the first turn warms up
                pairs.append((a, b))
        ratios = [a / b for a, b in pairs]
        table.add_row(
            name, *(f"{statistics.median(x):,.0f}" for x in zip(*pairs, strict=True)),
            f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}",
        )  # fmt: skip
    Console().print(f"{rows} rows, {arguments.threads} threads, fp32, torch {torch.__version__}")
    Console().print(table)


if __name__ == "__main__":
    main()
