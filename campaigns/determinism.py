"""What changes the bits of a run and what does not: ``python campaigns/determinism.py [--steps 6] [SETTING...]``.

One very small run is made again with one thing changed, in a process of its own. Compared are the responses that were
sampled and the weights at the end: a run that rounds differently samples other tokens sooner or later, and from there
goes its own way.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from small_runs import SETTINGS, rows, train_in_a_process

from spark_rl.config import load_config

RUN = (
    *SETTINGS, "rollout.problems=8", "recycle.ready=4", "train.sample_rollouts=1000", "data.heldout=null",
    "data.transfer=null", "optimiser.lr=1e-3",
)  # fmt: skip
CHANGES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "stopped after each step and resumed": (),
    "another number of verifier workers": ("verify.workers=2",),
    "evaluated and saved in between": ("train.save_every=1", "data.heldout=procedural:missing", "train.eval_every=2",
                                       "evaluation.problems=8"),
    "two threads": ("model.threads=2",),
    "smaller micro-batches": ("learner.micro_tokens=64",),
    "fewer rows decoded together": ("engine.max_rows=8",),
    "bfloat16": ("model.dtype=bfloat16",),
    "another seed": ("seed=1",),
}  # fmt: skip
RESUMED = "stopped after each step and resumed"


def run(folder: Path, steps: int, settings: Sequence[str], *, resumed: bool = False) -> Path:
    """Train in processes of their own; the run directory."""
    for last in range(1, steps + 1) if resumed else [steps]:
        config = load_config("tiny", [*RUN, *settings, f"train.steps={last}"], run_dir=str(folder))
        if (ended := train_in_a_process(config, resume=resumed and last > 1)) != 0:
            raise SystemExit(f"a run ended with {ended}")
    return folder


def compared(ours: Path, theirs: Path) -> tuple[str, str]:
    """(the first step that sampled another response, the largest difference of a weight)."""
    found, others = (_responses(path) for path in (ours, theirs))
    steps = [step for step in found if found[step] != others.get(step)]
    weights, reference = (load_file(path / "model" / "model.safetensors") for path in (ours, theirs))
    apart = max(float((weights[name].float() - reference[name].float()).abs().max()) for name in reference)
    return (str(min(steps)) if steps else "never"), ("0, to the bit" if apart == 0 else f"{apart:.1e}")


def _responses(run_dir: Path) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows(run_dir / "rollouts.jsonl"):
        found.setdefault(row.pop("step"), []).append(row)
    return found


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("settings", nargs="*", help="of all runs, such as model.device=cuda")
    arguments = parser.parse_args()
    given = tuple(arguments.settings)
    table = Table("changed", "other responses from step", "weights apart, at most")
    with tempfile.TemporaryDirectory(prefix="determinism-") as name:
        folder = Path(name)
        reference = run(folder / "reference", arguments.steps, given)
        for number, (change, settings) in enumerate(CHANGES.items()):
            made = run(folder / str(number), arguments.steps, (*given, *settings), resumed=change == RESUMED)
            table.add_row(change, *compared(made, reference))
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
