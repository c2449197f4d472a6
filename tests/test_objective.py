"""Eq. 4: golden values in plain Python, exactness over micro-batches, gradients, and padding that never matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spark_rl.config import ObjectiveConfig, parse_config
from spark_rl.objective import Totals, aggregate, importance_cap, kl_estimate, policy_loss, with_importance_cap

LOGP = [[-1.0, -0.5, -2.0], [-0.3, -1.2, -0.1]]
OLD = [[-1.1, -0.9, -1.2], [-0.3, -1.0, -0.7]]
REF = [[-0.7, -0.6, -2.5], [-0.2, -1.9, -0.4]]
ENGINE = [[-1.2, -0.4, -1.2], [-2.3, -1.0, -0.1]]
ADVANTAGES = [0.8, -0.6]
MASK = [[1, 1, 1], [1, 1, 0]]

AGGREGATIONS = ("token", "sequence", "fixed")
ESTIMATORS = ("k1", "k2", "k3")


def plain_kl(logp: float, ref: float, estimator: str) -> float:
    ratio = ref - logp
    return {"k1": -ratio, "k2": ratio**2 / 2, "k3": math.exp(ratio) - ratio - 1}[estimator]


def plain_loss(config: ObjectiveConfig, limit: int = 3) -> float:
    """Eq. 4 one token at a time, from the text of the papers it cites."""
    rows = []
    for i, mask in enumerate(MASK):
        row = []
        for t in range(sum(mask)):
            ratio = math.exp(LOGP[i][t] - OLD[i][t])
            clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
            value = -min(ratio * ADVANTAGES[i], clipped * ADVANTAGES[i])
            if config.importance_cap is not None:
                value *= min(config.importance_cap, math.exp(OLD[i][t] - ENGINE[i][t]))
            if config.kl:
                value += config.kl * plain_kl(LOGP[i][t], REF[i][t], config.kl_estimator)
            row.append(value)
        rows.append(row)
    if config.aggregation == "token":
        return sum(map(sum, rows)) / sum(map(len, rows))
    if config.aggregation == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(map(sum, rows)) / (len(rows) * limit)


def loss_of(config: ObjectiveConfig, logp: Tensor | None = None, **options: Totals) -> tuple[Tensor, dict[str, Tensor]]:
    return policy_loss(
        torch.tensor(LOGP) if logp is None else logp, torch.tensor(OLD), torch.tensor(REF), torch.tensor(ADVANTAGES),
        torch.tensor(MASK).bool(), config, engine_logp_BT=torch.tensor(ENGINE), **options,
    )  # fmt: skip


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_golden_loss(aggregation: str, estimator: str, kl: float, cap: float | None) -> None:
    config = ObjectiveConfig(
        aggregation=aggregation, kl_estimator=estimator, kl=kl, importance_cap=cap, clip_low=0.2, clip_high=0.28
    )
    assert float(loss_of(config)[0]) == pytest.approx(plain_loss(config), abs=1e-6)


def test_a_loss_worked_out_by_hand() -> None:
    # One response of two tokens, A = 1. Ratios e^0.1 and e^0.5: the second is clipped at 1.2.
    loss, metrics = policy_loss(
        torch.tensor([[-0.4, -0.5]]), torch.tensor([[-0.5, -1.0]]), None, torch.tensor([1.0]),
        torch.tensor([[True, True]]), ObjectiveConfig(kl=0),
    )  # fmt: skip
    assert float(loss) == pytest.approx(-(1.1051709 + 1.2) / 2, abs=1e-6)
    assert float(metrics["ratio"]) == pytest.approx((1.1051709 + 1.6487213) / 2, abs=1e-6)
    assert float(metrics["ratio_clipped"]) == 0.5
    assert "kl" not in metrics


def test_golden_metrics() -> None:
    config = ObjectiveConfig(kl=0.1, clip_low=0.2, clip_high=0.2)
    _, metrics = loss_of(config)
    tokens = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    ratios = [math.exp(LOGP[i][t] - OLD[i][t]) for i, t in tokens]
    assert float(metrics["ratio"]) == pytest.approx(sum(ratios) / 5, abs=1e-6)
    kls = [plain_kl(LOGP[i][t], REF[i][t], "k3") for i, t in tokens]
    assert float(metrics["kl"]) == pytest.approx(sum(kls) / 5, abs=1e-6)
    # Ratios 1.11, 1.49, 0.45 with A > 0: only above 1.2 is clipped. 1.0, 0.82 with A < 0: none is below 0.8.
    assert float(metrics["ratio_clipped"]) == pytest.approx(1 / 5)


def test_golden_kl_estimates() -> None:
    logp, ref = torch.tensor([[-1.0]]), torch.tensor([[-1.5]])
    assert kl_estimate(logp, ref, "k1").item() == pytest.approx(0.5)
    assert kl_estimate(logp, ref, "k2").item() == pytest.approx(0.125)
    assert kl_estimate(logp, ref, "k3").item() == pytest.approx(0.1065307, abs=1e-6)


def exact_gradients(estimator: str) -> tuple[float, Tensor, Tensor, Tensor]:
    """Mean value and mean gradient of an estimate over all of a small vocabulary, and those of both true KLs."""
    torch.manual_seed(3)
    logits, ref = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    logp, ref_logp = logits.log_softmax(-1), ref.log_softmax(-1)
    estimate = kl_estimate(logp, ref_logp, estimator)
    mean = (logp.exp().detach() * estimate).sum()
    gradients = [
        torch.autograd.grad(value, logits, retain_graph=True)[0]
        for value in (mean, (logp.exp() * (logp - ref_logp)).sum(), (ref_logp.exp() * (ref_logp - logp)).sum())
    ]
    return float((mean - (logp.exp() * (logp - ref_logp)).sum()).detach()), *gradients


def test_k1_and_k3_are_unbiased_and_their_gradients_are_what_the_docstring_says() -> None:
    bias1, gradient1, reverse, forward = exact_gradients("k1")
    bias3, gradient3, _, _ = exact_gradients("k3")
    _, gradient2, _, _ = exact_gradients("k2")
    assert bias1 == pytest.approx(0, abs=1e-12)
    assert bias3 == pytest.approx(0, abs=1e-12)
    assert gradient1.abs().max() < 1e-12
    assert torch.allclose(gradient2, reverse, atol=1e-12)
    assert torch.allclose(gradient3, forward, atol=1e-12)
    assert (reverse - forward).abs().max() > 1e-2


@given(logp=st.floats(-20, 0), ref=st.floats(-20, 0))
def test_k3_is_never_negative(logp: float, ref: float) -> None:
    found = kl_estimate(torch.tensor([logp]).double(), torch.tensor([ref]).double(), "k3")
    assert found.item() >= -1e-12


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@given(data=st.data())
def test_micro_batches_add_up_to_the_batch(aggregation: str, data: st.DataObject) -> None:
    """Loss, metrics and gradient of any partition, each part cut to its own longest row, sum to the whole's."""
    rows = data.draw(st.integers(1, 7))
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=rows, max_size=rows))
    part_of = data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    longest = max(lengths)
    logp, old, ref, engine = (
        -torch.rand(rows, longest, generator=generator, dtype=torch.float64) * 2 for _ in range(4)
    )
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    config = ObjectiveConfig(aggregation=aggregation, kl=0.2, importance_cap=1.5)

    def part(chosen: list[int], totals: Totals) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        width = max(lengths[i] for i in chosen)
        leaf = logp[chosen, :width].clone().requires_grad_()
        loss, metrics = policy_loss(
            leaf, old[chosen, :width], ref[chosen, :width], advantages[chosen], mask[chosen, :width], config,
            engine_logp_BT=engine[chosen, :width], totals=totals,
        )  # fmt: skip
        loss.backward()
        gradient = torch.zeros_like(logp)
        gradient[chosen, :width] = leaf.grad
        return loss.detach(), metrics, gradient

    totals = Totals(float(sum(lengths)), float(rows), 8)
    whole = part(list(range(rows)), totals)
    parts = [part([i for i in range(rows) if part_of[i] == k], totals) for k in sorted(set(part_of))]
    assert float(sum(p[0] for p in parts)) == pytest.approx(float(whole[0]), abs=1e-12)
    assert torch.allclose(sum(p[2] for p in parts), whole[2], atol=1e-12)
    for name, value in whole[1].items():
        assert float(sum(p[1][name] for p in parts)) == pytest.approx(float(value), abs=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "weight"),
    [
        ("token", lambda _: 1 / 5),
        ("sequence", lambda length: 1 / (2 * length)),
        ("fixed", lambda _: 1 / (2 * 3)),
    ],
)
def test_on_policy_gradient_is_minus_advantage_times_score(aggregation: str, weight: Callable[[int], float]) -> None:
    logp = torch.tensor(LOGP, requires_grad=True)
    mask = torch.tensor(MASK).bool()
    config = ObjectiveConfig(kl=0, aggregation=aggregation)
    loss, metrics = policy_loss(logp, logp.detach(), None, torch.tensor(ADVANTAGES), mask, config)
    loss.backward()
    for i, row in enumerate(MASK):
        expected = [-ADVANTAGES[i] * weight(sum(row)) * seen for seen in row]
        assert logp.grad[i].tolist() == pytest.approx(expected, abs=1e-7)
    assert float(metrics["ratio"]) == 1.0
    assert float(metrics["ratio_clipped"]) == 0.0


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "clipped"),
    [
        (0.5, 1.0, True),
        (0.5, -1.0, False),
        (-0.5, 1.0, False),
        (-0.5, -1.0, True),
        (0.1, 1.0, False),
        (0.1, 0.0, False),
    ],
)
def test_clipped_tokens_have_no_gradient(log_ratio: float, advantage: float, clipped: bool) -> None:
    logp = torch.tensor([[-1.0]], requires_grad=True)
    mask = torch.tensor([[True]])
    loss, metrics = policy_loss(
        logp, torch.tensor([[-1.0 - log_ratio]]), None, torch.tensor([advantage]), mask, ObjectiveConfig(kl=0)
    )
    loss.backward()
    expected = 0.0 if clipped else -advantage * math.exp(log_ratio)
    assert logp.grad.item() == pytest.approx(expected, abs=1e-6)
    assert float(metrics["ratio_clipped"]) == float(clipped)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_padding_never_matters(garbage: float, estimator: str) -> None:
    config = ObjectiveConfig(kl=0.3, kl_estimator=estimator, importance_cap=2.0)
    mask = torch.tensor(MASK).bool()

    def run(padding: float) -> tuple[float, Tensor, dict[str, float]]:
        logp, old, ref, engine = (torch.tensor(v).masked_fill(~mask, padding) for v in (LOGP, OLD, REF, ENGINE))
        logp.requires_grad_()
        loss, metrics = policy_loss(logp, old, ref, torch.tensor(ADVANTAGES), mask, config, engine_logp_BT=engine)
        loss.backward()
        return float(loss.detach()), logp.grad, {name: float(value) for name, value in metrics.items()}

    loss, gradient, metrics = run(garbage)
    clean = run(0.0)
    assert loss == clean[0]
    assert torch.equal(gradient, clean[1])
    assert metrics == clean[2]


def test_the_importance_weight_is_capped_and_carries_no_gradient() -> None:
    logp = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    engine = torch.tensor([[-1.2, -9.0]])  # weights e^0.2 and e^8, capped at 2
    loss, _ = policy_loss(
        logp, logp.detach(), None, torch.tensor([1.0]), torch.ones(1, 2).bool(),
        ObjectiveConfig(kl=0, importance_cap=2.0), engine_logp_BT=engine,
    )  # fmt: skip
    loss.backward()
    assert logp.grad[0].tolist() == pytest.approx([-math.exp(0.2) / 2, -1.0], abs=1e-6)


def test_aggregate_of_a_response_without_tokens_is_zero() -> None:
    value, mask = torch.ones(2, 2), torch.tensor([[True, True], [False, False]])
    assert float(aggregate(value, mask, "sequence", Totals(2.0, 2.0, 2))) == 0.5


def test_errors_name_the_setting() -> None:
    logp, mask = torch.tensor(LOGP), torch.tensor(MASK).bool()
    with pytest.raises(ValueError, match=r"objective\.kl"):
        policy_loss(logp, logp, None, torch.tensor(ADVANTAGES), mask, ObjectiveConfig(kl=0.1))
    with pytest.raises(ValueError, match=r"objective\.importance_cap"):
        policy_loss(logp, logp, None, torch.tensor(ADVANTAGES), mask, ObjectiveConfig(kl=0, importance_cap=2.0))


@pytest.mark.parametrize(
    ("settings", "shared", "expected"),
    [
        ({}, None, None),
        ({"engine": {"name": "vllm"}}, None, 2.0),
        ({"engine": {"name": "mine.py:Engine"}}, None, 2.0),
        ({"engine": {"name": "vllm"}, "objective": {"importance_cap": None}}, None, None),
        ({"objective": {"importance_cap": 1.5}}, None, 1.5),
        ({}, False, 2.0),
        ({"engine": {"name": "vllm"}}, True, None),
    ],
)
def test_the_cap_is_on_with_engines_that_have_weights_of_their_own(
    settings: dict[str, Any], shared: bool | None, expected: float | None
) -> None:
    config = parse_config(settings)
    assert importance_cap(config, shared=shared) == expected
    assert with_importance_cap(config, shared=shared).objective.importance_cap == expected
