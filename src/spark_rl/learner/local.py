"""The learner on one device: advantages (Eq. 3), objective (Eq. 4), AdamW.

Shape suffixes: _P problems, _G responses of a group, _B responses, _T response tokens.

Departures from the textbook: responses whose advantage is zero are left out of the forward pass when there is no KL
term. They add nothing to the gradient but still count in the mean, so the update is the same and costs less (a third
of all groups are flat on the embedded default). When no response of a batch is left, the weights stay as they are: not
even AdamW's momentum moves them. Weights in half precision are trained through a float32 copy, because a step of
5e-7 is far below their resolution and would be rounded away, and the gradients of their micro-batches are summed in
float32. Such a weight costs 14 bytes (itself 2, its copy 4, AdamW's moments 8) and during an update 4 more, for that
sum.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spark_rl.advantage import group_advantages, is_flat
from spark_rl.config import Config, OptimiserConfig
from spark_rl.learner.base import Span
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.prefill import Vision
from spark_rl.model.score import Rows, Scorer, make_rows, pack_by_tokens, seen_share
from spark_rl.model.weights import ModelWeights
from spark_rl.objective import Totals, policy_loss
from spark_rl.problem import Group
from spark_rl.seeds import stream_seed


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
    version: int | None = None
    """Which policy sampled it; ``None`` stands for the current one."""


@dataclass(slots=True)
class Mismatch:
    """How far the learner's log-probabilities are from the engine's, on the tokens that both computed."""

    tokens: int = 0
    kl: float = 0.0
    """Sum over the tokens of the estimate k3 of KL(engine || learner), in nats."""
    largest: float = 0.0
    """The largest difference of any token, in nats: in bfloat16 the maximum of rounding noise."""

    def add(self, logp_BT: Tensor, engine_logp_BT: Tensor, mask_BT: Tensor) -> None:
        """Count the tokens where ``mask_BT`` is true."""
        ahead_BT = (logp_BT - engine_logp_BT).masked_fill(~mask_BT, 0.0)
        self.tokens += int(mask_BT.sum())
        self.kl += float((ahead_BT.expm1() - ahead_BT).sum())  # not exp() - 1: in float32 differences are near 1e-6
        self.largest = max(self.largest, float(ahead_BT.abs().max()))

    def metrics(self) -> dict[str, float]:
        """``engine_kl`` (mean) and ``engine_gap`` (largest), in nats a token; nothing where nothing was compared."""
        return {"engine_kl": self.kl / self.tokens, "engine_gap": self.largest} if self.tokens else {}


class LocalLearner:
    """Trains one model on one device."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: Config,
        reference: LoadedModel | None = None,
    ) -> None:
        """Build the optimiser around a loaded model.

        Args:
            loaded: the model to train.
            config: the run's configuration.
            reference: pi_ref of Eq. 4, frozen; needed when ``objective.kl`` is positive and there are no adapters.

        Raises:
            ValueError: a KL term without anything to compare with.
        """
        if config.objective.kl > 0 and reference is None and not hasattr(loaded.model, "disable_adapter"):
            raise ValueError("objective.kl is positive, so the learner needs a reference model or adapters")
        self.loaded = loaded
        self.config = config
        self.scorer = self._scorer(loaded)
        self.reference = None if reference is None else self._scorer(reference)
        self.updates = 0
        self.warm = 0.0
        """Steps of the run that were done when the warm-up was over."""
        self.dropped = [m for name, m in loaded.model.named_modules() if "lora_dropout" in name and _drops(m)]
        """What drops inputs of adapters while an update is differentiated, ``model.lora.dropout``; off elsewhere."""
        self.parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        optimiser = config.optimiser
        self.optimiser = torch.optim.AdamW(
            self.masters, lr=optimiser.lr, betas=optimiser.betas, eps=optimiser.eps,
            weight_decay=optimiser.weight_decay,
        )  # fmt: skip

    def update(self, groups: Sequence[Group], span: Span | None = None) -> dict[str, float]:
        """One or more optimiser steps on a batch of groups sampled from the current weights.

        ``nonfinite`` counts those that were left out, because their gradient was not finite.
        """
        minibatches, epochs = self.config.learner.minibatches, self.config.learner.epochs
        if minibatches > 1:
            groups = mixed(groups)
        samples, flat = to_samples(groups, self.config)
        if not samples:
            return {}
        old = self._sampling_logprobs(samples, once=minibatches == epochs == 1 and not self.dropped)
        parts = whole_groups(samples, minibatches) * epochs
        mismatch, collected = Mismatch(), []
        for i, part in enumerate(parts):
            rate = self._next_rate(span, i / len(parts), (i + 1) / len(parts))
            with self._dropout():
                collected.append(self._step(samples, part, old, rate, mismatch))
        means = {name: sum(m[name] for m in collected) / len(collected) for name in collected[0]}
        failed = sum(not math.isfinite(m["grad_norm"]) for m in collected)
        left_out = {"nonfinite": float(failed)} if failed else {}
        return {"flat": flat, **means, **left_out, **mismatch.metrics()}

    def _next_rate(self, span: Span | None, begin: float, end: float) -> float:
        """The learning rate of the next update, which goes from one share of ``span`` to another."""
        if span is None:
            return learning_rate(self.config.optimiser, self.updates, None)
        width = span.end - span.begin
        if self.updates < self.config.optimiser.warmup:
            self.warm = span.begin + end * width
        return self.rate(span.begin + begin * width, span.steps)

    def rate(self, position: float, steps: int) -> float:
        """The learning rate of an update at ``position`` (in steps) of a run of ``steps`` steps."""
        left = steps - self.warm
        done = (position - self.warm) / left if left > 0 else 1.0
        return learning_rate(self.config.optimiser, self.updates, done)

    def _step(
        self, samples: Sequence[Sample], part: range, old: list[Tensor] | None, rate: float, mismatch: Mismatch
    ) -> dict[str, float]:
        """One optimiser step on the samples of ``part``."""
        config = self.config
        totals = Totals(
            float(sum(len(samples[i].token_ids) for i in part)), float(len(part)), config.rollout.max_new_tokens
        )
        used = [i for i in part if samples[i].advantage != 0.0 or config.objective.kl > 0]
        left_out = totals.tokens - sum(len(samples[i].token_ids) for i in used)  # count as unchanged: ratio 1
        metrics = {"loss": 0.0, "ratio": left_out / totals.tokens, "ratio_clipped": 0.0}
        for batch in self._packed([samples[i] for i in used]):
            chosen = [used[j] for j in batch]
            rows = self._rows([samples[i] for i in chosen])
            logp_BT = self.scorer(rows)
            old_BT = logp_BT.detach() if old is None else _pad([old[i] for i in chosen], logp_BT)
            engine_BT = _pad([torch.tensor(samples[i].engine_logprobs) for i in chosen], logp_BT)
            ref_BT = self._reference_logprobs(rows) if config.objective.kl > 0 else None
            advantages_B = torch.tensor([samples[i].advantage for i in chosen], device=logp_BT.device)
            loss, shares = policy_loss(
                logp_BT, old_BT, ref_BT, advantages_B, rows.mask_BT, config.objective,
                engine_logp_BT=engine_BT, totals=totals,
            )  # fmt: skip
            with self._summed_in_float32():
                loss.backward()  # type: ignore[no-untyped-call]
            metrics["loss"] += float(loss.detach())
            for name, share in shares.items():
                metrics[name] = metrics.get(name, 0.0) + float(share)
            mismatch.add(old_BT, engine_BT, rows.mask_BT)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.masters, config.optimiser.clip)
        if math.isfinite(float(norm)):
            self.optimiser.step()
            for master, parameter in self._copied():
                parameter.data.copy_(master)
        self.optimiser.zero_grad(set_to_none=True)
        self.updates += 1
        return {**metrics, "grad_norm": float(norm), "lr": rate}

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """Within, adapters drop inputs at random: which ones is a function of the seed and the number of updates."""
        if not self.dropped:
            yield
            return
        device = self.loaded.device
        devices = [] if device.type == "cpu" else [device.index or 0]
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            torch.manual_seed(stream_seed(self.config.seed, "dropout", self.updates))
            for module in self.dropped:
                module.train()
            try:
                yield
            finally:
                for module in self.dropped:
                    module.eval()

    @contextmanager
    def _summed_in_float32(self) -> Iterator[None]:
        """Within, a gradient in half precision is added to its master's as soon as it is known, and then let go."""

        def add(master: Tensor, parameter: Tensor) -> None:
            assert parameter.grad is not None, "torch calls this when there is one"
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

        hooks = [
            parameter.register_post_accumulate_grad_hook(partial(add, master))  # type: ignore[no-untyped-call]
            for master, parameter in self._copied()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        vision: Sequence[Vision] | None = None,
    ) -> list[Tensor]:
        """One (T,) tensor a response, at the sampling temperature."""
        rows = zip(prompts, responses, vision or [{}] * len(prompts), strict=True)
        samples = [Sample(i, tuple(p), v, tuple(r), (), 0.0) for i, (p, r, v) in enumerate(rows)]
        return self._logprobs(samples)

    def _sampling_logprobs(self, samples: Sequence[Sample], *, once: bool) -> list[Tensor] | None:
        """(T,) log-probabilities of each sample under the policy that sampled it; ``None`` where the one update of a
        batch computes them itself.

        Samples of another policy than the current one keep those of their engine.
        """
        stale = [s.version is not None and s.version != self.updates for s in samples]
        if once and not any(stale):
            return None
        own = iter(self._logprobs([s for s, other in zip(samples, stale, strict=True) if not other]))
        return [
            torch.tensor(s.engine_logprobs) if other else next(own) for s, other in zip(samples, stale, strict=True)
        ]

    def _copied(self) -> list[tuple[Tensor, Tensor]]:
        """(float32 master, parameter) of the parameters in another number format."""
        return [(m, p) for m, p in zip(self.masters, self.parameters, strict=True) if m is not p]

    def weights(self) -> ModelWeights:
        """The weights as they are now; the version is the number of updates."""
        return ModelWeights(self.loaded.model, self.updates)

    def save(self, path: Path) -> None:
        """``model/``, and ``learner.pt``: optimiser moments, where the schedule is, float32 masters of weights in half
        precision.
        """
        self.export(path / "model")
        masters = [master for master, _ in self._copied()]
        schedule = {"updates": self.updates, "warm": self.warm}
        torch.save({"optimiser": self.optimiser.state_dict(), **schedule, "masters": masters}, path / "learner.pt")

    def load(self, path: Path) -> None:
        """The inverse of :meth:`save` for everything but ``model/``, which the learner was made with."""
        state = torch.load(path / "learner.pt", map_location="cpu", weights_only=True)
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates, self.warm = int(state["updates"]), float(state["warm"])
        for (master, _), saved in zip(self._copied(), state["masters"], strict=True):
            master.copy_(saved)

    def export(self, path: Path) -> None:
        """See :meth:`spark_rl.model.loaded.LoadedModel.save`."""
        self.loaded.save(path)

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
            self.config.learner.micro_tokens, seen_share(self.loaded),
        )  # fmt: skip

    def _scorer(self, loaded: LoadedModel) -> Scorer:
        return Scorer(loaded, self.config.rollout.temperature, self.config.learner.logit_chunk)

    @torch.no_grad()
    def _logprobs(self, samples: Sequence[Sample]) -> list[Tensor]:
        found: list[Tensor] = [torch.empty(0)] * len(samples)
        for batch in self._packed(samples):
            rows = self._rows([samples[i] for i in batch])
            for i, logp_T, mask_T in zip(batch, self.scorer(rows), rows.mask_BT, strict=True):
                found[i] = logp_T[mask_T]
        return found

    @torch.no_grad()
    def _reference_logprobs(self, rows: Rows) -> Tensor:
        """Under the frozen copy, or under the base weights with the adapters switched off."""
        if self.reference is not None:
            found: Tensor = self.reference(rows)
            return found
        model: Any = self.loaded.model
        with model.disable_adapter():
            base: Tensor = self.scorer(rows)
            return base


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.p > 0


def mixed(groups: Sequence[Group]) -> list[Group]:
    """The groups in an order of which every stretch has the tasks in the shares of the whole, so that each minibatch
    does. Groups of one task keep their order.
    """
    counts, seen = Counter(group.problem.task for group in groups), Counter[str]()
    places = []
    for group in groups:
        places.append((seen[group.problem.task] + 0.5) / counts[group.problem.task])
        seen[group.problem.task] += 1
    return [groups[i] for i in sorted(range(len(groups)), key=places.__getitem__)]


def whole_groups(samples: Sequence[Sample], count: int) -> list[range]:
    """At most ``count`` stretches of the samples, each of whole groups and about as many of them."""
    starts = [i for i, sample in enumerate(samples) if i == 0 or sample.group != samples[i - 1].group]
    cuts = [*(starts[k * len(starts) // count] for k in range(count)), len(samples)]
    return [range(a, b) for a, b in pairwise(cuts) if a < b]


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
                    Sample(
                        number, group.prompt_ids, group.vision, completion.token_ids, completion.logprobs, advantage,
                        completion.version,
                    )
                )  # fmt: skip
    return samples, flat / max(1, len(groups))


def learning_rate(config: OptimiserConfig, update: int, done: float | None) -> float:
    """Warm-up over the first updates, then constant, linear or cosine decay to ``final_lr * lr`` at the run's end.

    ``done`` is the share of the run after the warm-up that is over. It is a share of steps and not of updates, because
    nobody knows beforehand how many updates a run will make: the second period runs when enough was recycled.

    Raises:
        ValueError: a decaying schedule without ``done``.
    """
    if update < config.warmup:
        return config.lr * (update + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    if done is None:
        raise ValueError(f"optimiser.schedule {config.schedule} needs to know how far the run is")
    done = min(1.0, max(0.0, done))
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape)


def _pad(rows: Sequence[Tensor], like_BT: Tensor) -> Tensor:
    """(B, T) tensor from vectors of different lengths, zeros behind, shaped like ``like_BT``."""
    padded_BT = torch.zeros_like(like_BT, requires_grad=False)
    for i, row in enumerate(rows):
        padded_BT[i, : len(row)] = row.to(padded_BT)
    return padded_BT
