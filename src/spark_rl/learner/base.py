"""What every learner promises: groups in, better weights and metrics out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from spark_rl.model.weights import Weights
from spark_rl.problem import Group


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a run that an update covers, which the learning rate follows.

    Of a run of 45 steps, the second half of the first step is ``Span(0.5, 1.0, 45)``.
    """

    begin: float
    """Steps that are done before it."""
    end: float
    """Steps that are done after it."""
    steps: int
    """Steps of the whole run."""


class Learner(Protocol):
    """Owns the trained weights. Local or distributed, the loop can't tell."""

    def update(self, groups: Sequence[Group], span: Span | None = None) -> dict[str, float]:
        """Advantages (Eq. 3), objective (Eq. 4), optimiser. Returns metrics.

        Groups whose completions have another :attr:`Completion.version` than the current weights are off-policy: the
        engine's log-probabilities stand for those of the policy that sampled them.

        Raises:
            ValueError: a learning rate that decays, and no ``span`` to say how far the run is.
        """
        ...

    def rate(self, position: float, steps: int) -> float:
        """The learning rate of an update at ``position`` (in steps) of a run of ``steps`` steps."""
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

    def weights(self) -> Weights:
        """The current weights, for an engine to take over."""
        ...

    def not_finite(self) -> str | None:
        """The first weight with a value that is no finite number, by its name in the module; ``None`` if all are.

        Each process looks at what it holds, so that no one gathers the weights for it.
        """
        ...

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs into a folder, the weights as a Hugging Face folder ``model``."""
        ...

    def load(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote. The learner was made with the weights in ``path / "model"``.

        Raises:
            OSError, ValueError, RuntimeError, KeyError, AssertionError, SafetensorError: it can't be read.
        """
        ...

    def export(self, path: Path) -> None:
        """Write weights (or adapters) and tokenizer or processor as one Hugging Face folder."""
        ...
