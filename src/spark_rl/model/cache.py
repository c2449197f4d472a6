"""A key-value cache whose rows can be forked from a shared prefill, retired, joined by others, and grown in place.

Shape suffixes: _R rows, _H heads, _T positions, _D head width.

It implements transformers' cache interface, so any decoder that takes a cache runs on it, whatever it calls it
(:func:`cache_argument`). The stock caches concatenate on every token (``DynamicCache``) or attend over their whole
capacity (``StaticCache``); this one writes in place and hands out views of the filled part. All rows end in the same
column: a row with fewer tokens than another has padding before them, as transformers' masks expect it. The prompts of
several rollouts may be held once (:mod:`.shared`); the first columns are theirs then. A layer with a window hands out
what the next token sees, and forgets the columns before it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from spark_rl.model.shared import Places, SharedPrompts, before

CACHE_ARGUMENTS = ("cache", "past_key_values")
"""What decoders call their cache: those of transformers from 5.24 on; those before, and code of hub repositories."""

SLACK = 1 / 2
"""Columns behind a full window, as a share of it, that are written before those that no token sees are cleared."""


@cache
def cache_argument(decoder: Any) -> str | None:
    """The name under which decoders of a class take their cache, or ``None`` if they take none."""
    accepted = inspect.signature(decoder.forward).parameters
    return next((name for name in CACHE_ARGUMENTS if name in accepted), None)


class RolloutLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one attention layer: (R, H, capacity, D), of which the first positions are filled."""

    is_croppable = False

    def __init__(self, window: int | None) -> None:
        """Nothing is held yet.

        Args:
            window: columns that a token sees, its own among them; ``None`` for all.
        """
        super().__init__()
        self.window = window
        self.keys: Tensor
        self.values: Tensor
        self.length = 0
        """Filled columns, those of shared prompts and those that were forgotten among them."""
        self.first = 0
        """The first column that is held: those before it are forgotten."""
        self.rows = 0
        self.shared: SharedPrompts | None = None
        self.column_1: Tensor | None = None
        """Where the next token is written, while a tensor says so (:meth:`RolloutCache.written_at`)."""

    @property
    def is_sliding(self) -> bool:
        """Whether there is a window: what transformers calls it, whose masks are then of the columns that are seen."""
        return self.window is not None

    @property
    def own(self) -> int:
        """Filled columns that rows hold themselves."""
        return self.length - self.first - (0 if self.shared is None else self.shared.length)

    @property
    def seen(self) -> int:
        """The first column that the next token sees."""
        return self.first if self.window is None else max(self.first, self.length + 1 - self.window)

    @property
    def full(self) -> bool:
        """Whether there is no room for the next token. Behind a full window there always is: :meth:`update` clears
        columns that are no longer seen."""
        return self.own == self.keys.shape[2] and (self.window is None or self.length < self.window)

    @property
    def positions(self) -> int:
        """Positions that are held, those in reserve too."""
        shared = 0 if self.shared is None else self.shared.places.prompts * self.shared.length
        return self.keys.shape[0] * self.keys.shape[2] + shared

    @property
    def is_compileable(self) -> bool:
        """Whether shapes and places are the same for every token: what transformers calls it (``StaticLayer``)."""
        return self.column_1 is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the prefill's keys and values as they are."""
        self.keys, self.values = key_states, value_states
        self.rows, self.length = key_states.shape[0], key_states.shape[2]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append (R, H, t, D), behind a window those of one token, and return what the live rows see; behind shared
        prompts these are their own keys and values alone, and say so
        (:func:`spark_rl.model.shared.prompts_before`)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return self.keys, self.values
        if self.column_1 is not None:
            for held, new in ((self.keys, key_states), (self.values, value_states)):
                held[: self.rows].index_copy_(2, self.column_1, new)
            return self.keys[: self.rows], self.values[: self.rows]
        seen, tokens = self.seen, key_states.shape[2]
        self._forget_prompts(seen)
        if self.own + tokens > self.keys.shape[2]:
            self._lay_out(max(tokens, 2 * self.keys.shape[2] - self.own))
        begin, end = 0 if self.shared is not None else seen - self.first, self.own + tokens
        self.keys[: self.rows, :, self.own : end] = key_states
        self.values[: self.rows, :, self.own : end] = value_states
        self.length += tokens
        keys, values = self.keys[: self.rows, :, begin:end], self.values[: self.rows, :, begin:end]
        if self.shared is None:
            return keys, values
        self.shared.attended = False
        return before(keys, self.shared), before(values, self.shared)

    def fork(self, copies: int, room: int, places: Places | None = None) -> None:
        """Repeat every row ``copies`` times, in place of the prefill, with room for ``room`` more positions. With
        ``places`` the rows share the prefill."""
        rows, heads, self.first = *self.keys.shape[:2], self.seen
        if places is not None:
            # laid out once: products would do it at every token with what lies position by position
            keys, values = (
                held[:, :, self.first :].clone(memory_format=torch.contiguous_format)
                for held in (self.keys, self.values)
            )
            self.shared = SharedPrompts(keys, values, places)
            capacity = self._capacity(0, room)
            self.keys = self.keys.new_empty(rows * copies, heads, capacity, self.keys.shape[3])
            self.values = self.values.new_empty(rows * copies, heads, capacity, self.values.shape[3])
            self.rows = rows * copies
            return
        width = self.length - self.first
        for name in ("keys", "values"):
            source: Tensor = getattr(self, name)[:, None, :, self.first :]
            target = source.new_empty(rows, copies, heads, self._capacity(width, room), source.shape[-1])
            target[..., :width, :] = source
            setattr(self, name, target.flatten(0, 1))
        self.rows = rows * copies

    def relay(self, drop: int, room: int, new: RolloutLayer | None = None, copies: int = 1) -> None:
        """Lay the rows out again, without their first ``drop`` columns, with ``room`` positions behind them, and rows
        of ``new``, ``copies`` times each, below them. ``new`` gives up what it holds. Who joins shares no prompt.
        """
        self._forget_prompts(max(drop, self.seen))
        if self.shared is not None and new is None:
            self._lay_out(room)
            self.first, self.length = self.first - drop, self.length - drop
            return
        self.unshare()
        kept = self.length - max(drop, self.seen)
        joining = 0 if new is None else new.length - new.seen
        width, held = max(kept, joining), slice(self.own - kept, self.own)
        rows = self.rows if new is None else self.rows + new.rows * copies
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            target = old.new_empty(rows, old.shape[1], self._capacity(width, room), old.shape[3])
            target[: self.rows, :, : width - kept] = 0  # of what is masked nothing is left but its times zero
            target[: self.rows, :, width - kept : width] = old[: self.rows, :, held]
            if new is not None:
                added = target[self.rows :].view(new.rows, copies, *target.shape[1:])
                added[..., : width - joining, :] = 0
                added[..., width - joining : width, :] = getattr(new, name)[:, None, :, new.seen :]
                setattr(new, name, None)
            setattr(self, name, target)
        self.length = max(self.length - drop, 0 if new is None else new.length)
        self.rows, self.first = rows, self.length - width

    def move(self, source: Tensor, target: Tensor, rows: int) -> None:
        """Copy rows ``source`` over rows ``target``, then keep the first ``rows``."""
        if len(source):
            self.keys[target, :, : self.own] = self.keys[source, :, : self.own]
            self.values[target, :, : self.own] = self.values[source, :, : self.own]
        self.rows = rows

    def unshare(self) -> None:
        """Give every row the keys and values of its prompt, if it does not have them."""
        if self.shared is None:
            return
        own, prompts = self.own, self.shared.length
        for name, first in zip(("keys", "values"), self.shared.expanded(), strict=True):
            old: Tensor = getattr(self, name)
            target = old.new_empty(self.rows, old.shape[1], prompts + old.shape[2], old.shape[3])
            target[:, :, :prompts] = first
            target[:, :, prompts : prompts + own] = old[: self.rows, :, :own]
            setattr(self, name, target)
        self.shared = None

    def _forget_prompts(self, column: int) -> None:
        """Let go of shared columns before one."""
        if self.shared is None or column <= self.first:
            return
        forgotten = min(column - self.first, self.shared.length)
        self.first += forgotten
        self.shared.drop(forgotten)
        if not self.shared.length:
            self.shared = None

    def _lay_out(self, room: int) -> None:
        """Hold what the next token sees of the rows' own columns, with ``room`` behind it."""
        begin, end = self.seen - self.first if self.shared is None else 0, self.own
        self.first += begin
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_empty(self.rows, old.shape[1], self._capacity(end - begin, room), old.shape[3])
            new[:, :, : end - begin] = old[: self.rows, :, begin:end]
            setattr(self, name, new)

    def _capacity(self, width: int, room: int) -> int:
        """Columns to reserve for ``width`` that are filled and ``room`` more: with a window no more than the next token
        sees of those before it, and slack."""
        if self.window is None:
            return width + room
        return min(width + room, self.window - 1 + math.ceil(SLACK * self.window))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        if self.column_1 is not None:
            return self.keys.shape[2], 0
        return self.length + query_length - self.seen, self.seen

    def get_seq_length(self) -> int | Tensor:
        return self.length if self.column_1 is None else self.column_1

    def get_max_length(self) -> int:
        return -1


class RolloutCache(Cache):  # type: ignore[misc]
    """One :class:`RolloutLayer` per attention layer, empty for a layer that borrows another's (Gemma 3n)."""

    def __init__(self, windows: Sequence[int | None]) -> None:
        """Nothing is held yet. ``windows``: of each layer, see :class:`RolloutLayer`."""
        super().__init__(layers=[RolloutLayer(window) for window in windows])
        self.layout = object()
        """Another object whenever keys and values are somewhere else than before."""
        self.places: Places | None = None
        """Of the rows, while they share the keys and values of their prompts."""

    def fork(self, copies: int, room: int, share: bool = False) -> None:
        """One prefill becomes ``copies`` rollouts of each prompt, which ``share`` it or have a copy each."""
        self.layout = object()
        if share:
            place_R = torch.arange(self.rows * copies, device=self._filled()[0].keys.device)
            self.places = Places.of(place_R, self.rows, copies)
        for layer in self._filled():
            layer.fork(copies, room, self.places)

    @property
    def full(self) -> bool:
        """Whether the next token needs more room."""
        return any(layer.full for layer in self._filled())

    @property
    def attended(self) -> bool:
        """Whether the queries of the last token went through the shared prompts, in every layer."""
        return all(layer.shared is not None and layer.shared.attended for layer in self._filled())

    def forget(self, length: int) -> None:
        """Forget columns behind the first ``length``."""
        for layer in self._filled():
            layer.length = length

    def unshare(self, length: int) -> None:
        """Give every row the keys and values of its prompt, and forget columns behind the first ``length``."""
        self.forget(length)
        self.places = None
        for layer in self._filled():
            layer.unshare()

    def relay(self, drop: int, room: int, new: RolloutCache | None = None, copies: int = 1) -> None:
        """Drop ``drop`` columns that are padding in every row, reserve ``room`` positions, and let rows join.

        Args:
            drop: columns to drop at the beginning.
            room: positions behind the last token.
            new: a prefill whose rows join below these, ``copies`` times each; it is empty afterwards, layer by layer,
                so that nothing is held twice but one layer. Prompts are no longer shared then.
            copies: rollouts a prompt.
        """
        self.layout = object()
        if new is not None:
            self.places = None
        for layer, other in zip(self.layers, self.layers if new is None else new.layers, strict=True):
            if layer.is_initialized:
                layer.relay(drop, room, None if new is None else other, copies)

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
        left_P = None
        if self.places is not None and rows:
            self.places, left_P = self.places.kept(order)
        for layer in self._filled():
            layer.move(movers, holes, rows)
            if layer.shared is not None and self.places is not None:
                layer.shared.keep(self.places, left_P)
        return order

    @contextmanager
    def written_at(self, column_1: Tensor, rows: int) -> Iterator[int]:
        """Within it, a token's keys and values go to the column that a tensor names, and all reserved columns are
        handed out: the same shapes and places for each token. Nothing counts as filled by it (:meth:`advance`).

        Args:
            column_1: the first empty column.
            rows: as many rows are written and handed out, which may be more than there are left.

        Yields:
            The number of reserved columns.
        """
        filled = self._filled()
        kept = [layer.rows for layer in filled]
        for layer in self.layers:
            layer.column_1 = column_1
        for layer in filled:
            layer.rows = rows
        try:
            yield filled[0].keys.shape[2]
        finally:
            for layer in self.layers:
                layer.column_1 = None
            for layer, before in zip(filled, kept, strict=True):
                layer.rows = before

    def advance(self) -> None:
        """One more column is filled."""
        for layer in self._filled():
            layer.length += 1

    def clear_reserve(self) -> None:
        """Put zeros into columns that are reserved: of what is masked nothing is left but its times zero."""
        for layer in self._filled():
            for held in (layer.keys, layer.values):
                held[:, :, layer.length :] = 0

    @property
    def rows(self) -> int:
        """Rows that live."""
        return max(layer.rows for layer in self._filled())

    @property
    def length(self) -> int:
        """Filled columns."""
        return max(layer.length for layer in self._filled())

    @property
    def positions(self) -> int:
        """Key-value positions that are held: rows by columns, those in reserve too, and shared prompts."""
        return max(layer.positions for layer in self._filled())

    def _filled(self) -> list[RolloutLayer]:
        return [layer for layer in self.layers if layer.is_initialized]
