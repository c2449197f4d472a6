"""``recycle.balance: group``: judge problems in couples that differ in nothing but what decides the label."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.config import RecycleConfig, parse_config
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.recycle import recycle

from .groups import groups, solved

JUDGES = RecycleConfig(balance="group", reflection=False, templates="terse", judge_cap=1000)


def made(config: RecycleConfig, *given: Group, seed: int = 0) -> list[Problem]:
    return recycle(given, config, random.Random(seed))


def couples(problems: list[Problem]) -> list[tuple[Problem, Problem]]:
    """Neighbours, without reflections between them."""
    judged = [problem for problem in problems if problem.task != "reflection"]
    return list(zip(judged[::2], judged[1::2], strict=True))


@given(groups(largest=16), st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_each_label_has_its_opposite_beside_it(
    step: list[Group], seed: int, per_group: int, cap: int, share: float
) -> None:
    config = JUDGES.model_copy(
        update={"per_group": per_group, "judge_cap": cap, "pointwise_share": share, "reflection": True}
    )
    problems = made(config, *step, seed=seed)
    found = couples(problems)
    assert 2 * len(found) <= cap
    assert len({problem.id for problem in problems}) == len(problems)
    assert len({(problem.parent, problem.prompt) for problem in problems}) == len(problems)
    for first, second in found:
        assert (first.parent, first.task) == (second.parent, second.task)
        assert {first.answer, second.answer} == ({"Yes", "No"} if first.task == "pointwise" else {"A", "B"})
    for first, second in found:
        if first.task == "pairwise":
            assert first.prompt is not None
            assert second.prompt is not None
            assert sorted(first.prompt) == sorted(second.prompt), "the same in another order"


def test_both_are_asked_in_one_wording_and_one_form() -> None:
    """A template of the natural set is known by what stands before the question."""
    config = JUDGES.model_copy(update={"templates": "natural", "pointwise_share": 0.5})
    found = couples(made(config, *(solved(2, 2, i) for i in range(60))))
    assert Counter(first.task for first, _ in found).keys() == {"pointwise", "pairwise"}
    wordings = set()
    for first, second in found:
        assert first.id.split("/")[1].split("-")[:2] == second.id.split("/")[1].split("-")[:2]
        assert first.prompt is not None
        assert second.prompt is not None
        before = first.prompt.partition("What is it?")[0], second.prompt.partition("What is it?")[0]
        assert before[0] == before[1]
        assert first.prompt[-20:] == second.prompt[-20:]
        assert first.answer != second.answer
        wordings.add(first.prompt[-60:])
    assert len(wordings) > 5, "and wordings are drawn for each couple"


def test_groups_that_are_all_right_or_all_wrong_are_not_judged() -> None:
    step = [*(solved(3, 0, i) for i in range(9)), *(solved(0, 3, i) for i in range(9, 18))]
    assert made(JUDGES, *step) == []
    reflecting = JUDGES.model_copy(update={"reflection": True})
    assert Counter(p.task for p in made(reflecting, *step)) == {"reflection": 9}, "but wrong ones are mended"


def test_a_group_gives_a_couple() -> None:
    step = [solved(1, 3, i) for i in range(10)]
    points = JUDGES.model_copy(update={"pairwise": False})
    assert Counter(p.answer for p in made(points, *step)) == {"Yes": 10, "No": 10}
    pairs = JUDGES.model_copy(update={"pointwise": False})
    assert Counter(p.answer for p in made(pairs, *step)) == {"A": 10, "B": 10}
    several = points.model_copy(update={"per_group": 3})
    assert Counter(p.answer for p in made(several, solved(2, 3))) == {"Yes": 2, "No": 2}, "as many as there are"


def test_what_has_no_box_makes_both_show_the_whole() -> None:
    texts = [("def f(): return 1", "correct", None), ("\\boxed{2}", "wrong", "2")]
    rollouts = (
        Rollout(Completion(text, (1,), (-1.0,), "stop"), Verdict(0.0, status, box)) for text, status, box in texts
    )
    codes = Group(Problem("p", "f?", ""), tuple(rollouts), ())
    config = JUDGES.model_copy(update={"pairwise": False, "form": "answer"})
    assert {problem.id for problem in made(config, codes)} == {"p/pointwise-cot-0", "p/pointwise-cot-1"}


def test_old_values_of_the_setting_are_valid() -> None:
    for value in (True, False, "group"):
        assert parse_config({"recycle": {"balance": value}}).recycle.balance == value
    assert parse_config({"recycle": {"preset": "balanced"}}).recycle.balance is True
