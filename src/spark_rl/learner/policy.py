"""What the learners of one device and of many share: a batch of groups becomes optimiser steps on micro-batches.

:class:`PolicyLearner` plans nothing, moves no weights and adds nothing up; :mod:`.local` and :mod:`.sharded` say how.

Shape suffixes: _P problems, _B responses, _T response tokens.

Departures from the textbook: responses whose advantage is zero are left out of the forward pass when there is no KL
term. They add nothing to the gradient but still count in the mean, so the update is the same and costs less (a third
of all groups are flat on the embedded default). When no response of a batch is left, the weights stay as they are: not
even AdamW's momentum moves them.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spark_rl.config import Config
from spark_rl.learner.base import Span
from spark_rl.learner.mismatch import Mismatch
from spark_rl.learner.plan import Batch
from spark_rl.learner.samples import Sample, mixed, to_samples, whole_groups
from spark_rl.learner.schedule import learning_rate
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.memory import is_out_of_memory, let_go
from spark_rl.model.prefill import Vision
from spark_rl.model.score import Parts, Rows, Scorer, make_rows
from spark_rl.model.weights import Weights
from spark_rl.objective import Totals, policy_loss
from spark_rl.problem import Group
from spark_rl.seeds import stream_seed

logger = logging.getLogger(__name__)

T = TypeVar("T")


class PolicyLearner(ABC):
    """Trains one model, on one or several ranks."""

    rank: int = 0
    """Which of the processes that train the model together this is."""
    divisible: bool = True
    """Whether micro-batches can be made smaller in the middle of an update. Ranks can't: where one is out of memory the
    others wait for it, so all have to be started again."""
    optimiser: torch.optim.AdamW
    """Of what is trained, made by :meth:`_adamw`."""

    def __init__(self, loaded: LoadedModel, config: Config, reference: LoadedModel | None = None) -> None:
        """Take a loaded model over.

        Args:
            loaded: the model to train.
            config: the run's configuration.
            reference: pi_ref of Eq. 4, frozen; needed when ``objective.kl`` is positive and there are no adapters.

        Raises:
            ValueError: a KL term without anything to compare with.
        """
        if config.objective.kl > 0 and reference is None and not loaded.adapted:
            raise ValueError("objective.kl is positive, so the learner needs a reference model or adapters")
        self.loaded = loaded
        self.config = config
        self.scorer = self._scorer(loaded)
        self.reference = None if reference is None else self._scorer(reference)
        self.micro_tokens = config.learner.micro_tokens
        """Of a micro-batch at most: less than the setting once the memory was not enough for it."""
        self.updates = 0
        self.warm = 0.0
        """Steps of the run that were done when the warm-up was over."""
        self.dropped = [m for name, m in loaded.model.named_modules() if "lora_dropout" in name and _drops(m)]
        """What drops inputs of adapters while an update is differentiated, ``model.lora.dropout``; off elsewhere."""

    # --- what differs ---------------------------------------------------------------------------------------------

    @abstractmethod
    def weights(self) -> Weights:
        """The weights as they are now; the version is the number of updates."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """See :meth:`spark_rl.learner.base.Learner.save`."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """The inverse of :meth:`save` for everything but ``model/``, which the learner was made with."""

    @abstractmethod
    def export(self, path: Path) -> None:
        """See :meth:`spark_rl.learner.base.Learner.export`."""

    @abstractmethod
    def not_finite(self) -> str | None:
        """The first weight with a value that is no finite number, by its name in the module; ``None`` if all are."""

    @abstractmethod
    def _batches(self, samples: Sequence[Sample]) -> Sequence[Batch]:
        """The micro-batches of this rank."""

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch's loss."""

    @abstractmethod
    def _advance(self) -> float:
        """Clip the gradient and step, if it is finite; returns its norm before."""

    @abstractmethod
    def _summed(self, metrics: dict[str, float]) -> dict[str, float]:
        """The sums over the ranks."""

    @abstractmethod
    def _summed_mismatch(self, mismatch: Mismatch) -> Mismatch:
        """That of all ranks."""

    @abstractmethod
    def _shared(self, found: list[Tensor], lengths: Sequence[int]) -> list[Tensor]:
        """(T,) tensors, of which each rank has found some, on every rank."""

    # --- the update -----------------------------------------------------------------------------------------------

    def update(self, groups: Sequence[Group], span: Span | None = None) -> dict[str, float]:
        """One or more optimiser steps on a batch of groups sampled from the current weights.

        ``nonfinite`` counts those that were left out, because their gradient was not finite; ``stale`` is the share of
        responses that another policy than the current one sampled. Neither is there where it would be 0.
        ``micro_tokens`` is there where the memory is not enough for those of the settings.
        """
        minibatches, epochs = self.config.learner.minibatches, self.config.learner.epochs
        if minibatches > 1:
            groups = mixed(groups)
        samples, flat = to_samples(groups, self.config)
        if not samples:
            return {}
        stale = sum(map(self._is_stale, samples))
        old = self._sampling_logprobs(samples, once=minibatches == epochs == 1 and not self.dropped)
        parts = whole_groups(samples, minibatches) * epochs
        mismatch, collected = Mismatch(), []
        for i, part in enumerate(parts):
            rate = self._next_rate(span, i / len(parts), (i + 1) / len(parts))
            collected.append(self._step(samples, part, old, rate, mismatch))
        means = {name: sum(m[name] for m in collected) / len(collected) for name in collected[0]}
        failed = sum(not math.isfinite(m["grad_norm"]) for m in collected)
        counted = {"nonfinite": float(failed)} if failed else {}
        if stale:
            counted["stale"] = stale / len(samples)
        if self.micro_tokens < self.config.learner.micro_tokens:
            counted["micro_tokens"] = float(self.micro_tokens)
        return {"flat": flat, **means, **counted, **self._summed_mismatch(mismatch).metrics()}

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
        metrics, compared = self._fitting(lambda: self._accumulated(samples, part, old))
        mismatch.include(compared)
        metrics = self._summed(metrics)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        norm = self._advance()
        self.updates += 1
        return {**metrics, "grad_norm": norm, "lr": rate}

    def _fitting(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, done in smaller micro-batches where the memory is not enough for those so far.

        Raises:
            torch.OutOfMemoryError: it is not enough for the smallest either.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.divisible or self.micro_tokens == 1:
                    raise
            self.micro_tokens //= 2  # here, where the error no longer holds what it came from
            self.optimiser.zero_grad(set_to_none=True)  # of the micro-batches before
            self.scorer.zero_grad(set_to_none=True)
            let_go(self.loaded.device)
            logger.warning("out of memory in the update; goes on with learner.micro_tokens=%d", self.micro_tokens)

    def _accumulated(
        self, samples: Sequence[Sample], part: range, old: list[Tensor] | None
    ) -> tuple[dict[str, float], Mismatch]:
        """Add the gradient of the samples of ``part``; (metrics, what was compared)."""
        config, mismatch = self.config, Mismatch()
        totals = Totals(
            float(sum(len(samples[i].token_ids) for i in part)), float(len(part)), config.rollout.max_new_tokens
        )
        used = [i for i in part if samples[i].advantage != 0.0 or config.objective.kl > 0]
        left_out = totals.tokens - sum(len(samples[i].token_ids) for i in used)  # count as unchanged: ratio 1
        metrics = {"loss": 0.0, "ratio": 0.0 if self.rank else left_out / totals.tokens, "ratio_clipped": 0.0}
        with self._dropout():
            for batch in self._batches([samples[i] for i in used]):
                chosen = [used[j] for j in batch.rows]
                rows = self._rows([samples[i] for i in chosen], batch.parts)
                ref_BT = self._reference_logprobs(rows) if config.objective.kl > 0 else None
                logp_BT = self.scorer(rows)
                old_BT = logp_BT.detach() if old is None else _pad([old[i] for i in chosen], logp_BT)
                engine_BT = _pad([torch.tensor(samples[i].engine_logprobs) for i in chosen], logp_BT)
                advantages_B = _of_rows([samples[i].advantage for i in chosen], logp_BT)
                loss, shares = policy_loss(
                    logp_BT, old_BT, ref_BT, advantages_B, rows.mask_BT, config.objective,
                    engine_logp_BT=engine_BT, totals=totals,
                )  # fmt: skip
                self._backward(loss)
                metrics["loss"] += float(loss.detach())
                for name, share in shares.items():
                    metrics[name] = metrics.get(name, 0.0) + float(share)
                mismatch.add(old_BT, engine_BT, rows.mask_BT)
        return metrics, mismatch

    def _adamw(self, parameters: Sequence[Tensor]) -> torch.optim.AdamW:
        settings = self.config.optimiser
        return torch.optim.AdamW(
            parameters, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay,
            foreach=False,  # which on a GPU takes another 4 bytes a weight
        )  # fmt: skip

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """Within, adapters drop inputs at random: which ones is a function of the seed, the number of updates and the
        rank.
        """
        if not self.dropped:
            yield
            return
        device = self.loaded.device
        devices = [] if device.type == "cpu" else [device.index or 0]
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            purpose = ("dropout", self.updates, *([self.rank] if self.rank else []))
            torch.manual_seed(stream_seed(self.config.seed, *purpose))
            for module in self.dropped:
                module.train()
            try:
                yield
            finally:
                for module in self.dropped:
                    module.eval()

    # --- log-probabilities ----------------------------------------------------------------------------------------

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

    def _is_stale(self, sample: Sample) -> bool:
        """Whether another policy than the current one sampled it."""
        return sample.version is not None and sample.version != self.updates

    def _sampling_logprobs(self, samples: Sequence[Sample], *, once: bool) -> list[Tensor] | None:
        """(T,) log-probabilities of each sample under the policy that sampled it; ``None`` where the one update of a
        batch computes them itself.

        Samples of another policy than the current one keep those of their engine.
        """
        stale = [self._is_stale(sample) for sample in samples]
        if once and not any(stale):
            return None
        own = iter(self._logprobs([s for s, other in zip(samples, stale, strict=True) if not other]))
        return [
            torch.tensor(s.engine_logprobs) if other else next(own) for s, other in zip(samples, stale, strict=True)
        ]

    def _logprobs(self, samples: Sequence[Sample]) -> list[Tensor]:
        return self._fitting(lambda: self._scored(samples))

    @torch.no_grad()
    def _scored(self, samples: Sequence[Sample]) -> list[Tensor]:
        found: list[Tensor] = [torch.empty(0)] * len(samples)
        for batch in self._batches(samples):
            rows = self._rows([samples[i] for i in batch.rows], batch.parts)
            count = len(batch.rows)
            for i, logp_T, mask_T in zip(batch.rows, self.scorer(rows)[:count], rows.mask_BT[:count], strict=True):
                found[i] = logp_T[mask_T]
        return self._shared(found, [len(s.token_ids) for s in samples])

    @torch.no_grad()
    def _reference_logprobs(self, rows: Rows) -> Tensor:
        """Under the frozen copy, or under the base weights with the adapters switched off."""
        if self.reference is not None:
            found: Tensor = self.reference(rows)
            return found
        with self._without_adapters():
            base: Tensor = self.scorer(rows)
            return base

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        model: Any = self.loaded.model
        with model.disable_adapter():
            yield

    def _rows(self, samples: Sequence[Sample], parts: Parts | None) -> Rows:
        """The samples with each group's prompt once."""
        first: dict[int, Sample] = {}
        for sample in samples:
            first.setdefault(sample.group, sample)
        place = {group: i for i, group in enumerate(first)}
        return make_rows(
            self.loaded, [s.prompt_ids for s in first.values()], [self._vision(s) for s in first.values()],
            [place[s.group] for s in samples], [s.token_ids for s in samples], parts,
        )  # fmt: skip

    def _vision(self, sample: Sample) -> Vision:
        return sample.vision

    def _scorer(self, loaded: LoadedModel) -> Scorer:
        return Scorer(loaded, self.config.rollout.temperature, self.config.learner.logit_chunk)


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> tuple[int, str] | None:
    """(place, name) of the first of these weights that has a value which is no finite number."""
    found = ((n, name) for n, (name, tensor) in enumerate(named) if not bool(torch.isfinite(tensor).all()))
    return next(found, None)


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.p > 0


def _of_rows(values: Sequence[float], like_BT: Tensor) -> Tensor:
    """(B,) tensor of a value a sample, 0 for the rows below that no sample is behind."""
    fillers = [0.0] * (len(like_BT) - len(values))
    return torch.tensor([*values, *fillers], device=like_BT.device)


def _pad(rows: Sequence[Tensor], like_BT: Tensor) -> Tensor:
    """(B, T) tensor from vectors of different lengths, zeros behind and below, shaped like ``like_BT``."""
    padded_BT = torch.zeros_like(like_BT, requires_grad=False)
    for i, row in enumerate(rows):
        padded_BT[i, : len(row)] = row.to(padded_BT)
    return padded_BT
