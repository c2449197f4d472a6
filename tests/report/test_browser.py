"""What the browser of rollouts is given: whole groups, with all that was made of them."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from report.test_html import block
from spark_rl.report.browser import BUDGET, browser_section, families, spread


def group(step: int, name: str, *responses: str, **more: Any) -> dict[str, Any]:
    first, *others = [{"response": text, "status": "wrong", "reward": 0.0, "extracted": None} for text in responses]
    return {"step": step, "task": "policy", "problem": name, "prompt": f"solve {name}", "label": "7", **first,
            "others": others, **more}  # fmt: skip


def made(step: int, task: str, parent: str, prompt: str, **more: Any) -> dict[str, Any]:
    return group(step, f"{parent}/{task}-0", "Yes", "No", task=task, parent=parent, prompt=prompt, **more)


def test_what_was_made_of_a_problem_stands_with_its_group() -> None:
    rows = [
        group(1, "a", "one", "two", "three"), group(1, "b", "four"), made(1, "pointwise", "a", "is `two` right?"),
        made(1, "pairwise", "a", "`three` or `one`?"), made(1, "reflection", "b", "`four` ... again"),
    ]  # fmt: skip
    first, second = families(rows)
    assert [(one["task"], one["about"]) for one in first.records] == [
        ("policy", []), ("pointwise", [2]), ("pairwise", [1, 3]),
    ]  # fmt: skip
    assert [one["text"] for one in first.records[0]["responses"]] == ["one", "two", "three"]
    assert [one["task"] for one in second.records] == ["policy", "reflection"]


def test_of_several_groups_of_a_problem_the_latest_is_taken_that_the_prompt_shows() -> None:
    rows = [group(1, "a", "old"), group(5, "a", "new"), made(5, "pointwise", "a", "is `old` right?"),
            made(6, "pointwise", "a", "is `new` right?"), made(4, "pointwise", "a", "is it right?")]  # fmt: skip
    early, late = families(rows)
    assert [one["step"] for one in early.records] == [1, 5, 4]
    assert [one["step"] for one in late.records] == [5, 6]


def test_what_has_lost_its_group_is_shown_without() -> None:
    [alone] = families([group(3, "x", "two"), made(2, "pointwise", "x", "is `two` right?")])[:1]
    assert (alone.problem, alone.step) == ("x", 2)
    assert [one["task"] for one in alone.records] == ["pointwise"]


def test_files_of_before_are_read() -> None:
    old = [{"step": 1, "task": "policy", "problem": "a", "prompt": "p", "response": "r", "status": "correct"},
           {"step": 1, "task": "pointwise", "problem": "a/pointwise-answer-0", "prompt": "is r right?"}]  # fmt: skip
    [family] = families(old)
    assert [(one["task"], one["about"], len(one["responses"])) for one in family.records] == [
        ("policy", [], 1), ("pointwise", [1], 1),
    ]  # fmt: skip


def test_early_middle_and_late_steps_are_shown_within_the_budget() -> None:
    rows = [group(step, f"p{step}", *[f"{step} " + "x" * 3_000] * 8) for step in range(1, 301)]
    section = browser_section(rows, 300)
    shown = block(section)
    steps = [one["step"] for one in shown]
    assert len(section) < 1.1 * BUDGET
    assert 10 < len(steps) < 40
    assert (steps[0], steps[-1]) == (1, 300)
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) < 60
    assert [one["stage"] for one in (shown[0], shown[len(shown) // 2], shown[-1])] == ["early", "middle", "late"]


@given(st.lists(st.integers(), max_size=40))
def test_the_order_of_steps_leaves_none_out(items: list[int]) -> None:
    assert sorted(spread(items)) == sorted(items)
    assert list(spread(range(5))) == [0, 4, 2, 1, 3]
