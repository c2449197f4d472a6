"""Logits never are tokens times vocabulary: not where an engine samples, not where a learner differentiates."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spark_rl.engine import decoding, draw
from spark_rl.engine.base import Sampling
from spark_rl.model import score
from spark_rl.model.load import load_model
from spark_rl.model.score import chunk_for
from tiny import engine_of, learner_of, prompts, random_groups, tiny_config

VOCABULARY = 200


class Largest(TorchDispatchMode):
    """Remembers the most rows of a tensor as wide as the vocabulary that anything inside made."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == VOCABULARY:
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return found


@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_the_engine_samples_some_rows_at_a_time(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, penalty: float
) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"])))
    sampling = Sampling(n=4, max_new_tokens=6, seed=1, repetition_penalty=penalty)
    whole = engine.generate(prompts(12), sampling)
    monkeypatch.setattr(decoding, "LOGITS", 5 * VOCABULARY)
    with Largest() as largest:
        parts = engine.generate(prompts(12), sampling)
    for one, other in zip(chain(*parts), chain(*whole), strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)  # products of fewer rows round in another way
    assert largest.rows <= (5 if penalty == 1 else 48)  # which tokens are held is one byte a row and token


@pytest.mark.parametrize("rows", [1, 5])
def test_drawing_from_some_rows_at_a_time_changes_no_bit(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen3"])))
    sampling = Sampling(n=4, max_new_tokens=6, seed=1, repetition_penalty=1.1, top=2)
    whole = engine.generate(prompts(12), sampling)
    monkeypatch.setattr(draw, "CACHED", rows * VOCABULARY)
    assert engine.generate(prompts(12), sampling) == whole


@pytest.mark.parametrize(
    ("vocabulary", "positions"), [(48, 1024), (65_536, 1024), (151_936, 441), (262_144, 256), (2**28, 1)]
)
def test_positions_follow_the_vocabulary(vocabulary: int, positions: int) -> None:
    assert chunk_for(vocabulary) == positions


def test_the_learner_bounds_its_logits_by_itself(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "LOGITS", 40 * VOCABULARY)
    learner = learner_of(tiny_models["qwen3"])
    groups = random_groups(4, 8)
    assert sum(len(rollout.completion.token_ids) for group in groups for rollout in group.rollouts) > 3 * 40
    with Largest() as largest:
        learner.update(groups)
    assert largest.rows <= 40, "its head is 32 wide, so its gradient is no larger"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_the_learner_differentiates_a_chunk_at_a_time(tiny_models: dict[str, Path], kl: float) -> None:
    learner = learner_of(tiny_models["qwen3"], learner={"logit_chunk": 7}, objective={"kl": kl}, model={"lora": {}})
    embeddings = learner.loaded.causal_lm.get_output_embeddings().weight.shape
    assert embeddings[0] == VOCABULARY
    assert learner.reference is None, "the reference is the model with its adapters off, never a second one"
    with Largest() as largest:
        learner.update(random_groups(4, 8))
    assert largest.rows <= max(7, embeddings[1]), "gradients of the output layer are as wide as the vocabulary"
