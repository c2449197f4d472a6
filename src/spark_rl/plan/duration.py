"""Seconds of a step by phase: products and bytes over what a GPU does a second, with the shares that
:mod:`spark_rl.plan.hardware` assumes. The verifier, which works while nothing else does for seconds at most, and
loading are left out, and sampling where ``engine.servers`` do it, on GPUs that nobody has named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from spark_rl.config import Config
from spark_rl.plan.hardware import DECODE_SHARE, EMBEDDED_LAYER, LINK_SHARE, UPDATE_SHARE, Gpu
from spark_rl.plan.memory import Memory
from spark_rl.plan.shape import Lengths, Sizes, decoding_width


@dataclass(frozen=True, slots=True)
class Duration:
    """A step's seconds by phase, and what it generates."""

    seconds: dict[str, float]
    tokens: int
    """Response tokens of a step, all GPUs together."""

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())


def plan_duration(
    config: Config, gpu: Gpu, gpus: int, sizes: Sizes, lengths: Lengths, memory: Memory
) -> Duration | None:
    """How long a step takes; ``None`` for a GPU of which only the size is known."""
    if gpu.tflops is None:
        return None
    total = {"sample": 0.0, "log-probs": 0.0, "update": 0.0, "weights to the engine": 0.0}
    periods = [(config.rollout.problems, lengths.prompt, config.train.policy_update)]
    if config.recycle.on:
        periods.append((config.recycle.ready, lengths.judged, True))
    samples, tokens = config.rollout.samples, 0
    if config.engine.servers:
        del total["sample"]
    for problems, prompt, trained in periods:
        tokens += problems * samples * lengths.response
        share = math.ceil(problems / gpus)
        if "sample" in total:
            total["sample"] += _sampling(config, gpu, sizes, lengths, memory, share, prompt)
        forward = _forward(sizes, lengths, share, samples, prompt) / (gpu.tflops * 1e12 * UPDATE_SHARE)
        epochs = config.learner.epochs * trained
        before = (config.learner.minibatches * config.learner.epochs > 1) + epochs * (config.objective.kl > 0)
        micro = max(1, math.ceil(share * (prompt + samples * lengths.response) / config.learner.micro_tokens))
        passing = _gathering(gpu, gpus, sizes) * micro
        total["log-probs"] += trained * before * max(forward, passing)
        total["update"] += epochs * max(forward * memory.passes, 3 * passing)
        if config.engine.name == "vllm" or gpus > 1:
            total["weights to the engine"] += trained * (2 * _gathering(gpu, gpus, sizes) + 2 * sizes.weights / 20e9)
    return Duration(total, tokens)


def _sampling(
    config: Config, gpu: Gpu, sizes: Sizes, lengths: Lengths, memory: Memory, problems: int, prompt: int
) -> float:
    """Prefill of each prompt once, then a token a step for all rows together, until the longest response ends."""
    assert gpu.tflops is not None
    rows = problems * config.rollout.samples
    waves = max(1, math.ceil(rows / max(1, memory.cached_rows)))
    prefill = 2 * sizes.multiplied * problems * prompt / (gpu.tflops * 1e12 * UPDATE_SHARE)
    width = 2 if config.engine.name == "vllm" else decoding_width(config)
    weights = width * (sizes.multiplied + sizes.head) * lengths.longest * waves
    cache = width * sizes.cached * rows * lengths.response * (prompt + lengths.response / 2)
    if config.engine.name == "vllm":  # a prompt's blocks are read by each of its samples all the same
        floor = 0.0
    else:
        floor = EMBEDDED_LAYER * sizes.layers * lengths.longest * waves
    reading = (weights + cache) / (gpu.bandwidth * 1e9 * DECODE_SHARE)
    products = 2 * (sizes.multiplied + sizes.head) * rows * lengths.response / (gpu.tflops * 1e12 * UPDATE_SHARE)
    return prefill + max(reading + products, floor)


def _forward(sizes: Sizes, lengths: Lengths, problems: int, samples: int, prompt: int) -> float:
    """Operations of one pass over prompts, once each, and their responses."""
    response = lengths.response
    tokens = problems * (prompt + samples * response)
    answered = problems * samples * response
    attention = 4 * sizes.attended * problems * (prompt**2 / 2 + samples * response * (prompt + response / 2))
    return 2 * sizes.multiplied * tokens + 2 * sizes.head * answered + attention


def _gathering(gpu: Gpu, gpus: int, sizes: Sizes) -> float:
    """Seconds in which every rank gets all weights in bfloat16."""
    return 2 * sizes.weights * (gpus - 1) / gpus / (gpu.link * 1e9 * LINK_SHARE) if gpus > 1 else 0.0
