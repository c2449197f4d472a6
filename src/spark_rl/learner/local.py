"""The learner on one device: advantages (Eq. 3), objective (Eq. 4), AdamW.

Departures from the textbook, beside those of :mod:`.policy`: weights in half precision are trained through a float32
copy, because a step of 5e-7 is far below their resolution and would be rounded away, and the gradients of their
micro-batches are summed in float32. Such a weight costs 14 bytes (itself 2, its copy 4, AdamW's moments 8) and during
an update 4 more, for that sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from spark_rl.config import Config
from spark_rl.learner.clipping import clip, squared_norm
from spark_rl.learner.mismatch import Mismatch
from spark_rl.learner.plan import Batch
from spark_rl.learner.policy import PolicyLearner, first_not_finite
from spark_rl.learner.samples import Sample
from spark_rl.learner.shards import begin_save, restore
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.score import pack_by_tokens, seen_share
from spark_rl.model.weights import ModelWeights


class LocalLearner(PolicyLearner):
    """Trains one model on one device."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: Config,
        reference: LoadedModel | None = None,
    ) -> None:
        """Build the optimiser around a loaded model. See :class:`PolicyLearner`."""
        super().__init__(loaded, config, reference)
        self.names = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
        self.parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self.half = loaded.causal_lm.dtype != torch.float32
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        self.optimiser = self._adamw(self.masters)

    def _batches(self, samples: Sequence[Sample]) -> Sequence[Batch]:
        packed = pack_by_tokens(
            [s.group for s in samples], [len(s.prompt_ids) for s in samples], [len(s.token_ids) for s in samples],
            self.micro_tokens, seen_share(self.loaded),
        )  # fmt: skip
        return [Batch(tuple(rows)) for rows in packed]

    def _backward(self, loss: Tensor) -> None:
        with self._summed_in_float32():
            loss.backward()  # type: ignore[no-untyped-call]

    def _advance(self) -> float:
        gradients = [master.grad for master in self.masters if master.grad is not None]
        norm = math.sqrt(squared_norm(gradients))
        if math.isfinite(norm):
            clip(gradients, norm, self.config.optimiser.clip)
            self.optimiser.step()
            for master, parameter in self._copied():
                parameter.data.copy_(master)
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def _summed(self, metrics: dict[str, float]) -> dict[str, float]:
        return metrics

    def _summed_mismatch(self, mismatch: Mismatch) -> Mismatch:
        return mismatch

    def _shared(self, found: list[Tensor], lengths: Sequence[int]) -> list[Tensor]:
        return found

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

    def _copied(self) -> list[tuple[Tensor, Tensor]]:
        """(float32 master, parameter) of the parameters in another number format."""
        return [(m, p) for m, p in zip(self.masters, self.parameters, strict=True) if m is not p]

    def weights(self) -> ModelWeights:
        """The weights as they are now; the version is the number of updates."""
        return ModelWeights(self.loaded.model, self.updates)

    def not_finite(self) -> str | None:
        """The first weight with a value that is no finite number, by its name in the module; ``None`` if all are."""
        found = first_not_finite(self.loaded.model.named_parameters())
        return None if found is None else found[1]

    def save(self, path: Path) -> None:
        """``model/``, and what :mod:`.shards` writes: optimiser moments, where the schedule is, float32 masters of a
        model in half precision.
        """
        self.export(path / "model")
        schedule = {"updates": self.updates, "warm": self.warm}
        begin_save(path, self._named(), self.optimiser, schedule, None, weights=self.half)()

    def load(self, path: Path) -> None:
        """The inverse of :meth:`save` for everything but ``model/``, which the learner was made with; several ranks
        may have saved it.
        """
        self.updates, self.warm = restore(path, self._named(), self.optimiser, None, weights=self.half)

    def _named(self) -> list[tuple[str, Tensor]]:
        """What the optimiser steps, by the names of the parameters."""
        return list(zip(self.names, self.masters, strict=True))

    def export(self, path: Path) -> None:
        """See :meth:`spark_rl.model.loaded.LoadedModel.save`."""
        self.loaded.save(path)
