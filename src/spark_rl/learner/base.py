"""What every learner promises: groups in, better weights and metrics out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from spark_rl.problem import Group


class Learner(Protocol):
    """Owns the trained weights. Local or distributed, the loop can't tell."""

    def update(self, groups: Sequence[Group]) -> dict[str, float]:
        """Advantages (Eq. 3), objective (Eq. 4), optimiser. Returns metrics; all groups come from current weights."""
        ...

    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        vision: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Tensor]:
        """One (T,) float tensor a response: log-probabilities of its tokens at the sampling temperature, in nats.

        ``vision`` holds what the processor made of each prompt's images (``Group.vision``).
        """
        ...

    def state(self) -> dict[str, Any]:
        """Everything but the weights that a resumed run needs: optimiser moments and counters."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        ...

    def save_pretrained(self, path: Path) -> None:
        """Write the weights and tokenizer in the Hugging Face layout."""
        ...
