"""Responses that were sampled from another prompt (``recycle.credit``): their advantages and their weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spark_rl.config import ObjectiveConfig
from spark_rl.learner.samples import to_samples
from spark_rl.objective import AUTO_CAP, policy_loss
from tiny import group_of, learner_of, tiny_config

PROMPT, RESPONSES = [1, 5, 6], [[10, 11], [13, 14]]


def test_advantages_are_those_of_the_group_that_they_join() -> None:
    group = replace(group_of([1, 5], [[7], [8, 9]], [1.0, 1.0]), siblings=(0.0, 0.0, 0.0, 0.0))
    samples, flat = to_samples([group], tiny_config("unused"))
    # six rewards, of which two are 1: mean 1/3, population variance 2/9
    assert [s.advantage for s in samples] == pytest.approx([2 / 3 / math.sqrt(2 / 9 + 1e-6)] * 2)
    assert flat == 0.0
    assert all(s.borrowed for s in samples)
    alone, _ = to_samples([replace(group, siblings=())], tiny_config("unused"))
    assert [(s.advantage, s.borrowed) for s in alone] == [(0.0, False)] * 2


def test_one_more_right_answer_counts_the_less_the_more_there_were() -> None:
    found = []
    for right in range(4):
        siblings = tuple(float(i < right) for i in range(4))
        (sample,), _ = to_samples([replace(group_of([1], [[7]], [1.0]), siblings=siblings)], tiny_config("unused"))
        found.append(sample.advantage)
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(0.8 / math.sqrt(0.16 + 1e-6))
    assert found[-1] > 0


@pytest.mark.parametrize(("cap", "limit"), [(None, AUTO_CAP), (1.5, 1.5)])
def test_golden_weights(cap: float | None, limit: float) -> None:
    """Of two responses the first was sampled from another prompt, where its tokens had other probabilities."""
    logp = torch.tensor([[-1.0, -0.5, -2.0], [-0.3, -1.2, 0.0]])
    engine = torch.tensor([[-1.0, -3.5, -1.0], [-0.4, -1.4, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    loss, _ = policy_loss(
        logp, logp, None, torch.tensor([1.5, -0.5]), mask, ObjectiveConfig(kl=0, importance_cap=cap),
        engine_logp_BT=engine, borrowed_B=torch.tensor([True, False]),
    )  # fmt: skip
    own = math.exp(0.1) + math.exp(0.2) if cap else 2
    assert float(loss) == pytest.approx(-(1.5 * (1 + limit + math.exp(-1.0)) - 0.5 * own) / 5, abs=1e-6)


def test_nothing_is_weighed_where_nothing_was_borrowed() -> None:
    logp, engine, mask = torch.tensor([[-1.0]]), torch.tensor([[-3.0]]), torch.tensor([[True]])
    config = ObjectiveConfig(kl=0, importance_cap=None)
    for borrowed in (None, torch.tensor([False])):
        loss, _ = policy_loss(
            logp, logp, None, torch.tensor([1.0]), mask, config, engine_logp_BT=engine, borrowed_B=borrowed
        )
        assert float(loss) == -1.0


def test_an_update_weighs_by_the_prompt_that_it_trains_under(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["qwen3"])
    exact = [logp.tolist() for logp in learner.logprobs([PROMPT] * 2, RESPONSES)]
    shifted = [[exact[0][0] + math.log(4), exact[0][1] - 9], [exact[1][0], exact[1][1]]]
    own = group_of(PROMPT, RESPONSES, [1.0, 0.0], exact)
    credited = replace(group_of(PROMPT, RESPONSES, [1.0, 1.0], shifted), siblings=(0.0, 0.0))
    metrics = learner.update([own, credited])
    advantage = 0.5 / math.sqrt(0.25 + 1e-6)
    assert metrics["loss"] == pytest.approx(-advantage * (2 - 2 + 1 / 4 + AUTO_CAP + 1 + 1) / 8, abs=1e-4)
    assert metrics["credited"] == 0.5
    assert metrics["credited_kl"] == pytest.approx(((1 / 4 - 1 + math.log(4)) + (math.exp(9) - 10)) / 4, rel=1e-3)
    assert metrics["engine_kl"] < 1e-6, "engine and learner are compared on the rest alone"
    assert not {"credited", "credited_kl"} & learner.update([own]).keys()


def test_what_was_sampled_by_these_weights_is_not_stale_under_another_prompt(tiny_models: dict[str, Path]) -> None:
    """Its ratio begins at 1, also where old log-probabilities are computed beforehand."""
    for learner_section in ({}, {"minibatches": 2}):
        learner = learner_of(tiny_models["llama"], learner=learner_section)
        groups = [replace(group_of([1, n], RESPONSES, [1.0, 1.0]), siblings=(0.0, 1.0)) for n in (5, 6)]
        metrics = learner.update(
            [
                replace(g, rollouts=tuple(replace(r, completion=replace(r.completion, version=0)) for r in g.rollouts))
                for g in groups
            ]
        )
        assert metrics["ratio"] == pytest.approx(1.0, abs=1e-2)
        assert "stale" not in metrics


def test_a_right_reflection_makes_the_answer_likelier_under_the_original_prompt(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"], optimiser={"lr": 3e-3})
    before = learner.logprobs([PROMPT], RESPONSES[:1])
    for _ in range(3):
        learner.update([replace(group_of(PROMPT, RESPONSES[:1], [1.0], [[-5.0, -5.0]]), siblings=(0.0, 0.0, 0.0))])
    assert float((learner.logprobs([PROMPT], RESPONSES[:1])[0] - before[0]).sum()) > 0.1
