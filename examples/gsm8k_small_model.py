"""A small Qwen2 that has seen GSM8K, to walk the whole SPARK path on real prompts without a GPU or a hub.

    DATA=../shared/data/llm/gsm8k_train.jsonl
    python examples/gsm8k_small_model.py $DATA /tmp/small
    spark-rl train --config gsm8k-small --model /tmp/small --data $DATA --heldout split:64

It trains a byte-level BPE tokenizer and a 2-layer model on the data for a minute, so that the model answers, judges and
reflects in the right form and guesses plausible numbers; a few per cent of its answers are right. That is enough for
mixed groups, and so for every kind of recycled problem to appear. It is a plumbing aid, not a model to judge things by.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from spark_rl.chat import policy_prompt
from spark_rl.config import ChatConfig, DataConfig
from spark_rl.data import load_problems
from spark_rl.problem import Problem
from spark_rl.recycle import load_templates, render_judge, render_pairwise, render_reflection

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def make_tokenizer(texts: list[str], folder: Path, size: int = 2048) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of the Qwen2 kind, trained on the data."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = [tuple(line.split(" ")) for line in (folder / "merges.txt").read_text().splitlines() if line[:1] != "#"]
    return Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        unk_token="<|endoftext|>", chat_template=CHATML, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def lesson(problem: Problem, other: str, rng: random.Random) -> tuple[str, str]:
    """(user turn, boxed answer) of one of the four tasks. Verdicts come by coin: the form is taught, not judging."""
    templates = load_templates("natural")
    task = rng.choice(("policy", "policy", "pointwise", "pairwise", "reflection"))
    if task == "pointwise":
        prompt, labels = render_judge(templates, problem.question, rf"\boxed{{{other}}}", rng, "answer")
        return prompt, rng.choice(labels)
    if task == "pairwise":
        shown = [rf"\boxed{{{problem.answer}}}", rf"\boxed{{{other}}}"]
        rng.shuffle(shown)
        return render_pairwise(templates, problem.question, *shown, rng, "answer"), rng.choice(("A", "B"))
    if task == "reflection":
        prompt = render_reflection(templates, problem.question, rf"\boxed{{{other}}}", rng, "answer")
        return prompt, problem.answer
    return policy_prompt(problem, ChatConfig()), problem.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="gsm8k_train.jsonl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rng = random.Random(0)
    problems = load_problems(arguments.data, DataConfig())
    tokenizer = make_tokenizer([p.question for p in problems], arguments.out)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    started = time.monotonic()
    step = 0
    while time.monotonic() - started < arguments.seconds:
        rows, labels = [], []
        for problem in rng.sample(problems, 16):
            asked, answer = lesson(problem, rng.choice(problems).answer, rng)
            user = [{"role": "user", "content": asked}]
            prompt = tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
            answer = f"So the final answer is \\boxed{{{answer}}}.<|im_end|>"
            before, after = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, answer))
            rows.append(torch.tensor(before + after))
            labels.append(torch.tensor([-100] * len(before) + after))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        loss = model(ids, labels=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        if step % 50 == 0:
            print(f"step {step}  loss {float(loss.detach()):.3f}  {time.monotonic() - started:.0f} s", flush=True)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
