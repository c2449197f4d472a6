"""What a batch of groups looks like in numbers: the metrics of a step and the rollouts worth keeping to read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from spark_rl.chat import policy_prompt
from spark_rl.config import ChatConfig
from spark_rl.problem import STATUSES, TASKS, Group, Problem, Rollout, Task
from spark_rl.report.thumbnails import thumbnails

Metrics = dict[str, Any]


def batch_metrics(groups: Sequence[Group]) -> Metrics:
    """Rewards by task, statuses, label and verdict balance, lengths, entropy, and tokens and images of one step.

    What comes of a pseudo gold has names of its own: ``reward/pseudo_policy``, ``status/pseudo_correct``. The shares of
    all statuses, those too, are 1 together.

    ``entropy`` is the mean negative log-probability of the sampled tokens: an unbiased estimate of the sampling
    distribution's entropy per token, in nats.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if not rollouts:
        return {"tokens": 0}
    metrics: Metrics = {}
    for task in TASKS:
        asked = [group for group in groups if group.problem.task == task]
        for name, some in ((task, [g for g in asked if not g.problem.pseudo]),
                           (f"pseudo_{task}", [g for g in asked if g.problem.pseudo])):  # fmt: skip
            if rewards := [reward for group in some for reward in group.rewards]:
                metrics[f"reward/{name}"] = sum(rewards) / len(rewards)
        if asked and task != "policy":
            metrics[f"recycled/{task}"] = len(asked)
    statuses = Counter((g.problem.pseudo, rollout.verdict.status) for g in groups for rollout in g.rollouts)
    metrics |= {f"status/{status}": statuses[False, status] / len(rollouts) for status in STATUSES}
    metrics |= {f"status/pseudo_{status}": n / len(rollouts) for (pseudo, status), n in statuses.items() if pseudo}
    metrics |= _own_rewards(rollouts)
    metrics |= _balance(groups, "pointwise", ("Yes", "No"), "yes")
    metrics |= _balance(groups, "pointwise", ("A", "B"), "letter") | _balance(groups, "pairwise", ("A", "B"), "a")
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    tokens = sum(lengths)
    images = sum(len(group.problem.images) for group in groups)
    if images:
        metrics["images"] = images
    surprise = -sum(sum(rollout.completion.logprobs) for rollout in rollouts)
    return metrics | {
        "tokens": tokens,
        "prompt_tokens": sum(len(group.prompt_ids) for group in groups),
        "entropy": surprise / max(1, tokens),
        "length/mean": tokens / len(rollouts),
        "length/max": max(lengths),
        "clipped": sum(rollout.completion.finish == "length" for rollout in rollouts) / len(rollouts),
    }


def _own_rewards(rollouts: Sequence[Rollout]) -> Metrics:
    """For each reward function of the user's the mean of what it gave, and the share of responses it failed on."""
    metrics: Metrics = {}
    for name in dict.fromkeys(name for rollout in rollouts for name in rollout.verdict.values):
        asked = [rollout.verdict for rollout in rollouts if name in rollout.verdict.values]
        given = [value for verdict in asked if (value := verdict.values[name]) is not None]
        if given:
            metrics[f"reward_function/{name}"] = sum(given) / len(given)
        metrics[f"reward_failed/{name}"] = sum(name in verdict.failed for verdict in asked) / len(asked)
    return metrics


def left_out_metrics(too_long: Sequence[Problem], dropped: int) -> Metrics:
    """What a step left out: ``skipped`` problems that were too long to ask, by task, and recycled ones that ``dropped``
    out of the full pool.
    """
    tasks = Counter(problem.task for problem in too_long)
    by_task = {f"skipped/{task}": tasks[task] for task in TASKS}
    return {"skipped": len(too_long), **by_task, "dropped": dropped}


def _balance(groups: Sequence[Group], task: Task, labels: tuple[str, str], name: str) -> Metrics:
    """Share of the first label among the problems of a task with these labels, and among the readable verdicts on them;
    and the share of verdicts that can't be read.
    """
    asked = [group for group in groups if group.problem.task == task and group.problem.answer in labels]
    if not asked:
        return {}
    given: Counter[str] = Counter()
    for group in asked:
        truth = group.problem.answer
        other = labels[1 - labels.index(truth)]
        for rollout in group.rollouts:
            given[{"correct": truth, "wrong": other}.get(rollout.verdict.status, "unreadable")] += 1
    readable = given[labels[0]] + given[labels[1]]
    return {
        f"label/{name}": sum(group.problem.answer == labels[0] for group in asked) / len(asked),
        **({f"verdict/{name}": given[labels[0]] / readable} if readable else {}),
        f"unreadable/{name}": given["unreadable"] / given.total(),
    }


def rollout_records(groups: Sequence[Group], step: int, count: int, chat: ChatConfig) -> Iterator[dict[str, Any]]:
    """Whole groups for ``rollouts.jsonl``, one record each, images as thumbnails: ``count`` problems of the data with
    all that was recycled from them, and of each task that the step asked at least one.

    ``response``, ``reward``, ``status``, ``extracted`` and ``tokens`` are those of the first rollout; ``others`` holds
    the same of its siblings, in sampling order; ``parent`` is the id of the problem that a recycled one was made from.
    ``question``, ``kind``, ``choices`` and ``alternatives`` stand where they are not what the prompt, mathematics and
    the label say: what reads the file again (:mod:`spark_rl.recycle.given`) makes the same problem of it.

    Problems of which most kinds of tasks were made come first, then an order of ids that has nothing to do with that of
    the data: what waited in the pool for its step is kept where its parent was. It follows from the groups alone, so a
    resumed run keeps the same.
    """
    for group in _kept(groups, count):
        problem = group.problem
        first, *others = (_response(rollout) for rollout in group.rollouts)
        prompt, small = policy_prompt(problem, chat), thumbnails(problem.images)
        missing = len(problem.images) - len(small)
        yield {
            "step": step, "task": problem.task, "problem": problem.id, "prompt": prompt,
            "response": first.pop("response"), "label": problem.answer, **first,
            **(_asked(problem, prompt) if problem.task == "policy" else {}),
            **({"parent": problem.parent} if problem.parent is not None else {}),
            **({"pseudo": True} if problem.pseudo else {}),
            **({"images": small} if problem.images else {}),
            **({"images_missing": missing} if missing else {}),
            "others": others,
        }  # fmt: skip


def _asked(problem: Problem, prompt: str) -> dict[str, Any]:
    """What a problem of the data has beside its prompt and its first gold answer."""
    return {
        **({"question": problem.question} if problem.question != prompt else {}),
        **({"kind": problem.kind} if problem.kind != "math" else {}),
        **({"choices": list(problem.choices)} if problem.choices else {}),
        **({"alternatives": list(problem.alternatives)} if problem.alternatives else {}),
    }


def _kept(groups: Sequence[Group], count: int) -> list[Group]:
    """The groups worth reading, in their order."""
    if count < 1:
        return []
    made: dict[str, set[str]] = {}
    for group in groups:
        if group.problem.parent is not None:
            made.setdefault(group.problem.parent, set()).add(group.problem.task)
    asked = {group.problem.id for group in groups if group.problem.task == "policy"}
    roots = sorted(asked, key=lambda name: (-len(made.get(name, ())), _shuffled(name)))
    waited = sorted(made.keys() - asked, key=_shuffled)
    shown = {*roots[:count], *waited[:count]}
    for task in TASKS[1:]:
        parents = [group.problem.parent for group in groups if group.problem.task == task]
        known = sorted((name for name in parents if name is not None), key=_shuffled)
        if known and shown.isdisjoint(known):
            shown.add(known[0])
    return [group for group in groups if (group.problem.parent or group.problem.id) in shown]


def _shuffled(name: str) -> bytes:
    """Where an id stands in an order that is the same in every step and every session."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _response(rollout: Rollout) -> dict[str, Any]:
    """One response of a group and what the verifier said of it."""
    values = dict(rollout.verdict.values)
    return {
        "response": rollout.text, "reward": rollout.reward, "status": rollout.verdict.status,
        "extracted": rollout.verdict.extracted, "tokens": rollout.completion.tokens,
        **({"values": values} if values else {}),
    }  # fmt: skip
