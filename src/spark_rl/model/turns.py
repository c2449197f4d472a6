"""Several passes through one model, differentiated one after the other.

Autograd holds the gradient of a weight that several passes use until it has that of each, so behind a pass over prompts
and passes over their responses lies a copy of all gradients; a learner on several ranks, which divides a layer's
gradients as soon as they are whole, would hold the whole of every layer's. Here the backward pass of each part of the
responses ends before that of the part before it begins, and that of the prompts is the last: each adds its gradients to
what is there. The sum is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Cut:
    """Where later passes take over from an earlier one: the same values, whose gradients stay here meanwhile."""

    def __init__(self, found: Sequence[Tensor]) -> None:
        """Cut at what a pass found; what has no gradient stays as it is."""
        self.found = list(found)
        self.given = [t.detach().requires_grad_() if t.requires_grad else t for t in found]
        """What later passes use."""

    def backward(self) -> None:
        """Differentiate the earlier pass."""
        pairs = [(f, g.grad) for f, g in zip(self.found, self.given, strict=True) if g is not f and g.grad is not None]
        self.found, self.given = [], []
        if pairs:
            torch.autograd.backward([found for found, _ in pairs], [gradient for _, gradient in pairs])


def in_turn(cut: Cut, parts: Sequence[Tensor]) -> list[Tensor]:
    """What passes behind a cut found, to be differentiated one by one when the gradients of all are there."""
    behind = [part for part in parts if part.requires_grad]
    if not behind:
        return list(parts)
    same = (part.detach().requires_grad_() for part in behind)
    given = iter(_InTurn.apply(cut, behind, *same))  # type: ignore[no-untyped-call]
    return [next(given) if part.requires_grad else part for part in parts]


class _InTurn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cut: Cut, parts: list[Tensor], *same: Tensor) -> tuple[Tensor, ...]:
        ctx.cut, ctx.parts = cut, parts
        return tuple(tensor.view_as(tensor) for tensor in same)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        left = list(gradients)
        while left:
            torch.autograd.backward([ctx.parts.pop()], [left.pop()])
        ctx.cut.backward()
        return (None, None, *(None for _ in gradients))
