"""``spark-rl plan``: memory, time and cost of a run before anything is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_config
from spark_rl.commands.terminal import console, loading_torch, say, waiting
from spark_rl.commands.training import resolve
from spark_rl.config import Config
from spark_rl.errors import UserError

if TYPE_CHECKING:
    from spark_rl.plan.make import Plan
    from spark_rl.plan.shape import Lengths

READ = 200
"""Problems whose prompts are counted, the first ones."""
PROMPT, ANSWERED = 512, 0.6
"""Tokens of a prompt where nobody knows, and the share of ``rollout.max_new_tokens`` that a response has on average."""


def plan(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl plan``."""
    from spark_rl.plan.hardware import gpu_of

    gpu = gpu_of(arguments.gpu)
    arguments.resume, arguments.run_dir, arguments.seed = False, None, None
    arguments.heldout = None
    config = resolve(arguments)
    check_config(config, computes=False)
    with loading_torch():
        from spark_rl.plan.make import make_plan
        from spark_rl.plan.memory import Rehearsals
        from spark_rl.plan.shape import model_config

    found = model_config(config.model.path, trust_remote_code=config.model.trust_remote_code)
    lengths, problems, told = _lengths(arguments, config, found)
    with waiting("rehearsing the update without data"):
        made = make_plan(Rehearsals(found), config, gpu, arguments.gpus, lengths, problems)
    _print(made, config, told, arguments.price)
    return {"model": config.model.path, "lengths_from": told, **made.facts(arguments.price)}


def _lengths(arguments: argparse.Namespace, config: Config, found: Any) -> tuple[Lengths, int | None, str]:
    """Lengths, the number of problems if it is known, and where the prompt's length is from."""
    from spark_rl.model.vision import sees
    from spark_rl.plan.make import judged_prompt
    from spark_rl.plan.shape import Lengths

    longest = config.rollout.max_new_tokens
    response = arguments.response_tokens or max(1, round(ANSWERED * longest))
    if response > longest:
        raise UserError(f"--response-tokens {response} is more than rollout.max_new_tokens ({longest})")
    image = 0
    if sees(found) and found.model_type in {"qwen2_vl", "qwen2_5_vl"}:
        image = (config.chat.max_pixels or 1024 * 1024) // (28 * 28)
    prompt, problems, told = arguments.prompt_tokens, arguments.problems, "--prompt-tokens"
    if prompt is None or problems is None:
        measured = _measured(config)
        if measured is not None:
            problems = problems or measured[1]
            if prompt is None:
                prompt, told, image = measured[0], f"the first {READ} problems of the data", min(image, measured[2])
    if prompt is None:
        prompt, told = min(config.rollout.max_prompt_tokens, image + PROMPT), "assumed"
    judged = min(config.rollout.max_prompt_tokens, judged_prompt(prompt, response))
    return Lengths(prompt, response, judged, longest, min(image, max(0, prompt - 3))), problems, told


def _measured(config: Config) -> tuple[int, int, int] | None:
    """(mean tokens of a prompt, problems, pixels' tokens) of the data, where data and tokenizer are at hand."""
    from spark_rl.chat import chat_of
    from spark_rl.data import load_problems
    from spark_rl.model.load import describe_model

    try:
        problems = load_problems(config.data.train, config.data, "train")
        described = describe_model(config)
    except UserError:
        return None
    chat = chat_of(config, described)
    counted = [len(chat.encode(problem).token_ids) for problem in problems[:READ]]
    mean = round(sum(counted) / len(counted))
    return mean, len(problems), mean if any(problem.images for problem in problems[:READ]) else 0


def _print(made: Plan, config: Config, told: str, price: float | None) -> None:
    from spark_rl.plan.hardware import GIB
    from spark_rl.plan.memory import PARTS

    memory, sizes, lengths = made.memory, made.sizes, made.lengths
    trained = "" if sizes.trained == sizes.weights else f", {sizes.trained / 1e9:.3g} B of them trained"
    servers = len(config.engine.servers)
    engine = f"{servers} server{'s' * (servers > 1)} elsewhere" if servers else config.engine.name
    say(f"model     {config.model.path}: {sizes.weights / 1e9:.4g} B weights{trained}")
    who = "the local learner" if made.gpus == 1 else f"the sharded learner on {made.gpus} ranks"
    say(f"machine   {made.gpus} x {made.gpu.name}: {who}, engine {engine}")
    say(f"lengths   prompt {lengths.prompt} ({told}), response {lengths.response}, at most {lengths.longest}; "
        f"recycled prompt {lengths.judged}")  # fmt: skip
    table = Table("GiB a GPU", *memory.phases, title="memory", title_justify="left")
    for part in PARTS:
        sizes_of_part = [parts.get(part, 0.0) / GIB for parts in memory.phases.values()]
        if any(size >= 0.005 for size in sizes_of_part):
            table.add_row(part, *(f"{size:.2f}" if size else "" for size in sizes_of_part))
    peaks = [memory.peak(phase) / GIB for phase in memory.phases]
    table.add_section()
    style = ["bold" if peak <= made.gpu.memory else "bold red" for peak in peaks]
    table.add_row("peak", *(Text(f"{peak:.2f}", style=s) for peak, s in zip(peaks, style, strict=True)))
    table.add_row("headroom", *(f"{made.gpu.memory - peak:.2f}" for peak in peaks))
    console.print(table)
    if memory.host:
        say(f"host      {memory.host / GIB:.1f} GiB of the machine's memory for each GPU")
    say(
        f"loading   {memory.loading / GIB:.1f} GiB of the memory of the {'first ' * (made.gpus > 1)}machine for a while"
    )
    say(f"disk      {made.checkpoint / GIB:.1f} GiB a checkpoint, {made.disk / GIB:.1f} for all that a run keeps")
    if memory.cached_rows < memory.rows:
        say(f"rows      {memory.cached_rows:,} of the {memory.rows:,} responses of a GPU are decoded at once")
    if made.fits:
        say(f"fits      {made.gpu.memory:g} GiB, with {made.gpu.memory - max(peaks):.1f} to spare in the fullest phase")
    else:
        say(f"does not fit {made.gpu.memory:g} GiB: {memory.worst} needs {max(peaks):.1f}; change, in this order:")
        for hint in made.hints:
            say(f"  {hint.change:<36} {hint.peak / GIB:.1f} GiB{', fits' if hint.fits else ''}")
        if not made.hints or not made.hints[-1].fits:
            say("  and nothing known here makes it fit")
    _print_time(made, price, sampled=not servers)


def _print_time(made: Plan, price: float | None, *, sampled: bool) -> None:
    from spark_rl.plan.hardware import DECODE_SHARE, UPDATE_SHARE

    if made.duration is None:
        say("time      name a GPU to plan it, such as --gpu h100-80gb: a size has no speed")
        return
    table = Table("phase", "seconds a step", title="time", title_justify="left")
    for phase, seconds in made.duration.seconds.items():
        table.add_row(phase, f"{seconds:.1f}")
    table.add_section()
    table.add_row("step", f"{made.duration.step:.1f}")
    console.print(table)
    rate = made.duration.tokens / made.duration.step
    if sampled:
        say(f"tokens    {made.duration.tokens:,} generated a step, {rate:,.0f} a second, {rate / made.gpus:,.0f} a GPU")
    else:
        say(f"sampling  {made.duration.tokens:,} tokens a step by the servers, whose time is not planned and left out")
    say(f"assumed   {UPDATE_SHARE:.0%} of {made.gpu.tflops:g} TFLOP/s, {DECODE_SHARE:.0%} of "
        f"{made.gpu.bandwidth:g} GB/s (docs/plan.md)")  # fmt: skip
    if made.steps is None or made.hours is None:
        say("run       --problems N or train.steps=N says how many steps it has")
        return
    say(f"run       {made.steps:,} steps, {made.hours:.1f} hours, {made.hours * made.gpus:.1f} GPU hours")
    if price is not None:
        say(f"cost      {made.hours * made.gpus * price:,.2f} at {price:g} a GPU hour")
