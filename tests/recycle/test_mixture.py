from __future__ import annotations

import copy
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.config import RecycleConfig
from spark_rl.problem import Completion, Group, Problem, Rollout, Verdict
from spark_rl.recycle import recycle, shown
from spark_rl.recycle.candidate import answered

from .groups import ALTERNATIVE, GOLD, group, groups, rollout, solved, unanswered

CONFIGS = st.builds(
    RecycleConfig,
    pointwise=st.booleans(),
    pairwise=st.booleans(),
    reflection=st.booleans(),
    form=st.sampled_from(["mixed", "answer", "cot"]),
    pointwise_share=st.floats(0, 1),
    per_group=st.integers(1, 4),
    judge_cap=st.integers(0, 12),
    reflection_cap=st.integers(0, 12),
    balance=st.booleans(),
    templates=st.sampled_from(["natural", "terse"]),
)
SEEDS = st.integers(0, 2**32)


def form_of(problem: Problem) -> str:
    return problem.id.rsplit("-", 2)[1]


def made(config: RecycleConfig, *given: Group, seed: int = 0) -> list[Problem]:
    return recycle(given, config, random.Random(seed))


@given(groups(), CONFIGS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_gold_is_seen_only_in_a_right_response_on_show(step: list[Group], config: RecycleConfig, seed: int) -> None:
    parents = {g.problem.id: g for g in step}
    for problem in recycle(step, config, random.Random(seed)):
        assert problem.parent is not None
        assert problem.prompt is not None
        right, _ = answered(parents[problem.parent])
        rest = problem.prompt
        if problem.task != "reflection":
            for text in sorted(
                {shown(r.text, form) for r in right for form in ("cot", "answer")}, key=len, reverse=True
            ):
                rest = rest.replace(text, "")
        assert GOLD not in rest
        assert GOLD not in repr(replace(problem, answer="", prompt=None))
        check_alternatives(problem)


@given(groups(right=False), CONFIGS, SEEDS)
@settings(max_examples=100, deadline=None)
def test_groups_without_a_right_response_never_show_gold(step: list[Group], config: RecycleConfig, seed: int) -> None:
    for problem in recycle(step, config, random.Random(seed)):
        assert problem.task in {"pointwise", "reflection"}
        assert GOLD not in repr(replace(problem, answer=""))
        assert (problem.answer == GOLD) == (problem.task == "reflection")
        check_alternatives(problem)


def check_alternatives(problem: Problem) -> None:
    """They are labels, of the problems that are graded as their parent is, and stand nowhere else."""
    assert problem.alternatives == ((ALTERNATIVE,) if problem.task == "reflection" else ())
    assert ALTERNATIVE not in repr(replace(problem, alternatives=()))


@given(groups(), CONFIGS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_labels_caps_and_ids(step: list[Group], config: RecycleConfig, seed: int) -> None:
    config = config.model_copy(update={"templates": "terse"})
    problems = recycle(step, config, random.Random(seed))
    tasks = Counter(problem.task for problem in problems)
    assert tasks["pointwise"] + tasks["pairwise"] <= config.judge_cap
    assert tasks["reflection"] <= config.reflection_cap
    assert len({problem.id for problem in problems}) == len(problems)
    assert len({(problem.parent, problem.prompt) for problem in problems}) == len(problems)
    parents = {g.problem.id: g for g in step}
    for problem in problems:
        assert getattr(config, problem.task)
        assert problem.parent is not None
        right, wrong = ([shown(r.text, form_of(problem)) for r in side] for side in answered(parents[problem.parent]))
        asked = problem.question
        if problem.task == "pointwise":
            allowed = right if problem.answer == "Yes" else wrong
            assert problem.prompt in {f"judge {asked}:{text}" for text in allowed}
        elif problem.task == "pairwise":
            pairs = [(r, w) if problem.answer == "A" else (w, r) for r in right for w in wrong if r != w]
            assert problem.prompt in {f"choose {asked}:{a};{b}" for a, b in pairs}
        else:
            assert problem.prompt in {f"retry {asked}:{text}" for text in wrong}


@given(groups(), CONFIGS, SEEDS)
@settings(max_examples=60, deadline=None)
def test_pure_and_reproducible(step: list[Group], config: RecycleConfig, seed: int) -> None:
    before, state = copy.deepcopy(step), random.getstate()
    first = recycle(step, config, random.Random(seed))
    assert first == recycle(before, config, random.Random(seed))
    assert step == before
    assert random.getstate() == state


@given(groups(), CONFIGS, SEEDS)
@settings(max_examples=60, deadline=None)
def test_recycled_groups_are_not_recycled(step: list[Group], config: RecycleConfig, seed: int) -> None:
    tasks = ("pointwise", "pairwise", "reflection")
    again = [replace(g, problem=replace(g.problem, id=f"again-{i}", task=tasks[i % 3])) for i, g in enumerate(step)]
    assert recycle(again, config, random.Random(seed)) == []
    assert recycle([*again, *step], config, random.Random(seed)) == recycle(step, config, random.Random(seed))


@given(groups(largest=24), SEEDS, st.integers(1, 3), st.sampled_from([6, 7, 100]))
@settings(max_examples=100, deadline=None)
def test_balance_equalises_labels(step: list[Group], seed: int, per_group: int, cap: int) -> None:
    for templates in ("terse", "natural"):
        config = RecycleConfig(balance=True, per_group=per_group, judge_cap=cap, templates=templates)
        labels = Counter(p.answer for p in recycle(step, config, random.Random(seed)) if p.task != "reflection")
        assert labels["Yes"] == labels["No"]
        assert labels["A"] == labels["B"]
        assert labels.total() <= cap


def test_balance_drops_only_the_surplus() -> None:
    step = [*(solved(2, 0, i) for i in range(9)), *(solved(0, 2, i) for i in range(9, 14))]
    config = RecycleConfig(balance=True, templates="terse", reflection=False)
    assert Counter(p.answer for p in made(config, *step)) == {"Yes": 5, "No": 5}
    unbalanced = config.model_copy(update={"balance": False})
    assert Counter(p.answer for p in made(unbalanced, *step)) == {"Yes": 9, "No": 5}


def test_the_mixture_of_the_authors() -> None:
    """All-right and all-wrong groups give one pointwise; mixed groups 30 % pointwise, half of it Yes, else pairwise."""
    config = RecycleConfig(judge_cap=10_000, reflection_cap=10_000, templates="terse")
    right, wrong, mixed = ([solved(a, b, i) for i in range(1000)] for a, b in ((4, 0), (0, 4), (2, 2)))
    assert Counter((p.task, p.answer) for p in made(config, *right)) == {("pointwise", "Yes"): 1000}

    counts = Counter((p.task, p.answer, form_of(p)) for p in made(config, *wrong))
    assert counts["reflection", GOLD, "cot"] == counts["reflection", GOLD, "answer"] == 500
    assert counts["pointwise", "No", "cot"] + counts["pointwise", "No", "answer"] == 1000
    assert counts["pointwise", "No", "cot"] == pytest.approx(500, abs=60)

    problems = made(config, *mixed)
    tasks = Counter(p.task for p in problems)
    assert (tasks["reflection"], tasks["pointwise"] + tasks["pairwise"]) == (1000, 1000)
    assert tasks["pointwise"] == pytest.approx(300, abs=55)
    answers = Counter((p.task, p.answer) for p in problems)
    assert answers["pointwise", "Yes"] == pytest.approx(tasks["pointwise"] / 2, abs=35)
    assert answers["pairwise", "A"] == pytest.approx(tasks["pairwise"] / 2, abs=55)


def test_the_first_half_of_the_batch_reflects_on_reasoning() -> None:
    problems = made(
        RecycleConfig(pointwise=False, pairwise=False, templates="terse"), *(solved(1, 3, i) for i in range(7))
    )
    forms = {problem.parent: form_of(problem) for problem in problems}
    assert forms == {f"p-{i}": "cot" if i < 4 else "answer" for i in range(7)}


@pytest.mark.parametrize("form", ["answer", "cot"])
def test_one_form_only(form: str) -> None:
    config = RecycleConfig(form=form, per_group=3)
    assert {form_of(p) for p in made(config, *(solved(2, 2, i) for i in range(10)))} == {form}


def test_switches() -> None:
    kinds = [(4, 0)] * 5 + [(0, 4)] * 5 + [(2, 2)] * 20
    step = [solved(right, wrong, i) for i, (right, wrong) in enumerate(kinds)]
    base = RecycleConfig(judge_cap=100, reflection=False, templates="terse")
    no_pairs = Counter(p.task for p in made(base.model_copy(update={"pairwise": False}), *step))
    assert no_pairs == {"pointwise": 30}
    no_points = Counter(p.task for p in made(base.model_copy(update={"pointwise": False}), *step))
    assert no_points == {"pairwise": 20}
    neither = base.model_copy(update={"pointwise": False, "pairwise": False})
    assert made(neither, *step) == []
    reflection = Counter(p.task for p in made(neither.model_copy(update={"reflection": True}), *step))
    assert reflection == {"reflection": 25}


def test_several_per_group_never_show_the_same_twice() -> None:
    config = RecycleConfig(per_group=50, form="cot", judge_cap=1000, reflection_cap=1000, templates="terse")
    counts = Counter((p.task, p.answer) for p in made(config, solved(2, 3)))
    assert counts["pointwise", "Yes"] == 2
    assert counts["pointwise", "No"] == 3
    assert counts["pairwise", "A"] + counts["pairwise", "B"] == 6
    assert counts["reflection", GOLD] == 3
    few = made(config.model_copy(update={"per_group": 2}), solved(4, 4))
    assert Counter(p.task == "reflection" for p in few) == {True: 2, False: 2}


def test_the_other_class_steps_in_when_one_is_used_up() -> None:
    config = RecycleConfig(pairwise=False, reflection=False, per_group=3, form="cot", templates="terse")
    for seed in range(20):
        assert Counter(p.answer for p in made(config, solved(1, 2), seed=seed)) == {"Yes": 1, "No": 2}


def test_equal_texts_are_shown_once() -> None:
    same = group(*(rollout(f"way {i} \\boxed{{{GOLD}}}") for i in range(4)))
    config = RecycleConfig(per_group=4, form="answer")
    assert len(made(config, same)) == 1
    assert len(made(config.model_copy(update={"form": "cot"}), same)) == 4
    twins = group(rollout("\\boxed{4}", "4"), rollout("\\boxed{4<|im_end|>}", "4"))
    assert [r.verdict.status for r in twins.rollouts] == ["correct", "wrong"]
    assert made(RecycleConfig(pointwise=False, reflection=False), twins) == []


def test_a_parent_sampled_twice_keeps_ids_apart() -> None:
    problems = made(RecycleConfig(form="cot"), solved(0, 1), group(rollout("other \\boxed{9}")))
    assert sorted(p.id for p in problems) == [
        f"p-0/{task}-cot-{k}" for task in ("pointwise", "reflection") for k in (0, 1)
    ]


def test_responses_the_verifier_could_not_compare_give_nothing() -> None:
    silent = group(unanswered("timeout"), unanswered("unparsable"), unanswered("no_answer"), rollout("no box"))
    assert made(RecycleConfig(), silent) == []
    half = group(*silent.rollouts, rollout(f"\\boxed{{{GOLD}}}"))
    assert Counter((p.task, p.answer in {"Yes", "A", "B"}) for p in made(RecycleConfig(), half)) == {
        ("pointwise", True): 1
    }
    assert made(RecycleConfig(templates="terse"), half)[0].answer == "Yes"


def test_a_right_response_stays_right_without_its_reward() -> None:
    """``rollout.overlong_reward: zero`` shapes the reward; what the verifier found is unchanged."""
    cut = group(rollout(f"long \\boxed{{{GOLD}}}", reward=0.0))
    (problem,) = made(RecycleConfig(templates="terse"), cut)
    assert (problem.task, problem.answer) == ("pointwise", "Yes")


def test_an_order_that_mixes_the_tasks() -> None:
    config = RecycleConfig(templates="terse")
    problems = made(config, *(solved(2, 2, i) for i in range(32)))
    assert len(problems) == 64
    assert 4 <= sum(p.task == "reflection" for p in problems[:16]) <= 12


def test_prompts_show_answers_from_outside_of_the_tags_that_are_set() -> None:
    config = RecycleConfig(form="answer", templates="terse", pairwise=False, reflection=False)
    said = Rollout(Completion("((\\boxed{3})) \\boxed{4}", (1,), (-0.5,), "stop"), Verdict(0.0, "wrong", "4"))
    (problem,) = recycle([group(said)], config, random.Random(0), (("((", "))"),))
    assert problem.prompt == "judge What is it?:4"
    cut = replace(said, completion=replace(said.completion, text="\\boxed{4} ((\\boxed{3}"))
    (problem,) = recycle([group(cut)], config, random.Random(0), (("((", "))"),))
    assert problem.prompt == "judge What is it?:4"
    (problem,) = recycle([group(cut)], config, random.Random(0))
    assert problem.prompt == "judge What is it?:3", "these are no tags by default"


def boxless(text: str, status: str) -> Rollout:
    return Rollout(Completion(text, (1,), (-1.0,), "stop"), Verdict(float(status == "correct"), status, None))


@pytest.mark.parametrize("form", ["answer", "cot", "mixed"])
def test_what_has_no_box_is_shown_whole(form: str) -> None:
    """As where a user's function grades code in place of the verifier."""
    right, wrong = "def add(a, b): return a + b", "<|im_end|>def add(a, b): return a - b"
    codes = Group(Problem("p", "add?", ""), (boxless(right, "correct"), boxless(wrong, "wrong")), ())
    made = [p for seed in range(12) for p in recycle([codes], RecycleConfig(form=form), random.Random(seed))]
    assert {problem.task for problem in made} == {"pointwise", "pairwise", "reflection"}
    for problem in made:
        assert problem.id.partition("/")[2].split("-")[1] == "cot"
        shown_right, shown_wrong = right in problem.prompt, wrong.removeprefix("<|im_end|>") in problem.prompt
        assert (shown_right and shown_wrong) if problem.task == "pairwise" else (shown_right or shown_wrong)
        assert "im_end" not in problem.prompt


def test_a_response_whose_reward_failed_is_neither_right_nor_wrong() -> None:
    failed = Group(Problem("p", "add?", ""), (boxless("a", "failed"), boxless("b", "failed")), ())
    assert recycle([failed], RecycleConfig(), random.Random(0)) == []
