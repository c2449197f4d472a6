"""Stops a run whose loss or weights are not finite, or whose policy is saturated, before its last healthy checkpoint is
written over.

A rate that is far too high does not always end in NaN: it may leave finite weights whose softmax is saturated, so that
every token has the probability 1, every group is flat, and every gradient zero, for good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spark_rl.config import Config
from spark_rl.errors import EngineError, UserError
from spark_rl.learner.base import Learner
from spark_rl.problem import Group
from spark_rl.runs import checkpoints

PATIENCE = 3
"""Steps in a row that show the same trouble end a run. A single gradient that is not finite is left out."""
IMPOSSIBLE = 30.0
"""Nats a token: a response of the last step that has become this unlikely says that its update broke the model."""

_LOSSES = ("loss", "grad_norm", "loss/recycled", "grad_norm/recycled")
_SKIPPED = ("nonfinite", "nonfinite/recycled")


class Health:
    """Watches the numbers of a run."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        self.run_dir = run_dir
        self.config = config
        self._sick = self._dead = self._silent = 0
        self._probe: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def check(self, metrics: Mapping[str, Any], groups: Sequence[Group]) -> None:
        """Hear of a step.

        Raises:
            UserError: the model no longer gives its tokens probabilities, or its updates have failed for too long.
            EngineError: the engine gives nothing.
        """
        self._probe = next(
            ((group.prompt_ids, rollout.completion.token_ids) for group in groups if not group.problem.images
             for rollout in group.rollouts if rollout.completion.token_ids), None,
        )  # fmt: skip
        if not math.isfinite(metrics.get("entropy", 0.0)):
            raise self._lost(metrics["step"], "the probabilities of the sampled tokens are not finite")
        failed = any(not math.isfinite(metrics.get(name, 0.0)) for name in _LOSSES)
        self._sick = self._sick + 1 if failed or any(metrics.get(name) for name in _SKIPPED) else 0
        if self._sick >= PATIENCE:
            raise self._lost(metrics["step"], f"loss or gradient were not finite in {PATIENCE} steps in a row")
        self._silent = self._silent + 1 if groups and metrics.get("tokens") == 0 else 0
        if self._silent >= PATIENCE:
            raise EngineError(f"step {metrics['step']}: every response of {PATIENCE} steps in a row is empty")
        self._dead = self._dead + 1 if metrics.get("entropy") == 0 and metrics.get("tokens") != 0 else 0
        if self._dead >= PATIENCE:
            what = f"all tokens of {PATIENCE} steps in a row had the probability 1, which no update can change any more"
            raise self._lost(metrics["step"], what)

    def check_weights(self, learner: Learner, step: int) -> None:
        """Look at weights that are about to be saved, and at what they make of a response of the last step.

        Raises:
            UserError: they are not finite, or what they give is not.
        """
        if (name := learner.not_finite()) is not None:
            raise self._lost(step, f"the weights are not finite ({name} is the first)")
        if self._probe is not None:
            prompt_ids, token_ids = self._probe
            (logp_T,) = learner.logprobs([prompt_ids], [token_ids])
            if not bool(torch.isfinite(logp_T).all()):
                raise self._lost(step, "the weights give log-probabilities that are not finite")
            if (unlikely := -float(logp_T.mean())) > IMPOSSIBLE:
                raise self._lost(
                    step, f"the update made the model's own response impossible ({unlikely:.3g} nats a token)"
                )

    def _lost(self, step: int, what: str) -> UserError:
        saved = checkpoints(self.run_dir)
        last = f"the last healthy checkpoint is {saved[-1]}" if saved else "no checkpoint was saved before"
        dtype = "" if self.config.model.dtype == "float32" else ", or train with model.dtype=float32"
        return UserError(f"step {step}: {what}, so the run ends; {last}. Start a new run with a lower optimiser.lr "
                         f"than {self.config.optimiser.lr:g}{dtype}")  # fmt: skip
