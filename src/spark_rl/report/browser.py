"""The browser of rollouts: a problem, its whole group, the judge, pair and reflection problems made of it, and what
came of those, from early, middle and late steps.

The page carries the records as one JSON block and shows them by ``browser.js`` beside this file. What is in the block
comes from models and data: ``<``, ``>`` and ``&`` are escaped in it, the script only ever sets text, and the page's
security policy lets no other script run. Texts are cut, and steps chosen, so that the page stays of bounded size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from spark_rl.problem import STATUSES, TASKS
from spark_rl.report.markup import text, visible
from spark_rl.report.metrics import finite
from spark_rl.report.thumbnails import recorded_thumbnails

BUDGET = 700_000
"""Characters of all records of a page."""
_LONGEST = 4_000
"""Characters of one prompt or response."""
_MOST_RESPONSES = 16
_STAGES = ("early", "middle", "late")
_T = TypeVar("_T")


@dataclass(slots=True)
class Family:
    """A problem of the data as it was asked in one step, and all that was made of it."""

    problem: str
    step: int
    records: list[dict[str, Any]] = field(default_factory=list)
    """The group of the problem first, then the recycled ones; without the first if it was not kept."""


def families(rollouts: Sequence[Mapping[str, Any]]) -> list[Family]:
    """The records of ``rollouts.jsonl``, each recycled one with the problem that it was made of, by step.

    A problem may be asked in several steps, and what is made of it may wait in the pool: of the groups of its parent up
    to its step the latest one with a response that its prompt shows is taken. Files of before, with one response a
    record and without ``parent``, are read too.
    """
    found: list[Family] = []
    asked: dict[str, list[Family]] = {}
    for record in rollouts:
        if record.get("task", "policy") == "policy":
            name = str(record.get("problem"))
            found.append(Family(name, record["step"], [_plain(record)]))
            asked.setdefault(name, []).append(found[-1])
    orphans: dict[tuple[str, int], Family] = {}
    for record in rollouts:
        if record.get("task", "policy") == "policy":
            continue
        child, name = _plain(record), _parent(record)
        before = [one for one in asked.get(name, ()) if one.step <= record["step"]]
        family = next((one for one in reversed(before) if _about(record, one)), before[-1] if before else None)
        if family is None:
            key = (name, record["step"])
            if key not in orphans:
                orphans[key] = Family(name, record["step"])
                found.append(orphans[key])
            family = orphans[key]
        child["about"] = _about(record, family)
        if any(one["task"] == "policy" and one["images"] == child["images"] for one in family.records[:1]):
            child["images"] = []  # they stand with its parent
        family.records.append(child)
    return sorted(found, key=lambda one: (one.step, -len(one.records)))


def browser_section(rollouts: Sequence[Mapping[str, Any]], steps: int) -> str:
    """The section of a page; its script is :func:`browser_script`. ``steps`` is how many the run has or will have."""
    if not rollouts:
        return ""
    shown = _chosen(families(rollouts))
    last = max(steps, *(one.step for one in shown), 1)
    content = [
        {
            "problem": visible(one.problem, 120), "step": one.step,
            "stage": _STAGES[min(2, 3 * max(0, one.step - 1) // last)], "records": one.records,
        }
        for one in shown
    ]  # fmt: skip
    at = sorted({one.step for one in shown})
    records = [record for one in shown for record in one.records]
    tasks = dict.fromkeys([*TASKS, *(record["task"] for record in records)])
    given = {one["status"] for record in records for one in record["responses"]}
    statuses = [one for one in dict.fromkeys([*STATUSES, *sorted(given)]) if one in given]
    stages = [("", "all"), *((one, f"{one} third") for one in _STAGES)]
    some = {record["task"] for record in records}
    choose = "".join((
        _select("task", "task", [("", "all tasks"), *((task, task) for task in tasks if task in some)]),
        _select("status", "a response is", [("", "anything"), *((one, one.replace("_", " ")) for one in statuses)]),
        _select("step", "step", [*stages, *((str(n), f"{n:,}") for n in at)]),
        '<label>search <input type="search" name="search" placeholder="text, label or id" maxlength="200"></label>',
    ))  # fmt: skip
    when = f"step {at[0]:,}" if len(at) == 1 else f"{len(at):,} steps from {at[0]:,} to {at[-1]:,}"
    return (
        '<section id="samples"><h2>Rollouts</h2><p class="lead">Problem → its whole group of answers → the judge, pair '
        f"and reflection problems made of it → their verdicts. {len(shown):,} problems of {when}, as the model wrote "
        'them; rollouts.jsonl has all.</p><noscript><p class="warn">The browser of rollouts needs JavaScript, which is '
        'switched off here; rollouts.jsonl holds what it shows.</p></noscript><div id="browser" hidden>'
        f'<form class="filters" autocomplete="off">{choose}</form><p class="count note" role="status"></p>'
        '<div class="families"></div><p class="pager"><button type="button">← back</button> '
        f'<button type="button">next →</button></p></div>{_block(content)}</section>'
    )


def browser_script() -> str:
    """What shows the block, as it stands in the page."""
    return Path(__file__).with_name("browser.js").read_text(encoding="utf-8")


def _block(content: Any) -> str:
    """JSON that no HTML parser can take for anything but text."""
    written = json.dumps({"families": content}, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="rollouts">{written}</script>'


def _select(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
    entries = "".join(f'<option value="{text(value, 80)}">{text(shown, 80)}</option>' for value, shown in options)
    return f'<label>{label} <select name="{name}">{entries}</select></label>'


def _parent(record: Mapping[str, Any]) -> str:
    """The id of what a recycled problem was made from; ids extend it, in files without ``parent``."""
    parent = record.get("parent")
    return str(parent) if parent is not None else str(record.get("problem")).rpartition("/")[0]


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a record, whatever the file holds."""
    others = record.get("others")
    whole = [record, *(one for one in (others if isinstance(others, list) else []) if isinstance(one, Mapping))]
    tokens = [finite(one.get("tokens")) for one in whole]
    return {
        "task": visible(str(record.get("task", "policy")), 40), "step": record["step"],
        "problem": visible(record.get("problem"), 120), "prompt": visible(record.get("prompt"), _LONGEST),
        "label": visible(record.get("label"), 120), "images": recorded_thumbnails(record.get("images")), "about": [],
        "more": max(0, len(whole) - _MOST_RESPONSES),
        "responses": [
            {
                "text": visible(one.get("response"), _LONGEST), "status": visible(one.get("status") or "", 40),
                "reward": finite(one.get("reward")), "tokens": None if count is None else round(count),
                "extracted": None if one.get("extracted") is None else visible(one.get("extracted"), 120),
            }
            for one, count in zip(whole[:_MOST_RESPONSES], tokens, strict=False)
        ],
    }  # fmt: skip


def _about(record: Mapping[str, Any], family: Family) -> list[int]:
    """The answers of the group, counted from 1, that the prompt of a recycled problem shows."""
    prompt = visible(record.get("prompt"), 10 * _LONGEST)
    answers = [one for one in family.records[:1] if one["task"] == "policy"]
    shown: dict[str, int] = {}
    for one in answers:
        for number, response in enumerate(one["responses"], start=1):
            if (answer := response["text"].strip()) and answer in prompt:
                shown.setdefault(answer, number)
    longer = [answer for answer in shown if not any(answer != other and answer in other for other in shown)]
    return sorted(shown[answer] for answer in longer)


def _chosen(all_of_them: Sequence[Family]) -> list[Family]:
    """Families of the first step, the last, the middle and so on, as many as the budget holds."""
    by_step: dict[int, list[Family]] = {}
    for one in all_of_them:
        by_step.setdefault(one.step, []).append(one)
    kept: list[Family] = []
    left = BUDGET
    for step in spread(sorted(by_step)):
        for one in by_step[step]:
            some = Family(one.problem, one.step, _beginning(one.records))
            size = len(json.dumps(some.records))
            if size <= left:
                kept.append(some)
                left -= size
        if left < BUDGET // 50:
            break
    return sorted(kept, key=lambda one: (one.step, -len(one.records)))


def _beginning(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first records of a family, as many as an eighth of the budget holds, and at least one."""
    sizes = list(accumulate(len(json.dumps(one)) for one in records))
    return [one for one, size in zip(records, sizes, strict=True) if size <= BUDGET // 8] or list(records[:1])


def spread(items: Sequence[_T]) -> Iterator[_T]:
    """All items, each as far as can be from those before it: the first, the last, the middle, the middles of halves."""
    if not items:
        return
    yield items[0]
    if len(items) > 1:
        yield items[-1]
    gaps = [(0, len(items) - 1)]
    while gaps:
        halves = []
        for low, high in gaps:
            if high - low > 1:
                middle = (low + high) // 2
                yield items[middle]
                halves += [(low, middle), (middle, high)]
        gaps = halves
