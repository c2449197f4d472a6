"""What a batch of groups becomes for the update: responses with their advantages, in whole groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from spark_rl.advantage import group_advantages, is_flat
from spark_rl.config import Config
from spark_rl.model.prefill import Vision
from spark_rl.problem import Group


@dataclass(frozen=True, slots=True)
class Sample:
    """One response with its advantage: what a group becomes for the update."""

    group: int
    """Which group it is of: the responses of one group share one pass over their prompt."""
    prompt_ids: tuple[int, ...]
    vision: Vision = field(repr=False)
    token_ids: tuple[int, ...]
    engine_logprobs: tuple[float, ...]
    advantage: float
    version: int | None = None
    """Which policy sampled it; ``None`` stands for the current one."""
    source: Group | None = field(default=None, repr=False)
    """The group itself, for who prepares its images late."""


def mixed(groups: Sequence[Group]) -> list[Group]:
    """The groups in an order of which every stretch has the tasks in the shares of the whole, so that each minibatch
    does. Groups of one task keep their order.
    """
    counts, seen = Counter(group.problem.task for group in groups), Counter[str]()
    places = []
    for group in groups:
        places.append((seen[group.problem.task] + 0.5) / counts[group.problem.task])
        seen[group.problem.task] += 1
    return [groups[i] for i in sorted(range(len(groups)), key=places.__getitem__)]


def whole_groups(samples: Sequence[Sample], count: int) -> list[range]:
    """At most ``count`` stretches of the samples, each of whole groups and about as many of them."""
    starts = [i for i, sample in enumerate(samples) if i == 0 or sample.group != samples[i - 1].group]
    cuts = [*(starts[k * len(starts) // count] for k in range(count)), len(samples)]
    return [range(a, b) for a, b in pairwise(cuts) if a < b]


def to_samples(groups: Sequence[Group], config: Config) -> tuple[list[Sample], float]:
    """All responses with their advantages, and the share of groups without signal. Empty responses are left out."""
    samples: list[Sample] = []
    flat = 0
    for number, group in enumerate(groups):
        rewards_G = torch.tensor(group.rewards, dtype=torch.float64)
        flat += int(is_flat(rewards_G))
        advantages_G = group_advantages(rewards_G, config.advantage.eps, config.advantage.scale)
        for rollout, advantage in zip(group.rollouts, advantages_G.tolist(), strict=True):
            completion = rollout.completion
            if completion.token_ids:
                samples.append(
                    Sample(
                        number, group.prompt_ids, group.vision, completion.token_ids, completion.logprobs, advantage,
                        completion.version, group,
                    )
                )  # fmt: skip
    return samples, flat / max(1, len(groups))
