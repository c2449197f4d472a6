"""What a server costs: ``spark-rl serve`` with many clients at once, beside the offline engine on the same prompts.

    python benchmarks/serving.py [--shape 3m] [--clients 64] [--requests 512] [--limit 64] [--repeats 3]

Run by ``make bench-serve``. Each client sends a request as soon as it has the answer to its last one, over a
connection that it keeps. The offline engine gets the same prompts in one call, with as many rows at a time as there are
clients. Same weights, threads (one each), prompts, temperature and limit; tokens a second are counted, because
draws differ. Clients are a process of their own and the server is another, so the server shares two cores with them,
which the offline engine does not. The order alternates; medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from rich.console import Console
from rich.table import Table
from step_shapes import TEXT_SHAPES, config_of, make_model, problems_of
from transformers.utils import logging

from spark_rl.chat import ChatFormat, chat_of
from spark_rl.config import Config, ModelConfig, load_config
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.load import load_model, set_arithmetic


def offline_tokens(engine: EmbeddedEngine, chat: ChatFormat, turns: list[str], limit: int) -> list[int]:
    """Tokens of each answer, from one call."""
    prompts = [chat.encode_chat([("user", [turn])]) for turn in turns]
    answers = engine.generate(prompts, Sampling(1, 1.0, limit))
    return [completions[0].tokens for completions in answers]


async def served_tokens(url: str, turns: list[str], limit: int, clients: int) -> tuple[list[int], list[float], float]:
    """Tokens of each answer, the seconds that each took, and all together."""
    left, counts, seconds = iter(range(len(turns))), [0] * len(turns), list[float]()

    async def client(http: httpx.AsyncClient) -> None:
        for number in left:
            began = time.perf_counter()
            body = {"messages": [{"role": "user", "content": turns[number]}], "temperature": 1, "max_tokens": limit}
            reply = await http.post(f"{url}/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            counts[number] = reply.json()["usage"]["completion_tokens"]
            seconds.append(time.perf_counter() - began)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as http:
        await http.get(f"{url}/health")
        started = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        return counts, seconds, time.perf_counter() - started


def prepared(shape: str, folder: Path) -> tuple[Config, str, list[str]]:
    """The configuration, what ``--model`` and ``--config`` of the server say as JSON, and user turns."""
    if shape == "embedded":
        config = load_config("tiny", ["model.threads=1"])
        problems = load_problems("procedural:missing", config.data, "heldout")
        turns = [config.chat.policy.replace("{question}", problem.question) for problem in problems]
        return config, json.dumps(["--model", "embedded"]), turns
    make_model(TEXT_SHAPES[shape], folder, fixed=False)
    config = config_of(
        TEXT_SHAPES[shape], folder, folder / "run", spark=False, kl=0.0, dtype="float32", threads=1, steps=1
    )  # fmt: skip
    turns = [problem.question for problem in problems_of(TEXT_SHAPES[shape], config)]
    return config, json.dumps(["--model", str(folder)]), turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="embedded", choices=tuple(TEXT_SHAPES), help="embedded is the trained base")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    set_arithmetic(ModelConfig(device="cpu", threads=1))
    with TemporaryDirectory() as folder:
        config, options, turns = prepared(arguments.shape, Path(folder))
        turns = [turns[i % len(turns)] for i in range(arguments.requests)]
        loaded = load_model(config)
        chat = chat_of(config, loaded)
        ends = chat.eos_ids(getattr(loaded.causal_lm, "generation_config", None))
        engine = EmbeddedEngine(loaded, ends, chat.decode, max_rows=arguments.clients)
        command = [sys.executable, "-m", "spark_rl", "serve", "--port", "0", *json.loads(options), "model.threads=1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            try:
                assert server.stdout is not None
                url = next(found[1] for line in server.stdout if (found := re.search(r"on (http://\S+)/v1", line)))
                measure(arguments, engine, chat, turns, url)
            finally:
                server.terminate()


def measure(
    arguments: argparse.Namespace, engine: EmbeddedEngine, chat: ChatFormat, turns: list[str], url: str
) -> None:
    """Alternate, and print medians."""
    offline, served, latency = list[float](), list[float](), list[float]()
    for turn in range(arguments.repeats + 1):  # the first warms up
        started = time.perf_counter()
        tokens = sum(offline_tokens(engine, chat, turns, arguments.limit))
        alone = tokens / (time.perf_counter() - started)
        counts, seconds, whole = asyncio.run(served_tokens(url, turns, arguments.limit, arguments.clients))
        if turn:
            offline.append(alone)
            served.append(sum(counts) / whole)
            latency += seconds
    table = Table(
        "", "tokens/s", title=f"{arguments.shape}: {arguments.requests} requests, {arguments.clients} clients"
    )
    table.add_row("offline engine", f"{statistics.median(offline):,.0f}")
    table.add_row("server", f"{statistics.median(served):,.0f}")
    ratios = [one / other for one, other in zip(served, offline, strict=True)]
    table.add_row("ratio, with its range", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    quantiles = statistics.quantiles(latency, n=20)
    table.add_row("seconds of a request", f"{quantiles[9]:.3f} median, {quantiles[18]:.3f} of 95%")
    Console().print(table)


if __name__ == "__main__":
    main()
