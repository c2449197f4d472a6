"""The scalar reward model: its loss, that its scores are of the response alone, and that it learns what is right."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from running import BASE
from spark_rl.backend import Backend, open_backend
from spark_rl.chat import chat_of
from spark_rl.clock import Clock
from spark_rl.config import load_config
from spark_rl.cost.judge import best_threshold, threshold_of
from spark_rl.cost.preferences import Pair, pairs_of
from spark_rl.cost.reward_model import (
    RewardModel,
    RewardTraining,
    bradley_terry,
    check_classifier,
    load_reward_model,
    new_reward_model,
)
from spark_rl.errors import ConfigError
from spark_rl.given import load_all_problems
from spark_rl.model.load import load_model
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.rollout import Sampler
from tiny import tiny_config

CONFIG = load_config("tiny", ["model.threads=1", f"model.path={BASE}", "data.transfer=null"])


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_backend(CONFIG)


@pytest.fixture(scope="module")
def model(backend: Backend) -> RewardModel:
    return new_reward_model(backend.loaded, backend.chat, CONFIG)


def test_the_loss_has_its_golden_value() -> None:
    right, wrong = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    by_hand = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(2.0))) / 2  # 0.3133 and 2.1269
    assert float(bradley_terry(right, wrong)) == pytest.approx(by_hand, abs=1e-6) == pytest.approx(1.220095, abs=1e-6)
    assert float(bradley_terry(right, right)) == pytest.approx(math.log(2), abs=1e-6)


scores = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=8)


@given(scores, st.floats(-5, 5))
def test_the_loss_sees_differences_only(values: list[float], shift: float) -> None:
    right, wrong = torch.tensor(values, dtype=torch.float64), torch.tensor(values[::-1], dtype=torch.float64) / 2
    loss = float(bradley_terry(right, wrong))
    assert float(bradley_terry(right + shift, wrong + shift)) == pytest.approx(loss, abs=1e-9)
    assert float(bradley_terry(right + 1, wrong)) < loss


@given(scores, scores)
def test_no_threshold_is_better_than_the_best(right: list[float], wrong: list[float]) -> None:
    def hits(threshold: float) -> int:
        return sum(score >= threshold for score in right) + sum(score < threshold for score in wrong)

    tried = [place / 2 for place in range(-43, 44)]
    assert hits(best_threshold(right, wrong)) == max(map(hits, tried))


def test_the_threshold_is_halfway() -> None:
    assert best_threshold([2.0, 3.0], [0.0, 1.0]) == 1.5


def group(*statuses: str) -> Group:
    rollouts = tuple(
        Rollout(Completion(f"{status} {number}", (5,), (-1.0,), "stop"), Verdict(float(status == "correct"), status))  # type: ignore[arg-type]
        for number, status in enumerate(statuses)
    )
    return Group(Problem(id="p", question="q?", answer="1"), rollouts, (1, 2))


def test_pairs_are_disjoint_and_of_one_question() -> None:
    groups = [group("correct", "wrong", "wrong", "correct", "wrong", "no_answer"), group("wrong"), group("correct")]
    pairs = pairs_of(groups, 0)
    assert len(pairs) == 2
    assert all(pair.right.startswith("correct") and pair.wrong.startswith("wrong") for pair in pairs)
    assert len({text for pair in pairs for text in (pair.right, pair.wrong)}) == 4
    assert pairs_of(groups, 0) == pairs


def test_weights_are_the_bases_and_a_head(model: RewardModel, backend: Backend) -> None:
    base = backend.loaded.causal_lm.base_model.state_dict()
    own = model.model.base_model.state_dict()
    assert own.keys() == base.keys()
    assert all(torch.equal(own[name], base[name]) for name in base)
    assert all(own[name].data_ptr() != base[name].data_ptr() for name in base), "the policy must not be trained with it"
    layers = 4 * (4 * 128 * 128 + 3 * 128 * 336)  # q, k, v, o; gate, up, down
    assert model.multiplied == layers + 128
    assert model.weights == 806_528 + 128  # docs/embedded.md has the base's 0.81 M
    assert model.bytes == 4 * model.weights
    again = new_reward_model(backend.loaded, backend.chat, CONFIG)
    assert torch.equal(again.model.score.weight, model.model.score.weight)


def test_a_score_is_of_its_response_alone(model: RewardModel) -> None:
    questions = ["7*_-4=17", "2+_=9", "7*_-4=17"]
    responses = ["work 17+4=21/7=3\\boxed{3}", "\\boxed{7}", "\\boxed{3}"]
    together = model.score(questions, responses)
    alone = [model.score([q], [r])[0] for q, r in zip(questions, responses, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert model(question=questions, completions=responses) == together
    assert len(set(together)) == 3
    narrow = RewardModel(model.model, model.chat, 1)
    assert narrow.score(questions, responses) == pytest.approx(alone, abs=1e-5)
    assert narrow.tokens == sum(map(len, model.rows(questions, responses)))
    assert {row[-1] for row in model.rows(questions, responses)} == {model.chat.tokenizer.eos_token_id}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_any_causal_model_becomes_one(family: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config(tiny_models[family])
    loaded = load_model(config)
    chat = chat_of(config, loaded)
    chat.tokenizer.pad_token = chat.tokenizer.eos_token  # as many have it
    model = new_reward_model(loaded, chat, config)
    found = model.score(["1 + 1?", "2 + 2?"], ["2", "it is 4, because I say so"])
    assert found[0] == pytest.approx(model.score(["1 + 1?"], ["2"])[0], abs=1e-5)
    model.save(tmp_path / "m")
    again = load_reward_model(tmp_path / "m", chat, loaded.device, config)
    assert again.score(["1 + 1?", "2 + 2?"], ["2", "it is 4, because I say so"]) == found


def test_it_learns_to_prefer_right_responses(backend: Backend) -> None:
    config = CONFIG
    problems, exams = load_all_problems(config)
    with backend.verifier() as verifier:
        sampler = Sampler(backend.engine, backend.chat, verifier, config.rollout)
        train = pairs_of(sampler.sample(problems[:80], 1, Clock()).groups, 0)
        held_out = pairs_of(sampler.sample(exams["heldout"][:48], 2, Clock()).groups, 0)
    model = new_reward_model(backend.loaded, backend.chat, config)
    before = accuracy(model, held_out)
    tokens = model.fit(train, RewardTraining(epochs=2, batch=16), 1e-3, 0)
    rows = model.rows([p.question for p in train] * 2, [*(p.right for p in train), *(p.wrong for p in train)])
    assert tokens == 2 * sum(map(len, rows)), "two epochs"
    assert len(held_out) > 60
    assert accuracy(model, held_out) > max(0.65, before), "chance is 0.5"
    threshold = threshold_of(model, train)
    questions = [pair.question for pair in held_out]
    accepted = sum(score >= threshold for score in model.score(questions, [pair.right for pair in held_out]))
    rejected = sum(score < threshold for score in model.score(questions, [pair.wrong for pair in held_out]))
    assert (accepted + rejected) / (2 * len(held_out)) > 0.6, "of verdicts, chance is 0.5"


def accuracy(model: RewardModel, pairs: list[Pair]) -> float:
    questions = [pair.question for pair in pairs]
    right, wrong = (model.score(questions, [getattr(pair, name) for pair in pairs]) for name in ("right", "wrong"))
    return sum(a > b for a, b in zip(right, wrong, strict=True)) / len(pairs)


def test_an_architecture_without_classifier_is_one_line() -> None:
    check_classifier(AutoConfig.for_model("qwen2"))
    with pytest.raises(ConfigError, match=r"no sequence classifier of the architecture 'granite'.*choose another base"):
        check_classifier(AutoConfig.for_model("granite"))
