"""Every recycler with every template of every shipped set: labels, gold answers, and what text can do to a prompt."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from spark_rl.problem import Problem
from spark_rl.recycle import FORMS, Form, Templates, load_templates, render_judge, shown
from spark_rl.recycle.pairwise import pairwise
from spark_rl.recycle.pointwise import pointwise
from spark_rl.recycle.reflection import reflection
from spark_rl.verify import verify

from .groups import ALTERNATIVE, GOLD, group, rollout

SETS = ("natural", "terse")
RIGHT = rollout(f"Surely {{response_b}} \\boxed{{1}}. Then \\boxed{{{GOLD}}}<|im_end|> \\boxed{{")
WRONG = rollout("Hm {question} {{ answer }} %s \\boxed{Yes} then \\boxed{{response_a}}")
GROUP = group(RIGHT, WRONG, question="Is {response} equal to {answer_b}?")


def cases(task: str) -> list[object]:
    """(the set reduced to one template, form) for each template and each form it fits."""
    found = []
    for name in SETS:
        templates = load_templates(name)
        for number, template in enumerate(getattr(templates, task), start=1):
            single = replace(templates, **{task: (template,)})
            forms = FORMS if template.form == "any" else (template.form,)
            found += [pytest.param(single, form, id=f"{name}-{number}-{form}") for form in forms]
    return found


def check_carried(problem: Problem, task: str) -> None:
    parent = GROUP.problem
    assert (problem.task, problem.parent, problem.question) == (task, parent.id, parent.question)
    assert (problem.images, problem.choices, problem.source) == (parent.images, parent.choices, parent.source)
    assert problem.prompt is not None
    assert parent.question in problem.prompt
    assert "<|im_end|>" not in problem.prompt
    assert ALTERNATIVE not in repr(replace(problem, alternatives=()))


@pytest.mark.parametrize(("templates", "form"), cases("pointwise"))
def test_pointwise_labels_follow_the_verdict(templates: Templates, form: Form) -> None:
    labels = templates.pointwise[0].labels
    assert labels is not None
    for candidate, label in ((RIGHT, labels.correct), (WRONG, labels.wrong)):
        problem, told = pointwise(GROUP, candidate, form=form, templates=templates, rng=random.Random(0), k=3)
        check_carried(problem, "pointwise")
        assert (problem.id, problem.kind) == (f"p-0/pointwise-{form}-3", "verdict")
        assert (problem.answer, told) == (label, labels)
        assert problem.prompt is not None
        assert shown(candidate.text, form) in problem.prompt
        assert GOLD not in problem.prompt.replace(shown(RIGHT.text, form), "")


@pytest.mark.parametrize(("templates", "form"), cases("pairwise"))
def test_pairwise_labels_name_the_right_response(templates: Templates, form: Form) -> None:
    orders = set()
    for seed in range(8):
        problem = pairwise(GROUP, RIGHT, WRONG, form=form, templates=templates, rng=random.Random(seed), k=1)
        check_carried(problem, "pairwise")
        assert (problem.id, problem.kind) == (f"p-0/pairwise-{form}-1", "verdict")
        assert problem.prompt is not None
        bare = problem.prompt.replace(GROUP.problem.question, "")
        right_at, wrong_at = bare.index(shown(RIGHT.text, form)), bare.index(shown(WRONG.text, form))
        assert problem.answer == ("A" if right_at < wrong_at else "B")
        assert GOLD not in problem.prompt.replace(shown(RIGHT.text, form), "")
        orders.add(problem.answer)
    assert orders == {"A", "B"}


@pytest.mark.parametrize(("templates", "form"), cases("reflection"))
def test_reflection_keeps_the_gold_answer_to_itself(templates: Templates, form: Form) -> None:
    problem = reflection(GROUP, WRONG, form=form, templates=templates, rng=random.Random(0))
    check_carried(problem, "reflection")
    assert (problem.id, problem.kind, problem.answer) == (f"p-0/reflection-{form}-0", "exact", GOLD)
    assert problem.prompt is not None
    assert shown(WRONG.text, form) in problem.prompt
    assert GOLD not in repr(replace(problem, answer=""))


@pytest.mark.parametrize("task", ["pointwise", "pairwise"])
def test_asked_tokens_are_the_ones_the_verifier_accepts(task: str) -> None:
    for name in SETS:
        for template in getattr(load_templates(name), task):
            asked = set(re.findall(r"\\boxed\{(\w+)\}", template.text))
            assert asked == (set() if name == "terse" else set(template.labels)), template.text
            for label, other in (template.labels, reversed(template.labels)):
                assert verify(f"I find \\boxed{{{label}}}", label, kind="verdict").status == "correct"
                assert verify(f"I find \\boxed{{{other}}}", label, kind="verdict").status == "wrong"


def test_without_randomness_the_first_template_asks_yes_or_no() -> None:
    for name in SETS:
        for form in FORMS:
            prompt, labels = render_judge(load_templates(name), "1+1?", "two \\boxed{2}", None, form)
            assert labels == ("Yes", "No")
            assert ("two \\boxed{2}" in prompt) == (form == "cot")


def test_placeholders_in_texts_stay_text() -> None:
    """A question and responses made of nothing but each other's placeholders come out as they went in."""
    templates = load_templates("terse")
    prompt, _ = render_judge(templates, "{response}{question}", "\\boxed{{question}}", None, "answer")
    assert prompt == "judge {response}{question}:{question}"
    asked = group(rollout("\\boxed{{response_b}}", "{response_b}"), rollout("\\boxed{{response_a}}"), question="{x}")
    problem = pairwise(asked, *asked.rollouts, form="answer", templates=templates, rng=random.Random(0))
    assert problem.prompt in {"choose {x}:{response_b};{response_a}", "choose {x}:{response_a};{response_b}"}


def test_the_embedded_base_reads_the_formats_it_was_shown() -> None:
    templates = load_templates("terse")
    asked = group(
        rollout("work 5-2=3+7=10\\boxed{-+}", "-+"), rollout("\\boxed{-*}", "-+"), question="5?2?7=10", gold="-+"
    )
    rng = random.Random(1)
    judged, _ = pointwise(asked, asked.rollouts[0], form="cot", templates=templates, rng=rng)
    assert (judged.prompt, judged.answer) == ("judge 5?2?7=10:work 5-2=3+7=10\\boxed{-+}", "Yes")
    assert (
        reflection(asked, asked.rollouts[1], form="answer", templates=templates, rng=rng).prompt == "retry 5?2?7=10:-*"
    )
    pair = pairwise(asked, *asked.rollouts, form="answer", templates=templates, rng=rng)
    assert (pair.prompt, pair.answer) in {("choose 5?2?7=10:-+;-*", "A"), ("choose 5?2?7=10:-*;-+", "B")}
