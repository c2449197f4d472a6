"""What is known of each row that decodes, in the order of the cache's rows.

Shape suffixes: _R rows, _T drawn tokens, _V vocabulary, _E end tokens, _K most likely tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Kind(NamedTuple):
    """What of :class:`spark_rl.engine.base.Sampling` shapes a draw. Rows of one kind are drawn together."""

    temperature: float
    repetition_penalty: float
    top: int


@dataclass(slots=True)
class Live:
    """Rows with their own age: some may have begun long before others."""

    names: list[tuple[int, int]]
    """Which completion a row is: the number of its prompt, and the place among the prompt's rows."""
    kinds: list[Kind]
    """How each is drawn."""
    stops: list[tuple[str, ...]]
    """Strings that end it."""
    reach: list[int]
    """Positions that prompt and response take at most."""
    key_R: Tensor
    """Seeds of their random streams."""
    pad_R: Tensor
    """Columns of the cache before the first token."""
    next_R: Tensor
    """The position of the first response token."""
    limit_R: Tensor
    """Tokens that may be drawn."""
    ends_RE: Tensor
    """Tokens that end a row, beside those that end every row; -1 for none."""
    tokens_RT: Tensor
    """One more than may be drawn: what a row that has ended is given goes behind its end."""
    logprobs_RT: Tensor
    last_R: Tensor
    """The token drawn last, whose keys and values the cache does not have yet."""
    drawn_R: Tensor
    """How many tokens were drawn."""
    alive_R: Tensor
    stopped_R: Tensor
    """Ended by themselves."""
    top_RTK: Tensor | None
    """The most likely tokens at each place, where they are asked for, and their log-probabilities."""
    top_logprobs_RTK: Tensor | None
    held_RV: Tensor | None
    """Tokens that the prompt or the response holds, where they are penalised."""

    def kept(self, at_R: Tensor) -> Live:
        """These of the rows, in this order."""
        at = at_R.tolist()

        def chosen(value: Any) -> Any:
            return [value[i] for i in at] if isinstance(value, list) else value[at_R]

        values: dict[str, Any] = {name: None if value is None else chosen(value) for name, value in self._fields()}
        return Live(**values)

    def joined(self, new: Live) -> Live:
        """These rows and then the new ones. What one of the two has no column for is empty there: 0, no end token."""

        def both(name: str, one: Any, other: Any) -> Any:
            if isinstance(one, list):
                return one + other
            if one is None and other is None:
                return None
            one = other.new_zeros(len(self.names), *other.shape[1:]) if one is None else one
            other = one.new_zeros(len(new.names), *one.shape[1:]) if other is None else other
            empty = -1 if name == "ends_RE" else 0
            shape = [max(sizes) for sizes in zip(one.shape[1:], other.shape[1:], strict=True)]
            return torch.cat((_widened(one, shape, empty), _widened(other, shape, empty)))

        pairs = zip(self._fields(), new._fields(), strict=True)
        return Live(**{name: both(name, one, other) for (name, one), (_, other) in pairs})

    def _fields(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


def _widened(value: Tensor, shape: Sequence[int], empty: int) -> Tensor:
    """(R, *shape) a value with ``empty`` behind what it has."""
    room = [n for size, full in zip(reversed(value.shape[1:]), reversed(shape), strict=True) for n in (0, full - size)]
    return pad(value, room, value=empty) if any(room) else value
