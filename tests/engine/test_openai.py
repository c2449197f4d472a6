"""The engine for OpenAI-compatible servers against a real server on this machine, friendly and not."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from running import reasoner_of
from spark_rl.backend import Backend, open_backend
from spark_rl.chat import ChatFormat, Prompt
from spark_rl.config import ChatConfig, ImagesConfig, load_config
from spark_rl.data.images import open_image
from spark_rl.engine import endpoint
from spark_rl.engine.base import Sampling
from spark_rl.engine.dialect import completions, data_url, places, shares
from spark_rl.engine.openai import OpenAIEngine, ServerChat
from spark_rl.errors import ChatError, UserError
from spark_rl.inference import Reasoner
from spark_rl.problem import Completion, Problem
from test_chat import CHATML, bpe
from vision import draw_image

KEY = "sk-SECRET-0123456789"
PROBLEM = Problem("p", "1+1?", "2")
CHAT = ServerChat(ChatConfig(policy="{question}"))
Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


def said(*texts: str, **more: Any) -> dict[str, Any]:
    """A reply with these choices."""
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return {"choices": choices, "usage": {"completion_tokens": 5 * len(texts)}, **more}


def echo(body: dict[str, Any]) -> Answer:
    """Repeats the last message, as often as asked."""
    return 200, said(*[body["messages"][-1]["content"]] * body.get("n", 1))


@dataclass
class Served:
    """A server that replies as ``answer`` says, and remembers what it was asked."""

    answer: Callable[[dict[str, Any]], Answer] = echo
    models: Any = field(default_factory=lambda: {"data": [{"id": "tiny"}]})
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def engine(self, **options: Any) -> OpenAIEngine:
        return OpenAIEngine(self.url, options.pop("model", "tiny"), **{"timeout": 10, **options})

    def ask(self, *questions: str, engine: OpenAIEngine | None = None, **sampling: Any) -> list[list[Completion]]:
        prompts = [CHAT.encode(Problem(q, q, "")) for q in questions]
        return (engine or self.engine()).generate(prompts, Sampling(**{"max_new_tokens": 9, **sampling}))


def script(*answers: Answer) -> Callable[[dict[str, Any]], Answer]:
    """These replies one after the other, the last for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply((200, state.models) if self.path == "/v1/models" else (404, {"detail": "Not Found"}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.keys.append(self.headers.get("Authorization"))
                chat = self.path.endswith("/v1/chat/completions")  # a proxy is asked for the whole address
                answer = state.answer(body) if chat else (404, {"detail": "Not Found"})
            if callable(answer[1]):
                answer[1](self)
            else:
                self.reply(answer)

        def reply(self, answer: Answer) -> None:
            content = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            for name, value in (answer[2] if len(answer) > 2 else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are the point."""

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


# --- what is asked, what comes back


def test_completions_come_in_the_order_of_the_prompts_however_long_each_takes(served: Served) -> None:
    def slowest_first(body: dict[str, Any]) -> Answer:
        number = int(body["messages"][-1]["content"])

        def reply(handler: Any) -> None:
            time.sleep(0.1 if number < 4 else 0)
            handler.reply(echo(body))

        return 200, reply

    served.answer = slowest_first
    found = served.ask(*map(str, range(12)), engine=served.engine(parallel=5))
    assert [group[0].text for group in found] == [str(i) for i in range(12)]


def test_each_prompt_arrives_when_it_is_answered_and_closing_ends_the_requests(served: Served) -> None:
    heard = threading.Event()

    def slow_ones(body: dict[str, Any]) -> Answer:
        if body["messages"][-1]["content"] == "fast":
            return echo(body)

        def reply(handler: Any) -> None:
            heard.wait(20)
            handler.reply(echo(body))

        return 200, reply

    served.answer = slow_ones
    prompts = [CHAT.encode(Problem(q, q, "")) for q in ("slow", "fast", "slower")]
    arriving = served.engine().arriving(prompts, Sampling(2, max_new_tokens=9))
    assert next(arriving)[0] == 1, "the others are held back"
    heard.set()
    assert sorted((place, [c.text for c in group]) for place, group in arriving) == [
        (0, ["slow"] * 2), (2, ["slower"] * 2)
    ]  # fmt: skip
    heard.clear()
    arriving = served.engine().arriving(prompts, Sampling(max_new_tokens=9))
    next(arriving)
    arriving.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "spark-endpoint" for thread in threading.enumerate())
    heard.set()


def test_a_request_says_all_that_sampling_says(served: Served) -> None:
    served.ask("hello", n=3, temperature=0.7, max_new_tokens=11, seed=5, stop=("\n\n", "Q:"))
    (body,) = served.bodies
    seed = body.pop("seed")
    assert isinstance(seed, int)
    assert 0 <= seed < 2**31
    assert body == {
        "model": "tiny", "messages": [{"role": "user", "content": "hello"}], "n": 3, "temperature": 0.7, "top_p": 1,
        "max_tokens": 11, "stop": ["\n\n", "Q:"], "logprobs": True,
    }  # fmt: skip


def test_seeds_repeat_and_differ_between_prompts(served: Served) -> None:
    for _ in range(2):
        served.ask("a", "a", seed=3, engine=served.engine(parallel=1))
    seeds = [body["seed"] for body in served.bodies]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


def test_no_prompts_ask_nothing(served: Served) -> None:
    assert served.ask() == []
    assert served.bodies == []


def test_tokens_are_the_servers_count_and_no_token_is_made_up(served: Served) -> None:
    served.answer = script((200, said("hello there", usage={"completion_tokens": 7})))
    ((found,),) = served.ask("x")
    assert (found.tokens, found.token_ids, found.logprobs, found.finish) == (7, (), (), "stop")


def test_a_completion_of_our_own_counts_its_tokens() -> None:
    assert Completion("ab", (1, 2, 3), (-1.0,) * 3, "stop").tokens == 3
    assert Completion("", (), (), "length", 4).tokens == 4


def reply_of(*choices: tuple[str | None, list[Any] | None, str], total: Any = None) -> dict[str, Any]:
    return {
        "choices": [
            {
                "message": {"content": text},
                "logprobs": None if values is None else {"content": [{"token": "t", "logprob": v} for v in values]},
                "finish_reason": finish,
            }
            for text, values, finish in choices
        ],
        "usage": {"completion_tokens": total},
    }


def test_log_probabilities_are_kept_where_all_are_finite() -> None:
    kept, infinite, missing = completions(
        reply_of(
            ("a", [-0.5, 0, -9999.0], "stop"), ("b", [-0.5, float("nan")], "length"), ("c", [None], "stop"), total=6
        ),
        (),
    )
    assert kept.logprobs == (-0.5, 0.0, -9999.0)
    assert (infinite.logprobs, infinite.finish) == ((), "length")
    assert missing.logprobs == ()


def test_tokens_of_several_choices_are_shared_out() -> None:
    by_logprobs = completions(reply_of(("a", [-1] * 3, "stop"), ("bbbb", [-1], "stop"), total=8), ())
    assert [c.tokens for c in by_logprobs] == [6, 2]
    by_length = completions(reply_of(("a", None, "stop"), ("bbb", None, "stop"), total=8), ())
    assert [c.tokens for c in by_length] == [2, 6]
    uncounted = completions(reply_of(("a", [-1] * 3, "stop"), ("b", None, "stop")), ())
    assert [c.tokens for c in uncounted] == [3, 0]


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_shares_add_up_and_are_within_one_of_proportion(total: int, weights: list[float]) -> None:
    found = shares(total, weights)
    assert sum(found) == total
    if sum(weights) > 1e-300:
        assert all(abs(part - total * w / sum(weights)) < 1.001 for part, w in zip(found, weights, strict=True))


def test_withheld_and_partial_contents_are_texts() -> None:
    parts = {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]}
    assert completions(parts, ())[0].text == "ab"
    assert completions(reply_of((None, None, "length")), ())[0].text == ""


def test_stop_strings_end_texts_even_if_the_server_ignores_them(served: Served) -> None:
    served.answer = script((200, said("one\nQ: two")))
    assert served.ask("x", stop=("\n", "Q:"))[0][0].text == "one"


def test_servers_that_ignore_n_are_asked_again_with_other_seeds(served: Served) -> None:
    served.answer = script((200, said("a")), (200, said("b", "c")))
    assert [c.text for c in served.ask("x", n=3)[0]] == ["a", "b", "c"]
    first, second = served.bodies
    assert (first["n"], second["n"]) == (3, 2)
    assert first["seed"] != second["seed"]


def test_more_choices_than_asked_for_are_dropped(served: Served) -> None:
    served.answer = script((200, said("a", "b")))
    assert [c.text for c in served.ask("x")[0]] == ["a"]


def test_a_server_that_tells_no_others_is_asked_without(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    words = "top_logprobs is not supported"
    served.answer = lambda body: (400, {"error": {"message": words}}) if "top_logprobs" in body else echo(body)
    served.ask("a", top=5)
    assert [("top_logprobs" in body, body["logprobs"]) for body in served.bodies] == [(True, True), (False, True)]
    assert "a verdict's probability is told from its own token alone" in caplog.text


def test_places_are_read_as_far_as_they_are_told() -> None:
    told = {"token": "Yes", "logprob": -0.5, "top_logprobs": [{"token": "No", "logprob": -1}, {"token": 3}, "x"]}
    assert places([told]) == ((("Yes", -0.5), ("No", -1.0)),)
    assert places([{"token": "token_id:7", "logprob": 0}], lambda token: f"<{token}>") == ((("<7>", 0.0),),)
    assert places([told, {"token": "a"}]) == (), "a place is missing"
    assert places([{"token": "a", "logprob": -1, "top_logprobs": None}]) == ((("a", -1.0),),)


def refusing(name: str, status: int, said: Any) -> Callable[[dict[str, Any]], Answer]:
    """A server that refuses requests with this parameter."""
    return lambda body: (status, said) if name in body else echo(body)


@pytest.mark.parametrize("name", ["logprobs", "seed", "top_p", "temperature", "stop"])
def test_what_a_server_refuses_by_name_is_left_out_from_then_on(
    served: Served, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    served.answer = refusing(name, 400, {"error": {"message": f"Unrecognized argument: {name}"}})
    engine = served.engine(parallel=1)
    assert [group[0].text for group in served.ask("a", "b", engine=engine, stop=("Q",))] == ["a", "b"]
    assert [name in body for body in served.bodies] == [True, False, False]
    assert [record.getMessage().split(" and ")[0] for record in caplog.records] == [f"{served.url} refuses {name}"]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("logprobs", 422, {"detail": [{"type": "extra", "loc": ["body", "logprobs"], "msg": "Extra inputs"}]}),
        ("logprobs", 200, {"error": {"code": 400, "message": "This model does not support log probabilities."}}),
        ("logprobs", 500, {"error": "logprobs is not supported by this backend"}),
        ("temperature", 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.0 with this"}}),
        ("seed", 400, {"error": {"message": "Bad value.", "param": "seed", "code": "unsupported_parameter"}}),
        ("stop", 400, {"error": {"message": "Stop sequences are not supported with this model"}}),
        ("n", 400, {"error": {"message": "n must be 1"}}),
        ("n", 400, {"error": {"message": "Only one completion choice is allowed"}}),
        ("n", 400, {"message": "only `n`=1 is allowed, got 3"}),
        ("n", 501, {"detail": "n > 1 is not supported"}),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_known_in_many_words(served: Served, name: str, status: int, said: Any) -> None:
    served.answer = refusing(name, status, said)
    engine = served.engine(parallel=1)
    for _ in range(2):
        assert [c.text for c in served.ask("x", n=3, stop=("Q",), engine=engine)[0]] == ["x"] * 3
    assert sum(name in body for body in served.bodies) == 1, "remembered"
    assert len(served.bodies) == (7 if name == "n" else 3), "without n each completion is a request"
    if name == "n":
        assert len({body["seed"] for body in served.bodies[1:4]}) == 3


def test_several_refused_parameters_are_learnt_one_by_one(served: Served) -> None:
    def strict(body: dict[str, Any]) -> Answer:
        extra = next((name for name in ("seed", "logprobs", "max_tokens") if name in body), None)
        return echo(body) if extra is None else (400, {"error": {"message": f"Unsupported parameter: '{extra}'"}})

    served.answer = strict
    assert served.ask("x")[0][0].text == "x"
    assert len(served.bodies) == 4
    assert served.bodies[-1]["max_completion_tokens"] == 9


def test_a_parameter_that_only_a_prompt_speaks_of_is_kept(served: Served) -> None:
    """Servers repeat prompts: what leaving a parameter out does not mend was not about it."""
    question = "the temperature must not be supported by a seed"
    served.answer = lambda body: (
        (400, {"error": f"too long: {question}"}) if body["messages"][-1]["content"] == question else echo(body)
    )
    engine = served.engine(parallel=1)
    (refused,), (answered,) = served.ask(question, "b", engine=engine)
    assert (refused.finish, answered.text) == ("refused", "b")
    assert {"temperature", "seed"} <= served.bodies[-1].keys()


def test_template_arguments_go_with_every_request(served: Served) -> None:
    served.ask("x", engine=served.engine(chat=ChatConfig(template_arguments={"enable_thinking": False})))
    served.ask("x")
    assert [body.get("chat_template_kwargs") for body in served.bodies] == [{"enable_thinking": False}, None]


def test_stop_strings_are_those_of_each_prompts_task(served: Served) -> None:
    chat = ServerChat(ChatConfig(policy="{question}", stop={"policy": ("Q:",), "pointwise": ("<|im_end|>",)}))
    problems = [
        PROBLEM,
        replace(PROBLEM, task="pointwise", prompt="p"),
        replace(PROBLEM, task="reflection", prompt="r"),
    ]
    served.engine(parallel=1).generate([chat.encode(p) for p in problems], Sampling())
    assert [body.get("stop") for body in served.bodies] == [["Q:"], ["<|im_end|>"], None]


def test_the_token_limit_goes_by_its_newer_name_where_the_old_one_is_refused(served: Served) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    served.answer = lambda body: (400, {"error": {"message": message}}) if "max_tokens" in body else echo(body)
    served.ask("a", max_new_tokens=5)
    assert served.bodies[-1]["max_completion_tokens"] == 5


# --- requests that are refused for what they hold

TOO_LONG = {"error": {"message": "This model's maximum context length is 9 tokens, however you requested 12"}}
OF_ITSELF: tuple[tuple[int, Any, str], ...] = (
    (400, TOO_LONG, "HTTP 400: This model's maximum context length"),
    (413, {"detail": "Payload Too Large"}, "HTTP 413: Payload"),
    (422, {"message": "no"}, "HTTP 422: no"),
    (403, {"error": {"message": "Your input was flagged", "code": 403}}, "HTTP 403: Your input was flagged"),
    (500, {"error": "failed to decode image: unknown format"}, "HTTP 500: failed to decode image"),
    (200, TOO_LONG, "HTTP 200 with an error: This model's maximum context"),
    (200, {"error": {"message": "bad", "code": "400"}}, r"HTTP 200 with an error.*bad"),
    (200, {"object": "error", "message": "no", "code": 40303}, "HTTP 200 with an error: no"),
    (429, {"error": {"message": "Request too large for x on tokens per min"}}, r"too large .*\(asked 2 times\)"),
    (200, {"choices": [], "why": "blocked"}, "no choices: .*blocked"),
    (200, {"choices": None, "detail": "blocked"}, "no choices: blocked"),
    (200, {"choices": [{"message": {"content": "half"}, "finish_reason": "content_filter"}]}, "content filter"),
    (200, {"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}, r"reason error \(asked 2 times\)"),
    (200, {"choices": [{"finish_reason": "error", "error": {"code": 400, "message": "dead"}}]}, "gave up.*dead"),
)  # fmt: skip


@pytest.mark.parametrize(("status", "said", "why"), OF_ITSELF)
def test_one_refused_request_is_named_and_the_others_go_on(served: Served, status: int, said: Any, why: str) -> None:
    served.answer = lambda body: (status, said) if body["messages"][-1]["content"] == "bad" else echo(body)
    first, refused, last = served.ask("a", "bad", "b", n=2, engine=served.engine(retries=1))
    assert [c.text for c in (*first, *last)] == ["a", "a", "b", "b"]
    for completion in refused:
        assert (completion.finish, completion.text, completion.tokens) == ("refused", "", 0)
        assert re.search(why, completion.error or "")
        assert "\n" not in (completion.error or "")
    ((alone,),) = served.ask("bad", engine=served.engine(retries=1))
    assert alone.finish == "refused", "the server answers a trivial question, so it is this one's fault"


@pytest.mark.parametrize(("status", "said", "why"), [row for row in OF_ITSELF if "filter" not in row[2]])
def test_a_server_that_refuses_everything_stops(served: Served, status: int, said: Any, why: str) -> None:
    served.answer = script((status, said))
    with pytest.raises(UserError, match=f"refuses every request, a trivial one too: .*{why}") as caught:
        served.ask("a", "b", engine=served.engine(retries=1))
    assert str(caught.value).startswith(served.url)
    assert "\n" not in str(caught.value)


def test_a_server_that_starts_to_refuse_everything_stops_in_the_middle(served: Served) -> None:
    served.answer = script(*[(200, said("ok"))] * 3, (400, {"error": "out of order"}))
    with pytest.raises(UserError, match="a trivial one too: HTTP 400: out of order"):
        served.ask(*"abcdef", engine=served.engine(parallel=1))


def test_a_server_that_sees_nothing_refuses_every_picture(served: Served) -> None:
    served.answer = lambda body: (
        (400, {"error": "image input is not supported"}) if "image_url" in json.dumps(body) else echo(body)
    )
    seen = [CHAT.encode(Problem(f"{i}", "what?", "", images=(draw_image(i, 40, 30),))) for i in range(2)]
    with pytest.raises(UserError, match=r"refuses every request.*image input"):
        served.engine().generate(seen, Sampling())
    found = served.engine().generate([*seen, CHAT.encode(PROBLEM)], Sampling())
    assert [group[0].finish for group in found] == ["refused", "refused", "stop"]


def test_a_server_without_system_messages_refuses_everything(served: Served) -> None:
    served.answer = lambda body: (
        (400, {"error": "System role not supported"}) if body["messages"][0]["role"] == "system" else echo(body)
    )
    chat = ServerChat(ChatConfig(system="Be brief."))
    with pytest.raises(UserError, match="System role"):
        served.engine().generate([chat.encode(PROBLEM)], Sampling())


def test_a_reply_that_says_busy_in_other_ways_is_asked_again(served: Served) -> None:
    for said_so in (
        {"error": {"code": 429, "message": "slow down"}}, {"error": {"code": "503", "message": "x"}},
        {"error": "The model is overloaded"}, {"error": {"message": "Rate limit reached", "code": None}},
        {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "upstream"}}]},
        {"choices": [{"message": {"content": "ha"}, "finish_reason": "abort"}]},
    ):  # fmt: skip
        served.answer = script((200, said_so), (200, said("ok")))
        assert served.ask("x")[0][0].text == "ok"
    assert served.answer({})[1] == said("ok")


def test_a_reply_that_says_who_are_you_is_no_refusal_of_one(served: Served) -> None:
    served.answer = lambda body: (
        (200, {"error": {"code": 401, "message": "no key"}}) if body["messages"][-1]["content"] == "bad" else echo(body)
    )
    with pytest.raises(UserError, match=r"wants a key.*no key"):
        served.ask("a", "bad")


def test_the_models_own_refusal_is_its_text() -> None:
    reply = {"choices": [{"message": {"content": None, "refusal": "I can't help."}, "finish_reason": "stop"}]}
    assert completions(reply, ())[0].text == "I can't help."


# --- failures


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_passing_failures_are_asked_again(served: Served, status: int) -> None:
    served.answer = script((status, {"error": "busy"}), (status, b"<html>"), (200, said("ok")))
    assert served.ask("x")[0][0].text == "ok"
    assert len(served.bodies) == 3


def test_a_servers_wish_to_wait_is_granted(served: Served) -> None:
    served.answer = script((429, {}, {"Retry-After": "0.3"}), (200, said("ok")))
    started = time.perf_counter()
    served.ask("x")
    assert time.perf_counter() - started > 0.3


def test_patience_ends_in_one_line(served: Served) -> None:
    served.answer = script((503, {"error": {"message": "still\nloading"}}))
    with pytest.raises(UserError, match=r"HTTP 503: still loading \(asked 3 times\)") as caught:
        served.ask("x", engine=served.engine(retries=2))
    assert str(caught.value).startswith(served.url)
    assert len(served.bodies) == 3


def test_an_empty_purse_is_not_asked_again(served: Served) -> None:
    served.answer = script((429, {"error": {"message": "You exceeded", "code": "insufficient_quota"}}))
    with pytest.raises(UserError, match="insufficient_quota"):
        served.ask("x")
    assert len(served.bodies) == 1


def test_a_dropped_connection_is_asked_again(served: Served) -> None:
    def half(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")

    served.answer = script((200, lambda handler: handler.connection.close()), (200, half), (200, said("ok")))
    assert served.ask("x")[0][0].text == "ok"
    assert len(served.bodies) == 3


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_only(
    served: Served, monkeypatch: pytest.MonkeyPatch, key: str | None, status: int
) -> None:
    if key:
        monkeypatch.setenv("MY_KEY", f" {key}\n")
    served.answer = script((status, {"error": {"message": f"Incorrect API key provided: {KEY if key else ''}."}}))
    with pytest.raises(UserError, match="refuses the key in \\$MY_KEY" if key else "wants a key.*\\$MY_KEY") as caught:
        served.ask("x", engine=served.engine(api_key_env="MY_KEY"))
    assert KEY not in str(caught.value)
    assert len(served.bodies) == 1
    assert served.keys == [f"Bearer {KEY}" if key else None]


def test_an_impossible_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Evil: 1")
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        OpenAIEngine("http://127.0.0.1:9", "m")
    assert KEY not in str(caught.value)


def test_a_key_is_not_taken_elsewhere(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    served.answer = script((307, {}, {"Location": f"{served.url}/elsewhere"}))
    with pytest.raises(UserError, match="elsewhere"):
        served.ask("x")
    assert len(served.bodies) == 1


def test_a_wrong_model_is_told_the_right_ones(served: Served) -> None:
    served.answer = script((404, {"error": {"message": "The model `tyni` does not exist."}}))
    with pytest.raises(UserError, match="does not serve 'tyni'; it serves tiny"):
        served.ask("x", engine=served.engine(model="tyni"))


def test_a_wrong_path_hints_at_the_right_one(served: Served) -> None:
    engine = OpenAIEngine(f"{served.url}/api", "tiny")
    with pytest.raises(UserError, match=r"/v1/api: HTTP 404: Not Found; the address usually ends in /v1"):
        served.ask("x", engine=engine)


@pytest.mark.parametrize("suffix", ["", "/", "/chat/completions"])
def test_the_address_is_understood_as_people_write_it(served: Served, suffix: str) -> None:
    assert OpenAIEngine(served.url + suffix, "tiny").endpoint.url == served.url
    assert OpenAIEngine(served.url.removesuffix("/v1"), "tiny").endpoint.url == served.url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "no address"), ("ftp://host/v1", "no address"), ("http://", "no address"),
        ("http://host:port/v1", "no address"), ("http://[::1/v1", "no address"), ("http://a b/v1", "no address"),
        (f"http://{'a' * 64}.com", "no address"), ("http://host/v1?key=1", "leave out"),
        ("http://me:hunter2@host/v1", "address of host holds a password"),
    ],
)  # fmt: skip
def test_no_address_is_one_line(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        OpenAIEngine(url, "m")
    assert "hunter2" not in str(caught.value)


def test_no_server_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        started = time.perf_counter()
        with pytest.raises(UserError, match=r"no connection \(Connection refused\); is the server running") as caught:
            OpenAIEngine(url, "m").generate([CHAT.encode(PROBLEM)], Sampling())
    assert str(caught.value).startswith(url)
    assert time.perf_counter() - started < 2


def hang(_: Any) -> None:
    """Not a byte."""
    time.sleep(30)


def trickle(handler: Any) -> None:
    """A header, and then a byte now and then, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(600):
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("way", [hang, trickle])
def test_a_request_that_hangs_ends_and_is_asked_once_more(served: Served, way: Callable[[Any], None]) -> None:
    served.answer = script((200, way), (200, said("ok")))
    assert served.ask("x", engine=served.engine(timeout=0.3))[0][0].text == "ok"
    served.answer = script((200, way))
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"no whole reply within 0\.3 s \(asked 2 times\)"):
        served.ask("x", engine=served.engine(timeout=0.3))
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"<html>hello</html>", "no JSON object: <html>hello"), (b"[1]", "no JSON object"), (b"", "object: nothing"),
        (b"[" * 100_000, "no JSON object"), (b"\xff\xfe", "no JSON object"), ({}, "no choices"),
        ({"choices": [], "why": "no room"}, "refuses every request.* no choices: .*no room"),
        ({"choices": [3]}, "no choices"), ({"choices": [{"text": "a"}]}, "no message"),
        ({"choices": [{"message": {"content": 3}}]}, "no message"),
    ],
)  # fmt: skip
def test_a_malformed_reply_is_one_line(served: Served, reply: Any, message: str) -> None:
    served.answer = script((200, reply))
    with pytest.raises(UserError, match=message) as caught:
        served.ask("x")
    assert str(caught.value).startswith(served.url)
    assert len(str(caught.value)) < 600
    assert [body["messages"][-1]["content"] for body in served.bodies].count("x") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "logprobs", "logprob", "usage", "completion_tokens", "text"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
def test_no_reply_breaks_the_reader(message: Any, logprobs: Any, usage: Any) -> None:
    reply = {"choices": [{"message": message, "logprobs": logprobs}], "usage": usage}
    try:
        (found,) = completions(reply, ("x",))
    except ValueError as error:
        assert "choice" in str(error)  # noqa: PT017  both outcomes are fine
    else:
        assert isinstance(found.text, str)
        assert found.tokens >= 0


def test_the_first_error_ends_the_others(served: Served) -> None:
    def one_refused(body: dict[str, Any]) -> Answer:
        return (401, {"error": "no"}) if body["messages"][-1]["content"] == "bad" else (200, hang)

    served.answer = one_refused
    started = time.perf_counter()
    with pytest.raises(UserError, match="HTTP 401: no"):
        served.ask("slow", "slow", "bad", *["late"] * 50, engine=served.engine(parallel=4))
    assert time.perf_counter() - started < 3
    assert len(served.bodies) < 10


def test_ctrl_c_ends_a_waiting_program(served: Served) -> None:
    served.answer = script((200, hang))
    code = (
        "import sys; from spark_rl.chat import Prompt; from spark_rl.engine.base import Sampling\n"
        "from spark_rl.engine.openai import OpenAIEngine\n"
        "prompt = Prompt('', (), ({'role': 'user', 'content': 'x'},))\n"
        f"OpenAIEngine({served.url!r}, 'm').generate([prompt] * 3, Sampling())"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ})
    try:
        give_up = time.monotonic() + 30
        while len(served.bodies) < 3 and time.monotonic() < give_up:
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, errors = program.communicate(timeout=20)
    finally:
        program.kill()
    assert time.monotonic() - started < 5
    assert b"KeyboardInterrupt" in errors
    assert program.returncode != 0


def test_a_session_is_ended_from_another_thread(served: Served) -> None:
    engine = served.engine()
    session, other = engine.session(), engine.session()
    served.answer = lambda body: (200, hang) if body["messages"][-1]["content"] == "slow" else echo(body)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            served.ask("slow", engine=session)
        except CancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    give_up = time.monotonic() + 30
    while not served.bodies and time.monotonic() < give_up:
        time.sleep(0.01)
    session.cancel()
    thread.join(5)
    assert len(ended) == 1
    with pytest.raises(CancelledError):
        served.ask("x", engine=session)
    assert served.ask("x", engine=other)[0][0].text == "x", "others go on"


def test_a_session_counts_its_own_tokens(served: Served) -> None:
    engine = served.engine()
    session = engine.session()
    counts = {"usage": {"prompt_tokens": 11, "completion_tokens": 7}}
    served.answer = lambda body: (200, said(body["messages"][-1]["content"], **counts))  # one, however many are asked
    served.ask("x", "y", engine=session, n=2)
    served.ask("x", engine=engine)
    assert (session.usage.read, session.usage.written) == (44, 28)
    assert (engine.usage.read, engine.usage.written) == (11, 7)
    served.answer = echo  # its prompts are not counted
    served.ask("x", engine=session)
    assert (session.usage.read, session.usage.written) == (44, 33)


def test_what_a_server_refuses_is_known_to_all_sessions(served: Served) -> None:
    refusal: Answer = 400, {"error": {"message": "Unsupported parameter: 'seed'", "param": "seed"}}
    served.answer = lambda body: refusal if "seed" in body else echo(body)
    engine = served.engine()
    served.ask("x", engine=engine.session())
    served.ask("x", engine=engine.session())
    assert ["seed" in body for body in served.bodies] == [True, False, False]


def test_the_engine_works_again_after_an_error(served: Served) -> None:
    engine = served.engine()
    served.answer = script((400, {"error": "no"}))
    with pytest.raises(UserError):
        served.ask("x", engine=engine)
    served.answer = echo
    assert served.ask("x", engine=engine)[0][0].text == "x"


def test_a_server_that_was_there_may_come_back(served: Served) -> None:
    engine = served.engine(retries=1)
    served.ask("x", engine=engine)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        engine.endpoint.url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"refused\) \(asked 2 times\)"):
            served.ask("x", engine=engine)


def test_connections_are_kept_for_a_call_and_nothing_stays(served: Served) -> None:
    ports, before = set(), threading.enumerate()

    def kept(handler: Any) -> None:
        ports.add(handler.client_address)
        content = json.dumps(said("ok")).encode()
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = False

    served.answer = script((200, kept))
    served.ask(*"abcdef", engine=served.engine(parallel=1))
    assert len(ports) == 1
    give_up = time.monotonic() + 5
    while set(threading.enumerate()) - set(before) and time.monotonic() < give_up:
        time.sleep(0.02)  # the server's own thread sees the connection close
    assert set(threading.enumerate()) <= set(before)


def test_a_running_event_loop_is_no_hindrance(served: Served) -> None:
    async def notebook() -> str:
        return served.ask("x")[0][0].text

    assert asyncio.run(notebook()) == "x"


def test_the_proxy_of_the_environment_is_used(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", served.url.removesuffix("/v1"))
    engine = OpenAIEngine("http://model.invalid:8000/v1", "tiny", timeout=10)
    assert served.ask("x", engine=engine)[0][0].text == "x"


@pytest.mark.parametrize("proxy", ["socks9://me:hunter2@host:1", "http://me:hunter2@[::1"])
def test_a_proxy_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UserError, match="proxy of the environment") as caught:
        OpenAIEngine("http://model.invalid/v1", "m").generate([CHAT.encode(PROBLEM)], Sampling())
    assert "hunter2" not in str(caught.value)


def test_a_host_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(UserError, match=r"no connection \(.+\); is the server running"):
        OpenAIEngine("http://model.invalid/v1", "m").generate([CHAT.encode(PROBLEM)], Sampling())


def test_settings_that_cannot_be_are_one_line() -> None:
    for options in ({"parallel": 0}, {"timeout": 0}, {"retries": -1}):
        with pytest.raises(UserError, match="at least one request"):
            OpenAIEngine("http://127.0.0.1:9", "m", **options)  # type: ignore[arg-type]


def test_a_servers_weights_cannot_be_trained(served: Served) -> None:
    engine = served.engine()
    with pytest.raises(UserError, match="can't be trained"):
        engine.sync(None)
    assert engine.version == 0
    engine.close()


# --- models


def test_the_only_model_is_taken(served: Served) -> None:
    assert served.engine(model=None).model == "tiny"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, "serves a, b; name the model"),
        ({"data": [{"id": str(i)} for i in range(12)]}, "8, 9 and 2 more; name"),
        ({"data": []}, "serves no model"),
        ({"data": [{"name": "a"}]}, "does not list its models"),
        ({"models": ["a"]}, "does not list its models"),
    ],
)
def test_any_other_number_of_models_must_be_chosen_from(served: Served, models: Any, message: str) -> None:
    served.models = models
    with pytest.raises(UserError, match=message):
        served.engine(model=None)


# --- the chat side


def test_the_user_turn_is_that_of_the_local_chat_format() -> None:
    config = ChatConfig(system="Be brief.", few_shot="Q: {x}\n")
    problems = [
        PROBLEM,
        replace(PROBLEM, task="pointwise", prompt="judge {question} <|im_end|>"),
        replace(PROBLEM, question="<|im_<|im_end|>end|> and <b>bold</b> a<|b"),
    ]
    for problem in problems:
        local = ChatFormat(bpe(CHATML), config).encode(problem)
        assert ServerChat(config).encode(problem).messages == local.messages


def test_images_stand_where_they_are_asked_for() -> None:
    problem = Problem("p", "is <image> or <image> it?", "A", images=("a.png", "b.png"))
    image = {"type": "image"}
    (message,) = CHAT.encode(problem).messages
    assert message["content"] == [
        {"type": "text", "text": "is "}, image, {"type": "text", "text": " or "}, image,
        {"type": "text", "text": " it?"},
    ]  # fmt: skip
    assert CHAT.encode(problem).text == "is <image> or <image> it?"
    (message,) = CHAT.encode(replace(problem, question="which?")).messages
    assert message["content"] == [image, image, {"type": "text", "text": "which?"}]


@pytest.mark.parametrize(
    "token",
    ["<|im_end|>", "<|eot_id|>", "</s>", "<start_of_turn>", "<end_of_turn>", "<|any|>", "<think>", "</think>",
     "[TOOL_CALLS]", "[/INST]", "<start_of_image>", "<image_soft_token>", "<tool_call>", "<｜User｜>", "<<SYS>>"],
)  # fmt: skip
def test_common_special_tokens_in_untrusted_text_are_broken(token: str) -> None:
    (message,) = CHAT.encode(replace(PROBLEM, question=f"ok{token}user")).messages
    assert message["content"] == f"ok{token[0]} {token[1:]}user"


def test_ordinary_text_is_untouched() -> None:
    text = "If a < b and |x| > |y|, is <b>this</b> <|> or <| y |>? [1, 2] <image> \\boxed{}"
    assert CHAT.encode(replace(PROBLEM, question=text)).messages[0]["content"] == text


def test_a_prompt_never_holds_the_answer() -> None:
    assert "SECRET" not in repr(CHAT.encode(replace(PROBLEM, answer="SECRET", choices=("SECRET",))))


def test_settings_that_do_nothing_here_are_refused() -> None:
    with pytest.raises(ChatError, match=r"chat\.template"):
        ServerChat(ChatConfig(template="{{ messages }}"))
    with pytest.raises(ChatError, match="single braces"):
        ServerChat(ChatConfig(policy="solve {{question}}"))


# --- images


def arrived(served: Served) -> list[Image.Image]:
    """The pictures in the last request, as a server opens them."""
    parts = served.bodies[-1]["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [opened(url) for url in urls]


def opened(url: str) -> Image.Image:
    head, _, data = url.partition(";base64,")
    assert head in {"data:image/png", "data:image/jpeg"}
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_images_arrive_as_pictures_and_paths_do_not(served: Served, tmp_path: Path) -> None:
    pictures = [draw_image(seed, 40 + seed, 30) for seed in range(3)]
    path = tmp_path / "private-name.png"
    pictures[0].save(path)
    images = (str(path), encoded(pictures[1], "PNG"), pictures[2])
    served.answer = script((200, said("ok")))
    served.engine().generate([CHAT.encode(Problem("p", "what?", "", images=images))], Sampling())
    assert "private-name" not in json.dumps(served.bodies)
    assert [found.convert("RGB").tobytes() for found in arrived(served)] == [p.tobytes() for p in pictures]


def test_plain_files_are_sent_as_they_are(tmp_path: Path) -> None:
    picture = draw_image(1, 40, 30)
    for kind, name in (("PNG", "png"), ("JPEG", "jpeg")):
        data = encoded(picture, kind, dpi=(72, 72))
        path = tmp_path / f"a.{name}"
        path.write_bytes(data)
        for image in (data, str(path), f"file://{path}", data_url(data, ImagesConfig())):
            assert data_url(image, ImagesConfig()) == f"data:image/{name};base64,{base64.b64encode(data).decode()}"


def with_orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(draw_image(1, 40, 30), "JPEG", exif=exif)


def with_text() -> bytes:
    note = PngImagePlugin.PngInfo()
    note.add_text("Source", "/home/somebody/secret.svg")
    return encoded(draw_image(2, 40, 30), "PNG", pnginfo=note)


@pytest.mark.parametrize(
    "data",
    [
        with_orientation(), with_text(), encoded(draw_image(1, 40, 30), "WEBP"), encoded(draw_image(1, 40, 30), "GIF"),
        encoded(draw_image(1, 40, 30).convert("CMYK"), "JPEG"), encoded(draw_image(1, 40, 30).convert("P"), "PNG"),
        encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 9)), "PNG"), encoded(draw_image(3, 1100, 900), "BMP"),
        encoded(draw_image(1, 40, 30), "JPEG", comment=b"made at home"),
    ],
    ids=["turned", "text", "webp", "gif", "cmyk", "palette", "transparent", "bmp", "comment"],
)  # fmt: skip
def test_everything_else_is_sent_as_the_picture_we_see(data: bytes) -> None:
    url = data_url(data, ImagesConfig())
    sent = opened(url)
    expected = open_image(data)
    assert sent.format == "PNG"
    assert sent.mode == "RGB"
    assert sent.tobytes() == expected.tobytes()
    assert not sent.info


def test_images_keep_to_the_bounds_of_the_chat(served: Served) -> None:
    served.answer = script((200, said("ok")))
    engine = served.engine(chat=ChatConfig(min_pixels=1000, max_pixels=2000))
    images = (draw_image(1, 10, 10), draw_image(2, 100, 100), encoded(draw_image(3, 40, 30), "PNG"))
    engine.generate([CHAT.encode(Problem("p", "what?", "", images=images))], Sampling())
    small, large, fitting = arrived(served)
    assert 1000 <= small.width * small.height <= 2000
    assert 1000 <= large.width * large.height <= 2000
    assert fitting.size == (40, 30)


def test_a_broken_image_is_one_line_and_nothing_is_asked(served: Served, tmp_path: Path) -> None:
    problem = Problem("p", "what?", "", images=(str(tmp_path / "gone.png"),))
    with pytest.raises(UserError, match=r"gone\.png: there is no such file"):
        served.engine().generate([CHAT.encode(problem)], Sampling())
    assert served.bodies == []


# --- the whole way


@pytest.fixture(scope="module")
def base() -> Backend:
    return open_backend(load_config("tiny", ["model.device=cpu", "model.threads=1"]))


def test_a_served_base_answers_judges_and_reflects_as_at_home(served: Served, base: Backend) -> None:
    def serve(body: dict[str, Any]) -> Answer:
        assert [message["role"] for message in body["messages"]] == ["user"]
        asked = Problem("s", body["messages"][0]["content"], "", prompt=body["messages"][0]["content"])
        stop, top = tuple(body.get("stop", ())), body.get("top_logprobs", 0)
        sampling = Sampling(1, body["temperature"], body["max_tokens"], body["seed"], stop, top=top)
        ((found,),) = base.engine.generate([base.chat.encode(asked)], sampling)
        choice = {
            "message": {"role": "assistant", "content": found.text},
            "logprobs": {
                "content": [{"token": "", "logprob": value} for value in found.logprobs]
                if not top
                else [
                    {
                        "token": place[0][0],
                        "logprob": place[0][1],
                        "top_logprobs": [{"token": text, "logprob": value} for text, value in place],
                    }
                    for place in found.top
                ]
            },
            "finish_reason": found.finish,
        }
        return 200, {"choices": [choice], "usage": {"completion_tokens": len(found.token_ids)}}

    served.answer = serve
    problems = [Problem(f"p{i}", q, "") for i, q in enumerate(("5?2?7=10", "1?2?3=6", "9?4?1=4"))]
    config = base.config.inference.model_copy(update={"reflect_temperature": 0.0, "max_new_tokens": 48})
    home = Reasoner(base.engine, base.chat, reasoner_of(base).templates, config).solve(problems)
    chat: Any = ServerChat(base.config.chat)
    away = Reasoner(served.engine(), chat, reasoner_of(base).templates, config).solve(problems)
    assert [[(r.response, r.judgement, r.accepted) for r in trace.rounds] for trace in away] == [
        [(r.response, r.judgement, r.accepted) for r in trace.rounds] for trace in home
    ]
    chances = [[r.probability for trace in traces for r in trace.rounds if r.accepted is not None]
               for traces in (home, away)]  # fmt: skip
    assert chances[0] == pytest.approx(chances[1], abs=1e-6)
    assert chances[0]
    (mine,), (theirs,) = (
        engine.generate([coder.encode(problems[0])], Sampling(1, 0.0, 48))
        for engine, coder in ((base.engine, base.chat), (served.engine(), chat))
    )
    assert theirs[0].tokens == mine[0].tokens == len(mine[0].token_ids)
    assert theirs[0].logprobs == mine[0].logprobs


def test_prompts_of_a_local_chat_format_can_be_asked_too(served: Served) -> None:
    prompt: Prompt = ChatFormat(bpe(CHATML), ChatConfig(policy="{question}")).encode(PROBLEM)
    assert served.engine().generate([prompt], Sampling())[0][0].text == "1+1?"


def test_the_engine_needs_no_torch() -> None:
    code = "import sys, spark_rl.engine.openai; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
