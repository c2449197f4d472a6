"""The embedded engine: decodes in PyTorch on the learner's own weights.

No second copy of the weights exists, so nothing is synchronised and nothing can be stale. Each problem is prefilled
once, with its images, and forked into its n rollouts; the key-value cache is written in place; finished rows leave the
batch, and prompts that waited for room take their places (:mod:`.decoding`, :mod:`.scheduler`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from spark_rl.chat import Prompt
from spark_rl.engine import attention
from spark_rl.engine.base import Arrival, Sampling, gathered
from spark_rl.engine.decoding import Decoding
from spark_rl.errors import UserError
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.memory import is_out_of_memory, let_go
from spark_rl.model.sizes import positions_of
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion

logger = logging.getLogger(__name__)


class EmbeddedEngine:
    """Generates with the weights of a :class:`LoadedModel`, whatever they are at the moment."""

    def __init__(
        self,
        loaded: LoadedModel,
        eos_ids: Collection[int],
        decode: Callable[[Sequence[int]], str],
        max_rows: int = 512,
        max_tokens: int | None = None,
    ) -> None:
        """Prepare to generate.

        Args:
            loaded: the model; shared with the learner.
            eos_ids: tokens that end a completion.
            decode: token ids -> text, special tokens dropped.
            max_rows: rows decoded together at most, but never less than the n rows of one prompt.
            max_tokens: key-value positions held together at most; ``None`` for no bound but the rows.
        """
        self.loaded = loaded
        self.decode = decode
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self.eos = torch.tensor(sorted(eos_ids), device=loaded.device)
        self.version = 0
        self._warned = False
        self._pieces: dict[int, str] = {}
        self.positions = positions_of(loaded.causal_lm.config)
        layers = loaded.causal_lm.config.get_text_config().num_hidden_layers
        self.windows: Sequence[int | None] = loaded.windows or [None] * layers
        """Of each layer, see :class:`spark_rl.model.cache.RolloutLayer`."""
        self.graphs = loaded.device.type == "cuda"
        """Whether passes of one token a row are CUDA graphs."""
        if loaded.causal_lm.config._attn_implementation == "sdpa":
            loaded.causal_lm.set_attn_implementation(attention.NAME)
        ours = loaded.causal_lm.config._attn_implementation == attention.NAME
        self.shares: bool | None = None if ours else False
        """Whether rollouts of a prompt share its keys and values, outside CUDA graphs; ``None`` until it was tried."""

    def sync(self, weights: Weights) -> None:
        """Count: the learner's weights are this engine's weights."""
        self.version = weights.version

    def sleep(self) -> None:
        """Nothing to do: between two calls the engine holds no memory."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to free: the weights belong to the learner."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt. Errors as for :meth:`arriving`."""
        return gathered(self.arriving(prompts, sampling), len(prompts))

    @torch.inference_mode()
    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        """``sampling.n`` completions per prompt, each prompt as it is done; short prompts are decoded first.

        A completion is cut (``length``) where the model has no more positions; of a prompt that fills them all it is
        empty, which is logged.

        Raises:
            UserError: a prompt and its response may need more positions than ``max_tokens``.
        """
        self._warn(prompts, sampling)
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].token_ids), i))
        for i in reversed(order):
            self.check(prompts[i], sampling)
        given: set[int] = set()
        while True:
            try:
                decoding = Decoding(self)
                for i in order:
                    if i not in given:
                        decoding.add(i, prompts[i], sampling, i)
                while decoding.busy:
                    decoding.step()
                    for arrival in decoding.handed_over():
                        given.add(arrival[0])
                        yield arrival
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.max_rows <= sampling.n:
                    raise
            self._take_fewer(len(prompts) * sampling.n, sampling.n)

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model has a position left behind a prompt."""
        return self.positions is None or len(prompt.token_ids) < self.positions

    def reach(self, prompt: Prompt, sampling: Sampling) -> int:
        """Positions that a prompt and its response take at most."""
        reach = len(prompt.token_ids) + sampling.max_new_tokens
        return reach if self.positions is None else min(reach, self.positions)

    def check(self, prompt: Prompt, sampling: Sampling) -> None:
        """Raises :class:`UserError` if a prompt and its response may need more positions than ``max_tokens``."""
        if self.max_tokens is not None and self.fits(prompt) and self.reach(prompt, sampling) > self.max_tokens:
            raise UserError(
                f"engine.max_tokens is {self.max_tokens}, but the longest prompt and its response may need "
                f"{self.reach(prompt, sampling)} positions; raise it, or lower max_new_tokens"
            )

    def _take_fewer(self, rows: int, least: int) -> None:
        """Decode half as many rows together from now on, because the memory was not enough. What a row draws does not
        depend on the others, so nothing but rounding changes.
        """
        let_go(self.loaded.device)
        before = min(self.max_rows, rows)
        self.max_rows = max(least, before // 2)
        logger.warning("out of memory with %d rows decoded together; goes on with %d (engine.max_rows)",
                       before, self.max_rows)  # fmt: skip

    def piece(self, token: int) -> str:
        """One token as text."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    def _warn(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Say what the model has no positions for."""
        lengths = [len(prompt.token_ids) for prompt in prompts]
        if self.positions is not None and max(lengths, default=0) >= self.positions:
            logger.warning(
                "%d of %d prompts are longer than the %d positions of the model, the longest has %d tokens; their "
                "responses are empty", sum(length >= self.positions for length in lengths), len(prompts),
                self.positions, max(lengths),
            )  # fmt: skip
        if self.positions is not None and sampling.max_new_tokens >= self.positions and not self._warned:
            self._warned = True
            logger.warning(
                "max_new_tokens is %d, but the model has %d positions for prompt and response together: responses end "
                "there", sampling.max_new_tokens, self.positions,
            )  # fmt: skip
