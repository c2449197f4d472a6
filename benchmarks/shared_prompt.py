"""What one pass over a prompt and its image saves, at n responses a prompt: time and peak memory, both ways in one run.

``python benchmarks/shared_prompt.py`` builds a random Qwen2.5-VL of 9 M parameters (float32) and compares, on the same
weights, tokens, threads and number format,

- learner: forward and backward of the clipped objective over n responses of one long image prompt, with the prompt
  passed once (``spark_rl.model.score``) against every response bringing its own copy of prompt and image;
- engine: prefill and n rollouts, prompt and image once, against transformers' ``generate`` on n copies.

Each way runs in a process of its own, so that the peak of its resident memory is its own. Responses are forced to the
same lengths on both sides.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging
from ways import add_options, run

from spark_rl.backend import Backend, open_backend
from spark_rl.chat import Prompt
from spark_rl.config import parse_config
from spark_rl.engine.base import Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.places import EMBEDDED
from spark_rl.model.score import make_rows, response_logprobs
from spark_rl.model.vision import load_processor
from spark_rl.problem import Problem

WAYS = ("learner-naive", "learner-shared", "engine-naive", "engine-shared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8, help="responses a prompt, n")
    parser.add_argument("--side", type=int, default=560, help="pixels on a side of the image")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each response")
    add_options(parser, WAYS)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if arguments.way:
        print(json.dumps(measure(arguments)))
        return
    with TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        found = {way: run(way, model) for way in WAYS}
    report(found, arguments)


def make_model(folder: Path) -> Path:
    """A random Qwen2.5-VL of 9 M parameters; its tower attends within windows of 112 pixels, as the 7B's does."""
    config = AutoConfig.from_pretrained(EMBEDDED["embedded-vl"])
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 256, 688, 8
    text.num_attention_heads, text.num_key_value_heads = 8, 2
    text.layer_types = ["full_attention"] * 8
    tower.depth, tower.hidden_size, tower.intermediate_size = 8, 160, 480
    tower.num_heads, tower.out_hidden_size = 4, 256
    tower.window_size, tower.fullatt_block_indexes = 112, [3, 7]
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters", file=sys.stderr)
    model.save_pretrained(folder)
    load_processor(str(EMBEDDED["embedded-vl"]), config).save_pretrained(folder)
    return folder


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(arguments.threads)
    side = arguments.side
    config = parse_config({
        "model": {"path": str(arguments.model), "threads": arguments.threads, "device": "cpu"},
        "chat": {"max_pixels": side * side, "min_pixels": side * side}, "objective": {"kl": 0.0},
    })  # fmt: skip
    backend = open_backend(config)
    noise = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prompt = backend.chat.encode(Problem("p", "How many?", "1", images=(Image.fromarray(noise.numpy()),)))
    work = {
        "learner-naive": learner_naive, "learner-shared": learner_shared, "engine-naive": engine_naive,
        "engine-shared": engine_shared,
    }[arguments.way](backend, prompt, arguments)  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds), "peak_mb": peak / 1024, "value": value, "prompt_tokens": len(prompt.token_ids)}


def responses_of(arguments: argparse.Namespace) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, 100, (arguments.samples, arguments.tokens), generator=generator)


def learner_shared(backend: Backend, prompt: Prompt, arguments: argparse.Namespace) -> Callable[[], float]:
    responses = responses_of(arguments).tolist()

    def work() -> float:
        rows = make_rows(backend.loaded, [prompt.token_ids], [prompt.vision], [0] * len(responses), responses)
        logp = response_logprobs(backend.loaded, rows, 1.0, 1024)
        logp.mean().backward()  # type: ignore[no-untyped-call]
        backend.loaded.model.zero_grad()
        return float(logp.detach().mean())

    return work


def learner_naive(backend: Backend, prompt: Prompt, arguments: argparse.Namespace) -> Callable[[], float]:
    """transformers' own forward over n whole rows; only the logits of the responses are computed, as ours are."""
    responses = responses_of(arguments)
    n = len(responses)
    rows = torch.cat((torch.tensor([prompt.token_ids] * n), responses), dim=1)
    vision = {
        name: torch.nn.functional.pad(v, (0, responses.shape[1])).repeat(n, 1) if name.endswith("_type_ids")
        else v.repeat(n, *[1] * (v.dim() - 1))
        for name, v in prompt.vision.items()
    }  # fmt: skip

    def work() -> float:
        hidden = backend.loaded.decoder(
            input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False, **vision
        ).last_hidden_state
        logits = backend.loaded.head(hidden[:, len(prompt.token_ids) - 1 : -1])
        logp = logits.log_softmax(-1).gather(-1, responses[..., None]).squeeze(-1)
        logp.mean().backward()  # type: ignore[no-untyped-call]
        backend.loaded.model.zero_grad()
        return float(logp.detach().mean())

    return work


def engine_shared(backend: Backend, prompt: Prompt, arguments: argparse.Namespace) -> Callable[[], float]:
    engine = EmbeddedEngine(backend.loaded, [], backend.chat.decode)  # no end: every response has all its tokens

    def work() -> float:
        (found,) = engine.generate([prompt], Sampling(arguments.samples, 1.0, arguments.tokens))
        return float(sum(len(c.token_ids) for c in found))

    return work


def engine_naive(backend: Backend, prompt: Prompt, arguments: argparse.Namespace) -> Callable[[], float]:
    model = backend.loaded.causal_lm
    model.set_attn_implementation("sdpa")
    n = arguments.samples
    rows = torch.tensor([prompt.token_ids] * n)
    vision = {name: v.repeat(n, *[1] * (v.dim() - 1)) for name, v in prompt.vision.items()}

    def work() -> float:
        with torch.inference_mode():
            found = model.generate(
                input_ids=rows, attention_mask=torch.ones_like(rows), do_sample=True, top_k=0,
                max_new_tokens=arguments.tokens, min_new_tokens=arguments.tokens, **vision,
            )  # fmt: skip
        return float(found.numel() - rows.numel())

    return work


def report(found: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    prompt = int(found["learner-shared"]["prompt_tokens"])
    title = f"n = {arguments.samples}, {prompt} tokens a prompt, {arguments.tokens} a response"
    table = Table("", "naive s", "shared s", "times faster", "naive MB", "shared MB", "memory", title=title)
    facts = {}
    for part in ("learner", "engine"):
        naive, shared = found[f"{part}-naive"], found[f"{part}-shared"]
        if part == "learner" and abs(naive["value"] - shared["value"]) > 1e-4:
            raise SystemExit(f"the two ways disagree: {naive['value']} against {shared['value']}")
        faster, less = naive["seconds"] / shared["seconds"], naive["peak_mb"] / shared["peak_mb"]
        facts[part] = {"naive": naive, "shared": shared, "faster": faster, "memory": less}
        table.add_row(
            part, f"{naive['seconds']:.2f}", f"{shared['seconds']:.2f}", f"{faster:.2f}", f"{naive['peak_mb']:.0f}",
            f"{shared['peak_mb']:.0f}", f"{less:.1f} x less",
        )  # fmt: skip
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
