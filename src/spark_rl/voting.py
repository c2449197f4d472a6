"""Which of several answers to one problem is given: by majority, by the model's own verdicts, or by both.

=========== =====================================================================================================
majority    the answer that most samples agree on (self-consistency, Wang et al. 2022, arXiv 2203.11171)
verdict     the answer that the model itself is surest of, by P(Yes) of its judgement: best-of-n
weighted    the answer whose samples have most P(Yes) together (Cobbe et al. 2021, arXiv 2110.14168, with a verifier
            of its own)
=========== =====================================================================================================

Answers that cannot be read have no vote. Of equals the earliest is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

Vote = Literal["majority", "verdict", "weighted"]

VOTES: tuple[Vote, ...] = ("majority", "verdict", "weighted")


def classes(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> list[int | None]:
    """Which answers are the same: for each the place of the first that it equals, ``None`` for one that is no answer.

    ``classes(["1/2", "0.5", None, "2"], same)`` is ``[0, 0, None, 3]``. ``same`` is asked about each two different
    texts once at most.
    """
    known: dict[str, int] = {}
    firsts: dict[int, str] = {}
    found: list[int | None] = []
    for place, answer in enumerate(answers):
        if answer is None:
            found.append(None)
            continue
        if answer not in known:
            known[answer] = next((first for first, text in firsts.items() if same(text, answer)), place)
            firsts.setdefault(known[answer], answer)
        found.append(known[answer])
    return found


def elected(members: Sequence[int | None], chances: Sequence[float], vote: Vote) -> int:
    """The place of the answer that is given.

    Args:
        members: what :func:`classes` made of the answers.
        chances: P(Yes) of each answer; not looked at by a ``majority``.
        vote: how they are counted.
    """
    places = [place for place, member in enumerate(members) if member is not None]
    if not places:
        return 0
    if vote == "verdict":
        return max(places, key=lambda place: (chances[place], -place))
    votes: dict[int, list[float]] = {}
    for place in places:
        first = members[place]
        assert first is not None, "only answers are counted"
        votes.setdefault(first, []).append(1.0 if vote == "majority" else chances[place])
    return max(votes, key=lambda first: (math.fsum(votes[first]), len(votes[first]), -first))
