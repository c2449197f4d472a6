"""Which rank computes what: every rank makes as many calls of the model as the others, or they wait for each other
forever.

A plan is a function of the lengths alone, so each rank makes the same one without asking. Micro-batches are as even as
whole responses allow, and those that run at the same time are of about the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from spark_rl.model.score import Parts, by_length, pack_by_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch of one rank."""

    rows: tuple[int, ...]
    """Which samples; none for a rank that only keeps the others company."""
    parts: Parts | None = None
    """Places in ``rows`` of the responses that go through the model together, the same number on each rank; a place
    behind the last row is a response without tokens. ``None`` leaves the parts to the scorer."""


def plan_ranks(
    prompts: Sequence[Hashable],
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    budget: int,
    ranks: int,
    seen: float = 0.0,
) -> list[list[Batch]]:
    """The micro-batches of each rank, as many on each, and each with as many parts as those of the others at its time.

    Args:
        prompts: what tells the prompts apart, one entry a response.
        prompt_lengths: (B,) tokens of each response's prompt.
        lengths: (B,) tokens of each response.
        budget: tokens of a micro-batch at most, see :func:`pack_by_tokens`.
        ranks: how many.
        seen: what a prompt's token costs again for each response.
    """

    def cost(rows: Sequence[int]) -> float:
        widest = max(prompt_lengths[i] for i in rows)
        return (len({prompts[i] for i in rows}) + seen * len(rows)) * widest + sum(lengths[i] for i in rows)

    def pack(budget: int) -> list[list[int]]:
        return pack_by_tokens(prompts, prompt_lengths, lengths, budget, seen)

    packed = _evenly(pack, budget, ranks)
    packed.sort(key=lambda rows: (-cost(rows), rows))
    plan: list[list[Batch]] = [[] for _ in range(ranks)]
    for begin in range(0, len(packed), ranks):
        together = [tuple(rows) for rows in packed[begin : begin + ranks]]
        together += [()] * (ranks - len(together))
        parts = [by_length([lengths[i] for i in rows]) for rows in together]
        calls = max(1, *map(len, parts))
        order = range(ranks) if begin // ranks % 2 == 0 else range(ranks - 1, -1, -1)
        for rank, rows, own in zip(order, together, parts, strict=True):
            plan[rank].append(Batch(rows, _in(calls, own, len(rows))))
    return plan


def _evenly(pack: Callable[[int], list[list[int]]], budget: int, ranks: int) -> list[list[int]]:
    """As many micro-batches as ``budget`` asks for, or a few more to give each rank one, under the least budget that
    makes no more of them.
    """
    packed = pack(budget)
    most = -(-len(packed) // ranks) * ranks
    low, high = 1, budget
    while high - low > max(1, high // 64):
        middle = (low + high) // 2
        tried = pack(middle)
        if len(tried) <= most:
            packed, high = tried, middle
        else:
            low = middle
    return packed


def _in(calls: int, parts: Sequence[Sequence[int]], rows: int) -> Parts:
    """As many parts as ``calls``: the longest are divided, and where each is one response, empty ones are added."""
    found = [tuple(part) for part in parts]
    while len(found) < calls:
        longest = max(range(len(found)), key=lambda i: (len(found[i]), -i), default=None)
        if longest is None or len(found[longest]) == 1:
            found.append((rows,))
            rows += 1
        else:
            part = found[longest]
            found[longest : longest + 1] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return tuple(found)
