"""Eq. 8: which problems a step's groups become, in what shares and how many.

The paper gives no shares; the defaults are those of the authors' release (``recycle.preset: paper``):

- an all-right group gives one pointwise problem (correct), an all-wrong group one pointwise problem (wrong);
- a mixed group gives one pointwise problem with probability ``pointwise_share``, its class picked evenly, and otherwise
  one pairwise problem;
- every group with a wrong response gives one reflection problem; the first half of the batch shows reasoning, the
  second half answers only;
- random subsets are kept when more were made than ``judge_cap`` and ``reflection_cap`` allow.

Departures: "right" and "wrong" mean that the verifier compared the answer (see :mod:`.candidate`); what one prompt of a
parent and task shows is not shown again, so ``per_group`` is an upper bound; ``balance`` is ours; the result is
shuffled, so that a second period smaller than a step's yield still sees the mixture.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

from spark_rl.config import RecycleConfig, Thinking
from spark_rl.problem import Group, Problem, Rollout, Task
from spark_rl.recycle.candidate import FORMS, Form, answered, is_boxless, shown
from spark_rl.recycle.pairwise import pairwise
from spark_rl.recycle.pointwise import pointwise
from spark_rl.recycle.reflection import reflection
from spark_rl.recycle.templates import FIRST_SECOND, Labels, load_templates

Judged = tuple[Problem, Labels]
"""A judge problem and the labels it chooses between."""

Rollouts = TypeVar("Rollouts", bound=tuple[Rollout, ...])
Item = TypeVar("Item")


def recycled(groups: Sequence[Group], config: RecycleConfig, rng: random.Random, thinking: Thinking) -> list[Problem]:
    """See :func:`spark_rl.recycle.recycle`."""
    return _Recycler(config, rng, thinking).problems(groups)


class _Recycler:
    """What :func:`recycled` does, once; remembers what it made of each parent."""

    def __init__(self, config: RecycleConfig, rng: random.Random, thinking: Thinking) -> None:
        self.config = config
        self.rng = rng
        self.templates = load_templates(config.templates, thinking)
        self.made: dict[tuple[str, Task], set[tuple[str, ...]]] = defaultdict(set)

    def problems(self, groups: Sequence[Group]) -> list[Problem]:
        """See :func:`recycled`."""
        config, rng = self.config, self.rng
        groups = [group for group in groups if group.problem.task == "policy"]
        judged = [item for group in groups for item in self.judge(group)]
        kept = _balanced(judged, config.judge_cap, rng) if config.balance else _subset(judged, config.judge_cap, rng)
        problems = [problem for problem, _ in kept]
        if config.reflection:
            problems += _subset(list(self.reflect(groups)), config.reflection_cap, rng)
        rng.shuffle(problems)
        return problems

    def judge(self, group: Group) -> Iterator[Judged]:
        """Up to ``per_group`` pointwise or pairwise problems."""
        config, rng = self.config, self.rng
        right, wrong = answered(group, self.templates.thinking)
        mixed = bool(right and wrong)
        singles = {True: [(rollout,) for rollout in right], False: [(rollout,) for rollout in wrong]}
        pairs = list(product(right, wrong)) if config.pairwise else []
        for _ in range(config.per_group):
            form: Form = rng.choice(FORMS) if config.form == "mixed" else config.form
            if mixed and config.pairwise and not (config.pointwise and rng.random() < config.pointwise_share):
                for pair, k, shows in self._draw(group, "pairwise", pairs, form):
                    yield pairwise(group, *pair, form=shows, templates=self.templates, rng=rng, k=k), FIRST_SECOND
            elif config.pointwise:
                side = rng.random() < 0.5 if mixed else bool(right)
                for (rollout,), k, shows in self._draw(group, "pointwise", singles[side] or singles[not side], form):
                    yield pointwise(group, rollout, form=shows, templates=self.templates, rng=rng, k=k)

    def reflect(self, groups: Sequence[Group]) -> Iterator[Problem]:
        """Up to ``per_group`` reflection problems from each group with a wrong response."""
        wrongs = [(group, [(rollout,) for rollout in answered(group, self.templates.thinking)[1]]) for group in groups]
        turns = [(group, left) for group, left in wrongs for _ in range(min(self.config.per_group, len(left)))]
        for turn, (group, left) in enumerate(turns):
            half: Form = "cot" if 2 * turn < len(turns) else "answer"
            form: Form = half if self.config.form == "mixed" else self.config.form
            for (rollout,), k, shows in self._draw(group, "reflection", left, form):
                yield reflection(group, rollout, form=shows, templates=self.templates, rng=self.rng, k=k)

    def _draw(self, group: Group, task: Task, left: list[Rollouts], form: Form) -> Iterator[tuple[Rollouts, int, Form]]:
        """At most one of ``left``, removed from it, that shows something new, its number for the id, and the form."""
        made = self.made[group.problem.id, task]
        while left:
            drawn = left.pop(self.rng.randrange(len(left)))
            shows: Form = "cot" if any(map(is_boxless, drawn)) else form
            texts = tuple("".join(shown(rollout.text, shows, self.templates.thinking).split()) for rollout in drawn)
            if texts not in made and len(set(texts)) == len(texts):
                made.add(texts)
                yield drawn, len(made) - 1, shows
                return


def _subset(items: list[Item], cap: int, rng: random.Random) -> list[Item]:
    return items if len(items) <= cap else rng.sample(items, cap)


def _balanced(judged: list[Judged], cap: int, rng: random.Random) -> list[Judged]:
    """As many of the first label as of the second for each pair of labels, hence an even number, at most ``cap``.

    Pointwise templates whose A means correct and those whose A means wrong are balanced apart, so that neither the
    class nor the letter can be guessed.
    """
    sides: dict[tuple[Task, Labels], tuple[list[Judged], list[Judged]]] = defaultdict(lambda: ([], []))
    for item in judged:
        problem, labels = item
        sides[problem.task, labels][problem.answer != labels.correct].append(item)
    couples: list[tuple[Judged, Judged]] = []
    for first, second in sides.values():
        rng.shuffle(first)
        rng.shuffle(second)
        couples += zip(first, second, strict=False)
    return [item for couple in _subset(couples, cap // 2, rng) for item in couple]
