"""From numbers to verdicts: the weighted mean, the threshold, and who grades what."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.config import RewardConfig
from spark_rl.problem import Problem
from spark_rl.recycle import problem_from_dict, problem_to_dict
from spark_rl.rewards import Grader, RewardSet, WeightedReward
from spark_rl.rewards.grade import weighted_mean
from spark_rl.verify import Verifier

RIGHT, WRONG, BARE = r"\boxed{42}", r"\boxed{41}", "42"
values = st.one_of(st.none(), st.floats(-1e6, 1e6))
terms = st.lists(st.tuples(st.floats(0, 1e300), values), max_size=6)


def problem(task: Any = "policy", **fields: Any) -> Problem:
    return Problem(**{"id": "p", "question": "6*7?", "answer": "42", "task": task, **fields})


def grader(verifier: Verifier, /, *functions: Any, **settings: Any) -> Grader:
    rewards = [f if isinstance(f, WeightedReward) else WeightedReward(f, name=f"f{n}") for n, f in enumerate(functions)]
    return Grader(verifier, RewardConfig(**settings), RewardSet(rewards, note=lambda text: None))


def gives(*numbers: float | None) -> Any:
    return lambda completions: list(numbers)


@given(terms)
def test_the_mean_lies_among_what_was_given(terms: list[tuple[float, float | None]]) -> None:
    found = weighted_mean(terms)
    there = [value for weight, value in terms if value is not None and weight > 0]
    if not there:
        assert found is None
    else:
        assert found is not None
        assert min(there) <= found <= max(there)
        exact = math.fsum(w / 1e300 * v for w, v in terms if v is not None) / math.fsum(
            w / 1e300 for w, v in terms if v is not None
        ) if max(w for w, v in terms if v is not None) > 1e-3 else found  # fmt: skip
        assert found == pytest.approx(exact, rel=1e-6, abs=1e-6)


@given(terms, st.randoms(use_true_random=False), st.floats(1e-3, 1e3))
def test_neither_order_nor_scale_of_weights_matters(terms: Any, rng: Any, scale: float) -> None:
    terms = [(weight / 1e280 if weight > 1e290 else min(weight, 1e10), value) for weight, value in terms]
    terms = [(0.0 if weight < 1e-10 else weight, value) for weight, value in terms]
    found = weighted_mean(terms)
    shuffled = rng.sample(terms, len(terms))
    again = weighted_mean([(weight * scale, value) for weight, value in shuffled])
    assert again == (None if found is None else pytest.approx(found, rel=1e-9, abs=1e-6))


@given(terms)
def test_what_does_not_apply_changes_nothing(terms: Any) -> None:
    assert weighted_mean([*terms, (3.0, None), (0.0, 7.0)]) == weighted_mean(terms)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6))
def test_all_full_marks_reach_the_threshold_however_weights_round(weights: list[float]) -> None:
    assert weighted_mean([(weight, 1.0) for weight in weights]) == 1.0


def test_without_functions_the_verifier_says_everything(verifier: Verifier) -> None:
    texts = [RIGHT, WRONG, BARE, r"\boxed{6\times7}"]
    found = Grader(verifier).grade([problem()] * 4, texts, form="evaluated")
    assert found == verifier.verify_many([(text, ("42",), "math", ()) for text in texts], "evaluated")


@pytest.mark.parametrize(
    ("functions", "settings", "rewards", "statuses"),
    [
        ([gives(1.0, 0.25, 0.5)], {}, (1.0, 0.25, 0.5), ("correct", "wrong", "wrong")),
        ([gives(1.0, 0.25, 0.5)], {"threshold": 0.5}, (1.0, 0.25, 0.5), ("correct", "wrong", "correct")),
        ([gives(-3.0, 7.0, 0.0)], {}, (-3.0, 7.0, 0.0), ("wrong", "correct", "wrong")),
        ([gives(0.5, 0.5, 0.5)], {"verifier": 1.0}, (0.75, 0.25, 0.25), ("correct", "wrong", "no_answer")),
        ([gives(0.5, None, 1.0)], {"verifier": 3.0}, (0.875, 0.0, 0.25), ("correct", "wrong", "no_answer")),
        ([gives(1.0, None, None), gives(0.0, 1.0, None)], {}, (0.5, 1.0, 0.0), ("wrong", "correct", "failed")),
        ([gives(1.0, math.nan, 1.0)], {"verifier": 1.0}, (1.0, 0.0, 0.5), ("correct", "failed", "no_answer")),
        ([gives(1.0, 0.0)], {"verifier": 1.0}, (1.0, 0.0, 0.0), ("correct", "wrong", "no_answer")),
        ([gives(1.0, 0.0)], {}, (0.0, 0.0, 0.0), ("failed", "failed", "failed")),
    ],
    ids=["alone", "threshold", "outside of 0 to 1", "beside", "not everywhere", "nobody", "nan", "broken beside",
         "broken alone"],
)  # fmt: skip
def test_rewards_and_statuses(
    verifier: Verifier, functions: Any, settings: Any, rewards: tuple[float, ...], statuses: tuple[str, ...]
) -> None:
    found = grader(verifier, *functions, **settings).grade([problem()] * 3, [RIGHT, WRONG, BARE])
    assert tuple(verdict.reward for verdict in found) == rewards
    assert tuple(verdict.status for verdict in found) == statuses
    assert [verdict.extracted for verdict in found] == ["42", "41", None]


def test_weights_are_those_of_the_settings(verifier: Verifier) -> None:
    of = {"a": (1.0, 1.0), "b": (3.0, 0.0), "c": (0.0, 9.0)}
    weighted = [WeightedReward(gives(value), weight, name) for name, (weight, value) in of.items()]
    (found,) = grader(verifier, *weighted).grade([problem()], [RIGHT])
    assert found.reward == 0.25
    assert found.values == {"a": 1.0, "b": 0.0, "c": 9.0}


def test_judge_problems_are_for_the_verifier_alone(verifier: Verifier) -> None:
    asked: list[Any] = []

    def sees(completions: list[str], task: list[str], prompts: list[str]) -> list[float]:
        asked.extend(zip(completions, task, prompts, strict=True))
        return [0.5] * len(completions)

    problems = [
        problem(), problem("pointwise", answer="Yes", kind="verdict", prompt="right?"),
        problem("pairwise", answer="B", kind="verdict", prompt="which?"), problem("reflection", prompt="again?"),
    ]  # fmt: skip
    found = grader(verifier, sees).grade(problems, [RIGHT, r"\boxed{Yes}", r"\boxed{A}", WRONG])
    assert [verdict.reward for verdict in found] == [0.5, 1.0, 0.0, 0.5]
    assert [verdict.status for verdict in found] == ["wrong", "correct", "wrong", "wrong"]
    assert asked == [(RIGHT, "policy", "6*7?"), (WRONG, "reflection", "again?")]


def test_a_batch_of_judge_problems_calls_no_function(verifier: Verifier) -> None:
    asked: list[Any] = []
    judged = problem("pointwise", answer="Yes", kind="verdict", prompt="right?")
    (found,) = grader(verifier, lambda completions: asked.append(1)).grade([judged], [r"\boxed{Yes}"])
    assert (found.reward, found.failed, asked) == (1.0, (), [])


def test_what_has_no_gold_is_for_the_functions_alone(verifier: Verifier) -> None:
    both = grader(verifier, gives(1.0, 0.0), verifier=1.0)
    found = both.grade([problem(answer=""), problem()], [RIGHT, RIGHT])
    assert [(verdict.reward, verdict.status) for verdict in found] == [(1.0, "correct"), (0.5, "correct")]


def test_columns_are_saved_with_a_problem_and_only_where_there_are_any() -> None:
    kept = problem(columns={"tests": ["a", 1, None, {"b": [0.5]}]})
    assert problem_from_dict(problem_to_dict(kept)).columns == kept.columns
    assert "columns" not in problem_to_dict(problem())
    assert problem_from_dict(problem_to_dict(problem())) == problem()
    assert hash(kept) == hash(problem()), "columns are not part of what a problem is"
