"""What a step and an evaluation are called in trackers: transformers' ``train/`` and ``eval/``, TRL's names below them.

Numbers that TRL's ``GRPOTrainer`` logs too have its names (``trl/trainer/grpo_trainer.py``), so that curves of both lie
in one chart; those that only SPARK has keep ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spark_rl.report.metrics import finite

STEP = "train/global_step"
"""The number of the step, which wandb and Trackio draw the others over."""

TRL: Mapping[str, str] = {
    "lr": "learning_rate",
    "length/mean": "completions/mean_length",
    "length/max": "completions/max_length",
    "clipped": "completions/clipped_ratio",
    "flat": "frac_reward_zero_std",
    "seconds": "step_time",
}
"""Our name of a number -> TRL's. Of what is recycled the same with ``/recycled`` at its end."""

_REWARDS = (("reward/", "rewards/{}/mean"), ("reward_function/", "rewards/{}/mean"))
COLUMNS = ("step", "task", "prompt", "completion", "label", "reward", "status")
"""Of the table of rollouts, as TRL's table of completions."""


def train_names(metrics: Mapping[str, Any], total_tokens: int) -> dict[str, float]:
    """The numbers of a step by the names that trackers know.

    Args:
        metrics: a row of ``metrics.jsonl``.
        total_tokens: generated in training so far, TRL's ``num_tokens``.
    """
    found: dict[str, float] = {STEP: float(metrics["step"]), "train/num_tokens": float(total_tokens)}
    for name, value in metrics.items():
        number = finite(value)
        if number is None or name == "step":
            continue
        found[f"train/{_name(name)}"] = float(number)
    return found


def eval_names(scores: Mapping[str, Any], exam: str = "heldout") -> dict[str, float]:
    """The scores of held-out problems: ``eval/policy_accuracy``; of another exam ``eval/transfer_policy_accuracy``."""
    start = "eval/" if exam == "heldout" else f"eval/{exam}_"
    return {f"{start}{name}": float(number) for name, value in scores.items() if (number := finite(value)) is not None}


def table_rows(records: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """Records of ``rollouts.jsonl``, each a whole group, as rows of :data:`COLUMNS`: one a response."""
    return [
        [record["step"], record["task"], record["prompt"], one["response"], record["label"], one["reward"],
         one["status"]]
        for record in records
        for one in (record, *record["others"])
    ]  # fmt: skip


def _name(name: str) -> str:
    base, slash, end = name.rpartition("/")
    if slash and end == "recycled":
        return f"{TRL.get(base, base)}/recycled"
    for start, form in _REWARDS:
        if name.startswith(start):
            return form.format(name.removeprefix(start))
    return TRL.get(name, name)
