"""A data set of ``datasets``, a model that is already loaded, and a callback that stops when nothing is left to learn.

python examples/trainer_callback.py
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from spark_rl import SparkTrainer
from spark_rl.model.places import EMBEDDED

SUMS = [(a, b, c) for a in (5, 7, 9) for b in (1, 3, 4) for c in (1, 2)]
ROWS = [{"question": f"{a}?{b}?{c}={a + b - c}", "answer": "+-"} for a, b, c in SUMS]


class StopWhenSolved(TrainerCallback):
    """Ends the run once nine of ten responses are right."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **objects: Any) -> Any:
        control.should_training_stop = logs.get("reward/policy", 0.0) >= 0.9
        return control


def main() -> None:
    folder = EMBEDDED["embedded"]  # any causal language model does
    trainer = SparkTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        processing_class=AutoTokenizer.from_pretrained(folder),
        args={
            "chat": {"policy": "solve {question}"},  # the language that this model speaks
            "recycle": {"templates": "terse"},
            "rollout": {"problems": 4, "samples": 4, "max_new_tokens": 48},
            "objective": {"kl": 0.001},
            "train": {"steps": 3},
        },
        train_dataset=Dataset.from_list(ROWS),
        callbacks=[StopWhenSolved],
    )
    print(trainer.train().global_step, "steps")


if __name__ == "__main__":
    main()
