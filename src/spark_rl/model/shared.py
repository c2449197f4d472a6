"""Prompts whose keys and values are held once while their rollouts decode, however many those are.

Cascade attention (Hydragen, Juravsky et al. 2024, https://arxiv.org/abs/2402.05099): the queries of all rollouts of a
prompt go through its keys in one product, each row goes through its own, and one softmax joins the two.

A prompt has a place for each of its rollouts; places of rollouts that have ended stay empty until many are.

Shape suffixes: _R rows, _P prompts, _K key-value heads, _S prompt positions, _D head width, _L whatever a place holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPARSE = 0.75
"""Share of the places below which they are laid out again for the rows that are left."""
_MARK = "spark_rl_shared"


class UnshareableError(RuntimeError):
    """A decoder attends in a way that shared prompts have no part in."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Which row is which rollout of which prompt."""

    place_R: Tensor
    """Of each row: those of the first prompt first."""
    prompts: int
    copies: int
    """Places of a prompt."""
    whole: bool
    """Whether row i has place i, and none is empty."""
    row_P: Tensor
    """A row of each prompt; any where it has none."""

    @classmethod
    def of(cls, place_R: Tensor, prompts: int, copies: int) -> Places:
        """Rows with these places."""
        rows = len(place_R)
        each_R = torch.arange(rows, device=place_R.device)
        whole = rows == prompts * copies and bool((place_R == each_R).all())
        row_P = torch.zeros(prompts, dtype=torch.long, device=place_R.device)
        row_P[place_R // copies] = each_R
        return cls(place_R, prompts, copies, whole, row_P)

    def kept(self, order_R: Tensor) -> tuple[Places, Tensor | None]:
        """Those of these rows, in this order, and the prompts that are left where places are laid out again."""
        place_R = self.place_R[order_R]
        left_P, prompt_R, count_P = torch.unique(place_R // self.copies, return_inverse=True, return_counts=True)
        copies = int(count_P.max())
        if len(left_P) * copies > SPARSE * self.prompts * self.copies:
            return Places.of(place_R, self.prompts, self.copies), None
        by_prompt_R = prompt_R.argsort(stable=True)
        rank_R = torch.empty_like(prompt_R)
        first_P = count_P.cumsum(0) - count_P
        rank_R[by_prompt_R] = torch.arange(len(prompt_R), device=prompt_R.device) - first_P[prompt_R[by_prompt_R]]
        return Places.of(prompt_R * copies + rank_R, len(left_P), copies), left_P

    def by_prompt(self, of_RKGL: Tensor) -> Tensor:
        """(P, K, copies x G, L) what rows have, with zeros at empty places."""
        if not self.whole:
            spread = of_RKGL.new_zeros(self.prompts * self.copies, *of_RKGL.shape[1:])
            spread[self.place_R] = of_RKGL
            of_RKGL = spread
        by_place = of_RKGL.reshape(self.prompts, self.copies, *of_RKGL.shape[1:])
        return by_place.transpose(1, 2).flatten(2, 3)

    def by_row(self, of_PKQL: Tensor) -> Tensor:
        """(R, K, G, L) the other way."""
        prompts, heads, _, width = of_PKQL.shape
        by_place = of_PKQL.reshape(prompts, heads, self.copies, -1, width).transpose(1, 2).flatten(0, 1)
        return by_place if self.whole else by_place[self.place_R]


@dataclass(slots=True, eq=False)
class SharedPrompts:
    """The prompts of one layer."""

    keys_PKSD: Tensor
    values_PKSD: Tensor
    places: Places
    attended: bool = False
    """Whether the last token's queries went through them."""

    @property
    def length(self) -> int:
        """Columns."""
        return self.keys_PKSD.shape[2]

    def drop(self, columns: int) -> None:
        """Forget the first columns."""
        self.keys_PKSD = self.keys_PKSD[:, :, columns:]
        self.values_PKSD = self.values_PKSD[:, :, columns:]

    def keep(self, places: Places, left_P: Tensor | None) -> None:
        """Go on with fewer rows, and these of the prompts."""
        self.places = places
        if left_P is not None:
            self.keys_PKSD, self.values_PKSD = self.keys_PKSD[left_P], self.values_PKSD[left_P]

    def expanded(self) -> tuple[Tensor, Tensor]:
        """(R, K, S, D) keys and values of each row's prompt."""
        prompt_R = self.places.place_R // self.places.copies
        return self.keys_PKSD[prompt_R], self.values_PKSD[prompt_R]


def before(states: Tensor, shared: SharedPrompts) -> Tensor:
    """The same keys or values of rows, with a note that the prompts come before them."""
    setattr(states, _MARK, shared)
    return states


def prompts_before(keys: Tensor, values: Tensor) -> SharedPrompts | None:
    """The prompts that come before what a layer handed out, if they are shared."""
    shared: SharedPrompts | None = getattr(keys, _MARK, None)
    if getattr(values, _MARK, None) is not shared:
        raise UnshareableError("keys and values are not of one layer")
    return shared
