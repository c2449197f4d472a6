"""What the page asks of models, without a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from running import reasoner_of
from spark_rl import Problem, load_config
from spark_rl.backend import open_backend
from spark_rl.config import DataConfig, InferenceConfig
from spark_rl.data import load_problems
from spark_rl.demo.ask import LONGEST, MOST_ROUNDS, Model, judging, solving, typed, typed_problem
from spark_rl.errors import UserError
from spark_rl.inference import Reasoner

PROBLEM = Problem(id="typed", question="5?4?3?9=32", answer="")


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    found = reasoner_of(open_backend(load_config("tiny", ["model.threads=1"])))
    return replace(found, config=InferenceConfig(max_new_tokens=40))


def test_several_models_take_turns_and_end_as_each_would_alone(reasoner: Reasoner) -> None:
    other = replace(reasoner, config=InferenceConfig(max_new_tokens=8))
    seen = list(solving([Model("one", reasoner), Model("two", other)], PROBLEM, 2))
    assert [one.trace for one in seen[0]] == [None, None]
    assert [(one.model, one.trace is not None) for one in seen[1]] == [("one", True), ("two", False)]
    assert [(one.model, one.trace is not None) for one in seen[2]] == [("one", True), ("two", True)]
    assert [one.ended for one in seen[-1]] == [True, True]
    assert not any(one.ended for one in seen[1])
    for found, alone in zip(seen[-1], (reasoner, other), strict=True):
        assert [found.trace] == replace(alone, config=alone.config.model_copy(update={"rounds": 2})).solve([PROBLEM])


def test_one_answer_is_asked_for_whatever_the_run_says(reasoner: Reasoner) -> None:
    voting = replace(reasoner, config=InferenceConfig(select="majority", samples=4, temperature=1.0, max_new_tokens=20))
    (last,) = list(solving([Model("m", voting)], PROBLEM, 0))[-1]
    assert last.trace is not None
    assert len(last.trace.rounds) == 1


def test_rounds_are_bounded(reasoner: Reasoner) -> None:
    asked: list[int] = []
    short = replace(reasoner, config=InferenceConfig(max_new_tokens=1), heard=asked.append)
    list(solving([Model("m", short)], PROBLEM, 10**6))
    assert len(asked) <= 1 + 2 * MOST_ROUNDS
    assert len(asked) > MOST_ROUNDS, "a token is no verdict, so it goes on to the end"


def test_two_answers_are_judged_alone_and_in_both_orders(reasoner: Reasoner) -> None:
    one, two = r"work 5*4=20+3=23+9=32\boxed{*++}", r"work 5+4=9*3=27+9=36\boxed{+*+}"
    first, alone, order, last = judging(Model("m", reasoner), PROBLEM, one, two)
    assert (first.opinions, first.orders) == ((), ())
    assert list(alone.opinions) == reasoner.judge([PROBLEM] * 2, [one, two])
    assert len(order.orders) == 1
    (text, verdict, _), (turned, back, _) = reasoner.compare([PROBLEM] * 2, [(one, two), (two, one)])
    assert last.orders == ((text, verdict), (turned, {"A": "B", "B": "A", None: None}[back]))
    assert last.better == (verdict if verdict == last.orders[1][1] else None)
    assert [said.ended for said in (first, alone, order, last)] == [False, False, False, True]


def test_one_answer_is_judged_alone(reasoner: Reasoner) -> None:
    _, last = judging(Model("m", reasoner), PROBLEM, r"\boxed{*++}", None)
    assert (len(last.opinions), last.orders, last.better, last.ended) == (1, (), None, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no problem yet; type one"),
        (" \n", "there is no problem yet; type one"),
        ("7" * (LONGEST + 1), "the problem has 20,001 characters, more than 20,000; shorten it"),
        ("half \ud83d", "the problem holds half a character (a lone surrogate); take it out"),
    ],
)
def test_what_can_not_be_asked_is_one_line(text: str | None, said: str) -> None:
    with pytest.raises(UserError) as error:
        typed(text, "problem")
    assert str(error.value) == said


def test_the_longest_text_is_taken() -> None:
    assert typed("7" * LONGEST, "problem") == "7" * LONGEST


def test_a_picture_goes_with_a_problem_and_a_broken_one_is_one_line(tmp_path: Path) -> None:
    picture, broken = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    config = load_config("tiny-vl")
    assert typed_problem("how many?", str(picture), config).images == (str(picture),)
    with pytest.raises(UserError, match="the picture: image"):
        typed_problem("how many?", str(broken), config)


def test_a_listed_problem_is_asked_without_its_gold(reasoner: Reasoner) -> None:
    """The same tokens come out with any gold: it is no part of what the model reads."""
    problem = load_problems("procedural:missing", DataConfig(), "heldout")[0]
    (known,), (unknown,) = (list(solving([Model("m", reasoner)], one, 2))[-1]
                            for one in (problem, replace(problem, answer="424242")))  # fmt: skip
    assert known.trace is not None
    assert unknown.trace is not None
    assert known.trace.rounds == unknown.trace.rounds
