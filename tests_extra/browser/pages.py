"""Writes the pages that the browser opens: ``python pages.py FOLDER``, in the environment of the package.

Runs are made up here, with text that attacks whoever shows it, numbers that make long labels, and names that are long.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from hostile import EVIL

from spark_rl.config import Config
from spark_rl.report import MetricsLog, write_report
from spark_rl.report.ablation import ArmTable, write_ablation_report
from spark_rl.report.several import write_comparison

STEPS = 45
LONG = "w" * 300


def scores(policy: float, judge: float, scaled: float) -> dict[str, Any]:
    found: dict[str, Any] = {"n": 400, "status/correct": 400 * policy, "status/wrong": 400 - 400 * policy}
    shares = {
        "policy_accuracy": policy, "judge_accuracy": judge, "tts_accuracy": scaled, "judge_f1": judge,
        "judge_constant_accuracy": max(policy, 1 - policy), "pairwise_accuracy": judge, "reflection_fix": 0.3,
        "reflection_break": 0.1, "judge_precision": 0.5, "judge_recall": 0.5, "judge_unreadable": 0.01,
    }  # fmt: skip
    for key, share in shares.items():
        found |= {key: share, f"{key}_low": max(0.0, share - 0.04), f"{key}_high": min(1.0, share + 0.04)}
    return found


def metrics(step: int, level: float) -> dict[str, Any]:
    part = step / STEPS
    return {
        "step": step, "seconds": 2.5, "tokens": 1000, "tokens_per_second": 400.0, "reward/policy": level * part,
        "reward/pointwise": 0.5 + 0.4 * part, "reward/pairwise": 0.5 + 0.3 * part, "reward/reflection": 0.3 * part,
        "status/correct": 0.4, "status/wrong": 0.6, "label/yes": 0.4, "verdict/yes": 0.7 - 0.3 * part,
        "entropy": 0.5 - part / 4,
        "loss": 1 + 1e-6 * math.sin(step), "loss/recycled": 1 + 1e-6 * math.cos(step), "grad_norm": 4e-6 * step,
        "grad_norm/recycled": 3e-6 * step, "lr": 1e-4, "length/mean": 40.0 + step, "flat": 0.5, "pool": 64,
        "time/sample": 1.5, "time/update": 0.5, "time/verify": 0.1, "recycled/pairwise": 4,
        "odd/metric": 123_456.789 * step,
    }  # fmt: skip


def responses(step: int, right: int) -> dict[str, Any]:
    texts = [f"work {EVIL} \\boxed{{{number}}}" if number == 3 else f"answer {step}-{number} {LONG[: 40 * number]}"
             for number in range(8)]  # fmt: skip
    first, *others = [
        {"response": text, "status": "correct" if number < right else "wrong", "reward": float(number < right),
         "extracted": EVIL if number == 3 else str(number), "tokens": 9}
        for number, text in enumerate(texts)
    ]  # fmt: skip
    return {**first, "others": others}


def rollouts(step: int) -> list[dict[str, Any]]:
    name = f"problem-{step}" if step != 1 else EVIL
    prompt = f"solve {step}?{step + 1} {EVIL if step == 2 else ''}"
    rows = [
        {"step": step, "task": "policy", "problem": name, "prompt": prompt, "label": "7", **responses(step, step % 8)}
    ]
    prompt = f"Is this right? answer {step}-1 {LONG[:40]}"
    made = {"step": step, "parent": name, "label": "Yes", "prompt": prompt, **responses(step, 2)}
    rows += [{**made, "task": task, "problem": f"{name}/{task}-0"} for task in ("pointwise", "pairwise", "reflection")]
    return rows


def make_run(folder: Path, level: float = 0.8, *, finished: bool = True, seed: int = 0) -> dict[str, Any]:
    folder.mkdir(parents=True)
    config = {**Config().model_dump(mode="json"), "seed": seed, "run_dir": str(folder)}
    config["model"]["path"] = f"somebody/{LONG[:60]}"
    config["rollout"]["samples"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    before = scores(0.19, 0.48, 0.22)
    after = scores(level, 0.97, min(1.0, level + 0.05))
    (folder / "before.json").write_text(json.dumps({"heldout": before}))
    last = STEPS if finished else 20
    with MetricsLog(folder / "metrics.jsonl") as log, MetricsLog(folder / "rollouts.jsonl") as kept:
        for step in range(1, last + 1):
            log.append(metrics(step, level))
            for row in rollouts(step):
                kept.append(row)
    with MetricsLog(folder / "evaluations.jsonl") as log:
        for step in range(9, last + 1, 9):
            part = step / STEPS
            log.append(
                {"step": step, **scores(0.19 + (level - 0.19) * part, 0.48 + 0.49 * part, 0.22 + (level - 0.2) * part)}
            )
    summary = {"before": before, "after": after, "seconds": 112.5, "tokens": 45_000, "versions": {"torch": "2.13"},
               "transfer": {"before": before, "after": after}, "config": config}  # fmt: skip
    if finished:
        (folder / "summary.json").write_text(json.dumps(summary))
    return summary


def main(folder: Path) -> None:
    make_run(folder / "run")
    make_run(folder / "going", finished=False)
    make_run(folder / "other", 0.5, seed=1)
    for name in ("run", "going", "other"):
        write_report(folder / name)
    write_comparison([folder / "run", folder / "going", folder / "other"], folder / "comparison.html")
    arms = {"policy-only": 0.5, "spark": 0.8}
    results = {
        arm: [make_run(folder / "ablation" / f"{arm}-seed{seed}", level + 0.02 * seed, seed=seed) for seed in (0, 1)]
        for arm, level in arms.items()
    }
    table = ArmTable("heldout", "heldout problems", ("", "base", *arms), (("policy", "19.0", "51.0", "81.0"),))
    write_ablation_report(folder / "ablation", results, [table])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
