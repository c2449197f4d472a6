"""Several sources by weight: exact shares of a pass, no problem twice before all came once, resumed to the problem."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from running import json_lines, small, write_lines
from spark_rl.config import load_config
from spark_rl.data import check_disjoint
from spark_rl.data.batches import Shuffled
from spark_rl.data.mixture import draws, pass_order
from spark_rl.errors import DataError
from spark_rl.given import load_all_problems
from spark_rl.problem import Problem
from spark_rl.run import train


def problems(**counts: int) -> list[Problem]:
    return [
        Problem(id=f"{source}-{n}", question=f"{source} {n}", answer="1", source=source)
        for source, count in counts.items()
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "shares", "drawn"),
    [
        (10, {"a": 0.75, "b": 0.25}, {"a": 8, "b": 2}),
        (100, {"a": 0.5, "b": 0.5}, {"a": 50, "b": 50}),
        (10, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 4, "b": 3, "c": 3}),
        (10, {"a": 0.999, "b": 0.001}, {"a": 9, "b": 1}),
        (7, {"a": 1.0}, {"a": 7}),
    ],
)
def test_draws_by_largest_remainders(count: int, shares: dict[str, float], drawn: dict[str, int]) -> None:
    assert draws(count, shares) == drawn


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 9), st.floats(0.1, 9)), min_size=1),
    st.integers(0, 3),
)
def test_shares_are_exact_and_nothing_comes_twice_before_all_came_once(
    sources: dict[str, tuple[int, float]], seed: int
) -> None:
    data = problems(**{source: count for source, (count, _) in sources.items()})
    total = sum(weight for _, weight in sources.values())
    shares = {source: weight / total for source, (_, weight) in sources.items()}
    stream = [data[at] for number in range(4) for at in pass_order(data, number, seed, shares)]
    assert len(stream) == 4 * len(data)
    for start in range(0, len(stream), len(data)):
        drawn = Counter(problem.source for problem in stream[start : start + len(data)])
        assert drawn == Counter(draws(len(data), shares))
        assert all(abs(drawn[source] - share * len(data)) <= max(1, len(sources)) for source, share in shares.items())
    for source, (count, _) in sources.items():
        times = Counter(problem.id for problem in stream if problem.source == source)
        assert len(times) == min(count, times.total())
        assert max(times.values()) - min(times.values()) <= 1


def test_batches_by_weight_depend_on_their_step_and_the_seed_alone() -> None:
    data, shares = problems(large=30, small=3), {"large": 0.5, "small": 0.5}
    batches = [[p.id for p in Shuffled(data, 8, 0, shares).of(step)] for step in range(12)]
    assert [[p.id for p in Shuffled(data, 8, 0, shares).of(step)] for step in (11, 3, 7)] == [
        batches[11], batches[3], batches[7],
    ]  # fmt: skip
    assert batches != [[p.id for p in Shuffled(data, 8, 1, shares).of(step)] for step in range(12)]
    drawn = Counter(name.partition("-")[0] for batch in batches for name in batch)
    assert abs(drawn["small"] - drawn["large"]) <= 8, "half of all draws each, though one has ten times as many"


def test_without_weights_every_problem_comes_once_a_pass() -> None:
    data = problems(large=30, small=3)
    assert sorted(pass_order(data, 2, 0, None)) == list(range(33))


def test_a_source_that_is_all_held_out_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no problem of gone is left to train on; take it out of data\.train"):
        pass_order(problems(a=3), 0, 0, {"a": 0.5, "gone": 0.5})


def test_what_is_held_out_is_taken_out_of_every_source(tmp_path: Path) -> None:
    files = [
        write_lines(tmp_path / f"{name}.jsonl", *({"question": f"{name} {n}", "answer": "1"} for n in range(20)))
        for name in ("a", "b")
    ]
    held = write_lines(tmp_path / "h.jsonl", *({"question": f"{name}  3", "answer": "1"} for name in ("a", "b")))
    sources = f"data.train=[{{source: {files[0]}, weight: 1}}, {{path: {files[1]}, weight: 1}}]"
    problems, exams = load_all_problems(load_config(None, [sources, f"data.heldout={held}"]))
    assert Counter(problem.source for problem in problems) == {str(file): 19 for file in files}
    assert check_disjoint(problems, exams["heldout"]) == 0
    problems, exams = load_all_problems(load_config(None, [sources, "data.heldout=split:15"]))
    assert (len(problems), len(exams["heldout"]), len({p.source for p in exams["heldout"]})) == (25, 15, 2)


def test_a_run_on_two_sources_by_weight_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The rare source is a third of the data and half of what is asked; the halves of the run are the whole."""
    many = write_lines(tmp_path / "many.jsonl", *({"question": f"7*_-{n}={49 - n}", "answer": "7"} for n in range(8)))
    few = write_lines(tmp_path / "few.jsonl", *({"question": f"6*_-{n}={36 - n}", "answer": "6"} for n in range(4)))
    sources = f"data.train=[{{source: {many}, weight: 1}}, {{source: {few}, weight: 1}}]"
    settings = (sources, "data.heldout=null", "data.transfer=null", "rollout.problems=6", "train.sample_rollouts=100")

    def asked(name: str) -> list[str]:
        rows = json_lines(tmp_path / name / "rollouts.jsonl")
        return [row["prompt"] for row in rows if row["task"] == "policy"]

    train(small(tmp_path / "whole", *settings, "train.steps=4"))
    train(small(tmp_path / "halves", *settings, "train.steps=2"))
    train(small(tmp_path / "halves", *settings, "train.steps=4"), resume=True)
    whole = asked("whole")
    assert whole == asked("halves")
    assert sum("6*" in prompt for prompt in whole) * 2 == len(whole) > 0


def test_the_order_does_not_depend_on_where_sources_lie() -> None:
    """A run whose data moved, or that is repeated in another folder, draws the same problems."""

    def order(folder: str) -> list[int]:
        names = [f"{folder}/a.jsonl"] * 7 + [f"{folder}/b.jsonl"] * 5
        problems = [Problem(f"p{i}", "?", "1", source=name) for i, name in enumerate(names)]
        return pass_order(problems, 1, 3, {f"{folder}/a.jsonl": 0.25, f"{folder}/b.jsonl": 0.75})

    assert order("here") == order("there/and/deeper")
