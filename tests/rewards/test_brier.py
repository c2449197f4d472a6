"""The Brier term on verdicts: by hand, as a proper score, and in the groups that are trained on."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import BASE
from spark_rl import Problem, load_config
from spark_rl.backend import open_backend
from spark_rl.clock import Clock
from spark_rl.config import RewardConfig
from spark_rl.problem import Status, Verdict
from spark_rl.rewards import brier_loss
from spark_rl.rollout import Sampler
from spark_rl.verify import Verifier


@pytest.mark.parametrize(
    ("status", "probability", "loss"),
    [
        ("correct", 1.0, 0.0),
        ("correct", 0.6, 0.16),
        ("wrong", 0.6, 0.36),
        ("wrong", 1.0, 1.0),
        ("no_answer", None, 1.0),
    ],
)
def test_the_term_by_hand(status: Status, probability: float | None, loss: float) -> None:
    assert brier_loss(Verdict(float(status == "correct"), status), probability) == pytest.approx(loss)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_true_chance_costs_least(truth: float, stated: float) -> None:
    def expected(p: float) -> float:
        return truth * brier_loss(Verdict(1.0, "correct"), p) + (1 - truth) * brier_loss(Verdict(0.0, "wrong"), p)

    assert expected(truth) <= expected(stated) + 1e-12
    assert expected(stated) <= brier_loss(Verdict(0.0, "no_answer"), None), "it never pays to say nothing"


def test_pointwise_verdicts_are_worth_less_where_they_are_sure_and_wrong(verifier: Verifier) -> None:
    backend = open_backend(load_config("tiny", ["model.threads=1", "rollout.samples=4"], model={"path": BASE}))
    plain = Sampler(backend.engine, backend.chat, verifier, backend.config.rollout)
    priced = replace(plain, reward=RewardConfig(brier=0.5))
    rows = (("7*_-4=17", 3, "Yes"), ("7*_-4=17", 5, "No"), ("9-_=3", 6, "Yes"))
    judged = [
        Problem(f"p{i}", question, label, "verdict", "pointwise", f"judge {question}:{answer}")
        for i, (question, answer, label) in enumerate(rows)
    ]
    other = Problem("q", "7*_-4=17", "3")
    before, after = (one.sample([*judged, other], 0, Clock()).groups for one in (plain, priced))
    label_of = {backend.chat.tokenizer(word, add_special_tokens=False)["input_ids"][-1]: word for word in ("Yes", "No")}
    seen = set()
    for old, new in zip(before[:-1], after[:-1], strict=True):
        for was, now in zip(old.rollouts, new.rollouts, strict=True):
            assert now.completion == was.completion
            assert now.verdict.status == was.verdict.status
            (place,) = [i for i, token in enumerate(now.completion.token_ids) if token in label_of]
            p = exp(now.completion.logprobs[place])
            right = label_of[now.completion.token_ids[place]] == new.problem.answer
            assert now.reward == pytest.approx(right - 0.5 * (p - right) ** 2)
            seen.add(right)
    assert seen == {True, False}, "or this would prove nothing"
    assert after[-1].rewards == before[-1].rewards, "answers have no such term"
