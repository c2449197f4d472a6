"""What of training with vLLM servers needs no vLLM: requests, replies that nobody may trust, refusals, ranks."""

from __future__ import annotations

import base64
import io
import json
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from spark_rl.backend import check_engine
from spark_rl.config import ConfigError
from spark_rl.engine.base import Sampling, stretches
from spark_rl.engine.dialect import ReplyError
from spark_rl.engine.vllm import VllmServers, engine_arguments, read_facts, servers, source_of
from spark_rl.engine.vllm.collective import Bucket, Servers, own_address
from spark_rl.engine.vllm.wire import completions, generate_body, serve_command, weights_way
from spark_rl.errors import EngineError, UserError
from tiny import prompt_of, tiny_config
from vision import draw_image

ASKED = {"n": 2, "max_tokens": 4}
INFO = {
    "vllm_config": {
        "model_config": {"logprobs_mode": "processed_logprobs", "max_model_len": 100_000},
        "scheduler_config": {"enable_chunked_prefill": False}, "device_config": {"device": "cpu"},
        "weight_transfer_config": {"backend": "spark_rl"},
    }
}  # fmt: skip


def choice(index: int, *tokens: int, **other: Any) -> dict[str, Any]:
    return {
        "index": index, "finish_reason": "stop", "token_ids": list(tokens), "text": "a",
        "weight_versions": [{"version": "run-3", "start": 0, "end": len(tokens)}],
        "logprobs": {"content": [{"token": "a", "logprob": -0.5} for _ in tokens]}, **other,
    }  # fmt: skip


def read(reply: Any, expanded: tuple[int, ...] | None = None) -> Any:
    return completions(reply, ASKED, 10, 3, "run-3", expanded)


def test_completions_are_read_in_their_order() -> None:
    one, two = read({"choices": [choice(1, 7, finish_reason="length"), choice(0, 4, 5)]})
    assert (one.token_ids, one.logprobs, one.finish, one.version, one.text) == ((4, 5), (-0.5, -0.5), "stop", 3, "a")
    assert (two.token_ids, two.finish) == ((7,), "length")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"token_ids": [4, 10]}, "not among the 10"),
        ({"token_ids": [4, -1]}, "not among the 10"),
        ({"token_ids": [4, True]}, "not among the 10"),
        ({"token_ids": [4, 5.0]}, "not among the 10"),
        ({"token_ids": None}, "no tokens"),
        ({"token_ids": []}, "has 0 tokens where 1 to 4"),
        ({"token_ids": [4] * 5}, "has 5 tokens where 1 to 4"),
        ({"text": None}, "no text"),
        ({"finish_reason": "abort"}, "ended with 'abort'"),
        ({"index": 1}, "2 choices where 2 were asked"),
        ({"index": "x"}, "2 choices where 2 were asked"),
        ({"logprobs": None}, "no log-probabilities"),
        ({"logprobs": {"content": [{"logprob": -0.5}]}}, "2 tokens and 1 log-prob"),
        ({"logprobs": {"content": [{"logprob": -0.5}, {"logprob": float("nan")}]}}, "2 tokens and 1 log-prob"),
        ({"logprobs": {"content": [{"logprob": -0.5}, {"logprob": -9999.0}]}}, "2 tokens and 1 log-prob"),
        ({"logprobs": {"content": [{"logprob": -0.5}, {"logprob": 0.5}]}}, "2 tokens and 1 log-prob"),
        ({"logprobs": {"content": [{"logprob": -0.5}, {"logprob": True}]}}, "2 tokens and 1 log-prob"),
        ({"weight_versions": None}, "does not say whose weights"),
        ({"weight_versions": [{"version": "default", "start": 0, "end": 2}]}, "'default' and not from 'run-3'"),
        ({"weight_versions": [{"version": "run-3", "start": 0, "end": 1}]}, "not say of every token"),
    ],
)
def test_a_reply_that_is_no_answer_is_told(broken: dict[str, Any], why: str) -> None:
    with pytest.raises(ReplyError, match=why):
        read({"choices": [choice(0, 4, 5) | broken, choice(1, 6)]})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    ("choices",), ("choices", 0), ("choices", 1, "index"), ("choices", 0, "token_ids"), ("choices", 0, "token_ids", 0),
    ("choices", 0, "text"), ("choices", 0, "finish_reason"), ("choices", 0, "logprobs"),
    ("choices", 0, "logprobs", "content"), ("choices", 0, "logprobs", "content", 0),
    ("choices", 0, "logprobs", "content", 0, "logprob"), ("choices", 0, "weight_versions"),
    ("choices", 0, "weight_versions", 0), ("choices", 0, "weight_versions", 0, "end"),
]  # fmt: skip


def put(tree: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        tree = tree[key]
    tree[place[-1]] = value


@settings(max_examples=60)
@given(st.sampled_from(PLACES), JUNK)
def test_junk_in_any_place_is_told_or_does_no_harm(place: tuple[Any, ...], junk: Any) -> None:
    reply = {"choices": [choice(0, 4, 5), choice(1, 6)]}
    put(reply, place, junk)
    try:
        found = read(reply)
    except ReplyError:
        return
    assert [len(each.token_ids) == len(each.logprobs) > 0 for each in found] == [True, True]
    assert all(0 <= token < 10 for each in found for token in each.token_ids)
    assert all(-9999 < value < 1e-3 for each in found for value in each.logprobs)


@given(
    st.sampled_from([(), *[("vllm_config", *rest) for rest in ((), *((name,) for name in INFO["vllm_config"]))]]), JUNK
)
def test_junk_about_a_server_is_told_or_does_no_harm(place: tuple[str, ...], junk: Any) -> None:
    info: dict[str, Any] = {"all": deepcopy(INFO)}
    put(info, ("all", *place), junk)
    told = info["all"] if isinstance(info["all"], dict) else {}
    try:
        assert weights_way(told, 100) == "spark_rl"
    except ReplyError:
        return


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("model_config", "logprobs_mode"), "raw_logprobs", "are raw_logprobs, not processed"),
        (("model_config", "max_model_len"), 99, "has 99 tokens, and the run needs 100"),
        (("weight_transfer_config",), None, "takes over no weights"),
        (("weight_transfer_config", "backend"), "ipc", "by 'ipc'"),
        (("weight_transfer_config", "backend"), "nccl", "on a CPU, where"),
        (("scheduler_config", "enable_chunked_prefill"), True, "prompts in parts"),
    ],
)
def test_what_a_server_can_not_do_is_told(place: tuple[str, ...], value: Any, why: str) -> None:
    info = deepcopy(INFO)
    put(info["vllm_config"], place, value)
    with pytest.raises(ReplyError, match=why):
        weights_way(info, 100)


def test_over_nccl_on_gpus() -> None:
    info = deepcopy(INFO)
    info["vllm_config"] |= {"device_config": {"device": "cuda"}, "weight_transfer_config": {"backend": "nccl"}}
    assert weights_way(info, 100) == "nccl"


def test_images_keep_every_pixel() -> None:
    pictures = [draw_image(1, 84, 56), draw_image(2, 30, 31)]
    asked = {"prompt_token_ids": [3, 4], "multi_modal_data": {"image": pictures}}
    body = generate_body(asked, {"n": 1})
    assert body["return_token_ids"] is True
    for part, picture in zip(body["content_parts"], pictures, strict=True):
        head, _, data = part["url"].partition(",")
        assert (part["type"], head) == ("image_url", "data:image/png;base64")
        found = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        assert ImageChops.difference(found, picture).getbbox() is None
    assert generate_body({"prompt_token_ids": [3]}, {"n": 1}) == {
        "token_ids": [3], "sampling_params": {"n": 1}, "output_mode": "text",
    }  # fmt: skip


def test_a_prompt_whose_images_became_other_tokens_is_told() -> None:
    reply = {"choices": [choice(0, 4), choice(1, 6)], "prompt_token_ids": [1, 2, 2]}
    assert len(read(reply, (1, 2, 2))) == 2
    with pytest.raises(ReplyError, match="other tokens of a prompt with images"):
        read(reply, (1, 2))


def test_the_command_starts_what_the_run_needs(model_path: str) -> None:
    config = tiny_config(model_path, rollout={"max_prompt_tokens": 100}, inference={"max_new_tokens": 50})
    arguments = engine_arguments(config, "my model", read_facts(config, source_of(config)))
    words = shlex.split(serve_command(arguments, on_cpu=False, port=8001))
    assert words[:6] == ["VLLM_SERVER_DEV_MODE=1", "vllm", "serve", "my model", "--port", "8001"]
    flags = dict(zip(words, [*words[1:], ""], strict=True))
    assert flags["--logprobs-mode"] == "processed_logprobs"
    assert json.loads(flags["--weight-transfer-config"]) == {"backend": "nccl"}
    assert int(flags["--max-model-len"]) == arguments["max_model_len"]
    assert "--enable-scale-out" in words
    assert "--worker-extension-cls" not in words
    on_cpu = serve_command(arguments | {"enable_chunked_prefill": False}, on_cpu=True, port=8001)
    assert "--worker-extension-cls spark_rl.engine.vllm.worker.Worker" in on_cpu
    assert "--no-enable-chunked-prefill" in on_cpu


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"engine": {"servers": ["http://a"]}}, "set engine.name=vllm"),
        ({"engine": {"name": "vllm", "servers": ["http://a", "http://a/"]}}, "twice"),
        ({"engine": {"name": "vllm", "servers": ["http://a:8000", "http://a:8000/v1"]}}, "twice"),
        ({"engine": {"name": "vllm", "servers": ["http://a"], "options": {"seed": 1}}}, "give them to vllm serve"),
        ({"engine": {"name": "vllm", "servers": ["http://a"]}, "cluster": {"engines": 2}}, "remove one of the two"),
    ],
)
def test_settings_that_contradict_are_one_line(model_path: str, sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        tiny_config(model_path, **sections)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["node1:8000", "http://", "ftp://a", "http://u:secret@a"])
def test_an_address_that_is_none_is_told_before_anything_is_loaded(model_path: str, address: str) -> None:
    with pytest.raises(UserError, match=r"^engine\.servers: ") as caught:
        check_engine(tiny_config(model_path, engine={"name": "vllm", "servers": [address]}))
    assert "secret" not in str(caught.value)


@pytest.fixture
def served() -> Iterator[tuple[str, list[Any]]]:
    """A server that says it is vLLM, and replies to requests for tokens with what the list holds first, over and over;
    to what it is, with what it holds second, if there is such. What is a function is called for a reply."""
    replies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(INFO if len(replies) < 2 else replies[1])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply({"status": "resumed"} if self.path == "/resume" else replies[0])

        def reply(self, what: Any) -> None:
            what = what() if callable(what) else what
            data = what if isinstance(what, bytes) else json.dumps(what).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(OSError):  # nobody waits for it any more
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", replies
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "reply",
    [b"not json", b"[]", b'{"choices": 3}', b'{"choices": [{"index": 0, "finish_reason": ["stop"]}]}',
     b'{"choices": [{"index": 0, "token_ids": [999999], "text": ""}]}'],
)  # fmt: skip
def test_a_server_that_replies_with_something_else_is_one_line_with_the_command(
    model_path: str, served: tuple[str, list[Any]], reply: bytes
) -> None:
    url, replies = served
    replies.append(reply)
    with pytest.raises(EngineError, match=rf"^{url}: .* start it with: VLLM_SERVER_DEV_MODE=1 ") as caught:
        VllmServers(tiny_config(model_path, engine={"name": "vllm", "servers": [f"{url}/v1"]}))
    assert "\n" not in str(caught.value)


def test_an_address_where_nobody_answers_is_told_soon(model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ANSWERS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match=rf"^{url}: no whole reply within 0.2 s; is this its address\? start it"):
            VllmServers(tiny_config(model_path, engine={"name": "vllm", "servers": [url]}))


def test_a_server_that_hangs_is_told_long_before_its_request_is_given_up(
    model_path: str, served: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, replies = served
    replies.append({"choices": [choice(0, 4)]})
    engine = VllmServers(tiny_config(model_path, engine={"name": "vllm", "servers": [url]}))
    monkeypatch.setattr(servers, "LOOK", 0.1)
    monkeypatch.setattr(servers, "ANSWERS", 0.5)
    answer, gate = replies[0], threading.Event()
    replies[0] = lambda: (gate.wait(1.5), answer)[1]
    asked = [prompt_of(3, 4)]
    (found,) = engine.generate(asked, Sampling(1, max_new_tokens=4))[0]
    assert found.token_ids == (4,), "one that is slow, and says meanwhile what it is, is waited for"
    replies[:] = [lambda: (gate.wait(20), answer)[1]] * 2
    weights: Any = SimpleNamespace(version=1)
    for call in (lambda: engine.generate(asked, Sampling(1, max_new_tokens=4)), lambda: engine.sync(weights)):
        with pytest.raises(EngineError, match=rf"^{url}: it takes requests and answers none within 0.5 s"):
            call()
    gate.set()


def test_workers_of_all_servers_are_one_group_behind_the_learner() -> None:
    told: list[tuple[str, list[Any]]] = []
    servers = Servers([2, 4, 1], lambda method, bodies: told.append((method, list(bodies))))
    servers.init_weight_transfer_engine({"world_size": 8, "rank_offset": 1})
    servers.start_weight_update()
    servers.update_weights({"names": ["a"]})
    servers.finish_weight_update()
    (first, inits), (second, updates) = told
    assert (first, second) == ("init_weight_transfer_engine", "update_weights")
    assert [body["init_info"]["rank_offset"] for body in inits] == [1, 3, 7]
    assert updates == [{"update_info": {"names": ["a"]}}] * 3
    assert own_address(["127.0.0.1"]) == "127.0.0.1"
    bucket = Bucket()
    bucket.tensors = {"a": torch.ones(2)}
    assert [name for name, _ in bucket] == [name for name, _ in bucket] == ["a"]


def test_stretches_differ_by_one_at_most() -> None:
    for count, parts in ((0, 2), (1, 3), (7, 3), (9, 3)):
        found = stretches(count, parts)
        assert [i for stretch in found for i in stretch] == list(range(count))
        assert max(map(len, found)) - min(map(len, found)) <= 1


def test_likely_tokens_are_told_by_their_ids() -> None:
    content = [{"token": "token_id:4", "logprob": -0.5, "top_logprobs": [{"token": "token_id:6", "logprob": -2.0}]}]
    reply = {"choices": [choice(0, 4, logprobs={"content": content})]}
    (one,) = completions(
        reply, {"n": 1, "max_tokens": 4, "logprobs": 2}, 10, 3, "run-3", None, lambda token: f"<{token}>"
    )
    assert one.top == ((("<4>", -0.5), ("<6>", -2.0)),)
    (plain,) = completions(reply, {"n": 1, "max_tokens": 4}, 10, 3, "run-3")
    assert plain.top == ()
