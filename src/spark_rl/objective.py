"""The objective of Eq. 4 as a loss: clipped surrogate on token log-probabilities plus a sampled KL to the reference.

Shape suffixes: _B responses, _T response tokens.

Departures from Eq. 4, which is written for whole responses and exact expectations: the surrogate is per token and
clipped (PPO, https://arxiv.org/abs/1707.06347; GRPO, https://arxiv.org/abs/2402.03300), the KL is an estimate from
the sampled tokens (http://joschu.net/blog/kl-approx.html), and the mean over tokens has three variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spark_rl.config import Config, ObjectiveConfig

AUTO_CAP = 2.0
"""``objective.importance_cap=auto`` with an engine that has weights of its own."""


def importance_cap(config: Config, *, shared: bool | None = None) -> float | None:
    """``objective.importance_cap`` of a run, ``auto`` resolved.

    Args:
        config: of the run.
        shared: whether the engine decodes on the learner's own weights, where that is known better than by its name.
    """
    cap = config.objective.importance_cap
    if cap != "auto":
        return cap
    if shared is None:
        here = not (config.cluster.learners or config.cluster.engines)
        shared = here and config.engine.name == "embedded" and config.decoding_dtype == config.model.dtype
    return None if shared else AUTO_CAP


def with_importance_cap(config: Config, *, shared: bool | None = None) -> Config:
    """The configuration that a learner is given, its ``objective.importance_cap`` no longer ``auto``."""
    objective = config.objective.model_copy(update={"importance_cap": importance_cap(config, shared=shared)})
    return config.model_copy(update={"objective": objective})


@dataclass(frozen=True, slots=True)
class Totals:
    """What the sums of a whole batch are divided by, so that micro-batches add up to exactly one batch."""

    tokens: float
    """Response tokens in the batch."""
    responses: float
    """Responses in the batch."""
    max_new_tokens: int
    """Length limit of a response; used by the aggregation ``fixed`` only."""


def kl_estimate(logp_BT: Tensor, ref_logp_BT: Tensor, estimator: Literal["k1", "k2", "k3"]) -> Tensor:
    """(B, T) pointwise estimate of KL(pi || pi_ref) from tokens sampled from pi, in nats.

    k1 is unbiased and may be negative; k2 is half the squared log-ratio; k3 is unbiased and never negative. As loss
    terms on-policy they differ: the mean gradient of k1 is zero, so it pulls nowhere; that of k2 is the gradient of
    KL(pi || pi_ref); that of k3 is the gradient of KL(pi_ref || pi).
    """
    log_ratio_BT = ref_logp_BT - logp_BT
    if estimator == "k1":
        return -log_ratio_BT
    if estimator == "k2":
        return 0.5 * log_ratio_BT.square()
    return log_ratio_BT.exp() - log_ratio_BT - 1


def policy_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    advantages_B: Tensor,
    mask_BT: Tensor,
    config: ObjectiveConfig,
    *,
    engine_logp_BT: Tensor | None = None,
    totals: Totals | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise: -(clipped surrogate) + kl * KL(pi || pi_ref).

    Args:
        logp_BT: log-probabilities of the sampled tokens under the current weights, with gradient.
        old_logp_BT: the same under the weights that sampled (no gradient). On-policy this equals ``logp_BT`` in value.
        ref_logp_BT: the same under the reference, or ``None`` when ``config.kl`` is 0.
        advantages_B: one advantage a response (Eq. 3).
        mask_BT: bool, true on response tokens.
        config: clip range, KL weight and estimator, aggregation, importance cap.
        engine_logp_BT: what the engine reported; needed when ``config.importance_cap`` is a number. ``auto`` is null
            here: :func:`importance_cap` says what it is with an engine.
        totals: the sums of the whole batch when this call sees a micro-batch of it; by default this call is the batch.

    Returns:
        A scalar loss, and metrics (``kl``, ``ratio_clipped``, ``ratio``). Loss and metrics of a batch's micro-batches
        add up to those of the batch.

    Raises:
        ValueError: a KL weight without reference log-probabilities, or a cap without the engine's.
    """
    if totals is None:
        totals = Totals(float(mask_BT.sum()), float(mask_BT.shape[0]), mask_BT.shape[1])
    logp_BT = logp_BT.masked_fill(~mask_BT, 0.0)
    log_ratio_BT = (logp_BT - old_logp_BT).masked_fill(~mask_BT, 0.0)
    ratio_BT = log_ratio_BT.exp()
    clipped_BT = ratio_BT.clamp(1 - config.clip_low, 1 + config.clip_high)
    advantages_B1 = advantages_B.unsqueeze(-1)
    loss_BT = -torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)
    cap = None if config.importance_cap == "auto" else config.importance_cap
    if cap is not None:
        if engine_logp_BT is None:
            raise ValueError("objective.importance_cap needs the engine's log-probabilities")
        weight_BT = (old_logp_BT - engine_logp_BT).masked_fill(~mask_BT, 0.0).exp().clamp(max=cap)
        loss_BT = loss_BT * weight_BT.detach()
    metrics = {
        "ratio": ratio_BT.detach(),
        "ratio_clipped": (ratio_BT.detach() * advantages_B1 > clipped_BT.detach() * advantages_B1).float(),
    }
    if config.kl > 0:
        if ref_logp_BT is None:
            raise ValueError("objective.kl is positive, so the reference log-probabilities are needed")
        kl_BT = kl_estimate(logp_BT, ref_logp_BT.masked_fill(~mask_BT, 0.0), config.kl_estimator)
        loss_BT = loss_BT + config.kl * kl_BT
        metrics["kl"] = kl_BT.detach()
    loss = aggregate(loss_BT, mask_BT, config.aggregation, totals)
    return loss, {name: aggregate(value, mask_BT, "token", totals) for name, value in metrics.items()}


def aggregate(value_BT: Tensor, mask_BT: Tensor, how: Literal["token", "sequence", "fixed"], totals: Totals) -> Tensor:
    """This micro-batch's share of the batch mean of per-token values.

    ``token``: every token weighs the same (DAPO, https://arxiv.org/abs/2503.14476); ``sequence``: every response weighs
    the same (GRPO); ``fixed``: divided by responses * max_new_tokens, so no length is favoured (Dr. GRPO).
    """
    value_BT = value_BT.masked_fill(~mask_BT, 0.0)
    if how == "token":
        return value_BT.sum() / totals.tokens
    if how == "sequence":
        return (value_BT.sum(-1) / mask_BT.sum(-1).clamp(min=1)).sum() / totals.responses
    return value_BT.sum() / (totals.responses * totals.max_new_tokens)
