"""The learner on one device: advantages (Eq. 3), objective (Eq. 4), AdamW.

Shape suffixes: _P problems, _G responses of a group, _B responses, _T response tokens.

Departures from the textbook: responses whose advantage is zero are left out of the forward pass when there is no KL
term. They add nothing to the gradient but still count in the mean, so the update is the same and costs less (a third
of all groups are flat on the embedded default). When no response of a batch is left, the weights stay as they are: not
even AdamW's momentum moves them. Weights in half precision are trained through a float32 copy, because a step of
5e-7 is far below their resolution and would be rounded away.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spark_rl.advantage import group_advantages, is_flat
from spark_rl.config import Config, OptimiserConfig
from spark_rl.learner.logprobs import Rows, make_rows, pack_by_tokens, response_logprobs
from spark_rl.learner.model import LoadedModel
from spark_rl.learner.prefill import Vision
from spark_rl.objective import Totals, policy_loss
from spark_rl.problem import Group


@dataclass(frozen=True, slots=True)
class Sample:
    """One response with its advantage: what a group becomes for the update."""

    group: int
    """Which group it is of: the responses of one group share one pass over their prompt."""
    prompt_ids: tuple[int, ...]
    vision: Vision = field(repr=False)
    token_ids: tuple[int, ...]
    engine_logprobs: tuple[float, ...]
    advantage: float


class LocalLearner:
    """Trains one model on one device."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: Config,
        reference: LoadedModel | None = None,
        total_updates: int | None = None,
    ) -> None:
        """Build the optimiser around a loaded model.

        Args:
            loaded: the model to train.
            config: the run's configuration.
            reference: pi_ref of Eq. 4, frozen; needed when ``objective.kl`` is positive and there are no adapters.
            total_updates: where the learning-rate schedule ends; needed for ``linear`` and ``cosine``.

        Raises:
            ValueError: a KL term without anything to compare with.
        """
        if config.objective.kl > 0 and reference is None and not hasattr(loaded.model, "disable_adapter"):
            raise ValueError("objective.kl is positive, so the learner needs a reference model or adapters")
        self.loaded = loaded
        self.config = config
        self.total_updates = total_updates
        self.updates = 0
        self.parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        optimiser = config.optimiser
        self.optimiser = torch.optim.AdamW(
            self.masters, lr=optimiser.lr, betas=optimiser.betas, eps=optimiser.eps,
            weight_decay=optimiser.weight_decay,
        )  # fmt: skip
        self.reference = reference

    def update(self, groups: Sequence[Group]) -> dict[str, float]:
        """One or more optimiser steps on a batch of groups sampled from the current weights."""
        samples, flat = to_samples(groups, self.config)
        if not samples:
            return {}
        metrics: dict[str, float] = {"flat": flat}
        minibatches = self.config.learner.minibatches
        on_policy = minibatches == 1 and self.config.learner.epochs == 1
        old = None if on_policy else self._logprobs(self.loaded, samples)
        size = math.ceil(len(samples) / minibatches)
        parts = [range(i, min(i + size, len(samples))) for i in range(0, len(samples), size)]
        collected = [self._step(samples, part, old) for _ in range(self.config.learner.epochs) for part in parts]
        for name in collected[0]:
            values = [m[name] for m in collected]
            metrics[name] = max(values) if name == "engine_gap" else sum(values) / len(values)
        return metrics

    def _step(self, samples: Sequence[Sample], part: range, old: list[Tensor] | None) -> dict[str, float]:
        """One optimiser step on the samples of ``part``."""
        config = self.config
        totals = Totals(
            float(sum(len(samples[i].token_ids) for i in part)), float(len(part)), config.rollout.max_new_tokens
        )
        used = [i for i in part if samples[i].advantage != 0.0 or config.objective.kl > 0]
        left_out = totals.tokens - sum(len(samples[i].token_ids) for i in used)  # count as unchanged: ratio 1
        metrics = {"loss": 0.0, "engine_gap": 0.0, "ratio": left_out / totals.tokens, "ratio_clipped": 0.0}
        for batch in self._packed([samples[i] for i in used]):
            chosen = [used[j] for j in batch]
            rows = self._rows([samples[i] for i in chosen])
            logp_BT = self._forward(self.loaded, rows)
            old_BT = logp_BT.detach() if old is None else _pad([old[i] for i in chosen], logp_BT)
            engine_BT = _pad([torch.tensor(samples[i].engine_logprobs) for i in chosen], logp_BT)
            ref_BT = self._reference_logprobs(rows) if config.objective.kl > 0 else None
            advantages_B = torch.tensor([samples[i].advantage for i in chosen], device=logp_BT.device)
            loss, shares = policy_loss(
                logp_BT, old_BT, ref_BT, advantages_B, rows.mask_BT, config.objective,
                engine_logp_BT=engine_BT, totals=totals,
            )  # fmt: skip
            loss.backward()  # type: ignore[no-untyped-call]
            metrics["loss"] += float(loss.detach())
            for name, share in shares.items():
                metrics[name] = metrics.get(name, 0.0) + float(share)
            gap = (old_BT - engine_BT).abs().masked_fill(~rows.mask_BT, 0.0).max()
            metrics["engine_gap"] = max(metrics["engine_gap"], float(gap))
        rate = learning_rate(config.optimiser, self.updates, self.total_updates)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        for master, parameter in self._copied():
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, config.optimiser.clip)
        if math.isfinite(float(norm)):
            self.optimiser.step()
            for master, parameter in self._copied():
                parameter.data.copy_(master)
        self.optimiser.zero_grad(set_to_none=True)
        self.updates += 1
        return {**metrics, "grad_norm": float(norm), "lr": rate}

    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        vision: Sequence[Vision] | None = None,
    ) -> list[Tensor]:
        """One (T,) tensor a response, at the sampling temperature."""
        rows = zip(prompts, responses, vision or [{}] * len(prompts), strict=True)
        samples = [Sample(i, tuple(p), v, tuple(r), (), 0.0) for i, (p, r, v) in enumerate(rows)]
        return self._logprobs(self.loaded, samples)

    def _copied(self) -> list[tuple[Tensor, Tensor]]:
        """(float32 master, parameter) of the parameters in another number format."""
        return [(m, p) for m, p in zip(self.masters, self.parameters, strict=True) if m is not p]

    def state(self) -> dict[str, Any]:
        """Optimiser moments, the update counter, and the float32 masters of half-precision weights."""
        masters = [master for master, _ in self._copied()]
        return {"optimiser": self.optimiser.state_dict(), "updates": self.updates, "masters": masters}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates = int(state["updates"])
        for (master, _), saved in zip(self._copied(), state["masters"], strict=True):
            master.copy_(saved)

    def save_pretrained(self, path: Path) -> None:
        """Weights (or adapters) and tokenizer or processor, loadable with ``from_pretrained``."""
        with warnings.catch_warnings():  # of adapters whose base are adapters too: the vocabulary is never resized
            warnings.filterwarnings("ignore", "Could not find a config file in")
            self.loaded.model.save_pretrained(path)  # type: ignore[operator]
        (self.loaded.processor or self.loaded.tokenizer).save_pretrained(path)

    def _rows(self, samples: Sequence[Sample]) -> Rows:
        """The samples with each group's prompt once."""
        first: dict[int, Sample] = {}
        for sample in samples:
            first.setdefault(sample.group, sample)
        place = {group: i for i, group in enumerate(first)}
        return make_rows(
            self.loaded, [s.prompt_ids for s in first.values()], [s.vision for s in first.values()],
            [place[s.group] for s in samples], [s.token_ids for s in samples],
        )  # fmt: skip

    def _packed(self, samples: Sequence[Sample]) -> list[list[int]]:
        return pack_by_tokens(
            [s.group for s in samples], [len(s.prompt_ids) for s in samples], [len(s.token_ids) for s in samples],
            self.config.learner.micro_tokens,
        )  # fmt: skip

    def _forward(self, loaded: LoadedModel, rows: Rows) -> Tensor:
        return response_logprobs(loaded, rows, self.config.rollout.temperature, self.config.learner.logit_chunk)

    @torch.no_grad()
    def _logprobs(self, loaded: LoadedModel, samples: Sequence[Sample]) -> list[Tensor]:
        found: list[Tensor] = [torch.empty(0)] * len(samples)
        for batch in self._packed(samples):
            rows = self._rows([samples[i] for i in batch])
            for i, logp_T, mask_T in zip(batch, self._forward(loaded, rows), rows.mask_BT, strict=True):
                found[i] = logp_T[mask_T]
        return found

    @torch.no_grad()
    def _reference_logprobs(self, rows: Rows) -> Tensor:
        """Under the frozen copy, or under the base weights with the adapters switched off."""
        if self.reference is not None:
            return self._forward(self.reference, rows)
        model: Any = self.loaded.model
        with model.disable_adapter():
            return self._forward(self.loaded, rows)


def to_samples(groups: Sequence[Group], config: Config) -> tuple[list[Sample], float]:
    """All responses with their advantages, and the share of groups without signal. Empty responses are left out."""
    samples: list[Sample] = []
    flat = 0
    for number, group in enumerate(groups):
        rewards_G = torch.tensor(group.rewards, dtype=torch.float64)
        flat += int(is_flat(rewards_G))
        advantages_G = group_advantages(rewards_G, config.advantage.eps, config.advantage.scale)
        for rollout, advantage in zip(group.rollouts, advantages_G.tolist(), strict=True):
            completion = rollout.completion
            if completion.token_ids:
                samples.append(
                    Sample(number, group.prompt_ids, group.vision, completion.token_ids, completion.logprobs, advantage)
                )
    return samples, flat / max(1, len(groups))


def learning_rate(config: OptimiserConfig, update: int, total: int | None) -> float:
    """Warm-up, then constant, linear or cosine decay to ``final_lr * lr`` at update ``total``.

    Raises:
        ValueError: a decaying schedule without ``total``.
    """
    if update < config.warmup:
        return config.lr * (update + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    if total is None:
        raise ValueError(f"optimiser.schedule {config.schedule} needs the total number of updates")
    done = min(1.0, (update - config.warmup) / max(1, total - config.warmup))
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape)


def _pad(rows: Sequence[Tensor], like_BT: Tensor) -> Tensor:
    """(B, T) tensor from vectors of different lengths, zeros behind, shaped like ``like_BT``."""
    padded_BT = torch.zeros_like(like_BT, requires_grad=False)
    for i, row in enumerate(rows):
        padded_BT[i, : len(row)] = row.to(padded_BT)
    return padded_BT
