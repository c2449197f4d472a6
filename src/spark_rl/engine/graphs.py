"""What is done for every token, recorded once as a CUDA graph and replayed: the pass of a token a row, and the draw.

A decoder of 24 layers starts some thousand small kernels a token, which takes Python several times as long as it takes
a card to compute them (docs/performance.md). A graph starts them at once. It can hold only what has the same shapes and
places each time: so the keys and values of a token are written to a column that a tensor names, and every row attends
to all the columns that are reserved, of which a mask leaves out those that are empty.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

Shape suffixes: _R rows, _H hidden width, _T reserved positions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from spark_rl.model.cache import RolloutCache
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.memory import is_out_of_memory
from spark_rl.model.prefill import extend

logger = logging.getLogger(__name__)

UNRECORDED = 2
"""Calls before one is recorded: where prompts enter all the time, and rows are laid out anew, most never are."""
SHRUNK = 1 / 2
"""Share of the recorded rows below which the rest is recorded anew: what has ended is computed until then."""


class Recorder(Protocol):
    """Whose tokens they are: :class:`spark_rl.engine.embedded.EmbeddedEngine`, which says what each of these is."""

    loaded: LoadedModel
    graphs: bool


class Graphs:
    """The passes and draws of one batch of rows, recorded where a device can and where that pays."""

    def __init__(self, engine: Recorder) -> None:
        """Nothing is recorded yet. The weights of the engine's model stay where they are."""
        self.engine, self.loaded = engine, engine.loaded
        self.passes: Recorded | None = None
        """For the rows as they are laid out."""
        self.draws: Recorded | None = None

    def extend(self, token_R: Tensor, position_R: Tensor, pad_R: Tensor, cache: RolloutCache) -> Tensor:
        """(R, H) final hidden states of one more token a row, whose keys and values join the others in ``cache``.

        Args:
            token_R: the tokens.
            position_R: their positions.
            pad_R: columns of the cache before the first token of each row.
            cache: what came before, with room for a token.
        """

        def computed(column_1: Tensor, token_R: Tensor, position_R: Tensor, pad_R: Tensor) -> tuple[Tensor]:
            with cache.written_at(column_1, len(token_R)) as capacity:
                seen_RT = torch.arange(capacity, device=token_R.device) >= pad_R[:, None]
                return (extend(self.loaded, token_R, position_R, seen_RT, cache),)

        if self.engine.graphs:
            if self.passes is None or not self.passes.serves(cache.layout, cache.rows):
                self.passes = None  # its memory goes before that of the next is taken
                self.passes = Recorded(cache.layout, cache.rows)
                cache.clear_reserve()
            column_1 = torch.full((1,), cache.length, device=token_R.device)
            found = self._done(self.passes, computed, column_1, token_R, position_R, pad_R)
            if found is not None:
                cache.advance()
                return found[0]
        seen_RT = torch.arange(cache.length + 1, device=self.loaded.device) >= pad_R[:, None]
        return extend(self.loaded, token_R, position_R, seen_RT, cache)

    def draw(self, how: object, function: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> tuple[Tensor, ...]:
        """What a function of tensors makes of a row each, which has no other effect.

        Args:
            how: what else it depends on.
            function: the same whenever ``how`` is.
            given: a row each.
        """
        if self.engine.graphs:
            rows = len(given[0])
            if self.draws is None or not self.draws.serves(how, rows):
                self.draws = None
                self.draws = Recorded(how, rows)
            found = self._done(self.draws, function, *given)
            if found is not None:
                return found
        return function(*given)

    def _done(
        self, recorded: Recorded, function: Callable[..., tuple[Tensor, ...]], *given: Tensor
    ) -> tuple[Tensor, ...] | None:
        """What the function returns, or ``None`` where it can't be recorded, which is not tried again."""
        try:
            return recorded(function, *given)
        except RuntimeError as error:
            if is_out_of_memory(error) or not recorded.recording:
                raise
            self.engine.graphs, self.passes, self.draws = False, None, None
            said = " ".join(str(error).split())[:200]
            logger.warning("tokens are decoded without CUDA graphs, which this model does not allow: %s", said)
            return None


class Recorded:
    """A function of tensors: the first calls compute it, one is recorded, the others replay it."""

    def __init__(self, key: object, rows: int) -> None:
        """Nothing is recorded yet.

        Args:
            key: what the function depends on, beside its tensors.
            rows: of its tensors; later there may be fewer.
        """
        self.key, self.rows = key, rows
        self.given: list[Tensor] = []
        """What a recording reads."""
        self.made: tuple[Tensor, ...] = ()
        """What a recording writes."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0
        self.recording = False
        """Whether it is being recorded: what goes wrong then need not go wrong without."""

    def serves(self, key: object, rows: int) -> bool:
        """Whether this is what it was prepared for, with all of its rows or most of them."""
        return key == self.key and SHRUNK * self.rows < rows <= self.rows

    def __call__(self, function: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> tuple[Tensor, ...]:
        """What the function returns. Rows behind those that are given keep what they had, and are computed in vain."""
        rows = len(given[-1])
        if self.given:
            for held, new in zip(self.given, given, strict=True):
                held[: len(new)] = new
        else:
            self.given = [new.clone() for new in given]
        if self.graph is None and self.calls >= UNRECORDED and given[0].device.type == "cuda":
            self.graph = self._recorded(function)
        if self.graph is None:
            self.made = function(*self.given)
        else:
            self.graph.replay()
        self.calls += 1
        return tuple(one[:rows] for one in self.made)

    def _recorded(self, function: Callable[..., tuple[Tensor, ...]]) -> torch.cuda.CUDAGraph:
        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.recording = True
        # the outer context leaves the stream again where a recording fails, which torch's own does not
        with torch.cuda.stream(aside), torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            self.made = function(*self.given)
        self.recording = False
        return graph
