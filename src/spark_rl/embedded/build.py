"""Makes the embedded base: ``python -m spark_rl.embedded.build --seed 0`` writes ``src/spark_rl/embedded/text``.

A Qwen2-architecture model of 0.8 M parameters is trained from random weights by next-token prediction on the
demonstrations of :mod:`spark_rl.embedded.demonstrations`, on the response tokens only. Nothing but this command made
the weights in the repository. The same seed, thread count and torch build give the same file.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from spark_rl.embedded.demonstrations import CURRICULA, HABIT_CAREFUL, STUDY_CAREFUL, Curriculum, Demonstrator

SPECIAL = ("<pad>", "<bos>", "<eos>")
WORDS = ("solve ", "judge ", "choose ", "retry ", "work ", "check ", "compare ", "redo ", "Yes", "No", "\\boxed{")
NUMBERS = tuple(str(n) for n in range(10, 100))
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ '\\n' if m['role'] == 'user' else eos_token }}{% endfor %}"  # noqa: E501
CONTEXT = 256
PEAK_RATE = 1.5e-3
CHUNK = 100
"""Steps whose demonstrations are drawn and sorted by length together."""
STUDY_PART = 0.7
"""Share of the steps before careful work becomes the minority."""
COMPARISON_WEIGHT = 8.0
"""Weight of the tokens T and F in the loss: telling whether two numbers are equal is the last thing to be learned."""


def build_tokenizer() -> Qwen2Tokenizer:
    """The Qwen2 tokenizer over printable ASCII, where words of the base's language and 0..99 are one token each."""
    characters = [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"]  # byte-level names of space and newline
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *characters))}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>",
        chat_template=CHAT_TEMPLATE, model_max_length=CONTEXT, padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in (*WORDS, *NUMBERS)])
    return tokenizer


def build_model(vocabulary: int, seed: int) -> Qwen2ForCausalLM:
    """The untrained base: 4 layers of width 128."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=336, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True, rope_theta=10_000.0,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def warm_start(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, curriculum: Curriculum, seed: int, steps: int, rows: int
) -> None:
    """Next-token prediction on ``steps * rows`` demonstrations.

    The first :data:`STUDY_PART` of the steps is mostly careful work, the rest makes careful work a minority habit. The
    learning rate warms up and falls along a cosine.
    """
    rng = random.Random(f"warm-start:{seed}")
    demonstrator = Demonstrator(curriculum)
    weight_V = torch.ones(len(tokenizer))
    weight_V[tokenizer.convert_tokens_to_ids(["T", "F"])] = COMPARISON_WEIGHT
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    started = time.monotonic()
    loss_sum = 0.0
    for start in range(0, steps, CHUNK):
        careful = STUDY_CAREFUL if start < STUDY_PART * steps else HABIT_CAREFUL
        pairs = [demonstrator.draw(rng, careful) for _ in range(CHUNK * rows)]
        for step, batch in enumerate(batches(tokenizer, pairs, rows, rng), start):
            rate = min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimiser.param_groups:
                group["lr"] = PEAK_RATE * rate
            ids_BT, labels_BT = batch
            logits_BTV = model(ids_BT).logits  # right padding under a causal mask needs no attention mask
            loss = torch.nn.functional.cross_entropy(
                logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), weight_V, ignore_index=-100
            )
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            loss_sum += float(loss.detach())
        done = min(start + CHUNK, steps)
        print(f"step {done:5d}/{steps}  loss {loss_sum / CHUNK:.4f}  {time.monotonic() - started:.0f} s", flush=True)
        loss_sum = 0.0


def batches(
    tokenizer: Qwen2Tokenizer, pairs: list[tuple[str, str]], rows: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(rows, T) token ids and labels, -100 on prompts and padding; rows of similar length together, in random order."""
    prompts = tokenizer([f"<bos>{prompt}\n" for prompt, _ in pairs], add_special_tokens=False)["input_ids"]
    answers = tokenizer([f"{response}<eos>" for _, response in pairs], add_special_tokens=False)["input_ids"]
    for ids_BT, labels_BT, _ in padded(prompts, answers, rows, rng):
        yield ids_BT, labels_BT


def padded(
    prompts: list[list[int]], answers: list[list[int]], rows: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """(rows, T) token ids, labels with -100 on prompts and padding, and which rows they are.

    Rows of similar length are together, in random order.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    starts = list(range(0, len(order), rows))
    rng.shuffle(starts)
    for start in starts:
        chosen = order[start : start + rows]
        width = max(len(prompts[i]) + len(answers[i]) for i in chosen)
        ids_BT = torch.zeros(len(chosen), width, dtype=torch.long)
        labels_BT = torch.full((len(chosen), width), -100)
        for row, i in enumerate(chosen):
            prompt, answer = prompts[i], answers[i]
            ids_BT[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            labels_BT[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        yield ids_BT, labels_BT, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curriculum", choices=CURRICULA, default="apart", help="what it is shown")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=64, help="demonstrations a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), arguments.seed)
    warm_start(model, tokenizer, CURRICULA[arguments.curriculum], arguments.seed, arguments.steps, arguments.rows)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
