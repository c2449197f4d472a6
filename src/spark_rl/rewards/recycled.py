"""The verifier as a reward function of TRL, verl and OpenRLHF, for data sets of ``spark-rl recycle`` (Eq. 2).

TRL: ``reward_funcs=[spark_rl.rewards.recycled.verified]``. verl: ``custom_reward_function.path=<this file>``, which
calls ``compute_score``. OpenRLHF: ``--remote_rm_url <this file>``, which calls ``reward_func``. All give 1 to a
response whose boxed answer or verdict is the label, and 0 to any other. docs/recycling.md has the commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_rl.problem import Kind
from spark_rl.verify import verify

_VERDICTS = ("Yes", "No", "A", "B")


def verified(
    completions: Sequence[Any],
    answer: Sequence[str],
    kind: Sequence[Kind],
    alternatives: Sequence[Sequence[str]],
    choices: Sequence[Sequence[str]],
    **_: Any,
) -> list[float]:
    """A reward function of TRL's ``GRPOTrainer``, which hands the columns of the rows over by name.

    Args:
        completions: chats of one turn, or texts.
        answer, kind, alternatives, choices: columns of the data set.
    """
    texts = [one if isinstance(one, str) else str(one[0]["content"]) for one in completions]
    return [
        verify(text, [gold, *others], of, tuple(options)).reward
        for text, gold, of, others, options in zip(texts, answer, kind, alternatives, choices, strict=True)
    ]


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> float:
    """verl's reward function: one response."""
    extra = extra_info or {}
    golds = [ground_truth, *map(str, _items(extra.get("alternatives")))]
    return verify(solution_str, golds, extra.get("kind") or _kind(ground_truth), _items(extra.get("choices"))).reward


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any) -> dict[str, Any]:
    """OpenRLHF's reward function: ``queries`` are prompts with their responses. It is told no column but the label, so
    other right answers and options of a reflection problem's parent are unknown to it."""
    import torch

    texts = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts, strict=True)]
    rewards = torch.tensor([
        verify(text, label, _kind(label)).reward for text, label in zip(texts, labels, strict=True)
    ])  # fmt: skip
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"accuracy": rewards}}


def _kind(label: str) -> Kind:
    return "verdict" if label in _VERDICTS else "math"


def _items(values: Any) -> tuple[Any, ...]:
    """A list, or an array of numpy, as verl hands it over."""
    return () if values is None else tuple(values)
