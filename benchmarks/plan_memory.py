"""The plan beside what an update really takes, for models of 1 to 500 million weights: docs/plan.md has the table.

    PYTHONPATH=src:. python benchmarks/plan_memory.py            1M to 50M, a minute
    PYTHONPATH=src:. python benchmarks/plan_memory.py --large    to 500M, which takes 14 GiB and some minutes
    PYTHONPATH=src:. python benchmarks/plan_memory.py --ranks 2  each of two gloo ranks; with --large to 500M, 20 GiB

Each row is a process of its own. ``allocated`` is torch's record of every block in the second update and what is held
through it, ``resident`` the growth of the process from before the model was loaded to the peak of that update. Of
ranks, ``taken`` is what a rank holds through its second update, and what the kernel counts above that at the peak, the
larger of the ranks: torch's record misses what gloo's threads free.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.learner.ranks import on_ranks
from tests.plan.measure import MAPPED, held_by, on_a_rank, peak_of, resident
from tests.tiny import tiny_config
from transformers import AutoConfig, AutoModelForCausalLM

from spark_rl.config import Config
from spark_rl.embedded.build import build_tokenizer
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.plan.hardware import gpu_of
from spark_rl.plan.memory import Rehearsals, plan_memory
from spark_rl.plan.shape import Lengths, groups_of, model_config

ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("1M float32", {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 3, "rows": 200}, {}),
    ("10M float32", {"hidden_size": 320, "intermediate_size": 1024, "num_hidden_layers": 7, "rows": 2000}, {}),
    ("10M bfloat16", {"hidden_size": 320, "intermediate_size": 1024, "num_hidden_layers": 7, "rows": 2000},
     {"model": {"dtype": "bfloat16"}}),
    ("50M float32, KL", {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "rows": 16000},
     {"objective": {"kl": 0.001}}),
    ("50M LoRA, KL", {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "rows": 16000},
     {"objective": {"kl": 0.001}, "model": {"lora": {"rank": 16}}}),
    ("125M float32, recomputed", {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 14,
     "rows": 32000}, {"model": {"gradient_checkpointing": True}}),
    ("500M float32, one micro-batch", {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
     "rows": 151936}, {}),
]  # fmt: skip


SAMPLES, LENGTHS = 4, Lengths(64, 64, 64, 64)


def problems_of(number: int) -> int:
    """Of a process: several micro-batches, and one where two cores are slow enough with it."""
    return 2 if ROWS[number][0].startswith("500M") else 6


def config_of(number: int, folder: Path, problems: int) -> Config:
    """Of a row, with a random model in ``folder``."""
    _, shape, sections = ROWS[number]
    shape = {"num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True, "bos_token_id": 1,
             "eos_token_id": 2, "max_position_embeddings": 1024, **shape}  # fmt: skip
    AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", vocab_size=shape.pop("rows"), **shape)
                                     ).save_pretrained(folder)  # fmt: skip
    build_tokenizer().save_pretrained(folder)
    rollout = {"problems": problems, "samples": SAMPLES, "max_new_tokens": 64}
    return tiny_config(
        folder, recycle={"preset": "policy-only"}, learner={"micro_tokens": 1024}, rollout=rollout, **sections
    )


def measure(number: int, folder: Path) -> dict[str, float]:
    """Weights, and bytes planned, allocated and resident, in this process."""
    config = config_of(number, folder, problems_of(number))
    planned = plan_memory(Rehearsals(model_config(str(folder))), config, gpu_of("1"), 1, LENGTHS, cuda=False)

    before = resident("VmRSS")
    loaded = load_model(config)
    needs_reference = config.objective.kl > 0 and config.model.lora is None
    reference = load_model(config) if needs_reference else None
    learner = LocalLearner(loaded, config, reference)
    groups = groups_of(config.rollout.problems, SAMPLES, 64, 64)
    learner.update(groups)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    learner.update(groups)
    grown = resident("VmHWM") - before
    models = [loaded.model, *([] if reference is None else [reference.model])]
    held = [t for model in models for t in (*model.parameters(), *model.buffers())]
    moments = [t for state in learner.optimiser.state.values() for t in state.values()]
    allocated = held_by([*held, *learner.masters, *moments]) + peak_of(lambda: learner.update(groups))
    weights = sum(p.numel() for p in loaded.model.parameters())
    return {"weights": weights, "planned": planned.peak("update"), "allocated": allocated, "resident": grown}


def measure_ranks(number: int, folder: Path, ranks: int) -> dict[str, float]:
    """Weights, and bytes of a rank planned and taken."""
    config = config_of(number, folder / "model", ranks * problems_of(number))
    rehearsals = Rehearsals(model_config(config.model.path))
    parts = plan_memory(rehearsals, config, gpu_of("1"), ranks, LENGTHS, cuda=False).phases["update"]
    planned = sum(parts.values()) - parts["engine"]  # the engine's copy, which is not made here
    os.environ |= MAPPED
    groups = groups_of(config.rollout.problems, SAMPLES, 64, 64)
    found = on_ranks(ranks, on_a_rank, folder / "ranks", [(config, groups)])
    return {"planned": planned, **max((rank[0] for rank in found), key=lambda rank: rank["taken"])}


def main() -> None:
    """Measure every row in a process of its own and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--row", type=int)
    arguments = parser.parse_args()
    if arguments.row is not None:
        with tempfile.TemporaryDirectory() as name:
            folder, ranks = Path(name), arguments.ranks
            found = measure(arguments.row, folder) if ranks == 1 else measure_ranks(arguments.row, folder, ranks)
            print(json.dumps(found))
        return
    columns = ["allocated", "resident"] if arguments.ranks == 1 else ["taken"]
    titles = ["model", "weights", "planned MiB", *(title for column in columns for title in (column, "off"))]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for number, (name, _, _) in enumerate(ROWS):
        if not arguments.large and name.startswith(("125M", "500M")):
            continue
        done = subprocess.run(
            [sys.executable, __file__, "--row", str(number), "--ranks", str(arguments.ranks)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        planned = found["planned"]
        cells = [f"{found[column] / 2**20:,.1f} | {planned / found[column] - 1:+.1%}" for column in columns]
        row = [name, f"{found['weights'] / 1e6:.1f} M", f"{planned / 2**20:,.1f}", *cells]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
