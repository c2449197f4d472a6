"""What OpenAI's own client gets from a server, beside the same model without one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from served import Served

from spark_rl.backend import open_reasoner
from spark_rl.config import load_config
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.inference import Reasoner
from spark_rl.problem import Completion, Problem

QUESTION = "5?4?3?9=32"
ASKED = [{"role": "user", "content": f"solve {QUESTION}"}]
PROBLEM = Problem(id="q", question=QUESTION, answer="")


@pytest.fixture
def client(served: Served) -> OpenAI:
    return served.client()


def own(offline: Reasoner, sampling: Sampling) -> list[Completion]:
    """What the engine gives without a server."""
    return offline.engine.generate([offline.chat.encode(PROBLEM)], sampling)[0]


def test_the_model_is_listed_and_no_other_is_served(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["embedded"]
    with pytest.raises(NotFoundError, match="there is no model 'gpt-9' here; there is 'embedded'"):
        client.chat.completions.create(model="gpt-9", messages=ASKED)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_same_seed_gives_the_completions_of_the_offline_engine(
    client: OpenAI, offline: Reasoner, temperature: float
) -> None:
    expected = own(offline, Sampling(4, temperature, 48, seed=7))
    reply = client.chat.completions.create(
        model="embedded", messages=ASKED, n=4, temperature=temperature, seed=7, max_tokens=48
    )
    assert [choice.message.content for choice in reply.choices] == [one.text for one in expected]
    assert [choice.finish_reason for choice in reply.choices] == [one.finish for one in expected]
    assert reply.usage.completion_tokens == sum(one.tokens for one in expected)
    assert reply.usage.prompt_tokens == len(offline.chat.encode(PROBLEM).token_ids)


def test_a_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    settings = {"model": "embedded", "messages": ASKED, "n": 3, "temperature": 1, "seed": 3, "max_tokens": 40}
    whole = client.chat.completions.create(**settings)
    texts, ends, used, pieces = ["", "", ""], [None] * 3, None, 0
    for piece in client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}):
        used = piece.usage or used
        for choice in piece.choices:
            pieces += bool(choice.delta.content)
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert used == whole.usage
    assert pieces > 6, "it comes in pieces"


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_of_the_engine(client: OpenAI, offline: Reasoner, stream: bool) -> None:
    expected = own(offline, Sampling(1, 1.0, 30, seed=9, top=3))[0]
    settings = {"model": "embedded", "messages": ASKED, "seed": 9, "max_tokens": 30, "logprobs": True,
                "top_logprobs": 3}  # fmt: skip
    if stream:
        pieces = client.chat.completions.create(**settings, stream=True)
        found = [one for p in pieces for c in p.choices if c.logprobs for one in c.logprobs.content]
    else:
        found = client.chat.completions.create(**settings).choices[0].logprobs.content
    assert [one.logprob for one in found] == pytest.approx(expected.logprobs, abs=1e-4)
    assert [one.token for one in found] == [place[0][0] for place in expected.top]
    for one in found:
        assert len(one.top_logprobs) == 3
        likely = [other.logprob for other in one.top_logprobs]
        assert likely == sorted(likely, reverse=True)
        assert bytes(one.bytes).decode() == one.token


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_a_response_and_is_not_in_it(client: OpenAI, stream: bool) -> None:
    settings = {"model": "embedded", "messages": ASKED, "temperature": 0, "max_tokens": 40}
    text = client.chat.completions.create(**settings).choices[0].message.content
    stop = text[3:6]
    if stream:
        pieces = client.chat.completions.create(**settings, stop=[stop, "never"], stream=True)
        found = "".join(c.delta.content or "" for piece in pieces for c in piece.choices)
    else:
        found = client.chat.completions.create(**settings, stop=stop).choices[0].message.content
    assert found == text[: text.index(stop)]


def test_a_chat_of_several_messages_reaches_the_model(client: OpenAI) -> None:
    chat = [{"role": "system", "content": "terse"}, *ASKED, {"role": "assistant", "content": "x"}, *ASKED]
    alone = client.chat.completions.create(model="embedded", messages=ASKED, max_tokens=4)
    several = client.chat.completions.create(model="embedded", messages=chat, max_tokens=4)
    assert several.usage.prompt_tokens > 2 * alone.usage.prompt_tokens


def test_a_prompt_that_has_no_room_is_an_error_in_one_line(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="positions for prompt and response together"):
        client.chat.completions.create(model="embedded", messages=[{"role": "user", "content": "1+" * 5000}])


def test_answering_judging_and_reflecting_is_that_of_solve(client: OpenAI, offline: Reasoner) -> None:
    problems = load_problems("procedural:missing", load_config("tiny").data, "heldout")[:12]
    traces = [offline.solve([problem])[0] for problem in problems]
    assert len({len(trace.rounds) for trace in traces}) > 1, "some are reflected on"
    for problem, trace in zip(problems, traces, strict=True):
        reply = client.chat.completions.create(
            model="embedded", messages=[{"role": "user", "content": problem.question}],
            extra_body={"spark": {"trace": True}},
        )  # fmt: skip
        assert reply.choices[0].message.content == trace.response
        assert reply.spark["answer"] == trace.answer
        rounds = reply.spark["rounds"]
        assert [one["response"] for one in rounds] == [one.response for one in trace.rounds]
        assert [one["judgement"] for one in rounds] == [one.judgement for one in trace.rounds]
        assert [one["role"] for one in rounds] == ["answer"] + ["reflection"] * (len(rounds) - 1)
        assert rounds[0]["probability"] == pytest.approx(trace.rounds[0].probability, abs=1e-4)
        assert reply.usage.completion_tokens == sum(one.tokens for one in trace.rounds)
        assert reply.usage.prompt_tokens >= len(offline.chat.encode(problem).token_ids)
        assert reply.choices[0].finish_reason == "stop"


def test_one_of_several_answers_is_chosen_and_then_reflected_on(client: OpenAI, offline: Reasoner) -> None:
    settings = offline.config.model_copy(update={"select": "verdict", "samples": 4, "temperature": 0.7})
    chosen = replace(offline, config=settings, seed=5).solve([PROBLEM])[0]
    asked = {"model": "embedded", "messages": [{"role": "user", "content": QUESTION}], "seed": 5}
    reply = client.chat.completions.create(**asked, extra_body={"spark": {"n": 4, "select": "verdict", "trace": True}})
    assert [one["response"] for one in reply.spark["rounds"]] == [one.response for one in chosen.rounds]
    assert reply.spark["final_round"] == chosen.chosen
    more = client.chat.completions.create(
        **asked, extra_body={"spark": {"n": 4, "select": "majority", "rounds": 2, "trace": True}}
    )
    assert [one["role"] for one in more.spark["rounds"][:4]] == ["answer"] * 4
    assert more.spark["rounds"][more.spark["final_round"]]["response"] == more.choices[0].message.content
    assert any(one["judgement"] for one in more.spark["rounds"])


@pytest.mark.parametrize("spark", [{"rounds": 2}, {"n": 4, "select": "verdict", "rounds": 1}, {"n": 2, "rounds": 0}])
def test_a_stream_tells_of_rounds_as_they_are_known_and_ends_with_all(client: OpenAI, spark: dict[str, object]) -> None:
    asked = {"model": "embedded", "messages": [{"role": "user", "content": QUESTION}], "seed": 5, "temperature": 1}
    whole = client.chat.completions.create(**asked, extra_body={"spark": {**spark, "trace": True}})
    pieces = list(client.chat.completions.create(**asked, stream=True, extra_body={"spark": {**spark, "trace": True}}))
    *before, last = [piece for piece in pieces if getattr(piece, "spark", None)]
    assert last.spark == whole.spark
    assert last.usage == whole.usage
    text = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
    assert text == whole.choices[0].message.content
    known: list[dict[str, object]] = []
    for piece in before:
        for one in piece.spark["rounds"]:
            assert one["index"] <= len(known)
            known[one["index"] :] = [one, *known[one["index"] + 1 :]]
    assert [{name: value for name, value in one.items() if name != "index"} for one in known] == whole.spark["rounds"]
    assert len(before) >= (2 if spark["rounds"] else 1), "an answer comes before its judgement"


def test_a_stream_without_a_trace_is_the_answer_alone(client: OpenAI) -> None:
    pieces = list(client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": QUESTION}], stream=True,
        extra_body={"spark": {"rounds": 1}},
    ))  # fmt: skip
    text = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
    (last,) = [piece for piece in pieces if getattr(piece, "spark", None)]
    assert last is pieces[-1]
    assert last.spark["answer"] in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"stop": "x"}, "stop does not go with spark"), ({"n": 2}, "spark.n is"),
        ({"top_p": 0.5}, "top_p is not supported here"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_beside_spark_is_refused(client: OpenAI, more: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        client.chat.completions.create(model="embedded", messages=ASKED, extra_body={"spark": {}}, **more)


def test_a_response_is_judged_as_offline(served: Served, offline: Reasoner) -> None:
    responses = [r"\boxed{*++}", r"work 5+4=9*3=27+9=36\boxed{+*+}", "no box"]
    expected = offline.judge([PROBLEM] * 3, responses)
    items = [{"question": QUESTION, "response": response} for response in responses]
    found = served.post("/v1/judge", {"items": items}).json()["data"]
    assert [row["judgement"] for row in found] == [opinion.text for opinion in expected]
    assert [row["probability"] for row in found] == pytest.approx([one.probability for one in expected], abs=1e-4)
    assert [row["verdict"] == "Yes" for row in found] == [one.accepted for one in expected]
    assert all(0 <= row["reward"] <= 1 for row in found)
    alone = served.post("/v1/judge", items[0]).json()["data"]
    assert alone[0]["verdict"] == found[0]["verdict"]


def test_a_pair_is_judged_in_both_orders(served: Served, offline: Reasoner) -> None:
    pair = (r"\boxed{*++}", r"work 5+4=9*3=27+9=36\boxed{+*+}")
    expected = offline.compare([PROBLEM] * 2, [pair, pair[::-1]])
    asked = {"question": QUESTION, "response": pair[0], "other": pair[1]}
    (row,) = served.post("/v1/judge", asked).json()["data"]
    (turned,) = served.post("/v1/judge", asked | {"response": pair[1], "other": pair[0]}).json()["data"]
    back = {"A": "B", "B": "A", None: None}
    assert [order["judgement"] for order in row["orders"]] == [text for text, _, _ in expected]
    assert [order["verdict"] for order in row["orders"]] == [expected[0][1], back[expected[1][1]]]
    assert turned["reward"] == pytest.approx(1 - row["reward"]), "whichever comes first"
    assert row["verdict"] is None or (row["verdict"] == "A") == (row["reward"] == 1)


@pytest.fixture(scope="module")
def seeing() -> Iterator[Served]:
    with Served("--model", "embedded-vl") as server:
        yield server


def test_pictures_are_seen(seeing: Served) -> None:
    tiles = Path(__file__).parents[2] / "docs" / "images" / "tiles.png"
    config, question = load_config("tiny-vl"), "o+g+b+_=17"
    offline = open_reasoner(config)
    problem = Problem(id="q", question=question, answer="", images=(str(tiles),))
    prompt = offline.chat.encode(problem)
    text = config.chat.policy.replace("{question}", question)
    url = "data:image/png;base64," + base64.b64encode(tiles.read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    for sampling in (Sampling(1, 0.0, 48), Sampling(3, 1.0, 48, seed=2)):
        expected = offline.engine.generate([prompt], sampling)[0]
        reply = seeing.client().chat.completions.create(
            model="embedded-vl", messages=[{"role": "user", "content": content}], n=sampling.n, seed=sampling.seed,
            temperature=sampling.temperature, max_tokens=48,
        )  # fmt: skip
        assert reply.usage.prompt_tokens == len(prompt.token_ids)
        assert [choice.message.content for choice in reply.choices] == [one.text for one in expected]
    trace = offline.solve([problem])[0]
    content[1]["text"] = question
    solved = seeing.client().chat.completions.create(
        model="embedded-vl", messages=[{"role": "user", "content": content}], extra_body={"spark": {"trace": True}}
    )
    assert [one["response"] for one in solved.spark["rounds"]] == [one.response for one in trace.rounds]
    judged = seeing.post("/v1/judge", {"question": question, "response": r"\boxed{3}", "images": [url]}).json()
    assert judged["data"][0]["judgement"] == offline.judge([problem], [r"\boxed{3}"])[0].text


def test_a_model_that_sees_nothing_says_so(client: OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(BadRequestError, match="has no place; use a vision-language model"):
        client.chat.completions.create(model="embedded", messages=[{"role": "user", "content": [image]}])


def test_metrics_are_numbers_for_prometheus(served: Served, client: OpenAI) -> None:
    before = served.measured()
    client.chat.completions.create(model="embedded", messages=ASKED, n=2, max_tokens=3, temperature=0)
    after = served.measured()
    asked = 'spark_rl_requests_total{path="/v1/chat/completions",status="200"}'
    assert after[asked] - before.get(asked, 0) == 1
    assert after["spark_rl_engine_tokens_total"] - before["spark_rl_engine_tokens_total"] == 6
    assert after["spark_rl_request_seconds_count"] > before["spark_rl_request_seconds_count"]


def test_json_is_the_protocols(served: Served) -> None:
    reply = served.post("/v1/chat/completions", {"messages": ASKED, "max_tokens": 2}).json()
    assert reply["object"] == "chat.completion"
    assert set(reply) == {"id", "object", "created", "model", "choices", "usage"}
    assert json.dumps(reply, allow_nan=False)


def test_a_temperature_of_almost_nothing_is_greedy(client: OpenAI) -> None:
    texts = {
        client.chat.completions.create(model="embedded", messages=ASKED, temperature=warmth, max_tokens=30)
        .choices[0].message.content for warmth in (0, 1e-6, 1e-45)
    }  # fmt: skip
    assert len(texts) == 1


def test_what_is_read_and_written_is_counted_in_every_role(client: OpenAI, served: Served, offline: Reasoner) -> None:
    before = served.measured()["spark_rl_engine_tokens_total"]
    reply = client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": QUESTION}], seed=5,
        extra_body={"spark": {"n": 4, "select": "verdict", "rounds": 2}},
    )  # fmt: skip
    judged = served.post("/v1/judge", {"question": QUESTION, "response": r"\boxed{*++}", "judgements": 3}).json()
    written = served.measured()["spark_rl_engine_tokens_total"] - before
    assert reply.usage.completion_tokens + judged["usage"]["completion_tokens"] == written
    asked = len(offline.chat.encode(PROBLEM).token_ids)
    assert judged["usage"]["prompt_tokens"] > asked
    assert reply.usage.prompt_tokens > 5 * asked, "it is read once to answer, and each answer with it to be judged"


def test_an_answer_that_was_cut_says_so(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": QUESTION}], max_tokens=3,
        extra_body={"spark": {"rounds": 0}},
    )  # fmt: skip
    assert reply.choices[0].finish_reason == "length"


def test_a_judgement_of_two_thousand_million_tokens_hurts_nobody(served: Served) -> None:
    asked = {"question": QUESTION, "response": r"\boxed{*++}"}
    absurd = served.post("/v1/judge", {**asked, "max_tokens": 2**31 - 1})
    assert absurd.status_code == 200
    assert absurd.json()["data"] == served.post("/v1/judge", asked).json()["data"]
