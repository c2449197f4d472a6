"""The sharded learner on 1, 2, 3 ranks beside one process: how far gradients and metrics part, memory, seconds.

    python benchmarks/sharded.py --ranks 1 2 3 --width 256 --layers 6

Ranks are processes of this machine with gloo between them, one thread each, and share its cores: seconds show what
sharding costs where there is nothing to gain. Memory is what a rank keeps between updates (its part of the weights and
of AdamW's moments), and the most it had resident beyond what it had before its model was loaded: when its learner was
made, and at the end.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from spark_rl.config import Config, parse_config
from spark_rl.embedded.build import build_tokenizer
from spark_rl.learner.handout import load_on_first_rank
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.sharded import ShardedLearner
from spark_rl.model.load import load_model
from spark_rl.model.weights import gathered
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict

UPDATES = 3


def make_model(folder: Path, width: int, layers: int) -> Path:
    """A random Qwen2 with tied weights."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen2", vocab_size=8192, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_groups(seed: int) -> list[Group]:
    """12 groups of 8 responses; prompts of 10 to 60 tokens, responses of 5 to 80; a quarter is flat."""
    rng = random.Random(seed)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 200) for _ in range(rng.randint(least, most)))

    groups = []
    for number in range(12):
        rollouts = []
        for sample in range(8):
            response, right = tokens(5, 80), number % 4 != 0 and sample % 3 == 0
            completion = Completion("", response, (-5.0,) * len(response), "stop")
            rollouts.append(Rollout(completion, Verdict(float(right), "correct" if right else "wrong")))
        groups.append(Group(Problem(str(number), "?", "1"), tuple(rollouts), tokens(10, 60)))
    return groups


def measure(learner: Any, before: float) -> dict[str, Any]:
    """Three updates: the gradients of the first, metrics, what is kept, seconds of the last two."""
    names = [name for name, p in learner.loaded.model.named_parameters() if p.requires_grad]
    kept: list[dict[str, torch.Tensor]] = []

    def keep(*_: object) -> None:
        if not kept:
            (group,) = learner.optimiser.param_groups
            kept.append({n: gathered(p.grad).clone() for n, p in zip(names, group["params"], strict=True)})

    hook = learner.optimiser.register_step_pre_hook(keep)
    metrics, seconds = [], []
    for number in range(UPDATES):
        groups, started = make_groups(number), time.perf_counter()
        metrics.append(learner.update(groups))
        seconds.append(time.perf_counter() - started)
    hook.remove()
    tensors = [p.detach() for p in learner.loaded.model.parameters()]
    tensors += [m for state in learner.optimiser.state.values() for m in (state["exp_avg"], state["exp_avg_sq"])]
    held = sum((t.to_local() if hasattr(t, "to_local") else t).nbytes for t in tensors)
    return {"gradient": kept[0], "metrics": metrics, "held": held / 2**20, "resident": resident() - before,
            "seconds": sum(seconds[1:]) / (UPDATES - 1)}  # fmt: skip


def resident(name: str = "VmHWM") -> float:
    """MiB that the kernel counts for this process: ``VmRSS`` now, ``VmHWM`` at most since :func:`begin`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def begin() -> float:
    """What is resident now, from where the most is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def on_a_rank(rank: int, ranks: int, config: Config, folder: Path) -> None:
    """``ranks`` 0 is the learner of one process."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if ranks:
        recomputed = config.model.gradient_checkpointing
        meeting = f"file://{folder / f'meeting-{ranks}-{recomputed}'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    before = begin()
    learner: Any = (
        ShardedLearner(load_on_first_rank(config), config) if ranks else LocalLearner(load_model(config), config)
    )
    torch.save({"made": resident() - before, **measure(learner, before)}, folder / f"{ranks}-{rank}.pt")
    if ranks:
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model", options.width, options.layers)
        print(
            "| ranks | recomputed | gradient | loss | kept, MiB a rank | made, first and other | resident | seconds |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for recompute in (False, True):
            config = parse_config({
                "model": {"path": str(model), "device": "cpu", "gradient_checkpointing": recompute},
                "objective": {"kl": 0.0}, "learner": {"micro_tokens": 2048}, "optimiser": {"lr": 1e-3, "eps": 1e-2},
            })  # fmt: skip
            for ranks in (0, *options.ranks):
                spawn(on_a_rank, (ranks, config, folder), nprocs=max(1, ranks))  # type: ignore[no-untyped-call]
                found = [torch.load(folder / f"{ranks}-{r}.pt") for r in range(max(1, ranks))]
                one = torch.load(folder / "0-0.pt")
                squares = sum(float((found[0]["gradient"][n] - g).square().sum()) for n, g in one["gradient"].items())
                whole = sum(float(g.square().sum()) for g in one["gradient"].values())
                pairs = zip(found[0]["metrics"], one["metrics"], strict=True)
                loss = max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in pairs)
                numbers = [max(each[key] for each in found) for key in ("held", "resident", "seconds")]
                made = " and ".join(f"{each['made']:.0f}" for each in found[:2])
                who, again = ranks or "one process", "yes" if recompute else "no"
                print(f"| {who} | {again} | {math.sqrt(squares / whole):.1e} | {loss:.1e} | {numbers[0]:.1f} | "
                      f"{made} | {numbers[1]:.0f} | {numbers[2]:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
