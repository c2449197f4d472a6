"""Continuous batching: requests of every kind at any time draw what calls of their own draw, and leave nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_rl.engine import graphs
from spark_rl.engine.base import Sampling
from spark_rl.engine.continuous import BusyError, ContinuousEngine, Session, Tokens
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.errors import EngineError, UserError
from spark_rl.model.load import load_model
from spark_rl.model.loaded import LoadedModel
from spark_rl.problem import Completion
from tiny import EOS, engine_of, prompts, tiny_config

ENDS = [EOS, *range(11, 25)]
KINDS = (
    Sampling(1, 0.0, 24), Sampling(3, 1.0, 9, seed=5), Sampling(2, 0.7, 40, seed=6, top=3),
    Sampling(1, 1.0, 17, seed=7, repetition_penalty=1.3), Sampling(4, 1.0, 1, seed=8), Sampling(1, 0.0, 30, top=5),
)  # fmt: skip


@pytest.fixture
def loaded(tiny_models: dict[str, Path]) -> LoadedModel:
    return load_model(tiny_config(tiny_models["qwen3"]))


@pytest.fixture
def engine(loaded: LoadedModel) -> Iterator[ContinuousEngine]:
    made = ContinuousEngine(engine_of(loaded, ENDS, max_rows=6))
    yield made
    made.close()


def settled(engine: ContinuousEngine) -> bool:
    """Whether the engine has nothing left to do within some seconds."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not engine._open and not engine.load.rows and not engine.load.waiting:
            return True
        time.sleep(0.01)
    return False


def alike(one: Completion, other: Completion) -> bool:
    """The same tokens and text; log-probabilities but for the rounding beside other rows."""
    return (one.token_ids, one.text, one.finish) == (other.token_ids, other.text, other.finish) and one.logprobs == (
        pytest.approx(other.logprobs, abs=1e-4)
    )


def test_requests_of_every_kind_draw_what_calls_of_their_own_draw(
    engine: ContinuousEngine, loaded: LoadedModel
) -> None:
    asked = [(prompt, KINDS[i % len(KINDS)]) for i, prompt in enumerate(prompts(30, longest=20))]
    requests = []
    for prompt, sampling in asked:
        requests.append(engine.submit(prompt, sampling))
        time.sleep(0.003)
    alone = engine_of(loaded, ENDS)
    for (prompt, sampling), request in zip(asked, requests, strict=True):
        expected = alone.generate([prompt], sampling)[0]
        got = request.future.result(60)
        assert len(got) == sampling.n
        assert all(map(alike, got, expected))
        assert [len(one.top) for one in got] == [len(one.token_ids) if sampling.top else 0 for one in got]
        for ours, theirs in zip(got, expected, strict=True):
            assert [[text for text, _ in place] for place in ours.top] == [
                [text for text, _ in place] for place in theirs.top
            ]
    assert settled(engine)


def test_it_is_an_engine_with_the_places_of_a_batch(engine: ContinuousEngine, loaded: LoadedModel) -> None:
    sampling = Sampling(2, 1.0, 12, seed=3, first=4)
    expected = engine_of(loaded, ENDS).generate(prompts(9), sampling)
    found = engine.generate(prompts(9), sampling)
    assert all(alike(a, b) for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True))
    assert engine.version == 0
    with pytest.raises(UserError, match="can't be changed"):
        engine.sync(None)  # type: ignore[arg-type]


def test_stop_strings_end_their_own_requests_alone(engine: ContinuousEngine, loaded: LoadedModel) -> None:
    prompt, plain = prompts(1)[0], Sampling(1, 1.0, 60, seed=11)
    whole = engine_of(loaded, ENDS).generate([prompt], plain)[0][0]
    stop = whole.text[len(whole.text) // 2 :][:2]
    assert stop
    both = [engine.submit(prompt, sampling) for sampling in (plain, replace(plain, stop=(stop,)))]
    one, other = (request.future.result(30)[0] for request in both)
    assert one.text == whole.text
    assert other.text == whole.text[: whole.text.index(stop)]


def test_tokens_are_told_as_they_are_drawn_each_once_and_in_order(engine: ContinuousEngine) -> None:
    heard: list[Tokens] = []
    request = engine.submit(prompts(1)[0], Sampling(3, 1.0, 40, seed=2, top=2), heard=heard.append)
    engine.generate(prompts(5), Sampling(1, 1.0, 20))  # beside others
    for row, completion in enumerate(request.future.result(30)):
        pieces = [one for one in heard if one.row == row]
        assert [one.start for one in pieces] == [sum(len(p.token_ids) for p in pieces[:i]) for i in range(len(pieces))]
        told = tuple(token for one in pieces for token in one.token_ids)
        assert told == completion.token_ids[: len(told)]
        assert tuple(place for one in pieces for place in one.top) == completion.top[: len(told)]
        assert len(told) >= len(completion.token_ids) - 1, "all but the last, which came with its end"


def test_a_request_that_is_taken_back_frees_its_rows(loaded: LoadedModel) -> None:
    began = threading.Event()
    endless = ContinuousEngine(engine_of(loaded, [], max_rows=4))
    long = [endless.submit(prompts(1)[0], Sampling(4, 1.0, 100), heard=lambda _: began.set()) for _ in range(3)]
    assert began.wait(30)
    for request in long:
        endless.cancel(request)
    short = endless.submit(prompts(1)[0], Sampling(4, 1.0, 5, seed=1))
    assert [len(one.token_ids) for one in short.future.result(30)] == [5] * 4
    assert all(request.future.cancelled() for request in long)
    assert settled(endless)
    assert endless.load.tokens == 20, "nothing of the others was handed over"
    endless.close()


def test_a_session_ends_what_it_asks_when_it_is_cancelled(loaded: LoadedModel) -> None:
    engine = ContinuousEngine(engine_of(loaded, [], max_rows=2))
    session, ended = Session(engine), list[BaseException]()

    def ask() -> None:
        try:
            session.generate(prompts(6), Sampling(2, 1.0, 100))
        except CancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not engine.load.rows:
        time.sleep(0.001)
    session.cancel()
    thread.join(30)
    assert len(ended) == 1
    assert settled(engine)
    with pytest.raises(CancelledError):
        session.generate(prompts(1), Sampling(1, 1.0, 3))
    engine.close()


def test_too_many_requests_and_ones_that_never_fit_are_refused(loaded: LoadedModel) -> None:
    engine = ContinuousEngine(engine_of(loaded, [], max_rows=1, max_tokens=60), most_waiting=2)
    two = [engine.submit(prompts(1)[0], Sampling(1, 1.0, 50)) for _ in range(2)]
    with pytest.raises(BusyError, match="2 prompts are under way already"):
        engine.submit(prompts(1)[0], Sampling(1, 1.0, 50))
    with pytest.raises(UserError, match=r"engine\.max_tokens is 60"):
        engine.submit(prompts(1)[0], Sampling(1, 1.0, 500))
    engine.close()
    assert all(request.future.done() for request in two)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(prompts(1)[0], Sampling(1, 1.0, 5))


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("a bug"), r"decoding failed \(RuntimeError\)"), (MemoryError(), "out of memory; ask again")],
)
def test_an_error_ends_what_is_under_way_and_nothing_else(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    engine, extend = ContinuousEngine(engine_of(loaded, [], max_rows=8)), graphs.extend

    def fails(*_: Any) -> Any:
        monkeypatch.setattr(graphs, "extend", extend)
        raise error

    monkeypatch.setattr(graphs, "extend", fails)
    requests = [engine.submit(prompt, Sampling(1, 1.0, 20)) for prompt in prompts(3)]
    failures = [request.future.exception(30) for request in requests]
    assert isinstance(failures[0], EngineError)
    assert len(engine.generate(prompts(2), Sampling(2, 1.0, 5))[1]) == 2
    with pytest.raises(EngineError, match=said):
        raise failures[0]
    assert settled(engine)
    engine.close()


def test_a_prompt_without_room_for_an_answer_is_answered_emptily(engine: ContinuousEngine) -> None:
    positions = engine.engine.positions
    assert positions is not None
    found = engine.generate([replace(prompts(1)[0], token_ids=(5,) * positions)], Sampling(2))
    assert [(one.text, one.finish) for one in found[0]] == [("", "length")] * 2


def test_an_embedded_engine_is_what_it_stands_on(engine: ContinuousEngine) -> None:
    assert isinstance(engine.engine, EmbeddedEngine)


def test_a_request_that_cannot_even_wait_does_not_end_the_engine(engine: ContinuousEngine) -> None:
    broken = engine.submit(prompts(1)[0], replace(KINDS[0], n=1.5))  # type: ignore[arg-type]  # as a caller's bug
    with pytest.raises(EngineError, match="decoding failed"):
        broken.future.result(30)
    assert engine.generate(prompts(1), KINDS[0])[0][0].tokens
    assert settled(engine)


def test_an_absurd_limit_takes_no_more_room_than_the_model_has(engine: ContinuousEngine, loaded: LoadedModel) -> None:
    absurd = Sampling(2, 1.0, 2**40, seed=3)
    found = engine.generate(prompts(1), absurd)[0]
    expected = engine_of(loaded, ENDS).generate(prompts(1), absurd)[0]
    assert [alike(one, other) for one, other in zip(found, expected, strict=True)] == [True, True]
