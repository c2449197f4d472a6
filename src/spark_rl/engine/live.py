"""What is known of each row that decodes, in the order of the cache's rows.

Shape suffixes: _R rows, _T drawn tokens, _V vocabulary, _E end tokens, _K most likely tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class Live:
    """Rows with their own age: some may have begun long before others."""

    names: list[int]
    """Which completion of the call a row is: prompt * n + place among the prompt's rows."""
    reach: list[int]
    """Positions that prompt and response take at most."""
    key_R: Tensor
    """Seeds of their random streams."""
    pad_R: Tensor
    """Columns of the cache before the first token."""
    next_R: Tensor
    """The position of the first response token."""
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
        """These rows and then the new ones."""
        pairs = zip(self._fields(), new._fields(), strict=True)
        values: dict[str, Any] = {
            name: one if one is None else one + other if isinstance(one, list) else torch.cat((one, other))
            for (name, one), (_, other) in pairs
        }
        return Live(**values)

    def _fields(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]
