"""A plan: memory, time and cost of a run, and what to change where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from spark_rl.config import Config, load_config
from spark_rl.plan.disk import checkpoint_bytes, run_bytes
from spark_rl.plan.duration import Duration, plan_duration
from spark_rl.plan.hardware import GIB, Gpu
from spark_rl.plan.memory import Memory, Rehearsals, plan_memory
from spark_rl.plan.shape import Lengths, Sizes

HOUR = 3600.0
SMALL_CHUNK = 128
"""Response positions whose logits exist together, where memory is short: fewer save nothing that counts."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A change, and what the plan says with it and those before it."""

    change: str
    peak: float
    """Bytes of the worst phase."""
    fits: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run takes."""

    gpu: Gpu
    gpus: int
    lengths: Lengths
    sizes: Sizes
    memory: Memory
    checkpoint: float
    """Bytes of one on disk."""
    disk: float
    """Bytes of all that a run keeps there, at most."""
    duration: Duration | None
    steps: int | None
    """Steps of the run; ``None`` where the number of problems is not known."""
    hints: tuple[Hint, ...]
    """In the order in which to make them, each computed with those before it; none where the plan fits."""

    @property
    def fits(self) -> bool:
        """Whether every phase does."""
        return fits(self.memory, self.gpu)

    @property
    def hours(self) -> float | None:
        """Of the run, without evaluations."""
        return None if self.duration is None or self.steps is None else self.steps * self.duration.step / HOUR

    def facts(self, price: float | None) -> dict[str, Any]:
        """What ``--json`` writes: GiB, seconds, hours, and currency units of ``price`` per GPU and hour."""
        memory = self.memory
        return {
            "gpu": asdict(self.gpu), "gpus": self.gpus, "lengths": asdict(self.lengths), "sizes": asdict(self.sizes),
            "memory": {
                phase: {part: size / GIB for part, size in parts.items() if size} for phase, parts in
                memory.phases.items()
            },
            "peaks": {phase: memory.peak(phase) / GIB for phase in memory.phases},
            "host": memory.host / GIB, "loading": memory.loading / GIB,
            "checkpoint": self.checkpoint / GIB, "disk": self.disk / GIB,
            "rows": memory.rows, "cached_rows": memory.cached_rows, "fits": self.fits,
            "hints": [{"change": h.change, "peak": h.peak / GIB, "fits": h.fits} for h in self.hints],
            "seconds": None if self.duration is None else self.duration.seconds,
            "step": None if self.duration is None else self.duration.step,
            "tokens": None if self.duration is None else self.duration.tokens,
            "steps": self.steps, "hours": self.hours,
            "cost": None if price is None or self.hours is None else self.hours * self.gpus * price,
        }  # fmt: skip


def fits(memory: Memory, gpu: Gpu) -> bool:
    """Whether every phase fits a GPU, with one group's rows in the cache at least."""
    return memory.peak(memory.worst) <= gpu.memory * GIB and memory.cached_rows >= min(memory.rows, 8)


def make_plan(
    rehearsals: Rehearsals, config: Config, gpu: Gpu, gpus: int, lengths: Lengths, problems: int | None = None
) -> Plan:
    """The plan of a run.

    Args:
        rehearsals: of its model.
        config: of the run.
        gpu: the kind.
        gpus: how many: ranks of the learner, an engine on each; 1 is one process.
        lengths: of prompts and responses.
        problems: of the data, from which the steps of ``train.episodes`` follow.
    """
    memory = plan_memory(rehearsals, config, gpu, gpus, lengths)
    sizes = rehearsals.sizes(config)
    steps = config.train.steps
    if steps is None and problems is not None:
        steps = config.train.episodes * max(1, problems // config.rollout.problems)
    hints = () if fits(memory, gpu) else tuple(_hints(rehearsals, config, gpu, gpus, lengths, memory))
    return Plan(
        gpu, gpus, lengths, sizes, memory, checkpoint_bytes(config, sizes), run_bytes(config, sizes),
        plan_duration(config, gpu, gpus, sizes, lengths, memory), steps, hints,
    )  # fmt: skip


def _hints(
    rehearsals: Rehearsals, config: Config, gpu: Gpu, gpus: int, lengths: Lengths, memory: Memory
) -> Iterator[Hint]:
    """Changes that help, each computed with those before it, until it fits or there are no more."""
    before = memory.peak(memory.worst)
    for change in _changes(config, gpus, lengths):
        name, _, value = change.partition("=")
        if name == "--gpus":
            tried, more = config, int(value)
        else:
            tried, more = load_config(None, [change], **config.model_dump()), gpus
        memory = plan_memory(rehearsals, tried, gpu, more, lengths)
        peak = memory.peak(memory.worst)
        if peak > 0.99 * before and not fits(memory, gpu):
            continue
        config, gpus, before = tried, more, peak
        yield Hint(change.replace("--gpus=", "--gpus "), peak, fits(memory, gpu))
        if fits(memory, gpu):
            return


def _changes(config: Config, gpus: int, lengths: Lengths) -> Iterator[str]:
    """From what costs nothing but time to what changes what is trained."""
    if not config.model.gradient_checkpointing:
        yield "model.gradient_checkpointing=true"
    if gpus == 1 and config.model.dtype == "float32":
        yield "model.dtype=bfloat16"
    longest = max(lengths.prompt, lengths.judged * config.recycle.on) + lengths.longest
    tokens = config.learner.micro_tokens // 2
    while tokens >= longest:
        yield f"learner.micro_tokens={tokens}"
        tokens //= 2
    if config.learner.logit_chunk is None or config.learner.logit_chunk > SMALL_CHUNK:
        yield f"learner.logit_chunk={SMALL_CHUNK}"
    rows = config.engine.max_rows // 2
    while config.engine.name == "embedded" and rows >= config.rollout.samples:
        yield f"engine.max_rows={rows}"
        rows //= 2
    if gpus > 1 and hasattr(config.learner, "offload") and not config.learner.offload:
        yield "learner.offload=true"
    if config.objective.kl > 0 and config.model.lora is None:
        yield "objective.kl=0"
    if config.model.lora is None:
        yield "model.lora.rank=16"
    more = 8 if gpus == 1 else 2 * gpus
    while more <= max(64, 8 * gpus):
        yield f"--gpus={more}"
        more *= 2


def judged_prompt(prompt: int, response: int) -> int:
    """Tokens of a recycled problem's prompt: the question, one response or two, and the template's words."""
    return prompt + math.ceil(1.5 * response) + 150
