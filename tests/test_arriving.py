"""Answers are graded as they arrive: in any order with the same result, beside the engine, and with nothing left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.ahead import Overlapped
from spark_rl.chat import ChatFormat, Prompt
from spark_rl.clock import Clock
from spark_rl.config import ChatConfig, RewardConfig, RolloutConfig, VerifyConfig
from spark_rl.engine.base import Arrival, Sampling, arrivals
from spark_rl.engine.decoding import Decoding
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.engine.probe import Probed
from spark_rl.errors import EngineError
from spark_rl.model.load import load_model
from spark_rl.problem import Completion, Group, Problem
from spark_rl.rewards import RewardSet
from spark_rl.rewards.base import WeightedReward
from spark_rl.rollout import Sampler
from spark_rl.verify import Verifier
from tiny import EOS, engine_of, prompts, tiny_config

HANGS = r"\boxed{\sum_{a=1}^{999}\sum_{b=1}^{999}\sum_{c=1}^{999}\sqrt{abc}}"
TEXTS = (r"\boxed{\sqrt{12}}", r"\boxed{2}", "no box", r"\boxed{\sqrt{48}/2}", r"\boxed{\sqrt{13}}")
PROBLEMS = [Problem(f"p-{n}", f"{n}?", r"2\sqrt{3}") for n in range(5)]


class InOrder:
    """Prepared texts, each prompt's n at a time, in an order of its own."""

    version = 0

    def __init__(self, order: Sequence[int] = range(5), texts: Sequence[str] = TEXTS) -> None:
        self.order, self.texts = order, texts
        self.closed = 0

    def group(self, place: int, n: int) -> list[Completion]:
        texts = [self.texts[(place + row) % len(self.texts)] for row in range(n)]
        return [Completion(text, (place, row), (-0.5, -0.25), "stop") for row, text in enumerate(texts)]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return [self.group(place, sampling.n) for place in range(len(prompts))]

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        try:
            for place in self.order:
                self.before(place)
                yield place, self.group(place, sampling.n)
        finally:
            self.closed += 1

    def before(self, place: int) -> None: ...

    def sync(self, weights: Any) -> None: ...

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class AtTheEnd(InOrder):
    """The same texts from an engine that has no ``arriving`` of its own."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return super().generate(prompts, sampling)


@pytest.fixture(scope="module")
def chat(tiny_models: dict[str, Path]) -> ChatFormat:
    return ChatFormat(load_model(tiny_config(tiny_models["qwen2"])).tokenizer, ChatConfig(policy="solve {question}"))


def in_place(completions: list[str], **_: Any) -> list[float]:
    """A reward that depends on where in the batch a response stands."""
    return [place / len(completions) for place, _ in enumerate(completions)]


def groups_of(engine: Any, chat: ChatFormat, verifier: Verifier, *, rewards: bool = False) -> list[Group]:
    given_rewards = RewardSet([WeightedReward(in_place)]) if rewards else None
    reward = RewardConfig(verifier=1.0) if rewards else RewardConfig()
    settings = RolloutConfig(samples=3, max_new_tokens=8)
    one = Sampler(engine, chat, verifier, settings, reward, given_rewards)
    return one.sample(PROBLEMS, 3, Clock()).groups


@pytest.mark.parametrize("rewards", [False, True])
@given(order=st.permutations(range(5)))
def test_the_order_of_arrival_changes_nothing(
    rewards: bool, chat: ChatFormat, verifier: Verifier, order: list[int]
) -> None:
    found = groups_of(InOrder(order), chat, verifier, rewards=rewards)
    expected = groups_of(AtTheEnd(), chat, verifier, rewards=rewards)
    assert found == expected
    assert [g.rewards for g in found] == [g.rewards for g in expected]
    assert [r.verdict.values for g in found for r in g.rollouts] == [
        r.verdict.values for g in expected for r in g.rollouts
    ]
    if not rewards:
        assert [group.rewards for group in found][:2] == [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]


def test_workers_grade_while_the_engine_goes_on(chat: ChatFormat) -> None:
    class Waits(InOrder):
        def before(self, place: int) -> None:
            deadline = time.monotonic() + (20 if 0 in self.order else 0.2)
            while place == 1 and not verifier.pids:  # what prompt 0 was answered is with a worker already
                assert time.monotonic() < deadline
                time.sleep(0.01)

    with Verifier() as verifier:
        groups_of(Waits(), chat, verifier)
    with Verifier() as verifier, pytest.raises(EngineError, match="AssertionError"):  # the check above can fail
        groups_of(Waits(range(1, 5)), chat, verifier)


class Listening:
    """A wrapper of somebody's own, which has to hear every call."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.heard = engine, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.heard += 1
        found: list[list[Completion]] = self.engine.generate(prompts, sampling)
        return found


def test_a_generate_of_its_own_is_not_passed_by() -> None:
    asked, sampling = prompts(5), Sampling(2)
    listening, patched = Listening(InOrder([4, 3, 2, 1, 0])), InOrder([4, 3, 2, 1, 0])
    patched.generate = listening.generate  # type: ignore[method-assign]
    for engine in (listening, patched, AtTheEnd([4, 3, 2, 1, 0])):
        assert [place for place, _ in arrivals(engine, asked, sampling)] == [0, 1, 2, 3, 4]
    assert listening.heard == 2
    for wrapped in (InOrder([4, 3, 2, 1, 0]), Overlapped(InOrder([4, 3, 2, 1, 0]), None)):  # type: ignore[arg-type]
        probed = Probed(wrapped, lambda *_: [], 1.0)
        assert [place for place, _ in arrivals(probed, asked, sampling)] == [4, 3, 2, 1, 0]
        assert probed.generate(asked, sampling) == AtTheEnd().generate(asked, sampling)
        assert probed.recent == tuple(asked[:4])


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 2, 3], "InOrder gave completions for 4 prompts and was asked 5"),
        ([0, 1, 0], "InOrder gave the completions of prompt 1 of 5 twice"),
        ([0, 5], r"InOrder gave \(5, \[Completion.* in place of \(one of 5 places, its completions\)"),
    ],
)
def test_an_engine_that_does_not_give_each_prompt_once_is_named(
    order: list[int], message: str, chat: ChatFormat, verifier: Verifier
) -> None:
    engine = InOrder(order)
    with pytest.raises(EngineError, match=f"^{message}"):
        groups_of(engine, chat, verifier)
    assert engine.closed == 1


class Places(InOrder):
    """Places that only look like whole numbers."""

    made: Any = torch.tensor

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        return ((self.made(place), group) for place, group in super().arriving(prompts, sampling))


def test_a_place_is_a_whole_number_of_whatever_library(chat: ChatFormat, verifier: Verifier) -> None:
    assert groups_of(Places([3, 1, 4, 0, 2]), chat, verifier) == groups_of(AtTheEnd(), chat, verifier)
    with pytest.raises(EngineError, match=r"^Places gave the completions of prompt 2 of 5 twice"):
        groups_of(Places([1, 1, 4, 0, 2]), chat, verifier)
    halves = Places()
    halves.made = float
    with pytest.raises(EngineError, match=r"^Places gave \(0\.0, .* in place of \(one of 5 places"):
        groups_of(halves, chat, verifier)


def test_a_completion_without_a_text_is_named(chat: ChatFormat, verifier: Verifier) -> None:
    with pytest.raises(EngineError, match=r"^InOrder, prompt 1 of 5: .* has a text that is none"):
        groups_of(InOrder(texts=[None]), chat, verifier)  # type: ignore[list-item]


@pytest.mark.parametrize("error", [OSError("the cable is out"), KeyboardInterrupt()])
def test_what_ends_the_sampling_ends_the_grading(error: BaseException, chat: ChatFormat) -> None:
    class Breaks(InOrder):
        def before(self, place: int) -> None:
            while place == 3:
                if verifier.pids:  # a worker has begun
                    raise error

    texts = [HANGS.replace("999", f"99{n}") for n in range(9)]
    with (
        Verifier(VerifyConfig(workers=1, timeout=0.3)) as verifier,
        pytest.raises((EngineError, KeyboardInterrupt)) as caught,
    ):
        groups_of(Breaks(texts=texts), chat, verifier)
    assert isinstance(error, KeyboardInterrupt) or str(caught.value).startswith("Breaks raised OSError: the cable")
    assert not verifier.pids
    assert verifier.kills <= 1, "of nine comparisons that hang those not begun were dropped"


def test_what_the_verifier_refuses_ends_the_sampling(chat: ChatFormat, verifier: Verifier) -> None:
    engine = InOrder([4, 2, 0, 1, 3])
    settings = RolloutConfig(samples=3, max_new_tokens=8)
    problems = [*PROBLEMS[:2], Problem("bad", "?", " "), *PROBLEMS[3:]]
    with pytest.raises(ValueError, match="the gold answer is empty"):
        Sampler(engine, chat, verifier, settings).sample(problems, 0, Clock())
    assert engine.closed == 1


def test_prompts_leave_the_embedded_engine_when_their_rows_have_ended(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: EmbeddedEngine = engine_of(load_model(tiny_config(tiny_models["qwen3"])), [EOS, *range(11, 25)], max_rows=4)
    asked, sampling = prompts(9, longest=30), Sampling(n=2, max_new_tokens=24, seed=2)
    draw, drawn = Decoding._draw, list[int]()
    monkeypatch.setattr(Decoding, "_draw", lambda *given, **how: (drawn.append(1), draw(*given, **how))[1])
    came, found = list[int](), dict[int, list[Completion]]()
    for place, completions in engine.arriving(asked, sampling):
        assert not torch.is_inference_mode_enabled()
        came.append(len(drawn))
        found[place] = completions
    assert len(set(came)) > 3
    assert came[0] < len(drawn) / 2
    assert [found[place] for place in range(9)] == engine.generate(asked, sampling)
