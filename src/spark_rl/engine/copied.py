"""The embedded engine on a copy of the model: what generates in another process than the learner's.

It decodes like :class:`spark_rl.engine.embedded.EmbeddedEngine`; only its weights are its own, so they are taken over.
"""

from __future__ import annotations

from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.model.weights import Weights, take_over


class CopiedEngine(EmbeddedEngine):
    """Generates with a model of its own, without adapters: a learner's are merged before they are handed over."""

    def sync(self, weights: Weights) -> None:
        """Copy the learner's weights.

        Raises:
            ConfigError: they are of another model.
        """
        take_over(self.loaded.model, weights)
        super().sync(weights)
