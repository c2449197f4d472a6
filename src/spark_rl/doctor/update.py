"""Sampling and updating on the device that is examined, beside the same on a CPU in float32.

The embedded base answers puzzles whose prompts have different lengths, so that padding is in play; every other answer
is rewarded, so that no group is flat. Engine and learner then score the same tokens, and one update's gradients are
taken just before the optimiser's step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from spark_rl.backend import build_engine
from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import Config, load_config
from spark_rl.data.procedural import procedural_problems
from spark_rl.doctor.card import NEEDS_CUDA, settle
from spark_rl.doctor.finding import Finding, judged, not_here
from spark_rl.engine.base import Engine, Sampling
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.sharded import ShardedLearner
from spark_rl.model.load import load_model, set_arithmetic
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.places import EMBEDDED
from spark_rl.model.weights import gathered
from spark_rl.problem import Completion, Group, Rollout, Verdict
from spark_rl.report.metrics import read_metrics
from spark_rl.run import train

DTYPES = ("float32", "bfloat16")
NATS = {"float32": 1e-3, "bfloat16": 0.5}
"""The largest difference of any token's log-probability that is rounding; 8 bits of a logit of 20 are 0.1."""
KL = {"float32": 1e-6, "bfloat16": 2e-2}
"""The mean k3 KL between engine and learner, in nats a token, that is rounding."""
GRADIENTS = {"float32": 1e-3, "bfloat16": 0.25}
"""The relative difference of one update's gradients from those of a CPU in float32 that is rounding."""
BYTES_HELD = 14
"""Of a weight in bfloat16 between two updates: itself 2, its float32 copy 4, AdamW's moments 8."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of random weights, and how much is asked of it."""

    name: str
    layers: int
    width: int
    vocabulary: int
    prompts: int
    prompt_tokens: int
    samples: int
    new_tokens: int


LARGE = Shape("0.5 B weights", 24, 896, 151936, 16, 512, 8, 256)
"""Qwen2.5-0.5B, and 33 thousand tokens to sample and to learn from."""
SMALL = Shape("small weights", 2, 64, 1024, 2, 24, 2, 8)
"""The same on a CPU, to see that it runs."""


def settings(device: torch.device, dtype: str = "float32", *more: str) -> Config:
    """The embedded default on a device, gradients unclipped, nothing evaluated."""
    where = (f"model.device={device}", f"model.dtype={dtype}", "optimiser.clip=1e9", "data.heldout=null")
    return load_config("tiny", (*where, "data.transfer=null", "model.threads=1", *more))  # it is too small for more


def sampled(engine: Engine, chat: ChatFormat, count: int, samples: int, new_tokens: int) -> list[Group]:
    """``count`` groups of two families of puzzles, in which every other answer is rewarded."""
    half = -(-count // 2)
    problems = [
        *procedural_problems("missing", "train", half),
        *procedural_problems("operators", "train", count - half),
    ]
    prompts = [chat.encode(problem) for problem in problems]
    drawn = engine.generate(prompts, Sampling(samples, 1.0, new_tokens, seed=0))
    return [
        Group(problem, tuple(_rewarded(c, i % 2) for i, c in enumerate(completions)), prompt.token_ids)
        for problem, prompt, completions in zip(problems, prompts, drawn, strict=True)
    ]


def _rewarded(completion: Completion, reward: int) -> Rollout:
    return Rollout(completion, Verdict(float(reward), "correct" if reward else "wrong"))


def opened(config: Config) -> tuple[LoadedModel, Engine, ChatFormat, LocalLearner]:
    """A model with its engine and its learner."""
    loaded = load_model(config)
    chat = ChatFormat(loaded.tokenizer, config.chat)
    return loaded, build_engine(config, loaded, chat), chat, LocalLearner(loaded, config)


def trained(learner: LocalLearner | ShardedLearner) -> list[Tensor]:
    """What the optimiser moves: the weights, or their float32 copies."""
    return [parameter for group in learner.optimiser.param_groups for parameter in group["params"]]


def learned(learner: LocalLearner | ShardedLearner, groups: Sequence[Group]) -> tuple[dict[str, float], Tensor]:
    """One update: its metrics, and its gradients end to end, on the CPU."""
    taken: list[Tensor] = []

    def take(optimiser: Any, _args: object, _options: object) -> None:
        grads = (p.grad for group in optimiser.param_groups for p in group["params"])
        taken.append(torch.cat([gathered(g).detach().float().cpu().flatten() for g in grads if g is not None]))

    hook = learner.optimiser.register_step_pre_hook(take)
    try:
        metrics = learner.update(groups)
    finally:
        hook.remove()
    return metrics, taken[0]


def logprobs_of(learner: LocalLearner, groups: Sequence[Group]) -> Tensor:
    """The learner's log-probabilities of all tokens of all groups, end to end, on the CPU."""
    rows = [(g.prompt_ids, r.completion.token_ids) for g in groups for r in g.rollouts if r.completion.token_ids]
    return torch.cat([logp_T.cpu() for logp_T in learner.logprobs([p for p, _ in rows], [t for _, t in rows])])


def parity(device: torch.device) -> list[Finding]:
    """Engine, learner and gradients in both number formats, beside a learner on a CPU in float32."""
    found = []
    for dtype in DTYPES:
        _, engine, chat, learner = opened(settings(device, dtype))
        groups = sampled(engine, chat, 8, 8, 48)
        *_, judge = opened(settings(torch.device("cpu")))
        engines = torch.tensor([x for g in groups for r in g.rollouts for x in r.completion.logprobs])
        learners, cpus = logprobs_of(learner, groups), logprobs_of(judge, groups)
        before = [p.detach().clone() for p in trained(learner)]
        metrics, gradients = learned(learner, groups)
        _, right = learned(judge, groups)
        moved = sum(bool((new != old).any()) for new, old in zip(trained(learner), before, strict=True))
        kl = metrics["engine_kl"]
        gap, cpu_gap = float((engines - learners).abs().max()), float((learners - cpus).abs().max())
        off = float((gradients - right).norm() / right.norm())
        found += [
            judged(
                f"{dtype} log-probs", f"engine - learner {gap:.1e}, learner - CPU {cpu_gap:.1e} nats at most",
                f"{len(engines)} tokens, mean KL {kl:.1e}; rounding is below {NATS[dtype]:g} and {KL[dtype]:g}",
                right=max(gap, cpu_gap) < NATS[dtype] and kl < KL[dtype],
            ),
            judged(
                f"{dtype} gradients", f"{off:.1e} off the CPU's, relative",
                f"norm {float(gradients.norm()):.4g}, below {GRADIENTS[dtype]:g} is rounding; one update moved {moved} "
                f"of {len(before)} weights", right=off < GRADIENTS[dtype] and moved == len(before),
            ),
        ]  # fmt: skip
    return found


def repeats(device: torch.device) -> list[Finding]:
    """Whether sampling and one update give the same bits twice, as it is and with ``model.deterministic``."""
    found = []
    for name, deterministic, allowed in (("twice the same", False, 1e-4), ("model.deterministic=true", True, 0.0)):
        config, runs = settings(device, "float32", f"model.deterministic={deterministic}".lower()), []
        try:
            set_arithmetic(config.model)
            for _ in range(2):
                _, engine, chat, learner = opened(config)
                groups = sampled(engine, chat, 8, 8, 48)
                runs.append(([r.completion.token_ids for g in groups for r in g.rollouts], learned(learner, groups)[1]))
        finally:
            torch.use_deterministic_algorithms(mode=False)
        (tokens, first), (again, second) = runs
        off = float((first - second).norm() / first.norm())
        bits = "the same bits" if off == 0 else f"gradients {off:.1e} apart"
        found.append(
            judged(name, f"{'the same tokens' if tokens == again else 'OTHER TOKENS'}, {bits}",
                   "of one seed; without it bits may differ where a kernel adds as its threads arrive",
                   right=tokens == again and off <= allowed)
        )  # fmt: skip
    return found


def learning(device: torch.device) -> list[Finding]:
    """Two steps of ``spark-rl train`` on the embedded default, then a third of the run that goes on."""
    found = []
    for dtype in DTYPES:
        with TemporaryDirectory() as folder:
            config = settings(device, dtype, f"run_dir={folder}/run", "train.steps=2", "optimiser.clip=1")
            started = time.perf_counter()
            train(config)
            three = config.model_copy(update={"train": config.train.model_copy(update={"steps": 3})})
            train(three, resume=True)
            seconds = time.perf_counter() - started
            metrics = read_metrics(Path(folder) / "run/metrics.jsonl")
            after = load_file(f"{folder}/run/model/model.safetensors")
        before = load_file(EMBEDDED["embedded"] / "model.safetensors")
        moved = max(float((after[name].float() - before[name].float()).abs().max()) for name in after)
        kl = max(step["engine_kl"] for step in metrics)
        speed = metrics[-1]["tokens"] / metrics[-1]["seconds"]
        found.append(
            judged(
                f"{dtype} training", f"{len(metrics)} steps in {seconds:.1f} s, {speed:,.0f} tokens/s",
                f"saved after 2 and gone on; engine KL {kl:.1e}, weights moved by up to {moved:.1e}",
                right=len(metrics) == 3 and kl < KL[dtype] and moved > 0,
            )
        )  # fmt: skip
    return found


def scale(device: torch.device, shape: Shape | None = None) -> list[Finding]:
    """Random weights in bfloat16 of a size where speed and memory mean something: decode, update, what is held."""
    shape = shape or (LARGE if device.type == "cuda" else SMALL)
    config = settings(device, "bfloat16", "rollout.max_new_tokens=256", "learner.micro_tokens=16384")
    held_before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    loaded, engine, prompts = _random_parts(shape, device)
    count = sum(p.numel() for p in loaded.model.parameters())
    sampling = Sampling(shape.samples, 1.0, shape.new_tokens, seed=0)
    engine.generate(prompts[:1], Sampling(shape.samples, 1.0, 4, seed=0))  # what is loaded at first use
    settle(device)
    started = time.perf_counter()
    drawn = engine.generate(prompts, sampling)
    decoding = time.perf_counter() - started
    groups = _half_rewarded(prompts, drawn)
    learner = LocalLearner(loaded, config)
    learner.update(groups[:1])  # makes the optimiser's state
    settle(device)
    held = torch.cuda.memory_allocated(device) - held_before if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    metrics = learner.update(groups)
    settle(device)
    updating = time.perf_counter() - started
    new = shape.prompts * shape.samples * shape.new_tokens
    through = new + sum(len(prompt.token_ids) for prompt in prompts)
    whole = all(len(completion.token_ids) == shape.new_tokens for completions in drawn for completion in completions)
    found = [
        judged(f"{shape.name}: decode", f"{new / decoding:,.0f} tokens/s",
               f"{len(prompts) * shape.samples} rows of {shape.new_tokens} tokens behind {shape.prompt_tokens}; "
               f"{count / 1e6:,.1f} M weights", right=whole),
        judged(f"{shape.name}: update", f"{through / updating:,.0f} tokens/s, "
               f"{6 * count * through / updating / 1e12:.3g} TFLOP/s",
               f"engine KL {metrics['engine_kl']:.1e} nats a token, below {KL['bfloat16']:g} is rounding",
               right=metrics["engine_kl"] < KL["bfloat16"] and metrics["grad_norm"] > 0),
    ]  # fmt: skip
    if device.type != "cuda":
        return [*found, not_here(f"{shape.name}: memory", NEEDS_CUDA)]
    peak = torch.cuda.max_memory_allocated(device) - held_before
    expected = BYTES_HELD * count
    found.append(
        judged(
            f"{shape.name}: memory", f"{held / 2**30:.2f} GiB held, {peak / 2**30:.2f} GiB at the peak of an update",
            f"expected to be held: {expected / 2**30:.2f} GiB, {BYTES_HELD} bytes a weight; the peak adds gradients "
            "(4 bytes) and activations", right=abs(held - expected) < 0.05 * expected,
        )
    )  # fmt: skip
    return found


def scarce(device: torch.device) -> list[Finding]:
    """A limit on the memory of the card that neither the rows of the engine nor the micro-batches of an update keep."""
    if device.type != "cuda":
        return [not_here("memory that is not enough", NEEDS_CUDA)]
    shape, total = LARGE, torch.cuda.get_device_properties(device).total_memory
    config = settings(device, "bfloat16", "rollout.max_new_tokens=256", "learner.micro_tokens=32768")
    sampling, short = (Sampling(shape.samples, 1.0, tokens, seed=0) for tokens in (shape.new_tokens, 32))
    loaded, engine, prompts = _random_parts(shape, device)
    groups = _half_rewarded(prompts, engine.generate(prompts, sampling))
    learner = LocalLearner(loaded, config)
    learner.update(groups[:1])  # makes the optimiser's state
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    enough = learned(learner, groups)[1]
    peak = torch.cuda.max_memory_allocated(device)
    del loaded, engine, learner
    torch.cuda.empty_cache()
    loaded, engine, prompts = _random_parts(shape, device)
    learner = LocalLearner(loaded, config)
    learner.update(groups[:1])
    limit = held + (peak - held) // 3
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(limit / total, device)
        metrics, little = learned(learner, groups)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 2**29) / total, device)
        rows = engine.max_rows
        drawn = engine.generate(prompts, short)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    off = float((little - enough).norm() / enough.norm())
    whole = all(
        len(completion.token_ids) == short.max_new_tokens for completions in drawn for completion in completions
    )
    fits = metrics.get("micro_tokens", config.learner.micro_tokens)
    return [
        judged(
            f"{limit / 2**30:.1f} GiB for an update of {peak / 2**30:.1f}",
            f"micro_tokens {config.learner.micro_tokens} -> {fits:.0f}, gradients {off:.1e} off",
            f"halved until it fits; rounding is below {GRADIENTS['bfloat16']:g}",
            right=fits < config.learner.micro_tokens and off < GRADIENTS["bfloat16"],
        ),
        judged(
            "0.5 GiB for the engine", f"{rows} -> {engine.max_rows} rows",
            f"of {len(prompts) * shape.samples} responses, each with its {short.max_new_tokens} tokens",
            right=whole and engine.max_rows < rows,
        ),
    ]  # fmt: skip


def _random_parts(shape: Shape, device: torch.device) -> tuple[LoadedModel, EmbeddedEngine, list[Prompt]]:
    """A model of random weights, an engine on it, and prompts of about the length that the shape has."""
    loaded = _random_model(shape, device, load_model(settings(torch.device("cpu"))).tokenizer)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 500, (shape.prompts, shape.prompt_tokens), generator=draw).tolist()
    prompts = [Prompt("", tuple(row[: len(row) - i % 7]), ()) for i, row in enumerate(ids)]
    return loaded, EmbeddedEngine(loaded, (), lambda tokens: " ".join(map(str, tokens))), prompts


def _half_rewarded(prompts: Sequence[Prompt], drawn: Sequence[Sequence[Completion]]) -> list[Group]:
    """Groups in which every other answer is rewarded."""
    problem = procedural_problems("missing", "train", 1)[0]
    return [
        Group(problem, tuple(_rewarded(c, i % 2) for i, c in enumerate(completions)), prompt.token_ids)
        for prompt, completions in zip(prompts, drawn, strict=True)
    ]


def _random_model(shape: Shape, device: torch.device, tokenizer: Any) -> LoadedModel:
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=4864 * shape.width // 896,
        num_hidden_layers=shape.layers, num_attention_heads=max(2, shape.width // 64),
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(0)
        model: Any = Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    decoder: nn.Module = model.base_model
    return LoadedModel(model, tokenizer, decoder, device)


def flash_attention(device: torch.device) -> list[Finding]:
    """``model.attention=flash_attention_2`` beside ``sdpa``, on padded prompts and on responses behind them."""
    if device.type != "cuda":
        return [not_here("flash attention", NEEDS_CUDA)]
    if find_spec("flash_attn") is None:
        return [not_here("flash attention", "pip install flash-attn --no-build-isolation; sdpa does without")]
    *_, engine, chat, stock = opened(settings(device, "bfloat16"))
    groups = sampled(engine, chat, 8, 8, 48)
    _, flashing, _, flash = opened(settings(device, "bfloat16", "model.attention=flash_attention_2"))
    drawn = sampled(flashing, chat, 8, 8, 48)
    engines = torch.tensor([x for g in drawn for r in g.rollouts for x in r.completion.logprobs])
    gap = float((logprobs_of(stock, groups) - logprobs_of(flash, groups)).abs().max())
    own = float((engines - logprobs_of(flash, drawn)).abs().max())
    (_, first), (_, second) = learned(stock, groups), learned(flash, groups)
    off = float((first - second).norm() / first.norm())
    return [
        judged(
            "flash attention", f"{gap:.1e} nats off sdpa, gradients {off:.1e}",
            f"its engine and learner differ by {own:.1e}; rounding is below {NATS['bfloat16']:g} and "
            f"{GRADIENTS['bfloat16']:g}",
            right=max(gap, own) < NATS["bfloat16"] and off < GRADIENTS["bfloat16"],
        )
    ]  # fmt: skip
