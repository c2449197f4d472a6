"""``recycle.credit: original``: a right reflection is trained as an answer to its parent's own prompt as well.

From Critique-GRPO (https://arxiv.org/abs/2506.03106), where refined responses join the group of the initial ones, as
off-policy samples of the original question. What is done here, and why:

- Only right reflections are credited. What a wrong one did wrong, it did with another prompt in view.
- **Advantage.** They join, as extra responses, the group of the parent's own rollouts, whose rewards the reflection
  took along: Eq. 3 is computed over all of them, so that the one right answer of a group that failed counts much, and
  another one of a group that mostly succeeds little. The parent's rollouts, which had their update, are not trained
  again.
- **Weight.** The tokens were sampled with the first attempt in view, so each is weighed by min(cap, pi(token | original
  prompt) / pi(token | its own prompt)): the current policy's probability over the engine's, truncated at
  ``objective.importance_cap``, or at 2 where that is null. The clipped ratio of Eq. 4 compares the original prompt with
  itself, before and after an update, as for any other response. The paper has no such weight: it shapes a token's
  probability p under the original prompt to p / (p + gamma), which favours unlikely tokens. Here a token that only the
  reflection prompt makes likely, such as a remark on the attempt before, hardly counts.

A weight a token, without the weights of the tokens before it, is the first-order correction that PPO makes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from spark_rl.chat import Prompt
from spark_rl.problem import Group, Problem


def credited(groups: Iterable[Group], encode: Callable[[Problem], Prompt], longest: int) -> Iterator[Group]:
    """For each group of reflections that is to be credited and has a right one, the group of the right ones under the
    parent's prompt, if that has ``longest`` tokens at most.
    """
    for group in groups:
        right = tuple(rollout for rollout in group.rollouts if rollout.verdict.status == "correct")
        if not (group.problem.siblings and right):
            continue
        parent = replace(
            group.problem, id=group.problem.parent or "", task="policy", prompt=None, parent=None, siblings=()
        )
        prompt = encode(parent)
        if len(prompt.token_ids) <= longest:
            yield Group(parent, right, tuple(prompt.token_ids), prompt.vision, group.problem.siblings)
