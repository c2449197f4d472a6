"""The answer that most responses of a group give: a pseudo gold, before anything has judged it.

Test-time majority voting as a reward is TTRL (https://arxiv.org/abs/2504.16084); here the votes only propose
(:mod:`spark_rl.selfreward`). Votes are counted by the verifier: answers that it calls equal are one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from spark_rl.problem import Group
from spark_rl.rewards.hidden import is_gold
from spark_rl.verify import Verifier
from spark_rl.verify.pool import Finish


def elect(groups: Sequence[Group], verifier: Verifier) -> list[str | None]:
    """For each group the answer that most of its responses box; ``None`` where none can be read."""
    with verifier.grading() as begin:
        begun: list[dict[tuple[str, str], Finish]] = []
        for group in groups:
            problem, given = group.problem, _given(group)
            golds = [text for text in given if is_gold(text, problem.kind, problem.choices)]
            begun.append({
                (text, gold): begin((rf"\boxed{{{text}}}", gold, problem.kind, problem.choices))
                for text in given for gold in golds
            })  # fmt: skip
        equal = [{pair: finish().status == "correct" for pair, finish in pairs.items()} for pairs in begun]
    return [majority(_given(group), pairs) for group, pairs in zip(groups, equal, strict=True)]


def majority(given: Mapping[str, int], equal: Mapping[tuple[str, str], bool]) -> str | None:
    """The text with most votes; of equal texts the one most often written, then the one written first.

    ``majority({"1/2": 1, "0.5": 2, "3": 2}, equal)`` is ``0.5``, with three votes, if ``equal`` says so.

    Args:
        given: text -> responses that box it, in the order in which the texts came.
        equal: (text, candidate) -> whether the verifier calls the text right with the candidate as the gold answer.
    """
    candidates = dict.fromkeys(candidate for _, candidate in equal)
    votes = {
        candidate: sum(count for text, count in given.items() if equal.get((text, candidate)))
        for candidate in candidates
    }
    best = max(votes, key=lambda candidate: (votes[candidate], given[candidate]), default=None)
    return best if best is not None and votes[best] else None


def _given(group: Group) -> Counter[str]:
    """The boxed texts of a group's responses, and how many have each."""
    boxed = (rollout.verdict.extracted for rollout in group.rollouts)
    return Counter(text for text in boxed if text is not None and text.strip(" \t\r\n$"))
