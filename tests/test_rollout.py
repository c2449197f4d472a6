"""Problems to groups: seeds, verdicts, limits, and that no label ever reaches an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.chat import ChatFormat, Prompt
from spark_rl.clock import Clock
from spark_rl.config import ChatConfig, InferenceConfig, RewardConfig, RolloutConfig
from spark_rl.engine.base import Engine, Sampling
from spark_rl.inference import Reasoner
from spark_rl.model.load import load_model
from spark_rl.problem import Completion, Problem
from spark_rl.recycle import load_templates
from spark_rl.recycle.candidate import answered
from spark_rl.rollout import Sampler
from spark_rl.seeds import stream_seed
from spark_rl.verify import Verifier
from tiny import engine_of, tiny_config

GOLD = "Zq7391qZ"


class RecordingEngine:
    """An engine that gives prepared texts in turn and remembers everything it was told."""

    version = 0

    def __init__(self, *texts: str, finish: str = "stop") -> None:
        self.texts = texts
        self.finish = finish
        self.seen: list[tuple[tuple[Prompt, ...], Sampling]] = []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.seen.append((tuple(prompts), sampling))
        texts = cycle(self.texts)
        return [
            [Completion(next(texts), (7, 2), (-0.5, -0.25), self.finish) for _ in range(sampling.n)] for _ in prompts
        ]

    def sync(self, source: Any) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def chat(tiny_models: dict[str, Path]) -> ChatFormat:
    loaded = load_model(tiny_config(tiny_models["qwen2"]))
    return ChatFormat(loaded.tokenizer, ChatConfig(policy="solve {question}", stop=("\nQ:",)))


def sampler(engine: Engine, chat: ChatFormat, verifier: Verifier, **settings: Any) -> Sampler:
    return Sampler(engine, chat, verifier, RolloutConfig(**{"samples": 2, "max_new_tokens": 8, **settings}))


def exact(number: int = 0, question: str = "one?", **fields: Any) -> Problem:
    return Problem(id=f"p-{number}", question=question, answer=GOLD, kind="exact", **fields)


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_golden_stream_seeds() -> None:
    # printf '0:policy:3' | sha256sum | cut -c1-14
    assert stream_seed(0, "policy", 3) == 69814504390275481
    assert stream_seed(0, "recycled", 3) == 43580834876631692
    assert stream_seed(1, "order", 0) == 42390403560681163
    assert stream_seed(7) == 34061124792233098


def test_streams_differ_by_seed_purpose_and_step() -> None:
    names = [(s, p, t) for s in range(5) for p in ("policy", "recycled", "recycle", "order") for t in range(50)]
    assert len({stream_seed(seed, purpose, step) for seed, purpose, step in names}) == len(names)


@given(seed=st.integers(0, 2**40), step=st.integers(0, 2**20))
def test_stream_seeds_suit_torch(seed: int, step: int) -> None:
    assert 0 <= stream_seed(seed, "policy", step) < 2**56


# --- groups ---------------------------------------------------------------------------------------------------------


def test_groups_are_verified_in_order(chat: ChatFormat, verifier: Verifier) -> None:
    engine = RecordingEngine(f"so \\boxed{{{GOLD}}}", "so \\boxed{4}", "no box")
    problems = [exact(n, f"what is {n}?") for n in range(2)]
    groups = sampler(engine, chat, verifier, samples=3).sample(problems, 11, Clock()).groups
    assert [group.problem for group in groups] == problems
    for group in groups:
        assert group.rewards == (1.0, 0.0, 0.0)
        assert [r.verdict.status for r in group.rollouts] == ["correct", "wrong", "no_answer"]
        assert [r.verdict.extracted for r in group.rollouts] == [GOLD, "4", None]
        assert group.prompt_ids == chat.encode(group.problem).token_ids
        assert group.rollouts[0].completion.token_ids == (7, 2)


def test_the_engine_is_asked_as_configured(chat: ChatFormat, verifier: Verifier) -> None:
    engine = RecordingEngine("x")
    sampler(engine, chat, verifier, samples=5, temperature=0.8, max_new_tokens=9).sample([exact()], 11, Clock())
    ((prompts, sampling),) = engine.seen
    assert prompts == (chat.encode(exact()),)
    assert sampling == Sampling(5, 0.8, 9, 11)
    assert prompts[0].stop == ("\nQ:",)


def test_prompts_that_are_too_long_are_left_out(chat: ChatFormat, verifier: Verifier) -> None:
    engine = RecordingEngine("x")
    problems = [exact(0, "a" * 10), exact(1, "a" * 11), exact(2, "a")]
    limit = len(chat.encode(problems[0]).token_ids)
    assert len(chat.encode(problems[1]).token_ids) == limit + 1
    groups = sampler(engine, chat, verifier, max_prompt_tokens=limit).sample(problems, 0, Clock()).groups
    assert [group.problem.id for group in groups] == ["p-0", "p-2"]
    assert len(engine.seen[0][0]) == 2


def test_what_is_too_long_is_given_back_and_replaced_while_there_is_more(chat: ChatFormat, verifier: Verifier) -> None:
    limit = len(chat.encode(exact(0, "a" * 10)).token_ids)
    waiting = [exact(n, "a" * (11 if n in {0, 2, 5} else 5)) for n in range(6)]

    def sampled(count: int | None) -> tuple[list[str], list[str], list[str]]:
        left = iter(waiting)
        one = sampler(RecordingEngine("x"), chat, verifier, max_prompt_tokens=limit)
        groups, too_long = one.sample(left, 0, Clock(), count)
        return [group.problem.id for group in groups], [p.id for p in too_long], [p.id for p in left]

    assert sampled(2) == (["p-1", "p-3"], ["p-0", "p-2"], ["p-4", "p-5"])
    assert sampled(3) == (["p-1", "p-3", "p-4"], ["p-0", "p-2"], ["p-5"]), "nothing is taken beyond the last"
    assert sampled(4) == sampled(None) == (["p-1", "p-3", "p-4"], ["p-0", "p-2", "p-5"], [])


def test_nothing_to_ask_gives_no_groups(chat: ChatFormat, verifier: Verifier) -> None:
    one = sampler(RecordingEngine("x"), chat, verifier, max_prompt_tokens=1)
    assert one.sample([], 0, Clock()).groups == []
    assert one.sample([exact()], 0, Clock()).groups == []


def test_any_of_several_gold_answers_earns_the_reward(chat: ChatFormat, verifier: Verifier) -> None:
    engine = RecordingEngine(f"\\boxed{{{GOLD}}}", "\\boxed{other}", "\\boxed{4}")
    one = sampler(engine, chat, verifier, samples=3)
    (group,) = one.sample([exact(alternatives=("more", "other"))], 0, Clock()).groups
    assert group.rewards == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("form", "golds", "statuses"),
    [
        ("evaluated", ("55",), ("correct", "unparsable", "unparsable", "wrong", "correct")),
        ("equivalent", ("55",), ("correct", "correct", "correct", "wrong", "correct")),
        ("evaluated", ("41", "55"), ("correct", "unparsable", "unparsable", "wrong", "correct")),
        ("evaluated", (r"11\cdot5", "55"), ("correct", "correct", "unparsable", "wrong", "correct")),
    ],
)
def test_training_rewards_what_is_evaluated(
    chat: ChatFormat, verifier: Verifier, form: str, golds: tuple[str, ...], statuses: tuple[str, ...]
) -> None:
    """What is refused is neither right nor wrong, so nothing is recycled from it."""
    texts = [
        rf"\boxed{{{answer}}}" for answer in ("55", r"5\times11", r"\sum_{k=1}^{10}k", r"6\times8", r"5\times11=55")
    ]
    one = sampler(RecordingEngine(*texts), chat, verifier, samples=len(texts))
    one.reward = RewardConfig(form=form)
    asked = Problem(id="p", question="?", answer=golds[0], alternatives=golds[1:])
    (group,) = one.sample([asked], 0, Clock()).groups
    assert tuple(rollout.verdict.status for rollout in group.rollouts) == statuses
    assert group.rewards == tuple(float(status == "correct") for status in statuses)
    assert sum(map(len, answered(group))) == sum(status in {"correct", "wrong"} for status in statuses)
    assert [verifier.verify(text, "55").status for text in texts] == ["correct"] * 3 + ["wrong", "correct"]


CUT, ENDED = "so \\boxed{4}", "so \\boxed{3}</think> \\boxed{4}"


def thinking_chat(tiny_models: dict[str, Path], policy: str, *, special: bool = False) -> ChatFormat:
    tokenizer = load_model(tiny_config(tiny_models["qwen2"])).tokenizer
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    return ChatFormat(tokenizer, ChatConfig(policy=policy))


@pytest.mark.parametrize(
    ("policy", "special", "texts", "statuses"),
    [
        ("{question} <think>", False, ("<think>" + CUT, "<think>" + ENDED), ("no_answer", "correct")),
        ("{question} <THINK>\n\n", False, ("<think>" + CUT, "<think>" + ENDED), ("no_answer", "correct")),
        ("{question} <think></think>", False, (CUT, ENDED), ("correct", "correct")),
        ("<think> {question}", False, (CUT, ENDED), ("correct", "correct")),
        ("{question} <think>", True, (CUT, ENDED), ("correct", "correct")),
    ],
    ids=["opened", "in capitals", "closed again", "elsewhere", "tags that decoding drops"],
)
def test_a_response_goes_on_with_the_thought_that_its_prompt_opens(
    tiny_models: dict[str, Path],
    verifier: Verifier,
    policy: str,
    special: bool,
    texts: tuple[str, ...],
    statuses: tuple[str, ...],
) -> None:
    chat = thinking_chat(tiny_models, policy, special=special)
    problem = Problem(id="p", question="2+2?", answer="4")
    (group,) = sampler(RecordingEngine(CUT, ENDED), chat, verifier).sample([problem], 0, Clock()).groups
    assert tuple(rollout.text for rollout in group.rollouts) == texts
    assert tuple(rollout.verdict.status for rollout in group.rollouts) == statuses
    assert all(rollout.completion.token_ids == (7, 2) for rollout in group.rollouts), "what was sampled stays"

    reasoner = Reasoner(RecordingEngine(CUT), chat, load_templates("terse"), InferenceConfig())
    (said,) = reasoner.answer([problem])
    assert (said.response, said.answer) == (texts[0], "4" if statuses[0] == "correct" else None)


@pytest.mark.parametrize(
    ("finish", "setting", "reward"),
    [("length", "zero", 0.0), ("length", "keep", 1.0), ("stop", "zero", 1.0)],
)
def test_overlong_reward(chat: ChatFormat, verifier: Verifier, finish: str, setting: str, reward: float) -> None:
    engine = RecordingEngine(f"\\boxed{{{GOLD}}}", finish=finish)
    (group,) = sampler(engine, chat, verifier, overlong_reward=setting).sample([exact()], 0, Clock()).groups
    assert group.rewards == (reward, reward)
    assert {r.verdict.status for r in group.rollouts} == {"correct"}, "what was found stays found"
    assert {r.verdict.extracted for r in group.rollouts} == {GOLD}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"task": "pointwise", "prompt": "Is 4 right? Answer Yes or No.", "parent": "p-0"},
        {"choices": (GOLD, "other"), "source": GOLD, "images": ()},
        {"alternatives": (f"{GOLD} too", f"or {GOLD}")},
    ],
)
def test_no_label_reaches_the_engine(chat: ChatFormat, verifier: Verifier, fields: dict[str, Any]) -> None:
    engine = RecordingEngine("\\boxed{4}")
    sampler(engine, chat, verifier).sample([exact(**fields)], 0, Clock())
    assert GOLD not in repr(engine.seen)
    assert GOLD in repr(exact(**fields))
    decoded = chat.decode(engine.seen[0][0][0].token_ids)
    assert GOLD not in decoded
    assert decoded.startswith("Is 4 right?" if "prompt" in fields else "solve one?")
    # and the probe itself can fail: a question that holds the gold answer does reach the engine
    sampler(engine, chat, verifier).sample([replace(exact(), question=GOLD)], 0, Clock())
    assert GOLD in repr(engine.seen[1])


def test_time_is_counted_by_phase(chat: ChatFormat, verifier: Verifier) -> None:
    clock = Clock()
    one = sampler(RecordingEngine("x"), chat, verifier)
    one.sample([exact()], 0, clock)
    first = dict(clock.seconds)
    one.sample([exact()], 0, clock)
    assert set(first) == {"time/sample", "time/verify"}
    assert all(clock.seconds[name] >= first[name] >= 0 for name in first)


def test_with_the_embedded_engine_the_seed_decides(
    tiny_models: dict[str, Path], chat: ChatFormat, verifier: Verifier
) -> None:
    engine = engine_of(load_model(tiny_config(tiny_models["qwen2"])))
    one = sampler(engine, chat, verifier, samples=3)
    problems = [exact(n, f"{n}+{n}") for n in range(3)]
    assert one.sample(problems, 5, Clock()).groups == one.sample(problems, 5, Clock()).groups
    assert one.sample(problems, 5, Clock()).groups != one.sample(problems, 6, Clock()).groups
