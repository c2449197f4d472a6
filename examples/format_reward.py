r"""A format reward beside the verifier: a response should work before it answers, and end with the answer.

    spark-rl train reward.verifier=1 'reward.function=[{path: examples/format_reward.py:works_first, weight: 0.2}]'

The reward is the weighted mean, (1 * verifier + 0.2 * format) / 1.2; what is right or wrong when it is recycled is
still for the verifier to say. docs/rewards.md has the whole convention.
"""

from __future__ import annotations

import re

SHAPE = re.compile(r"\s*\S.*\\boxed\{[^{}]*\}[\s.$]*", re.DOTALL)


def works_first(completions: list[str]) -> list[float]:
    r"""1 for text, then one ``\boxed{}`` at the very end; half of it for a box anywhere; else 0."""
    return [
        1.0 if SHAPE.fullmatch(text) and text.count(r"\boxed{") == 1 else 0.5 if r"\boxed{" in text else 0.0
        for text in completions
    ]
