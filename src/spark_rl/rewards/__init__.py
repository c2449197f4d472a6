"""Rewards of a user's own, beside the verifier or in its place (Eq. 2; docs/rewards.md). Nothing here imports torch.

:mod:`.base` says what a reward function is, :mod:`.load` finds it, :mod:`.call` calls it so that it can fail without
harm, :mod:`.score` calls all of them for a batch, and :mod:`.grade` makes verdicts of what they and the verifier say.
Without gold answers (docs/without-gold.md) :mod:`.hidden` takes them off problems, :mod:`.votes` finds what most
responses answer, and :mod:`.guard` ends the run when that is wrong too often.
"""

from __future__ import annotations

from spark_rl.rewards.base import Reward, WeightedReward
from spark_rl.rewards.grade import Grader
from spark_rl.rewards.guard import Guard
from spark_rl.rewards.hidden import Hidden, has_gold, is_hidden, with_hidden
from spark_rl.rewards.load import load_function, load_rewards, needs_of_rows
from spark_rl.rewards.score import RewardSet, open_rewards

__all__ = [
    "Grader", "Guard", "Hidden", "Reward", "RewardSet", "WeightedReward", "has_gold", "is_hidden",
    "load_function", "load_rewards", "needs_of_rows", "open_rewards", "with_hidden",
]  # fmt: skip
