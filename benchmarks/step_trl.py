"""TRL's GRPO step, for ``benchmarks/steps.py``: one process in TRL's own environment, told what to do by a JSON file.

Nothing of this project is imported. Settings are TRL's defaults but for these, in TRL's favour or to match ours: no
gradient checkpointing; no mixed precision, so that weights are in the number format that is measured, without float32
copies beside them; as many rows in a forward as memory permits; one update for each batch that is generated; nothing
logged or saved; a constant learning rate, and AdamW's second decay. The loss (``dapo``: the mean over all tokens), the
scaling of rewards by group, clipping and the estimator of the KL term are TRL's defaults and ours.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLProcessor, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages


def peak_mib(device: str) -> float:
    """Of this process so far, or of its GPU; the kernel's ``ru_maxrss`` counts what its parent had in memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024


class Marks(TrainerCallback):  # type: ignore[misc]
    """What is known at the end of each step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.sampling = 0.0
        self.asked: list[dict[str, Any]] = []
        """The prompts of this step, with the lengths of their responses."""
        self.steps: list[dict[str, Any]] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """One more."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.steps.append({
            "clock": time.perf_counter(), "cpu": used.ru_utime + used.ru_stime, "peak_mib": peak_mib(self.device),
            "phases": {"rollout": self.sampling}, "flat": [], "updates": [self.asked],
        })  # fmt: skip
        self.sampling, self.asked = 0.0, []


class Stills(Qwen2_5_VLProcessor):  # type: ignore[misc]
    """A processor without its video part, which would need torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Its other parts."""
        return [name for name in super().get_attributes() if name != "video_processor"]


def row_of(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt as TRL takes it: a text, or a chat and its pictures."""
    row = {"prompt": prompt["text"], "tokens": len(prompt["ids"])}
    if prompt["images"]:
        row["prompt"] = [{"role": "user", "content": prompt["text"]}]
        row["images"] = [Image.open(path) for path in prompt["images"]]
    return row


def read(processing: Any, row: dict[str, Any]) -> list[int]:
    """(T_prompt,) the tokens that TRL makes of a row."""
    if "images" not in row:
        return list(processing(row["prompt"])["input_ids"])
    chat = prepare_multimodal_messages(row["prompt"], images=row["images"])
    made = processing.apply_chat_template([chat], add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(made["input_ids"][0])


def main() -> None:
    """Train, and print what each step took."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(job["threads"])
    sees = bool(job["prompts"][0]["images"])
    processing = (Stills if sees else AutoTokenizer).from_pretrained(job["model"])
    data = [row_of(prompt) for prompt in job["prompts"]]
    for row, prompt in zip(data, job["prompts"], strict=True):
        if read(processing, row) != prompt["ids"]:
            sys.exit(f"TRL would read other tokens than we do in {prompt['text']!r:.80}")
    marks = Marks(job["device"])

    def free(completions: list[Any], completion_ids: list[list[int]], tokens: list[int], **_: Any) -> list[float]:
        """1 where the last box holds A, as in random models it does in two of five; costs nothing."""
        for first in range(0, len(completions), job["samples"]):
            lengths = [len(ids) for ids in completion_ids[first : first + job["samples"]]]
            marks.asked.append({"prompt": tokens[first], "lengths": lengths, "trained": lengths})
        texts = [chat[0]["content"] for chat in completions] if sees else completions
        last = [re.findall(r"\\boxed\{(\w+)\}", text)[-1:] for text in texts]
        return [float(box == ["A"]) for box in last]

    rows, batch = len(job["prompts"]) * job["samples"], job["rows"]
    arguments = GRPOConfig(
        output_dir=job["folder"], max_steps=job["steps"], per_device_train_batch_size=batch,
        gradient_accumulation_steps=rows // batch, num_generations=job["samples"], num_iterations=1,
        max_completion_length=job["limit"], temperature=1.0, beta=job["kl"], loss_type="dapo", scale_rewards="group",
        learning_rate=1e-6, lr_scheduler_type="constant", adam_beta2=0.95, adam_epsilon=1e-8, max_grad_norm=1.0,
        model_init_kwargs={"dtype": job["dtype"]}, bf16=False, use_cpu=job["device"] == "cpu",
        gradient_checkpointing=False, shuffle_dataset=False, logging_strategy="no", save_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        job["model"], free, arguments, Dataset.from_list(data), processing_class=processing, callbacks=[marks],
    )  # fmt: skip
    generate = trainer.model.generate

    def timed(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        made = generate(*given, **named)
        marks.sampling += time.perf_counter() - began
        return made

    trainer.model.generate = timed
    trainer.train()
    print(json.dumps(marks.steps))


if __name__ == "__main__":
    main()
