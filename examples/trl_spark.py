"""SPARK in TRL: its ``GRPOTrainer`` with recycling on the embedded base, beside ``GRPOTrainer`` itself and our loop.

    make test-trl                                          # makes .venv-trl, which holds TRL and spark-rl
    .venv-trl/bin/python examples/trl_spark.py spark       # SparkGRPOTrainer, some minutes on one core
    .venv-trl/bin/python examples/trl_spark.py grpo        # TRL's GRPOTrainer
    .venv-trl/bin/python examples/trl_spark.py loop        # spark_rl.SparkTrainer; .venv does for it too

It prints held-out shares in per cent: answers right, judgements of the model's own answers right, and answers right
after judging and reflecting. docs/integrations.md says what was measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_rl import SparkTrainer, load_config, verify
from spark_rl.data import load_problems
from spark_rl.model.places import find_model

SCORES = ("policy_accuracy", "judge_accuracy", "judge_balanced_accuracy", "tts_accuracy")


def main() -> None:
    """Train as one arm says, examine, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("arm", choices=("base", "grpo", "spark", "loop"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument(
        "--problems", type=int, default=32, help="of the policy in a batch, and recycled ones beside them"
    )
    arguments = parser.parse_args()
    batch = Batch(arguments.seed, arguments.steps, arguments.problems)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model, facts = train(arguments.arm, batch, Path(folder))
        seconds = time.perf_counter() - began
        examiner = SparkTrainer(str(model), args=batch.settings(Path(folder) / "exam"), progress=False)
        scores = examiner.evaluate()
    shares = {name: round(100 * scores[f"eval_{name}"], 1) for name in SCORES}
    print(json.dumps({"arm": arguments.arm, "seed": arguments.seed, **shares, **facts, "seconds": round(seconds)}))


@dataclass(frozen=True)
class Batch:
    """How much is trained on, the same in each arm."""

    seed: int
    steps: int
    problems: int

    def settings(self, run_dir: Path, **more: Any) -> Mapping[str, Any]:
        """configs/tiny.yaml for whichever model, with batches of this size."""
        sizes = {
            "rollout": {"problems": self.problems},
            "recycle": {"ready": self.problems},
            "data": {"transfer": None},
        }
        exam = {"inference": {"rounds": 1}, "evaluation": {"problems": 200}}
        config = load_config("tiny", seed=self.seed, run_dir=str(run_dir), **sizes, **exam, **more)
        tree = config.model_dump(mode="json", exclude_unset=True)
        return {name: value for name, value in tree.items() if name != "model"}


def train(arm: str, batch: Batch, folder: Path) -> tuple[Path | str, Mapping[str, Any]]:
    """Where the trained model is, and what was measured on the way."""
    if arm == "base":
        return find_model("embedded"), {}
    if arm != "loop":
        return train_with_trl(arm, batch, folder)
    sizes = {"train": {"steps": batch.steps, "periods": "combined", "save_every": batch.steps}}
    own = SparkTrainer("embedded", args=batch.settings(folder / "run", **sizes), progress=False)
    own.train()
    own.save_model(folder / "model")
    return folder / "model", {"updates": batch.steps}


def train_with_trl(arm: str, batch: Batch, folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """The same with TRL's trainer or ours; settings are those of configs/tiny.yaml in TRL's words."""
    from datasets import Dataset  # noqa: PLC0415  # the loop's arms need no TRL
    from trl import GRPOConfig, GRPOTrainer  # noqa: PLC0415

    from spark_rl.integrations.trl import SparkGRPOTrainer  # noqa: PLC0415

    config = load_config("tiny")
    ask = config.chat.policy.replace("{question}", "{}")
    problems = load_problems(config.data.train, config.data)
    dataset = Dataset.from_list([
        {"prompt": [{"role": "user", "content": ask.format(p.question)}], "question": p.question, "answer": p.answer}
        for p in problems
    ])  # fmt: skip
    samples = config.rollout.samples
    args = GRPOConfig(
        str(folder / arm), max_steps=batch.steps, seed=batch.seed, num_generations=samples,
        per_device_train_batch_size=batch.problems * samples, gradient_accumulation_steps=1,
        max_completion_length=config.rollout.max_new_tokens, beta=0.0,
        learning_rate=config.optimiser.lr, lr_scheduler_type="constant", adam_beta2=config.optimiser.betas[1],
        gradient_checkpointing=False, bf16=False, use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=5,
    )  # fmt: skip
    if arm == "grpo":
        trainer: Any = GRPOTrainer(find_model("embedded"), accuracy, args, dataset)
    else:
        recycling = config.recycle.model_dump(include={"templates", "judge_cap", "reflection_cap"})
        trainer = SparkGRPOTrainer(find_model("embedded"), None, args, dataset, spark={"recycle": recycling})
    trainer.train()
    trainer.save_model(str(folder / "model"))
    generated = [
        log["completions/mean_length"] for log in trainer.state.log_history if "completions/mean_length" in log
    ]
    return folder / "model", {"updates": batch.steps, "mean_length": round(sum(generated) / len(generated), 1)}


def accuracy(completions: list[list[dict[str, str]]], answer: list[str], **_columns: object) -> list[float]:
    """What SparkGRPOTrainer does by itself, as a reward function of TRL's."""
    return [verify(turns[-1]["content"], gold).reward for turns, gold in zip(completions, answer, strict=True)]


if __name__ == "__main__":
    main()
