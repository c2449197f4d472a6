"""The plan beside what an update really takes, for models of 1 to 500 million weights: docs/plan.md has the table.

    PYTHONPATH=src:. python benchmarks/plan_memory.py            1M to 50M, a minute
    PYTHONPATH=src:. python benchmarks/plan_memory.py --large    to 500M, which takes 14 GiB and some minutes

Each row is a process of its own. ``allocated`` is torch's record of every block in the second update and what is held
through it, ``resident`` the growth of the process from before the model was loaded to the peak of that update.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.plan.measure import held_by, peak_of, resident
from tests.tiny import tiny_config
from transformers import AutoConfig, AutoModelForCausalLM

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
    ("500M float32", {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "rows": 151936}, {}),
]  # fmt: skip


def measure(shape: dict[str, Any], sections: dict[str, Any], folder: Path) -> dict[str, float]:
    """Weights, and bytes planned, allocated and resident, in this process."""
    shape = {"num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True, "bos_token_id": 1,
             "eos_token_id": 2, "max_position_embeddings": 1024, **shape}  # fmt: skip
    AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", vocab_size=shape.pop("rows"), **shape)
                                     ).save_pretrained(folder)  # fmt: skip
    build_tokenizer().save_pretrained(folder)
    config = tiny_config(folder, recycle={"preset": "policy-only"}, learner={"micro_tokens": 1024},
                         rollout={"problems": 6, "samples": 4, "max_new_tokens": 64}, **sections)  # fmt: skip
    lengths = Lengths(64, 64, 64, 64)
    planned = plan_memory(Rehearsals(model_config(str(folder))), config, gpu_of("1"), 1, lengths, cuda=False)

    before = resident("VmRSS")
    loaded = load_model(config)
    needs_reference = config.objective.kl > 0 and config.model.lora is None
    reference = load_model(config) if needs_reference else None
    learner = LocalLearner(loaded, config, reference)
    groups = groups_of(6, 4, 64, 64)
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


def main() -> None:
    """Measure every row in a process of its own and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--row", type=int)
    arguments = parser.parse_args()
    if arguments.row is not None:
        _, shape, sections = ROWS[arguments.row]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(dict(shape), sections, Path(folder))))
        return
    print("| model | weights | planned MiB | allocated | off | resident | off |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number, (name, _, _) in enumerate(ROWS):
        if not arguments.large and name.startswith(("125M", "500M")):
            continue
        done = subprocess.run(
            [sys.executable, __file__, "--row", str(number)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        planned, allocated, resident = (found[key] / 2**20 for key in ("planned", "allocated", "resident"))
        off = planned / allocated - 1, planned / resident - 1
        cells = f"{planned:,.1f} | {allocated:,.1f} | {off[0]:+.1%} | {resident:,.1f} | {off[1]:+.1%}"
        print(f"| {name} | {found['weights'] / 1e6:.1f} M | {cells} |", flush=True)


if __name__ == "__main__":
    main()
