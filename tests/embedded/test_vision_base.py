"""The embedded vision base: what it is shown is true, it loads offline, and it does what is said of it."""

from __future__ import annotations

import io
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from spark_rl.data.procedural import procedural_problems
from spark_rl.data.tasks import tiles
from spark_rl.data.tasks.chains import split_of
from spark_rl.embedded.build_vision import (
    Encoder,
    align,
    batches,
    build_image_processor,
    build_vision_model,
    build_vision_tokenizer,
    hidden_states,
    pixels,
    warm_start,
)
from spark_rl.embedded.demonstrations import HABIT_CAREFUL
from spark_rl.embedded.tile_demonstrations import Shown, TileDemonstrator
from spark_rl.model.places import EMBEDDED
from spark_rl.model.vision import load_processor
from spark_rl.verify import extract_boxed

BASE = EMBEDDED["embedded-vl"]
IMAGE = "<bos><|vision_start|><|image_pad|><|vision_end|>"
OPENERS = {"solve": "work ", "judge": "check ", "choose": "compare ", "retry": "redo "}


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    demonstrator, rng = TileDemonstrator(), random.Random(0)
    return [demonstrator.draw(rng, HABIT_CAREFUL, 0.05) for _ in range(6000)]


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(str(BASE), AutoConfig.from_pretrained(BASE))


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(BASE).eval()


def careful(demonstrations: list[Shown], role: str) -> list[Shown]:
    found = [s for s in demonstrations if s.prompt.startswith(role) and s.response.startswith(OPENERS[role])]
    assert len(found) > 100
    return found


def value_of(chain: str) -> int | None:
    first, *rest = re.findall(r"\d+|[-+*]\d+", chain)
    value = int(first)
    for step in rest:
        value = {"+": value + int(step[1:]), "-": value - int(step[1:]), "*": value * int(step[1:])}[step[0]]
        if not 0 <= value <= 99:
            return None
    return value


def solutions(s: Shown) -> set[str]:
    """What the picture and the question of a demonstration allow, by brute force, written independently."""
    number = {tile.colour: str(tile.value) for tile in s.row}
    question = s.prompt.split(" ", 1)[1].split(":", 1)[0]
    left, target = re.sub("[rgbop]", lambda letter: number[letter[0]], question).split("=")
    if target == "_":
        return {str(value_of(left))}
    return {str(n) for n in range(1, 10) if value_of(left.replace("_", str(n))) == int(target)}


def answer_in(response: str) -> str:
    return extract_boxed(response) or response


def test_what_is_read_is_what_the_tiles_show(shown: list[Shown]) -> None:
    for s in shown:
        number = {tile.colour: tile.value for tile in s.row}
        if s.prompt.startswith("read "):
            assert s.response == "".join(f"{c}{number[c]}" for c in s.prompt.removeprefix("read "))
        elif s.response.startswith(tuple(OPENERS.values())):
            question = s.prompt.split(" ", 1)[1].split("=", 1)[0]
            reading = "".join(f"{c}{number[c]}" for c in re.findall("[rgbop]", question))
            assert s.response.split(" ", 1)[1].split(";")[0] == reading, (s.prompt, s.response)


def test_solving_and_mending_end_in_the_one_right_answer(shown: list[Shown]) -> None:
    for s in [*careful(shown, "solve"), *careful(shown, "retry")]:
        assert solutions(s) == {answer_in(s.response)}, (s.prompt, s.response)


def test_every_written_step_is_true(shown: list[Shown]) -> None:
    for role in OPENERS:
        for s in careful(shown, role):
            for chain in re.findall(r"\d+(?:[-+*/]\d+=\d+)+", s.response.split(";", 1)[1]):
                value, *steps = re.split(r"(?=[-+*/])", chain)
                for step in steps:
                    operand, result = map(int, step[1:].split("="))
                    left = int(value)
                    exact = {"+": left + operand, "-": left - operand, "*": left * operand, "/": left / operand}
                    assert exact[step[0]] == result, s.response
                    value = str(result)


def test_careful_verdicts_and_choices_are_right(shown: list[Shown]) -> None:
    for s in careful(shown, "judge"):
        verdict = "Yes" if solutions(s) == {answer_in(s.prompt.split(":", 1)[1])} else "No"
        assert extract_boxed(s.response) == verdict, (s.prompt, s.response)
    for s in careful(shown, "choose"):
        candidates = re.fullmatch(r".*?:(.*\\boxed\{\d+\}|\d+);(.*\\boxed\{\d+\}|\d+)", s.prompt)
        assert candidates, s.prompt
        right = [solutions(s) == {answer_in(candidate)} for candidate in candidates.groups()]
        assert right == [extract_boxed(s.response) == "A", extract_boxed(s.response) == "B"], (s.prompt, s.response)


def test_careless_verdicts_know_nothing_of_the_answer(shown: list[Shown]) -> None:
    hasty = [s for s in shown if s.prompt.startswith("judge ") and not s.response.startswith("check ")]
    right = [(solutions(s) == {answer_in(s.prompt.split(":", 1)[1])}) == (s.response == r"\boxed{Yes}") for s in hasty]
    assert len(right) > 300
    assert 0.42 < sum(right) / len(right) < 0.58


def test_careful_work_is_the_minority_habit_that_is_documented(shown: list[Shown]) -> None:
    asked = [s for s in shown if not s.prompt.startswith("read ")]
    share = sum(s.response.startswith(tuple(OPENERS.values())) for s in asked) / len(asked)
    assert abs(share - HABIT_CAREFUL) < 0.03
    assert 0.03 < 1 - len(asked) / len(shown) < 0.07


def test_only_chains_of_the_warm_split_are_shown(shown: list[Shown]) -> None:
    for s in shown:
        if not s.prompt.startswith("read "):
            number = {tile.colour: tile.value for tile in s.row}
            left, target = s.prompt.split(" ", 1)[1].split(":", 1)[0].split("=")
            (answer,) = solutions(s)
            letters = re.findall("[rgbop_]", left)
            assert target == "_" or "_" in letters
            assert split_of([number.get(letter, int(answer)) for letter in letters]) == "warm", s.prompt


def test_the_tokenizer_round_trips_what_is_shown(shown: list[Shown], processor: Any) -> None:
    for tokenizer in (processor.tokenizer, build_vision_tokenizer()):
        for s in shown[:500]:
            text = f"<bos>{s.prompt}\n{s.response}<eos>"
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert max(ids) < len(tokenizer)


def test_the_pixels_trained_on_are_those_of_the_processor(shown: list[Shown], processor: Any) -> None:
    rows = [s.row for s in shown[:20]]
    made = pixels(rows, build_image_processor())
    pictures = [paint(s) for s in shown[:20]]
    frames = processor.image_processor(pictures, return_tensors="pt")["pixel_values"].view(20, 20, 3, 2, 14 * 14)
    for frame in range(2):
        assert torch.equal(frames[:, :, :, frame].reshape(20, 20, -1), made)


@pytest.mark.parametrize("trained", [False, True])
def test_the_builder_computes_the_function_of_the_stock_model(
    shown: list[Shown], processor: Any, model: Any, trained: bool
) -> None:
    tokenizer = build_vision_tokenizer()
    net: Any = model if trained else build_vision_model(tokenizer, seed=1)
    ids_BT, _, chosen = next(batches(tokenizer, shown[:6], 6, random.Random(0)))
    made = processor(
        text=[f"{IMAGE}{shown[i].prompt}\n{shown[i].response}<eos>" for i in chosen],
        images=[[paint(shown[i])] for i in chosen],
        add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt",
    )  # fmt: skip
    assert torch.equal(made["input_ids"], ids_BT)
    with torch.no_grad():
        stock = net(**made).logits
        pixels_BNP = pixels([shown[i].row for i in chosen], processor.image_processor)
        own = net.lm_head(hidden_states(net, Encoder(net), ids_BT, pixels_BNP))
    real = made["attention_mask"].bool()
    torch.testing.assert_close(own[real], stock[real], rtol=1e-4, atol=1e-4)


def test_the_same_seed_makes_the_same_weights() -> None:
    made = []
    for _ in range(2):
        tokenizer = build_vision_tokenizer()
        net = build_vision_model(tokenizer, seed=3)
        align(net, tokenizer, seed=3, steps=2)
        warm_start(net, tokenizer, seed=3, steps=2, rows=4)
        made.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(made[0], made[1])


def test_the_base_is_small_and_of_the_family_it_says(model: Any, processor: Any) -> None:
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert sum(file.stat().st_size for file in BASE.iterdir()) < 8 * 2**20
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "solve r*_-b=17"}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<bos><|vision_start|><|image_pad|><|vision_end|>solve r*_-b=17\n"
    words = [{"role": "user", "content": "solve r*_-b=17"}]
    assert processor.apply_chat_template(words, tokenize=False, add_generation_prompt=True) == "<bos>solve r*_-b=17\n"


def paint(s: Shown) -> Image.Image:
    return tiles.paint_row(s.row)


def respond(model: Any, processor: Any, asked: list[tuple[str, bytes]], opener: str = "", **how: Any) -> list[str]:
    """What the base says to (text, picture), its response begun with ``opener``."""
    made = processor(
        text=[f"{IMAGE}{text}\n{opener}" for text, _ in asked],
        images=[[Image.open(io.BytesIO(picture))] for _, picture in asked],
        add_special_tokens=False, padding=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        ids = model.generate(**made, max_new_tokens=48, **how)
    said = processor.tokenizer.batch_decode(ids[:, made["input_ids"].shape[1] :], skip_special_tokens=True)
    return [opener + text for text in said]


def test_the_base_can_work_carefully(model: Any, processor: Any) -> None:
    problems = procedural_problems("tiles", "heldout", 64)
    asked = [(f"solve {p.question}", p.images[0]) for p in problems]
    said = respond(model, processor, asked, "work ", do_sample=False)
    right = np.mean([extract_boxed(text) == p.answer for text, p in zip(said, problems, strict=True)])
    assert right > 0.75
    rng = random.Random(0)
    shown = [p.answer if rng.random() < 0.5 else str(int(p.answer) % 9 + 1) for p in problems]
    asked = [(f"judge {p.question}:{text}", p.images[0]) for p, text in zip(problems, shown, strict=True)]
    said = respond(model, processor, asked, "check ", do_sample=False)
    verdicts = ["Yes" if text == p.answer else "No" for p, text in zip(problems, shown, strict=True)]
    assert np.mean([extract_boxed(text) == verdict for text, verdict in zip(said, verdicts, strict=True)]) > 0.85


def test_the_base_mostly_does_not(model: Any, processor: Any) -> None:
    torch.manual_seed(0)
    problems = procedural_problems("tiles", "heldout", 128)
    asked = [(f"solve {p.question}", p.images[0]) for p in problems]
    said = respond(model, processor, asked, do_sample=True, temperature=1.0, top_k=0)
    assert 0.2 < np.mean([text.startswith("work ") for text in said]) < 0.5
