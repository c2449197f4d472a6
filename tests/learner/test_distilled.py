"""``objective.distil``: wrong responses are pulled towards what the model thinks of them with a right one in view."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spark_rl.config import ObjectiveConfig
from spark_rl.objective import policy_loss
from spark_rl.problem import Group
from tiny import group_of, learner_of

PROMPT, TEACHER, RESPONSES = (1, 5, 6), (1, 9, 8, 7), [[10, 11], [13, 14, 15]]
"""The first response is right, the second wrong."""


def taught() -> Group:
    return replace(group_of(PROMPT, RESPONSES, [1.0, 0.0]), teacher_ids=TEACHER)


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_golden_loss(aggregation: str) -> None:
    logp, teacher = [[-1.0, -0.5], [-0.3, -1.2]], [[0.0, 0.0], [-0.8, -0.2]]
    mask = torch.tensor([[True, True], [True, False]])
    loss, metrics = policy_loss(
        torch.tensor(logp), torch.tensor(logp), None, torch.tensor([2.0, -1.0]), mask,
        ObjectiveConfig(kl=0, distil=0.3, aggregation=aggregation), teacher_logp_BT=torch.tensor(teacher),
        taught_B=torch.tensor([False, True]),
    )  # fmt: skip
    wrong = 1.0 + 0.3 * 0.5 * 0.5**2
    expected = (-2.0 - 2.0 + wrong) / 3 if aggregation == "token" else (-2.0 + wrong) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    assert float(metrics["distil"]) == pytest.approx(0.5 * 0.5**2 / 3, abs=1e-6)


def test_only_wrong_responses_are_pulled(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"], objective={"kl": 0.0, "distil": 0.7})
    own, teacher = (learner.logprobs([prompt], RESPONSES[1:])[0] for prompt in (PROMPT, TEACHER))
    pull = float((own - teacher).square().sum()) / 2 / 5
    plain = learner_of(tiny_models["llama"]).update([taught()])
    metrics = learner.update([taught()])
    assert metrics["distil"] == pytest.approx(pull, rel=1e-4)
    assert metrics["loss"] == pytest.approx(plain["loss"] + 0.7 * pull, rel=1e-4)
    assert "distil" not in plain, "and without the weight nobody asks the teacher"


def test_the_policy_comes_nearer_to_its_teacher(tiny_models: dict[str, Path]) -> None:
    """Also where all earned the same, so that there is no other signal; and the teacher is what it was before."""
    learner = learner_of(tiny_models["qwen2"], objective={"kl": 0.0, "distil": 1.0}, optimiser={"lr": 3e-3})
    flat = replace(group_of(PROMPT, RESPONSES, [0.0, 0.0]), teacher_ids=TEACHER)
    teacher = learner.logprobs([TEACHER] * 2, RESPONSES)
    gaps = []
    for _ in range(4):
        own = learner.logprobs([PROMPT] * 2, RESPONSES)
        gaps.append(math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(own, teacher, strict=True))))
        metrics = learner.update([flat])
    assert metrics["flat"] == 1.0
    assert gaps[-1] < 0.7 * gaps[0]


def test_minibatches_without_a_teacher_are_updates_too(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(
        tiny_models["llama"], objective={"kl": 0.0, "distil": 0.5}, learner={"minibatches": 2, "epochs": 2}
    )
    metrics = learner.update([taught(), group_of((1, 7), RESPONSES, [1.0, 0.0])])
    assert metrics["distil"] > 0
    assert learner.updates == 4
