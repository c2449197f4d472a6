"""A key-value cache whose rows can be forked from a shared prefill, retired, and grown in place.

Shape suffixes: _R rows, _H heads, _T positions, _D head width.

It implements transformers' cache interface, so any decoder that accepts ``past_key_values`` runs on it. The stock
caches concatenate on every token (``DynamicCache``) or attend over their whole capacity (``StaticCache``); this one
writes in place and hands out views of the filled part. After the fork, keys are stored transposed (_D before _T), which
is how the scores of a single query read them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class RolloutLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one attention layer: (R, H, capacity, D), of which ``length`` positions are filled."""

    is_sliding = False
    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.keys: Tensor
        self.values: Tensor
        self.length = 0
        self.rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the prefill's keys and values as they are."""
        self.keys, self.values = key_states, value_states
        self.rows, self.length = key_states.shape[0], key_states.shape[2]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append (R, H, t, D) and return the filled keys and values of the live rows."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return self.keys, self.values
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self._grow(max(end, 2 * self.keys.shape[2]))
        self.keys[: self.rows, :, self.length : end] = key_states
        self.values[: self.rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]

    @staticmethod
    def _transposed(like: Tensor, rows: int, capacity: int) -> Tensor:
        """An empty (R, H, capacity, D) tensor whose memory order is (R, H, D, capacity)."""
        return like.new_empty(rows, like.shape[1], like.shape[3], capacity).transpose(-1, -2)

    def fork(self, copies: int, room: int) -> None:
        """Repeat every row ``copies`` times, in place of the prefill, with room for ``room`` more positions."""
        rows, heads, length, _ = self.keys.shape
        keys = self._transposed(self.keys, rows * copies, length + room)
        values = self.values.new_empty(rows * copies, heads, length + room, self.values.shape[-1])
        keys[:, :, :length] = self.keys.repeat_interleave(copies, dim=0)
        values[:, :, :length] = self.values.repeat_interleave(copies, dim=0)
        self.keys, self.values, self.rows = keys, values, rows * copies

    def move(self, source: Tensor, target: Tensor, rows: int) -> None:
        """Copy rows ``source`` over rows ``target``, then keep the first ``rows``."""
        if len(source):
            self.keys[target, :, : self.length] = self.keys[source, :, : self.length]
            self.values[target, :, : self.length] = self.values[source, :, : self.length]
        self.rows = rows

    def _grow(self, capacity: int) -> None:
        keys = self._transposed(self.keys, self.rows, capacity)
        values = self.values.new_empty(self.rows, self.values.shape[1], capacity, self.values.shape[3])
        keys[:, :, : self.length] = self.keys[: self.rows, :, : self.length]
        values[:, :, : self.length] = self.values[: self.rows, :, : self.length]
        self.keys, self.values = keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class RolloutCache(Cache):  # type: ignore[misc]
    """One :class:`RolloutLayer` per attention layer."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[RolloutLayer() for _ in range(layers)])

    def fork(self, copies: int, room: int) -> None:
        """One prefill becomes ``copies`` rollouts of each prompt."""
        for layer in self.layers:
            layer.fork(copies, room)

    def retire(self, alive_R: Tensor) -> Tensor:
        """Drop finished rows by moving live rows from the end into their places.

        Args:
            alive_R: bool, one a row.

        Returns:
            (number of live rows,) for each new row, the old row it holds: callers reorder their own state by it.
        """
        rows = int(alive_R.sum())
        order = torch.arange(rows, device=alive_R.device)
        holes = (~alive_R[:rows]).nonzero().squeeze(-1)
        movers = alive_R[rows:].nonzero().squeeze(-1) + rows
        order[holes] = movers
        for layer in self.layers:
            layer.move(movers, holes, rows)
        return order
