"""Table 7 at 7B and 32B by arithmetic: sizes and speeds are those of :mod:`spark_rl.plan`, nothing is run or rehearsed.

Assumed, each of them a line of :data:`ASSUMED` that the table shows. The paper gives no size of its reward model, no
number of preference pairs and no hours.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from spark_rl.ablate import ARMS
from spark_rl.config import Config, load_config
from spark_rl.cost.record import FORWARD, TRAINED
from spark_rl.plan.duration import plan_duration
from spark_rl.plan.hardware import GIB, UPDATE_SHARE, gpu_of
from spark_rl.plan.make import judged_prompt
from spark_rl.plan.memory import Memory, Rehearsals
from spark_rl.plan.shape import Lengths, Sizes, has_reference, model_config

ANSWERED = 0.6
"""Share of ``rollout.max_new_tokens`` that a response has on average, as in ``spark-rl plan``."""
PROMPT = 512
"""Tokens of a question with its chat, as in ``spark-rl plan``."""
TRAINING_BYTES = 18
"""Of a weight in training: bfloat16 2, float32 copy 4, moments 8, gradient 4 (:mod:`spark_rl.learner.local`)."""
PASSES = 4.0
"""Products of an update as a multiple of a forward pass, with recomputation: forward twice, backward twice as much."""

ASSUMED = (
    "the reward model is the policy's own size: its decoder, and one number a token in place of the language head",
    "it is trained once on one pair for each training problem, labelled for free; the base's 8 responses to each, of "
    "which the pairs are made, are counted",
    f"a prompt has {PROMPT} tokens (and 1,337 of an image of a million pixels), a response {ANSWERED:.0%} of its limit",
    "no response is left out of an update, and every step has its second period",
    f"{FORWARD} operations a weight and token forward, {TRAINED} trained; seconds as in docs/plan.md, bfloat16",
    "the vision tower, attention between tokens, padding and evaluation are left out of the operations",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """A recipe on the GPUs that its comment plans for, and the size of its data."""

    recipe: str
    gpu: str
    gpus: int
    problems: int
    """Training problems (paper, A.1.3)."""
    image: int = 0
    """Tokens of an image in each prompt."""


SCALES = (
    Scale("qwen2.5-7b", "h100-80gb", 8, 25_000),
    Scale("qwen2.5-vl-32b", "h200-141gb", 16, 24_000, 1_337),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What RM-based RL and SPARK take at one scale. PFLOP are 10^15 operations, of all GPUs together."""

    model: str
    gpu: str
    gpus: int
    steps: int
    rm_gib: float
    """Weights of the reward model while the policy learns, all GPUs together."""
    rm_training_gib: float
    """Weights, copies, moments and gradients while it is trained itself, without activations."""
    score_pflop: float
    """Of a step: the reward model reads every response."""
    score_seconds: float
    rm_step_pflop: float
    """Of a step of RM-based RL, scoring included."""
    spark_step_pflop: float
    rm_step_seconds: float
    """With scoring one after the other on the same GPUs."""
    spark_step_seconds: float
    preferences_pflop: float
    training_pflop: float
    extra_hours: float
    """On the clock, of both extra stages."""
    rm_gpu_hours: float
    """Of the whole: preferences, reward model, all steps."""
    spark_gpu_hours: float

    @property
    def ratio(self) -> float:
        """GPU hours of SPARK as a multiple of those of RM-based RL."""
        return self.spark_gpu_hours / self.rm_gpu_hours

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "spark_over_rm_gpu_hours": self.ratio}


def estimate(scale: Scale) -> Estimate:
    """The arithmetic of one scale."""
    spark = load_config(scale.recipe, ["engine.name=vllm"])
    alone = load_config(scale.recipe, ["engine.name=vllm"], **ARMS["policy-only"])
    found = model_config(spark.model.path)
    sizes, gpu = Rehearsals(found).sizes(spark), gpu_of(scale.gpu)
    assert gpu.tflops is not None, "a GPU that is known by name has a speed"
    prompt, response = PROMPT + scale.image, round(ANSWERED * spark.rollout.max_new_tokens)
    lengths = Lengths(prompt, response, judged_prompt(prompt, response), spark.rollout.max_new_tokens, scale.image)
    tied = bool(getattr(found, "tie_word_embeddings", False))
    rm_weights = sizes.weights - (0 if tied else sizes.head)
    steps = math.ceil(spark.train.episodes * scale.problems / spark.rollout.problems)
    rate = scale.gpus * gpu.tflops * 1e12 * UPDATE_SHARE

    read = prompt + response
    score = FORWARD * sizes.multiplied * spark.rollout.problems * spark.rollout.samples * read
    training = TRAINED * sizes.multiplied * 2 * scale.problems * read
    preferences = _sampled(sizes, scale.problems, spark.rollout.samples, prompt, response)
    seconds = {name: _seconds(config, scale, sizes, lengths) for name, config in (("rm", alone), ("spark", spark))}
    sampling = seconds["rm"]["sample"] * scale.problems / spark.rollout.problems
    extra = sampling + training * PASSES / 3 / rate  # recomputation: four passes where the rule counts three
    rm_step = sum(seconds["rm"].values()) + score / rate
    spark_step = sum(seconds["spark"].values())
    return Estimate(
        spark.model.path, scale.gpu, scale.gpus, steps, 2 * rm_weights / GIB, TRAINING_BYTES * rm_weights / GIB,
        score / 1e15, score / rate, (_step(alone, sizes, lengths) + score) / 1e15, _step(spark, sizes, lengths) / 1e15,
        rm_step, spark_step, preferences / 1e15, training / 1e15, extra / 3600,
        scale.gpus * (extra + steps * rm_step) / 3600, scale.gpus * steps * spark_step / 3600,
    )  # fmt: skip


def _sampled(sizes: Sizes, problems: int, samples: int, prompt: int, response: int) -> int:
    return FORWARD * (sizes.multiplied + sizes.head) * problems * (prompt + samples * response)


def _step(config: Config, sizes: Sizes, lengths: Lengths) -> int:
    """Operations of a step: sampling, updates, and the reference of a KL term."""
    samples, response = config.rollout.samples, lengths.response
    update = TRAINED + FORWARD * has_reference(config)
    total = 0
    for problems, prompt in (
        (config.rollout.problems, lengths.prompt), (config.recycle.ready * config.recycle.on, lengths.judged)
    ):  # fmt: skip
        total += _sampled(sizes, problems, samples, prompt, response) * (FORWARD + update) // FORWARD
    return total


def _seconds(config: Config, scale: Scale, sizes: Sizes, lengths: Lengths) -> dict[str, float]:
    """Seconds of a step by phase, as ``spark-rl plan`` has them, with :data:`PASSES` in place of a rehearsal."""
    rows = config.rollout.problems * config.rollout.samples
    memory = Memory({}, 0.0, 0.0, cached_rows=rows, rows=rows, passes=PASSES)
    found = plan_duration(config, gpu_of(scale.gpu), scale.gpus, sizes, lengths, memory)
    assert found is not None, "the GPU has a speed"
    return found.seconds
