"""Test-time scaling on a real model: what a trace may look like, and what each setting does to it (Eq. 9 to 11)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from running import BASE, reasoner_of
from spark_rl import Problem, load_config, solve
from spark_rl.backend import Backend, open_backend
from spark_rl.config import DataConfig, InferenceConfig
from spark_rl.data import load_problems
from spark_rl.inference import Reasoner, Round, Trace, is_readable, standing
from spark_rl.recycle import render_judge, render_reflection
from spark_rl.verify import extract_boxed, read_verdict


@pytest.fixture(scope="module")
def backend() -> Backend:
    """The embedded base."""
    return open_backend(load_config("tiny", ["model.threads=1"], model={"path": BASE}))


@pytest.fixture(scope="module")
def noise(tiny_models: dict[str, Path]) -> Backend:
    """A random model, whose judgements can't be read."""
    return open_backend(load_config("tiny", ["model.threads=1"], model={"path": str(tiny_models["llama"])}))


@pytest.fixture(scope="module")
def puzzles() -> tuple[Problem, ...]:
    return load_problems("procedural:missing", DataConfig(), "heldout")[:24]


def reasoner(backend: Backend, **settings: Any) -> Reasoner:
    given = {"rounds": 3, "max_new_tokens": 40, "reflect_temperature": 1.0, **settings}
    return replace(reasoner_of(backend), config=InferenceConfig(**given))


def check_trace(trace: Trace, rounds: int, unread: str) -> None:
    """What Eq. 9 to 11 allow, and that what can't be read replaces nothing that can."""
    assert 1 <= len(trace.rounds) <= rounds + 1
    readable = [bool((turn.answer or "").strip()) for turn in trace.rounds]
    stands = 0
    for place, turn in enumerate(trace.rounds):
        assert turn.answer == extract_boxed(turn.response)
        assert (turn.accepted is None) or turn.judgement is not None
        if turn.judgement is not None:
            assert {None: None, "Yes": True, "No": False}[read_verdict(turn.judgement)] is turn.accepted
        if readable[place] or not readable[stands]:
            stands = place
        else:
            assert turn.judgement is None, "what stands was judged already"
    final = trace.rounds[stands]
    for turn in trace.rounds[:stands]:
        assert turn.judgement is not None or not turn.answer
        assert turn.accepted is not True
    if len(trace.rounds) < rounds + 1:
        assert final is trace.rounds[-1]
        assert final.accepted is True or (final.accepted is None and unread == "accept")
    assert trace.final is final
    assert (trace.answer, trace.response) == (final.answer, final.response)


@pytest.mark.parametrize("rounds", [0, 1, 2, 4])
@pytest.mark.parametrize("unread", ["reflect", "accept"])
def test_traces_are_what_the_equations_allow(
    backend: Backend, puzzles: Sequence[Problem], rounds: int, unread: str
) -> None:
    traces = reasoner(backend, rounds=rounds, judge_unparsed=unread).solve(puzzles)
    assert [trace.problem for trace in traces] == list(puzzles)
    for trace in traces:
        check_trace(trace, rounds, unread)


def test_the_base_accepts_and_rejects(backend: Backend, puzzles: Sequence[Problem]) -> None:
    """Otherwise the test above would prove nothing."""
    traces = reasoner(backend, rounds=2).solve(puzzles)
    assert {len(trace.rounds) for trace in traces} >= {1, 3}
    assert {turn.accepted for trace in traces for turn in trace.rounds} >= {True, False}


def test_no_rounds_give_the_first_answers(backend: Backend, puzzles: Sequence[Problem]) -> None:
    some = reasoner(backend, rounds=0)
    assert [trace.rounds for trace in some.solve(puzzles)] == [(first,) for first in some.answer(puzzles)]


def test_more_rounds_go_on_from_the_same_answers(backend: Backend, puzzles: Sequence[Problem]) -> None:
    first = reasoner(backend, rounds=0).solve(puzzles)
    one, two = (reasoner(backend, rounds=rounds).solve(puzzles) for rounds in (1, 2))
    for short, middle, long in zip(first, one, two, strict=True):
        assert middle.rounds[0].response == short.response
        assert [turn.response for turn in long.rounds[:2]] == [turn.response for turn in middle.rounds]
        if len(middle.rounds) == 1:
            assert long == middle


def test_answers_already_made_are_not_made_again(backend: Backend, puzzles: Sequence[Problem]) -> None:
    some = reasoner(backend, rounds=1)
    first = [Round("\\boxed{5}", "5", tokens=4) for _ in puzzles]
    traces = some.solve(puzzles, first)
    assert {trace.rounds[0].response for trace in traces} == {"\\boxed{5}"}
    for trace in traces:
        check_trace(trace, 1, "reflect")


@pytest.mark.parametrize("settings", [{"rounds": 3}, {"select": "verdict", "samples": 3, "temperature": 1.0}])
def test_what_is_watched_grows_to_what_is_solved(
    backend: Backend, puzzles: Sequence[Problem], settings: dict[str, Any]
) -> None:
    some = reasoner(backend, **settings)
    seen = list(some.watch(puzzles))
    assert seen[-1] == some.solve(puzzles)
    assert [trace.problem for trace in seen[0]] == list(puzzles)
    assert {turn.judgement for trace in seen[0] for turn in trace.rounds} == {None}, "first the answers alone"
    for before, after in pairwise(seen):
        assert before != after
        for old, new in zip(before, after, strict=True):
            assert [turn.response for turn in new.rounds[: len(old.rounds)]] == [turn.response for turn in old.rounds]
            assert all(a == b for a, b in zip(old.rounds, new.rounds, strict=False) if a.judgement is not None)


def test_an_iterator_that_is_closed_asks_nothing_more(backend: Backend, puzzles: Sequence[Problem]) -> None:
    asked: list[int] = []
    watched = replace(reasoner(backend), heard=asked.append).watch(puzzles[:2])
    next(watched)
    assert isinstance(watched, Generator)
    watched.close()
    assert asked == [2]


@pytest.mark.parametrize(("unread", "rounds"), [("reflect", 4), ("accept", 1)])
def test_an_unreadable_verdict_reflects_or_accepts(
    noise: Backend, puzzles: Sequence[Problem], unread: str, rounds: int
) -> None:
    for trace in reasoner(noise, judge_unparsed=unread, max_new_tokens=8).solve(puzzles[:4]):
        assert len(trace.rounds) == rounds
        assert {turn.accepted for turn in trace.rounds} == {None}
        assert (trace.rounds[-1].judgement is None) == (unread == "reflect")


def test_a_model_that_can_not_judge_or_reflect_keeps_its_answers(noise: Backend, puzzles: Sequence[Problem]) -> None:
    """Every verdict and every reflection of a random model is noise; the answers it is given stay."""
    first = [Round("\\boxed{5}", "5", tokens=4) for _ in puzzles[:6]]
    for trace in reasoner(noise, rounds=3, max_new_tokens=8).solve(puzzles[:6], first):
        assert [turn.answer for turn in trace.rounds] == ["5", None, None, None]
        assert (trace.answer, trace.response) == ("5", "\\boxed{5}")
        assert [turn.judgement is None for turn in trace.rounds] == [False, True, True, True]


@pytest.mark.parametrize(
    ("kind", "choices", "answers", "which"),
    [
        ("math", (), ("4", "5"), 1),
        ("math", (), ("4", None), 0),
        ("math", (), ("4", " "), 0),
        ("math", (), ("4", r"\frac{1}{"), 0),
        ("math", (), (None, None), 1),
        ("math", (), (None, "4", None), 1),
        ("choice", ("1", "2"), ("A", "something else"), 0),
        ("choice", ("1", "2"), ("A", "2"), 1),
        ("choice", ("1", "2"), ("A", "Z"), 0),
        ("choice", (), ("A", "A or B"), 0),
        ("exact", (), ("+-", ""), 0),
        ("verdict", (), ("Yes", None), 0),
    ],
)
def test_the_last_answer_that_can_be_read_stands(
    kind: Any, choices: tuple[str, ...], answers: tuple[str | None, ...], which: int
) -> None:
    assert standing(Problem(id="p", question="?", answer="", kind=kind, choices=choices), answers) == which


def test_greedy_answers_do_not_depend_on_the_seed(backend: Backend, puzzles: Sequence[Problem]) -> None:
    greedy = reasoner(backend, reflect_temperature=0.0)
    again = replace(greedy, seed=7)
    assert greedy.solve(puzzles) == greedy.solve(puzzles) == again.solve(puzzles)


def test_sampled_reflections_depend_on_the_seed_alone(backend: Backend, puzzles: Sequence[Problem]) -> None:
    sampled = reasoner(backend)
    again = replace(sampled, seed=7)
    assert sampled.solve(puzzles) == sampled.solve(puzzles)
    ours, theirs = sampled.solve(puzzles), again.solve(puzzles)
    assert [t.rounds[0].response for t in ours] == [t.rounds[0].response for t in theirs]
    assert ours != theirs


def test_every_turn_reflects_with_numbers_of_its_own(backend: Backend, puzzles: Sequence[Problem]) -> None:
    some = reasoner(backend)
    responses = ["\\boxed{5}"] * len(puzzles)
    assert some.reflect(puzzles, responses, 0) != some.reflect(puzzles, responses, 1)


def test_tokens_are_counted(backend: Backend, puzzles: Sequence[Problem]) -> None:
    some = reasoner(backend, rounds=1)
    for trace in some.solve(puzzles):
        for turn in trace.rounds:
            text = turn.response + (turn.judgement or "")
            ids = backend.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert len(ids) < turn.tokens <= len(ids) + 2  # an end-of-sequence token for each text


def test_judging_gives_a_text_a_verdict_and_a_count(backend: Backend, puzzles: Sequence[Problem]) -> None:
    right = [f"\\boxed{{{problem.answer}}}" for problem in puzzles]
    judged = reasoner(backend).judge(puzzles, right)
    assert len(judged) == len(puzzles)
    for text, accepted, tokens, chance in judged:
        assert {"Yes": True, "No": False, None: None}[read_verdict(text)] is accepted
        assert 0 < tokens <= 40
        assert (chance is None) == (accepted is None)
        assert chance is None or (chance > 0.5) == accepted, "a greedy verdict is the likelier one"
    assert True in {said.accepted for said in judged}


def test_comparing_gives_a_text_a_letter_and_a_count(backend: Backend, puzzles: Sequence[Problem]) -> None:
    pairs = [(f"\\boxed{{{problem.answer}}}", "\\boxed{0}") for problem in puzzles]
    compared = reasoner(backend).compare(puzzles, pairs)
    assert len(compared) == len(puzzles)
    for text, letter, tokens in compared:
        assert read_verdict(text, ("A", "B")) == letter
        assert 0 < tokens <= 40
    assert {"A", "B"} & {letter for _, letter, _ in compared}


def test_nothing_to_do_is_fine(backend: Backend) -> None:
    some = reasoner(backend)
    assert (some.answer([]), some.judge([], []), some.compare([], []), some.reflect([], []), some.solve([])) == (
        [], [], [], [], [],
    )  # fmt: skip


def test_as_many_responses_as_problems_are_needed(backend: Backend, puzzles: Sequence[Problem]) -> None:
    with pytest.raises(ValueError, match="zip"):
        reasoner(backend).judge(puzzles[:2], ["\\boxed{1}"])


class Listening:
    """A real engine that remembers which prompts it was given."""

    def __init__(self, backend: Backend) -> None:
        self.engine, self.heard = backend.engine, list[str]()
        self.version = 0

    def generate(self, prompts: Any, sampling: Any) -> Any:
        self.heard += [prompt.text for prompt in prompts]
        return self.engine.generate(prompts, sampling)

    def sync(self, source: Any) -> None:
        self.engine.sync(source)

    def close(self) -> None:
        self.engine.close()


@pytest.mark.parametrize("form", ["cot", "answer"])
def test_judge_and_reflection_see_the_question_and_the_response_and_nothing_else(backend: Backend, form: Any) -> None:
    problem = Problem(id="p", question="7*_-4=17", answer="GOLD")
    engine = Listening(backend)
    some = replace(reasoner(backend, form=form), engine=engine)
    some.judge([problem], ["work 3\\boxed{5}"])
    some.reflect([problem], ["work 3\\boxed{5}"])
    judge, _ = render_judge(some.templates, problem.question, "work 3\\boxed{5}", None, form)
    reflection = render_reflection(some.templates, problem.question, "work 3\\boxed{5}", None, form)
    assert engine.heard == [f"<bos>{judge}\n", f"<bos>{reflection}\n"]
    assert ("work 3" in judge) == (form == "cot")


def test_no_prompt_holds_the_gold_answer(backend: Backend, puzzles: Sequence[Problem]) -> None:
    marked = [replace(problem, answer="GOLD") for problem in puzzles]
    engine = Listening(backend)
    replace(reasoner(backend), engine=engine).solve(marked)
    assert len(engine.heard) > len(puzzles)
    assert not [prompt for prompt in engine.heard if "GOLD" in prompt]


def test_a_round_is_two_generations_however_many_problems_are_open(
    backend: Backend, puzzles: Sequence[Problem]
) -> None:
    calls: list[int] = []

    class Counting(Listening):
        def generate(self, prompts: Any, sampling: Any) -> Any:
            calls.append(len(prompts))
            return super().generate(prompts, sampling)

    traces = replace(reasoner(backend, rounds=2), engine=Counting(backend)).solve(puzzles)
    open_after = [sum(len(trace.rounds) > turn for trace in traces) for turn in (1, 2)]
    assert calls == [len(puzzles), len(puzzles), open_after[0], open_after[0], open_after[1]]


def test_the_public_function_does_the_same(backend: Backend, puzzles: Sequence[Problem]) -> None:
    some = reasoner(backend)
    assert solve(puzzles, backend.engine, backend.chat, some.templates, some.config, some.seed) == some.solve(puzzles)


# --- P(Yes)


def test_the_probability_is_that_of_a_forward_pass(backend: Backend, puzzles: Sequence[Problem]) -> None:
    """Transformers alone, given the prompt and the work of the judgement: softmax over Yes and No."""
    some = reasoner(backend, temperature=1.0)
    responses = [f"\\boxed{{{problem.answer if i % 2 else 1}}}" for i, problem in enumerate(puzzles)]
    model, tokenizer = backend.loaded.causal_lm, backend.chat.tokenizer
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][-1] for word in ("Yes", "No"))
    for problem, response, said in zip(puzzles, responses, some.judge(puzzles, responses), strict=True):
        prompt, _ = render_judge(some.templates, problem.question, response, None, "cot")
        asked = backend.chat.encode(replace(problem, task="pointwise", prompt=prompt))
        work = tokenizer(said.text.rpartition("{")[0] + "{", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([[*asked.token_ids, *work]])).logits[0, -1, [yes, no]]
        assert said.probability == pytest.approx(float(logits.softmax(-1)[0]), abs=1e-4)


def test_several_judgements_are_averaged_and_accept_from_one_half_on(
    backend: Backend, puzzles: Sequence[Problem]
) -> None:
    puzzles = puzzles[:8]
    right = [f"\\boxed{{{problem.answer}}}" for problem in puzzles]
    one, four = (reasoner(backend, temperature=1.0, judgements=m).judge(puzzles, right) for m in (1, 4))
    sure = reasoner(backend, temperature=1.0, judgements=4, accept=1.0).judge(puzzles, right)
    assert [said.text for said in four] == [said.text for said in one], "the first of four is the one of one"
    assert all(many.tokens > single.tokens for many, single in zip(four, one, strict=True))
    assert any(abs((said.probability or 0) - 0.5) < 0.3 for said in four), "judgements that differ"
    for said, strict in zip(four, sure, strict=True):
        assert said.probability is not None
        assert said.accepted == (said.probability >= 0.5)
        assert strict.probability == said.probability
        assert strict.accepted is (said.probability >= 1.0)


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_rounds_end_where_the_probability_says(backend: Backend, puzzles: Sequence[Problem], least: float) -> None:
    for trace in reasoner(backend, rounds=2, accept=least).solve(puzzles):
        *before, last = trace.rounds
        assert all(turn.probability is None or turn.probability < least for turn in before)
        assert last.probability is None or last.probability >= least or not is_readable(trace.problem, last.answer)


@pytest.mark.parametrize("select", ["majority", "verdict", "weighted"])
def test_one_of_several_answers_is_given(backend: Backend, puzzles: Sequence[Problem], select: Any) -> None:
    some = reasoner(backend, temperature=1.0, samples=5, select=select)
    puzzles = puzzles[:8]
    traces = some.solve(puzzles)
    assert {len(trace.rounds) for trace in traces} == {5}
    assert any(trace.chosen for trace in traces), "not always the first"
    for trace in traces:
        answers = [turn.answer for turn in trace.rounds]
        assert trace.final is trace.rounds[trace.chosen or 0]
        assert all((turn.judgement is None) == (select == "majority") for turn in trace.rounds)
        chances = [turn.chance if is_readable(trace.problem, turn.answer) else -1.0 for turn in trace.rounds]
        if select == "majority":
            assert answers.count(trace.answer) == max(answers.count(answer) for answer in answers if answer is not None)
        elif select == "verdict":
            assert trace.final.chance == max(chances)
    first = some.answer(puzzles)
    for given, trace in zip(first, some.solve(puzzles, first), strict=True):
        assert trace.rounds[0].response == given.response, "an answer that is there is one of them"
        assert len(trace.rounds) == 5


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"samples": 4, "temperature": 1.0}, "go together"),
        ({"select": "verdict", "temperature": 1.0}, "go together"),
        ({"samples": 4, "select": "majority"}, "temperature above 0"),
        ({"judgements": 2}, "temperature above 0"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        InferenceConfig(**settings)
