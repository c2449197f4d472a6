"""Images through vLLM for real, on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from parity import SAMPLED, gap, shown, sighted

from running import json_lines
from spark_rl.backend import Backend, build_learner, open_backend
from spark_rl.config import Config
from spark_rl.engine.base import Sampling
from spark_rl.engine.vllm import VllmEngine
from spark_rl.given import Given
from spark_rl.learner.local import LocalLearner
from spark_rl.run import train


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, Backend, VllmEngine]]:
    config = sighted(tmp_path_factory.mktemp("seeing"))
    engine = VllmEngine(config)
    yield config, open_backend(config, engine=engine), engine
    engine.close()


def test_answers_and_log_probabilities_are_the_embedded_engines(seeing: tuple[Config, Backend, VllmEngine]) -> None:
    config, backend, engine = seeing
    prompts, greedy = shown(backend), Sampling(1, 0.0, 20)
    found, expected = engine.generate(prompts, greedy), open_backend(config).engine.generate(prompts, greedy)
    assert [c.token_ids for (c,) in found] == [c.token_ids for (c,) in expected]
    assert [(c.text, c.finish) for (c,) in found] == [(c.text, c.finish) for (c,) in expected]
    assert gap(engine, build_learner(backend), prompts, SAMPLED) < 1e-4
    assert len({c.token_ids for (c,) in found}) == len(prompts), "what a picture shows changes the answer"


def test_what_was_made_of_an_image_is_forgotten_with_the_weights(seeing: tuple[Config, Backend, VllmEngine]) -> None:
    """vLLM keeps features of images apart from keys and values; the projector is trained."""
    _, backend, engine = seeing
    prompts, learner = shown(backend), build_learner(backend)
    assert isinstance(learner, LocalLearner)
    engine.generate(prompts, SAMPLED)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in learner.loaded.model.named_parameters():
            if "connector" in name:
                weight.add_(torch.randn(weight.shape, generator=generator) * weight.std())
    assert gap(engine, learner, prompts) > 0.1
    engine.sync(learner.weights())
    assert gap(engine, learner, prompts) < 1e-4


def test_a_model_that_sees_trains(seeing: tuple[Config, Backend, VllmEngine]) -> None:
    config, _, engine = seeing
    assert config.run_dir is not None
    train(config, given=Given(engine=engine))
    steps = json_lines(Path(config.run_dir) / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert max(step["engine_gap"] for step in steps) < 1e-4
