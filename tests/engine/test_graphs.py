"""Passes that a GPU records: on a CPU the same passes, computed each time; on a GPU, where there is one, recorded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_rl.backend import open_backend
from spark_rl.chat import Prompt
from spark_rl.engine.base import Sampling
from spark_rl.engine.decoding import Decoding
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.engine.graphs import Recorded
from spark_rl.model.load import load_model
from spark_rl.problem import Problem
from tiny import EOS, engine_of, prompt_of, prompts, tiny_config
from vision import VLM_FAMILIES, draw_image, make_vlm
from windowed import WINDOWED, make_windowed

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")),
]
MAYBE = ("gemma3n_text", "gpt_oss", "mixtral")
"""Families whose passes wait for the card somewhere, in transformers 5.17."""
ENDS = [EOS, *range(11, 25)]
ASKED = Sampling(n=3, max_new_tokens=40, seed=5)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check_the_same_with_and_without(
    engine: EmbeddedEngine, asked: Sequence[Prompt], sampling: Sampling, *, recordable: bool = True
) -> None:
    """Tokens, and log-probabilities to the rounding of float32."""
    engine.graphs = False
    without = engine.generate(asked, sampling)
    engine.graphs = True
    recorded = engine.generate(asked, sampling)
    assert engine.graphs or not recordable, "a recording failed"
    for group, other in zip(recorded, without, strict=True):
        assert [one.token_ids for one in group] == [one.token_ids for one in other]
        for one, two in zip(group, other, strict=True):
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
            assert (one.text, one.finish) == (two.text, two.finish)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_rows_end_and_prompts_enter(family: str, tiny_models: dict[str, Path], device: str) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models[family], model={"device": device})), ENDS, max_rows=9)
    check_the_same_with_and_without(engine, prompts(14, longest=30), ASKED)


@pytest.mark.parametrize("family", sorted(WINDOWED))
def test_windows(family: str, tmp_path: Path, device: str) -> None:
    engine = engine_of(load_model(tiny_config(make_windowed(family, tmp_path), model={"device": device})), ENDS)
    check_the_same_with_and_without(engine, prompts(8, longest=30), ASKED, recordable=family not in MAYBE)


@pytest.mark.parametrize("family", VLM_FAMILIES)
def test_prompts_with_images(family: str, tmp_path: Path, device: str) -> None:
    config = tiny_config(make_vlm(family, tmp_path), model={"device": device}, engine={"max_rows": 6})
    backend = open_backend(config)
    assert isinstance(backend.engine, EmbeddedEngine)
    problems = [
        Problem(f"p-{i}", "what is it? " * (1 + i % 3), "1", images=(draw_image(i, 40 + 8 * i, 40),) if i % 3 else ())
        for i in range(5)
    ]
    asked = [backend.chat.encode(problem) for problem in problems]
    check_the_same_with_and_without(backend.engine, asked, replace(ASKED, max_new_tokens=16))


def test_more_tokens_than_were_reserved(tiny_models: dict[str, Path], device: str) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"], model={"device": device})), [])
    check_the_same_with_and_without(engine, prompts(3), Sampling(n=2, max_new_tokens=150, seed=1))


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was not written holds what is no number, as memory of a GPU may."""
    empty = torch.Tensor.new_empty

    def with_nan(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(tensor, *args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", with_nan)


@pytest.mark.usefixtures("poisoned")
def test_what_is_reserved_is_never_read(tiny_models: dict[str, Path], device: str) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"], model={"device": device})), ENDS, max_rows=6)
    check_the_same_with_and_without(engine, prompts(9, longest=20), ASKED)


@torch.inference_mode()
def test_a_pass_is_prepared_once_for_a_layout(tiny_models: dict[str, Path], device: str) -> None:
    """And anew when rows moved, or when half of them have ended."""
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"], model={"device": device})), [])
    engine.graphs = True
    decoding, passes, draws = Decoding(engine), list[Recorded](), list[Recorded]()
    for number, limit in enumerate([6, 6, 12, 30]):
        decoding.add(number, prompt_of(5 + number, 7), Sampling(n=2, max_new_tokens=limit, seed=0), number)
    while decoding.busy:
        decoding.step()
        decoding.handed_over()
        for seen, made in ((passes, decoding.graphs.passes), (draws, decoding.graphs.draws)):
            if made is not None and made not in seen:
                seen.append(made)
    assert [one.rows for one in passes] == [8, 4, 2]
    assert [one.rows for one in draws] == [8, 4, 2]
    if device == "cuda":
        assert all(one.graph is not None for one in (*passes, *draws))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(n=2, temperature=0.0, max_new_tokens=20),
        Sampling(n=2, temperature=0.7, max_new_tokens=20, seed=3, repetition_penalty=1.3),
        Sampling(n=2, max_new_tokens=20, seed=3, top=4),
        Sampling(n=2, max_new_tokens=20, seed=3, stop=("a",)),
    ],
    ids=["greedy", "penalised", "likely", "stopped"],
)
def test_ways_of_drawing(sampling: Sampling, tiny_models: dict[str, Path], device: str) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"], model={"device": device})), ENDS)
    check_the_same_with_and_without(engine, prompts(6), sampling)


def test_a_model_that_can_not_be_recorded_is_decoded_without(
    tiny_models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A pass that waits for the card, as where a number of it decides what is computed."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"], model={"device": "cuda"})), ENDS)
    expected = [[one.token_ids for one in group] for group in engine.generate(prompts(5), ASKED)]
    engine.loaded.decoder.register_forward_hook(lambda _module, _args, out: float(out.last_hidden_state.sum()) and None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = engine.generate(prompts(5), ASKED)
            assert [[one.token_ids for one in group] for group in found] == expected
    said = [record.message for record in caplog.records if "CUDA graphs" in record.message]
    assert len(said) == 1, "it is said once"
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
