"""A small run of SparkGRPOTrainer on the embedded base, and what the tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig

from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.integrations.trl import SparkGRPOTrainer
from spark_rl.model.places import find_model

torch.set_num_threads(1)

BASE = find_model("embedded")
SPARK: dict[str, Any] = {"recycle": {"templates": "terse"}}


def rows(count: int = 24, **columns: Any) -> list[dict[str, Any]]:
    """Chats that ask the embedded base, with a column that only reward functions need."""
    problems = load_problems("procedural:missing", DataConfig())[:count]
    return [
        {
            "prompt": [{"role": "user", "content": f"solve {problem.question}"}],
            "question": problem.question,
            "answer": problem.answer,
            "number": number,
            **columns,
        }
        for number, problem in enumerate(problems)
    ]


def arguments(folder: Path, **more: Any) -> GRPOConfig:
    """Three problems of four samples a step, on the CPU."""
    settings: dict[str, Any] = {
        "max_steps": 4, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "num_generations": 4,
        "max_completion_length": 24, "learning_rate": 1e-4, "lr_scheduler_type": "constant", "logging_steps": 1,
        "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip
    return GRPOConfig(str(folder), **{**settings, **more})


def trainer(
    folder: Path, reward: Any = None, data: list[dict[str, Any]] | None = None, spark: Any = None, **more: Any
) -> SparkGRPOTrainer:
    """A trainer, before its first step."""
    dataset = Dataset.from_list(rows() if data is None else data)
    return SparkGRPOTrainer(BASE, reward, arguments(folder, **more), dataset, spark=SPARK if spark is None else spark)


def logged(made: SparkGRPOTrainer, name: str) -> list[float]:
    """A metric, step by step, where it was logged."""
    return [log[name] for log in made.state.log_history if name in log]
