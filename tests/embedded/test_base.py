"""The embedded base as a file: small, loadable by anyone, remade by its command."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_rl.embedded.build import build_model, build_tokenizer, warm_start
from spark_rl.embedded.demonstrations import CURRICULA, Demonstrator
from spark_rl.model.places import EMBEDDED


@pytest.mark.parametrize("loaded", [False, True])
def test_the_tokenizer_round_trips_everything_the_base_is_shown(loaded: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["embedded"]) if loaded else build_tokenizer()
    demonstrator, rng = Demonstrator(), random.Random(2)
    for _ in range(500):
        prompt, response = demonstrator.draw(rng, 0.5)
        text = f"<bos>{prompt}\n{response}<eos>"
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_numbers_are_one_token_each() -> None:
    tokenizer = build_tokenizer()
    for number in range(100):
        assert len(tokenizer(str(number), add_special_tokens=False)["input_ids"]) == 1


def test_the_base_loads_with_plain_transformers_and_is_small() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED["embedded"])
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert (EMBEDDED["embedded"] / "model.safetensors").stat().st_size < 8 * 2**20


def test_the_chat_template_marks_where_the_answer_begins() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["embedded"])
    chat = [{"role": "user", "content": "solve 7*_-4=17"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == "<bos>solve 7*_-4=17\n"


def test_the_same_seed_makes_the_same_weights() -> None:
    made = []
    for _ in range(2):
        tokenizer = build_tokenizer()
        model = build_model(len(tokenizer), seed=3)
        warm_start(model, tokenizer, CURRICULA["shared"], seed=3, steps=2, rows=4)
        made.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(made[0], made[1])
