"""How far a learner's log-probabilities are from the engine's.

Shape suffixes: _B responses, _T response tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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

    def include(self, other: Mismatch) -> None:
        """Count what ``other`` has counted."""
        self.tokens += other.tokens
        self.kl += other.kl
        self.largest = max(self.largest, other.largest)

    def metrics(self) -> dict[str, float]:
        """``engine_kl`` (mean) and ``engine_gap`` (largest), in nats a token; nothing where nothing was compared."""
        return {"engine_kl": self.kl / self.tokens, "engine_gap": self.largest} if self.tokens else {}
