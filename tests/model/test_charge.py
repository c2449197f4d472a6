"""What ``learner.micro_tokens`` charges is what a micro-batch keeps for its backward pass, whatever its shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spark_rl.learner.local import LocalLearner
from spark_rl.model.score import make_rows, pack_by_tokens, seen_share
from tiny import learner_of

SHAPES = [(1, 300, 16, 4), (1, 300, 1, 200), (8, 8, 8, 24), (2, 120, 32, 8), (4, 64, 4, 64), (1, 500, 40, 3)]
"""(prompts, tokens of each, responses to each, tokens of each): a long prompt with many short responses among them."""

ALONE = (1, 1, 8, 64)
"""Hardly any prompt."""


def kept_bytes(learner: LocalLearner, prompts: int, length: int, samples: int, tokens: int) -> int:
    """Bytes of all tensors that the forward pass keeps for the backward pass, weights left out, each storage once."""
    rows = make_rows(
        learner.loaded, [[3 + i] * length for i in range(prompts)], [{}] * prompts,
        [i for i in range(prompts) for _ in range(samples)], [[5] * tokens] * (prompts * samples),
    )  # fmt: skip
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logp_BT = learner.scorer(rows)
    assert logp_BT.requires_grad
    weights = {p.untyped_storage().data_ptr() for p in learner.loaded.model.parameters()}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


def charge(seen: float, prompts: int, length: int, samples: int, tokens: int) -> float:
    return prompts * length + prompts * samples * (tokens + seen * length)


def test_bytes_a_charged_token_hardly_depend_on_the_shape(tiny_models: dict[str, Path]) -> None:
    for family in ("qwen2", "llama"):
        learner = learner_of(tiny_models[family])
        seen = seen_share(learner.loaded)
        costs = [kept_bytes(learner, *shape) / charge(seen, *shape) for shape in SHAPES]
        without = [kept_bytes(learner, *shape) / charge(0.0, *shape) for shape in SHAPES]
        assert max(costs) / min(costs) < 1.8, costs
        most = kept_bytes(learner, *ALONE) / charge(seen, *ALONE)
        assert max(costs) < 1.05 * most, "nothing may cost more than tokens of a response, which have logits too"
        assert max(without) > 1.4 * most, "long prompts with many responses were undercharged"


def test_micro_batches_hold_the_bound_in_bytes(tiny_models: dict[str, Path]) -> None:
    """As many short responses to a long prompt as ``pack_by_tokens`` puts together, beside one long response."""
    learner = learner_of(tiny_models["qwen2"])
    seen, budget = seen_share(learner.loaded), 1500
    bound = 1.05 * budget * kept_bytes(learner, *ALONE) / charge(seen, *ALONE)
    for length, tokens in [(600, 2), (300, 4), (40, 10), (4, 60)]:
        count = 3000
        packed = pack_by_tokens([0] * count, [length] * count, [tokens] * count, budget, seen)
        assert kept_bytes(learner, 1, length, len(packed[0]), tokens) <= bound
        once = len(pack_by_tokens([0] * count, [length] * count, [tokens] * count, budget)[0])
        if length >= 300:
            assert kept_bytes(learner, 1, length, once, tokens) > 1.4 * bound, "as it was charged before"


@pytest.mark.parametrize("seen", [0.0, 0.1, 1.0])
def test_every_response_is_packed_once_within_the_budget(seen: float) -> None:
    groups = [i // 4 for i in range(40)]
    lengths = [3 + group * 7 % 20 for group in groups]
    batches = pack_by_tokens(groups, lengths, [1 + i % 9 for i in range(40)], 100, seen)
    assert sorted(i for batch in batches for i in batch) == list(range(40))
    for batch in batches:
        widest = max(lengths[i] for i in batch)
        held = len({groups[i] for i in batch}) * widest + sum(1 + i % 9 for i in batch) + seen * len(batch) * widest
        assert held <= 100 or len(batch) == 1
