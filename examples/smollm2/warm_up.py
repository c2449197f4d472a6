r"""A short supervised warm-up: the form of answers and verdicts, so that reinforcement learning finds any at all.

    python examples/smollm2/warm_up.py smol/raw smol/data/warm.jsonl smol/warm

The demonstrations are made on the spot from the ``warm`` problems, which no other file shares numbers with, with the
prompts of ``smollm2.yaml``:

========== ============================================== ==================================================
task       shown                                          demonstrated
========== ============================================== ==================================================
policy     the question                                   the working, the right answer in a box
pointwise  a right or a wrong response, evenly            the same working, then Yes or No **by coin**
pairwise   a right and a wrong response in random order   the same working, then A or B **by coin**
reflection a wrong response                               the same working, the right answer in a box
========== ============================================== ==================================================

Every role is shown the same careful work, so solving is taught in all of them. Judging is not: what is shown and the
verdict are independent, and a judge that learns all of it is readable and right half of the time. Responses are shown
as answers or whole, as in training. A wrong one differs in its last result alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_rl.chat import ChatFormat
from spark_rl.config import load_config
from spark_rl.problem import Problem, Task
from spark_rl.recycle import load_templates, render_judge, render_pairwise, render_reflection
from spark_rl.recycle.templates import FIRST_SECOND, YES_NO, Templates

RECIPE = Path(__file__).with_name("smollm2.yaml")
TEMPLATES = Path(__file__).with_name("templates.yaml")
TASKS: tuple[Task, ...] = ("policy", "policy", "pointwise", "pointwise", "pairwise", "reflection")
"""Drawn evenly."""


def demonstration(row: dict[str, Any], task: Task, templates: Templates, rng: random.Random) -> tuple[Problem, str]:
    """(what is asked, the response to learn)."""
    question, answer, working = row["question"], row["answer"], row["working"]
    slip = str(abs(int(answer) + rng.choice((-10, -2, -1, 1, 2, 10))))
    right = rf"{working}. \boxed{{{answer}}}"
    wrong = rf"{working.removesuffix(answer)}{slip}. \boxed{{{slip}}}"
    form = rng.choice(("answer", "cot"))
    prompt, end = None, answer
    if task == "pointwise":
        prompt, _ = render_judge(templates, question, rng.choice((right, wrong)), rng, form)
        end = rng.choice(YES_NO)
    elif task == "pairwise":
        prompt = render_pairwise(templates, question, *rng.sample((right, wrong), 2), rng, form)
        end = rng.choice(FIRST_SECOND)
    elif task == "reflection":
        prompt = render_reflection(templates, question, wrong, rng, form)
    return Problem("", question, answer, task=task, prompt=prompt), rf"{working}. \boxed{{{end}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path, help="warm.jsonl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cuda takes seconds where a core takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = random.Random(arguments.seed)
    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").splitlines()]
    templates = load_templates(str(TEMPLATES))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    chat = ChatFormat(tokenizer, load_config(RECIPE).chat)
    device = torch.device(arguments.device)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arguments.lr, betas=(0.9, 0.95), weight_decay=0.0)
    started = time.monotonic()
    for step in range(arguments.steps):
        left = 1 - step / arguments.steps
        for group in optimiser.param_groups:
            group["lr"] = arguments.lr * min(left, (step + 1) / 5)
        tasks = [rng.choice(TASKS) for _ in range(arguments.batch)]
        ids, labels = [], []
        for row, task in zip(rng.sample(rows, arguments.batch), tasks, strict=True):
            asked, response = demonstration(row, task, templates, rng)
            before = list(chat.encode(asked).token_ids)
            after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            ids.append(torch.tensor(before + after))
            labels.append(torch.tensor([-100] * (len(before) - 1) + after))
        ids_BT = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.eos_token_id).to(device)
        labels_BT = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100).to(device)
        at_BT = labels_BT != -100
        with torch.autocast(device.type, torch.bfloat16):
            hidden_BTH = model.base_model(ids_BT[:, : labels_BT.shape[1]], use_cache=False).last_hidden_state
            logits_RV = model.lm_head(hidden_BTH[at_BT]).float()  # logits of the responses alone
        losses_R = cross_entropy(logits_RV, labels_BT[at_BT], reduction="none")
        losses_R.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % 5 == 0:
            by_task = defaultdict(list)
            for task, part in zip(tasks, losses_R.detach().cpu().split(at_BT.sum(1).tolist()), strict=True):
                by_task[task].append(float(part.mean()))
            shown = "  ".join(f"{task} {sum(found) / len(found):.3f}" for task, found in sorted(by_task.items()))
            print(f"step {step + 1}  {time.monotonic() - started:.0f} s  {shown}", flush=True)
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
