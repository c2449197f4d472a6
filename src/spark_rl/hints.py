"""What a person should look at in a run, told when it shows: one line each, once, with the setting that helps.

A pure state machine over the metrics of steps. The bounds are far from what a healthy run does: the embedded default
gives no hint with any seed that was tried (``tests/test_hints.py`` holds one of its logs).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

WINDOW = 10
"""Steps in a row that must show something before it is said."""
COLLAPSED = 0.02
"""Share of the rarer verdict below which a judge always says the same ..."""
BALANCED = 0.2
"""... while the rarer label has at least this share."""
CLIPPED = 0.5
"""Share of cut responses from which length is at its limit."""
ENTROPY = 0.01
"""Nats a token below which sampling always gives the same."""
ENGINE_KL = 0.05
"""Nats a token from which engine and learner are two policies; rounding in bfloat16 makes about 0.001."""

Record = Mapping[str, Any]
_FAILED = "reward_failed/"
_VERDICTS = {"yes": ("Yes", "No"), "a": ("A", "B"), "letter": ("A", "B")}


class Hints:
    """Hears the metrics of each step and says what is new."""

    def __init__(self) -> None:
        self._recent: deque[Record] = deque(maxlen=WINDOW)
        self._judged: deque[Record] = deque(maxlen=WINDOW)
        """The last steps that asked the judge, which may not be all (``recycle.ready``)."""
        self._said: set[str] = set()

    def hear(self, metrics: Record) -> list[str]:
        """The hints that this step gives reason for, without those given before."""
        self._recent.append(metrics)
        found = list(_at_once(metrics))
        if any(key.startswith("verdict/") for key in metrics):
            self._judged.append(metrics)
        heard = [*((rule, self._recent) for rule in RULES), (_collapsed_verdict, self._judged)]
        found += [(rule.__name__, hint) for rule, steps in heard
                  if len(steps) == WINDOW and (hint := rule(list(steps))) is not None]  # fmt: skip
        new = {name: hint for name, hint in found if name not in self._said}
        self._said |= new.keys()
        return list(new.values())


def _at_once(metrics: Record) -> Iterator[tuple[str, str]]:
    """(what, hint) for hints that one step is enough for: reward functions that failed."""
    for key, count in metrics.items():
        if key.startswith(_FAILED) and count:
            name = key.removeprefix(_FAILED)
            yield key, (f"the reward function {name} failed on {count:.0%} of the responses of step "
                        f"{metrics['step']}: mend it, or raise reward.timeout if it is slow")  # fmt: skip


def _none_right(recent: list[Record]) -> str | None:
    rewards = [value for metrics in recent if (value := metrics.get("reward/policy")) is not None]
    if not rewards or min(rewards) <= 0 or any(metrics.get("status/correct", 1) for metrics in recent):
        return None
    mean = sum(rewards) / len(rewards)
    return (f"responses earn {mean:.2f} on average and none counts as right in {len(recent)} steps, so all are "
            "recycled as wrong: lower reward.threshold, or give reward.verifier a weight")  # fmt: skip


def _no_reward(recent: list[Record]) -> str | None:
    rewards = [value for metrics in recent for key, value in metrics.items() if key.startswith("reward/")]
    if not rewards or any(rewards):
        return None
    if _mean(recent, "status/no_answer") > 0.5:
        return (f"no response has earned a reward in {WINDOW} steps, most hold no \\boxed{{}} answer: read some in "
                "rollouts.jsonl, then have chat.policy say how to answer, or raise rollout.max_new_tokens if they are "
                "cut")  # fmt: skip
    return (f"no response has earned a reward in {WINDOW} steps: read some in rollouts.jsonl, then take easier "
            "problems (data.train, data.ranges) or a model that solves some of these (model.path)")  # fmt: skip


def _all_flat(recent: list[Record]) -> str | None:
    shares = [value for metrics in recent for key, value in metrics.items() if key in {"flat", "flat/recycled"}]
    if len(shares) < WINDOW or min(shares) < 1 or _mean(recent, "reward/policy") == 0:
        return None
    return (f"in every group of {WINDOW} steps all responses earned the same, so nothing is learned: take "
            "problems that are sometimes solved (data.ranges), or raise rollout.samples")  # fmt: skip


def _collapsed_verdict(recent: list[Record]) -> str | None:
    for name, (first, second) in _VERDICTS.items():
        seen = [m for m in recent if f"verdict/{name}" in m and f"label/{name}" in m]
        if len(seen) < WINDOW or not BALANCED <= _mean(seen, f"label/{name}") <= 1 - BALANCED:
            continue
        share = _mean(seen, f"verdict/{name}")
        if share <= COLLAPSED or share >= 1 - COLLAPSED:
            return (f"the judge has said {first if share > 0.5 else second} to almost all for {WINDOW} steps, but "
                    f"{100 * _mean(seen, f'label/{name}'):.0f}% of the labels are {first}: balance what is recycled "
                    "(recycle.preset=balanced), or lower optimiser.lr")  # fmt: skip
    return None


def _at_the_limit(recent: list[Record]) -> str | None:
    if min(metrics.get("clipped", 0.0) for metrics in recent) <= CLIPPED:
        return None
    share = 100 * _mean(recent, "clipped")
    return (f"{share:.0f}% of the responses of {WINDOW} steps were cut at the limit, most of them before an answer: "
            "raise rollout.max_new_tokens, or name what ends a response in chat.stop")  # fmt: skip


def _no_entropy(recent: list[Record]) -> str | None:
    if not all("entropy" in m for m in recent) or max(m["entropy"] for m in recent) >= ENTROPY:
        return None
    return (f"the policy always gives the same responses (entropy below {ENTROPY} nats a token for {WINDOW} steps), so "
            "it explores no more: lower optimiser.lr, raise objective.kl, or stop here")  # fmt: skip


def _two_policies(recent: list[Record]) -> str | None:
    if min(metrics.get("engine_kl", 0.0) for metrics in recent) <= ENGINE_KL:
        return None
    apart = _mean(recent, "engine_kl")
    return (f"engine and learner disagree by {apart:.2g} nats a token (engine_kl): the samples are another policy's; "
            "set objective.importance_cap=2, and engine and model to one number format (model.dtype)")  # fmt: skip


RULES: tuple[Callable[[list[Record]], str | None], ...] = (
    _no_reward, _none_right, _all_flat, _at_the_limit, _no_entropy, _two_policies,
)  # fmt: skip


def _mean(records: list[Record], key: str) -> float:
    values = [float(record[key]) for record in records if record.get(key) is not None]
    return sum(values) / len(values) if values else 0.0
