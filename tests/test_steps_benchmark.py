"""``benchmarks/steps.py``: a step of a model that knows nothing has its full work, and what it must take at least."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from roofline import Asked, Roofline, least_seconds
from scaling import line_through, shapes_of
from step_ours import train
from step_shapes import SHAPES, Shape, hidden_states, make_model, question_ids, seeing_states
from steps import read
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from spark_rl.model.vision import load_processor
from spark_rl.plan.shape import Sizes

SHAPE = SHAPES["quick"]
SEEING = replace(SHAPES["vl"], limit=16, side=56)
JOB = {"shape": asdict(SHAPE), "dtype": "float32", "threads": 1, "device": "cpu", "decoding": None}


def ends(folder: Path, shape: Shape) -> torch.Tensor:
    """(N,) probabilities that a response ends, at places of questions that the end was not chosen on."""
    kind: Any = AutoModelForImageTextToText if shape.side else AutoModelForCausalLM
    model, numbers = kind.from_pretrained(folder), range(100, 120)
    if shape.side:
        hidden_NH = seeing_states(model, load_processor(str(folder), model.config), shape, numbers)
    else:
        hidden_NH = hidden_states(model, [question_ids(shape, number) for number in numbers])
    eos = model.config.get_text_config().eos_token_id
    with torch.no_grad():
        probability_N: torch.Tensor = model.get_output_embeddings()(hidden_NH).softmax(-1)[:, eos]
    return probability_N


@pytest.mark.parametrize("shape", [SHAPE, SEEING], ids=["reads", "sees"])
def test_natural_responses_end_twice_in_a_limit_and_fixed_ones_never(tmp_path: Path, shape: Shape) -> None:
    make_model(shape, tmp_path / "natural", fixed=False)
    make_model(shape, tmp_path / "fixed", fixed=True)
    assert float(ends(tmp_path / "natural", shape).mean()) == pytest.approx(2 / shape.limit, rel=0.2)
    assert float(ends(tmp_path / "fixed", shape).max()) < 1e-10


def test_a_shown_response_is_the_same_words_again(tmp_path: Path) -> None:
    """Or prompts of recycled problems would be longer than the responses in them."""
    make_model(SHAPE, tmp_path, fixed=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = [4, 5, 16, 999, 40]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


def test_the_roofline_is_measured_on_the_threads_of_the_tools(tmp_path: Path) -> None:
    """Reading the prompts sets torch's threads, and the roofline is measured again behind it."""
    make_model(SHAPE, tmp_path, fixed=True)
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            read("quick", tmp_path, threads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("shape", "seen"), [(SHAPE, 0), (SEEING, 6)], ids=["reads", "sees"])
def test_a_step_of_spark_at_random_weights_has_its_full_work(tmp_path: Path, shape: Shape, seen: int) -> None:
    """A picture is the tokens it is ``seen`` as: one each 28 pixels, a start and an end."""
    make_model(shape, tmp_path, fixed=True)
    job = {**JOB, "shape": asdict(shape), "model": str(tmp_path), "kl": 0.001, "steps": 2}
    steps = train({**job, "tool": "spark"})
    assert len(steps) == 2
    for step in steps:
        policy, recycled = step["updates"]
        assert [len(policy), len(recycled)] == [shape.problems, shape.problems]
        every: list[dict[str, Any]] = [*policy, *recycled]
        assert all(asked["lengths"] == asked["trained"] == [shape.limit] * shape.samples for asked in every)
        assert {asked["prompt"] for asked in policy} == {shape.prompt + seen}
        assert all(asked["prompt"] > shape.prompt + seen for asked in recycled)
        assert max(step["flat"]) < 1
        assert all(step["phases"][name] > 0 for name in ("rollout", "reference", "forward", "backward", "optimiser"))
    seconds = steps[1]["clock"] - steps[0]["clock"]
    assert sum(steps[1]["phases"].values()) <= seconds


def test_without_a_kl_term_what_has_no_advantage_is_not_trained(tmp_path: Path) -> None:
    make_model(SHAPE, tmp_path, fixed=True)
    job = {**JOB, "model": str(tmp_path), "kl": 0.0, "steps": 1}
    (step,) = train({**job, "tool": "grpo"})
    (policy,) = step["updates"]
    trained = sum(len(asked["trained"]) for asked in policy)
    assert trained == round((1 - step["flat"][0]) * SHAPE.problems * SHAPE.samples)


def test_the_least_seconds_of_a_step_by_hand() -> None:
    sizes = Sizes(weights=0, trained=0, layers=0, vocabulary=0, layer=0, outside=0, multiplied=100, head=10, attended=0,
                  cached=0)  # fmt: skip
    asked = [Asked(prompt=5, lengths=[3, 2], trained=[3])]
    slow_memory, fast_memory = Roofline(flops=1.0, bandwidth=0.5), Roofline(flops=1.0, bandwidth=1e9)
    prefill, decode = 2 * 100 * 5, 2 * 110 * 5
    update = 2 * 100 * (5 + 3) + 2 * 10 * 3
    assert least_seconds([asked], sizes, fast_memory, 4, kl=0.0) == prefill + decode + 3 * update
    assert least_seconds([asked], sizes, fast_memory, 4, kl=0.1) == prefill + decode + 4 * update
    read = 4 * 110 * 3  # all weights for each token of the longest response
    assert least_seconds([asked], sizes, slow_memory, 4, kl=0.0) == prefill + read / 0.5 + 3 * update


def test_a_line_and_how_far_the_worst_point_is_from_it() -> None:
    line = line_through([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    assert (line.slope, line.start, line.off) == pytest.approx((2, 1, 0))
    assert line_through([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]).off == pytest.approx(0.5)  # 1.5, 2 and 2.5


def test_an_axis_changes_its_own_size_alone() -> None:
    weights = [(value, shape.settings) for value, shape, _ in shapes_of("weights", 2, large=True)]
    assert [value for value, _ in weights] == sorted(value for value, _ in weights)
    assert weights[-1][0] > 4e8
    (few, narrow, _), *_, (many, wide, _) = shapes_of("vocabulary", 2, large=False)
    assert (few, many) == (narrow.settings["vocab_size"], wide.settings["vocab_size"])
    assert {**narrow.settings, "vocab_size": 0} == {**wide.settings, "vocab_size": 0}
