"""Memory of a GPU by part and by phase of a step.

What the update takes is rehearsed (:mod:`spark_rl.plan.rehearse`, on several ranks :mod:`spark_rl.plan.ranks`); what
ranks hold in shards, and what an engine holds, is arithmetic, of which every line is below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spark_rl.config import Config
from spark_rl.engine.decoding import LOGITS, RETIRE_SHARE, ROOM, SHARED
from spark_rl.engine.draw import BLOCKED, CACHED
from spark_rl.learner.local import LocalLearner
from spark_rl.model.cache import RolloutCache
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.prefill import batch_prompts, prefill
from spark_rl.model.score import Rows, Scorer, make_rows
from spark_rl.plan.hardware import FRAGMENTED, GIB, RESERVED, VLLM_ASLEEP, VLLM_WORKSPACE, Gpu
from spark_rl.plan.ranks import MICRO_BATCHES, rehearse_rank
from spark_rl.plan.rehearse import Rehearsal, Rehearsed
from spark_rl.plan.shape import (
    Lengths,
    Sizes,
    copies_bytes,
    decoding_width,
    groups_of,
    has_reference,
    sizes_of,
    width_of,
    without_data,
)
from spark_rl.problem import Group

PARTS = (
    "weights", "gathered", "gradients", "moments", "reference", "activations", "logits", "engine", "KV cache", "reserve"
)  # fmt: skip
"""What a phase is made of, in the order of the table."""
SAMPLING = 24
"""Bytes an entry of the logits that the embedded engine draws from, beside what the output layer made: the logits and
their log-probabilities in float32, probabilities and their running sum in float64."""
SAMPLING_BLOCKS = 12
"""The same where the vocabulary is large: the logits in float32, at the temperature, and their weights."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one GPU: phase -> part -> bytes, and what its node's memory holds."""

    phases: dict[str, dict[str, float]]
    host: float
    """Bytes in the memory of the machine that a rank puts there."""
    loading: float
    """Bytes in the memory of the first rank's machine while the learners are made: what it reads for all."""
    cached_rows: int
    """Rows that the cache holds at once, of ``rows``."""
    rows: int
    """Rows that an engine is given in the larger period."""
    passes: float
    """Products of an update, passes of the reference left out, as a multiple of those of one forward pass."""

    def peak(self, phase: str) -> float:
        """Bytes of a phase."""
        return sum(self.phases[phase].values())

    @property
    def worst(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=self.peak)


def rehearsal_key(config: Config) -> str:
    """What of a configuration changes a rehearsal."""
    parts = (config.model, config.learner, config.objective, config.advantage, config.rollout, config.optimiser)
    return "|".join(part.model_dump_json() for part in parts)


class Rehearsals:
    """Rehearsals of one model, each made once."""

    def __init__(self, found: Any) -> None:
        """For the model of a transformers configuration."""
        self.found = found
        self._done: dict[tuple[Any, ...], Rehearsed] = {}
        self._prompts: dict[tuple[Any, ...], int] = {}
        self._sizes: dict[str, Sizes] = {}

    def sizes(self, config: Config) -> Sizes:
        """Numbers of weights under ``model.freeze`` and ``model.lora``."""
        key = config.model.model_dump_json()
        if key not in self._sizes:
            self._sizes[key] = sizes_of(without_data(self.found, config))
        return self._sizes[key]

    def update(self, config: Config, problems: int, prompt: int, response: int, image: int = 0) -> Rehearsed:
        """One update of one process on groups of equal lengths.

        Args:
            config: of the run.
            problems: groups that it trains on.
            prompt: tokens of each prompt.
            response: tokens of each response.
            image: tokens of the image in each prompt.
        """
        key = (rehearsal_key(config), problems, prompt, response, image)
        if key not in self._done:
            self._done[key] = _rehearse(self.found, config, problems, prompt, response, image)
        return self._done[key]

    def prompts(self, config: Config, count: int, prompt: int, image: int = 0) -> int:
        """Bytes at the peak of the engine's pass over ``count`` prompts of equal lengths, the keys and values that it
        leaves among them. Arguments as above."""
        model = config.model.model_copy(update={"dtype": config.decoding_dtype})
        config = config.model_copy(update={"model": model})
        key = (rehearsal_key(config), count, prompt, image)
        if key not in self._prompts:
            self._prompts[key] = _rehearse_prompts(self.found, config, count, prompt, image)
        return self._prompts[key]

    def rank(self, config: Config, ranks: int, prompt: int, response: int, image: int = 0, *, gloo: bool) -> Rehearsed:
        """One update of one of ``ranks``, see :func:`spark_rl.plan.ranks.rehearse_rank`."""
        problems = math.ceil(largest_batch(config) / config.learner.minibatches)
        key = (rehearsal_key(config), problems, prompt, response, image, ranks, gloo)
        if key not in self._done:
            groups = groups_of(problems, config.rollout.samples, prompt, response, self.found, image)
            self._done[key] = rehearse_rank(self.found, config, groups, ranks, gloo=gloo)
        return self._done[key]

    def passes(self, seen: Rehearsed, config: Config, prompt: int, response: int) -> float:
        """Products of an update as a multiple of those of one forward pass."""
        sizes, samples = self.sizes(config), config.rollout.samples
        tokens = prompt + samples * (response - 1)
        return seen.flops / (2 * (sizes.multiplied * tokens + sizes.head * samples * response))


def _rehearse(found: Any, config: Config, problems: int, prompt: int, response: int, image: int) -> Rehearsed:
    samples = config.rollout.samples
    tokens = prompt + samples * response
    budget = config.learner.micro_tokens
    count = min(problems, math.ceil((MICRO_BATCHES + 0.5) * budget / tokens))
    learner_config = config.learner.model_copy(update={"micro_tokens": budget, "minibatches": 1, "epochs": 1})
    config = config.model_copy(update={"learner": learner_config})
    loaded = without_data(found, config)
    reference = without_data(found, config, trained=False) if has_reference(config) else None
    vocabulary = loaded.causal_lm.config.get_text_config().vocab_size

    rehearsal = Rehearsal(vocabulary)
    rehearsal.hold(list(loaded.model.parameters()))
    rehearsal.hold(list(loaded.model.buffers()))
    own = rehearsal.live
    if reference is not None:
        rehearsal.hold(list(reference.model.parameters()))
    beside = rehearsal.live - own
    groups = groups_of(max(1, count), samples, prompt, response, found, image)
    with rehearsal:
        learner = LocalLearner(loaded, config, reference)
        model = rehearsal.live - beside
        learner.update(groups_of(1, 2, 2, 2))  # the first step makes the moments
        held = rehearsal.live
        rehearsal.restart()
        with torch.no_grad():
            batch = _one_micro_batch(loaded, groups, budget)
            Scorer(loaded, config.rollout.temperature, config.learner.logit_chunk)(batch)
        rows = len(batch.row_B) / samples
        forward, forward_flops = rehearsal.peak - held, rehearsal.flops / rows
        rehearsal.restart()
        learner.update(groups)
    gradients = 4 * sum(p.numel() for p in learner.masters)
    above = rehearsal.peak - held
    gradients = min(gradients, above)
    beyond = above - gradients
    logits = min(rehearsal.parts.get("logits", 0), beyond)
    flops = rehearsal.flops / len(groups)
    if config.objective.kl > 0:
        flops -= forward_flops
    return Rehearsed(
        model=model, gradients=gradients, moments=held - model - beside, reference=beside, activations=beyond - logits,
        logits=logits, forward=forward, flops=flops,
    )  # fmt: skip


def _rehearse_prompts(found: Any, config: Config, count: int, prompt: int, image: int) -> int:
    loaded, rehearsal = without_data(found, config), Rehearsal()
    rehearsal.hold([*loaded.model.parameters(), *loaded.model.buffers()])
    groups = groups_of(count, 1, prompt, 1, found, image)
    with rehearsal, torch.no_grad():
        held = rehearsal.live
        batch = batch_prompts(loaded, [g.prompt_ids for g in groups], [g.vision for g in groups])
        prefill(loaded, batch, RolloutCache([None] * loaded.causal_lm.config.get_text_config().num_hidden_layers))
    return rehearsal.peak - held


def _one_micro_batch(loaded: LoadedModel, groups: Sequence[Group], budget: int) -> Rows:
    """As many of the groups as fit into a micro-batch, or a part of one."""
    prompt, response = len(groups[0].prompt_ids), groups[0].rollouts[0].completion.tokens
    samples = len(groups[0].rollouts)
    some = groups[: max(1, budget // (prompt + samples * response))]
    fitting = min(samples, max(1, (budget - prompt) // response))
    row_of = [i for i in range(len(some)) for _ in range(fitting)]
    return make_rows(
        loaded, [g.prompt_ids for g in some], [g.vision for g in some], row_of, [(1,) * response for _ in row_of]
    )


def plan_memory(
    rehearsals: Rehearsals, config: Config, gpu: Gpu, gpus: int, lengths: Lengths, *, cuda: bool = True
) -> Memory:
    """Memory of each GPU.

    Args:
        rehearsals: of the model.
        config: of the run.
        gpu: its size bounds the cache of vLLM.
        gpus: ranks of the learner, each with an engine beside it; 1 is one process.
        lengths: of prompts and responses.
        cuda: false leaves out what only CUDA needs, as on a CPU.
    """
    sizes = rehearsals.sizes(config)
    prompt = max(lengths.prompt, lengths.judged) if config.recycle.on else lengths.prompt
    learner, passes = _learner(rehearsals, config, gpus, prompt, lengths, sizes, cuda=cuda)
    resident = learner.pop("resident")
    rollout, rows, cached = _rollout(rehearsals, config, gpu, gpus, lengths, sum(resident.values()), cuda=cuda)
    phases: dict[str, dict[str, float]] = {"rollout": {**resident, **rollout}}
    asleep = _asleep(config, gpus, sizes, cuda=cuda)
    for name, parts in learner.items():
        phases[name] = {**parts, "engine": asleep}
    if cuda:
        for parts in phases.values():
            moving = sum(parts.get(name, 0) for name in ("gathered", "activations", "logits"))
            parts["reserve"] = RESERVED * GIB + FRAGMENTED * moving
    host = 2.0 * sizes.weights if sleeps(config) else 0.0  # where vLLM puts its weights meanwhile
    if offloads(config, gpus):
        frozen = sizes.weights * (1 + has_reference(config)) - sizes.trained
        host += (16.0 * sizes.trained + width_of(config) * frozen) / gpus
    loading = float(width_of(config) * sizes.weights * (1 + has_reference(config)))
    return Memory(phases, host, loading, cached, rows, passes)


def offloads(config: Config, gpus: int) -> bool:
    """Whether shards lie in the memory of the machine (``learner.offload``)."""
    return gpus > 1 and config.learner.offload


def sleeps(config: Config) -> bool:
    """Whether the engine is a vLLM on the learner's GPUs; servers have GPUs of their own."""
    return config.engine.name == "vllm" and not config.engine.servers


def largest_batch(config: Config) -> int:
    """Problems of the larger of the two periods."""
    return max(config.rollout.problems, config.recycle.ready if config.recycle.on else 0)


def _learner(
    rehearsals: Rehearsals, config: Config, gpus: int, prompt: int, lengths: Lengths, sizes: Sizes, *, cuda: bool
) -> tuple[dict[str, dict[str, float]], float]:
    """``resident``, ``log-probs`` and ``update`` of one rank, and the passes of its update."""
    if gpus == 1:
        seen = rehearsals.update(config, largest_batch(config), prompt, lengths.longest, lengths.image)
        resident = {"weights": float(seen.model), "moments": float(seen.moments), "reference": float(seen.reference)}
        return {
            "resident": resident,
            "log-probs": {**resident, "activations": float(seen.forward)},
            "update": {**resident, "gradients": float(seen.gradients), "activations": float(seen.activations),
                       "logits": float(seen.logits)},
        }, rehearsals.passes(seen, config, prompt, lengths.longest)  # fmt: skip
    seen = rehearsals.rank(config, gpus, prompt, lengths.longest, lengths.image, gloo=not cuda)
    share, width = 0.0 if offloads(config, gpus) else 1 / gpus, width_of(config)
    frozen = sizes.weights - sizes.trained  # in the model's own format, like a reference; what is trained in float32
    resident = {"weights": (4.0 * sizes.trained + width * frozen) * share, "moments": 8 * sizes.trained * share,
                "reference": width * sizes.weights * share * has_reference(config)}  # fmt: skip
    return {
        "resident": resident,
        "log-probs": {**resident, "gathered": float(seen.passing), "activations": float(seen.forward)},
        "update": {**resident, "gathered": float(seen.gathered), "gradients": float(seen.gradients),
                   "activations": float(seen.activations), "logits": float(seen.logits)},
    }, rehearsals.passes(seen, config, prompt, lengths.longest)  # fmt: skip


def _asleep(config: Config, gpus: int, sizes: Sizes, *, cuda: bool) -> float:
    """What an engine and a frozen judge hold while the learner works."""
    return copies_bytes(config, gpus, sizes) + VLLM_ASLEEP * GIB * (cuda and sleeps(config))


def _rollout(
    rehearsals: Rehearsals, config: Config, gpu: Gpu, gpus: int, lengths: Lengths, resident: float, *, cuda: bool
) -> tuple[dict[str, float], int, int]:
    """Parts of the engine while it generates, rows an engine is given, rows that its cache holds."""
    sizes, samples = rehearsals.sizes(config), config.rollout.samples
    rows = math.ceil(largest_batch(config) * samples / gpus)
    prompt = lengths.judged if config.recycle.on else lengths.prompt
    copies = copies_bytes(config, gpus, sizes)
    if config.engine.servers:
        return {"engine": copies} if copies else {}, rows, rows
    if sleeps(config):
        weights = 2.0 * sizes.weights + VLLM_WORKSPACE * GIB + copies
        row = 2 * sizes.cached * (prompt / samples + lengths.longest)  # the samples of a prompt share its blocks
        left = gpu.memory * GIB - resident - weights - RESERVED * GIB * cuda
        cached = max(0, min(rows, int(left / row)))
        return {"engine": weights, "KV cache": cached * row}, rows, cached
    together, reach = min(rows, max(1, config.engine.max_rows // samples) * samples), prompt + lengths.longest
    if config.engine.max_tokens is not None:
        together = min(together, max(1, config.engine.max_tokens // reach))
    width, before = prompt, 0
    while width < reach:  # as spark_rl.engine.embedded reserves positions, twice as many each time
        before, width = width, min(reach, width + max(ROOM, width))
    grown = before > prompt
    position = decoding_width(config) * sizes.cached
    # held once for all samples where none enter later, and where no CUDA graphs read them
    shared = prompt * (samples > 1 and prompt >= SHARED and together == rows and not cuda)
    cache = position * together * (width - shared + shared / samples)
    # one layer's keys while they are laid out
    copying = position * together * (before - shared) / sizes.layers / 2 if grown else 0.0
    each = SAMPLING if sizes.vocabulary <= BLOCKED else SAMPLING_BLOCKS
    projected = min(together * sizes.vocabulary, LOGITS)
    drawn = projected if cuda else min(projected, CACHED)
    logits = max(float(decoding_width(config) * projected + each * drawn), copying)
    entering = math.ceil(together / samples)
    passing = rehearsals.prompts(config, entering, prompt, lengths.image) - cache  # before anything decodes
    if together < rows:  # others enter beside what decodes, in the places of those that have ended
        few = math.ceil(entering * RETIRE_SHARE)
        passing = max(passing, rehearsals.prompts(config, few, prompt, lengths.image))
    activations = max(0.0, passing - logits)
    return {"engine": copies, "KV cache": float(cache), "activations": activations, "logits": logits}, rows, together
