"""Stage 1 of RM-based RL: responses of the base to training problems, graded once, as pairs of a right and a wrong one.

Departure from the paper: its RM-based RL has "large-scale human or teacher annotations" (Sec. 4.5). Here the verifier
labels the pairs, so that both arms learn from the same knowledge and the reward model reads the policy's own responses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from spark_rl.problem import Group
from spark_rl.seeds import stream_seed


@dataclass(frozen=True, slots=True)
class Pair:
    r"""Two responses to one question: ``Pair("7*_-4=17", right=r"work ...\\boxed{3}", wrong=r"\\boxed{8}")``."""

    question: str
    right: str
    wrong: str


def pairs_of(groups: Sequence[Group], seed: int) -> list[Pair]:
    """Disjoint pairs of right and wrong responses of each group, as many as its rarer kind has, in random order.

    Responses that are neither, because they have no answer that can be read, are left out.
    """
    rng = random.Random(stream_seed(seed, "preferences"))
    pairs = []
    for group in groups:
        right, wrong = (
            [rollout.text for rollout in group.rollouts if rollout.verdict.status == status]
            for status in ("correct", "wrong")
        )
        rng.shuffle(right)
        rng.shuffle(wrong)
        pairs += [Pair(group.problem.question, a, b) for a, b in zip(right, wrong, strict=False)]
    rng.shuffle(pairs)
    return pairs
