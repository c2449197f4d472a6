"""Who may ask, how much and how long; what happens to those who hang up, and when the server is stopped."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import APIStatusError, AuthenticationError, RateLimitError
from served import Served

from spark_rl.inference import Reasoner
from spark_rl.serve.embedded import Embedded
from spark_rl.serve.protocol import ChatRequest

sys.path.insert(0, str(Path(__file__).parents[2] / "campaigns"))
from hostile_requests import attack

ASKED = [{"role": "user", "content": "solve 5?4?3?9=32"}]
LONG = {"model": "embedded", "messages": ASKED, "n": 64, "temperature": 1, "max_tokens": 200}


@pytest.fixture(scope="module")
def strict() -> Iterator[Served]:
    """A server with a key, and room for two requests."""
    with Served("--requests", "2", "--timeout", "60", "--max-tokens", "50", SPARK_RL_API_KEY="secret") as server:
        yield server


def test_strangers_are_turned_away(strict: Served) -> None:
    for key in ("wrong", "secre", "secret2"):
        with pytest.raises(AuthenticationError, match="the API key is missing or wrong"):
            strict.client(key).models.list()
    assert [model.id for model in strict.client("secret").models.list()] == ["embedded"]
    assert httpx.get(f"{strict.url}/metrics").status_code == 401
    assert httpx.get(f"{strict.url}/health").json()["status"] == "ok"


def test_a_completion_is_no_longer_than_the_server_lets_it_be(strict: Served) -> None:
    reply = strict.client("secret").chat.completions.create(**(LONG | {"n": 8, "max_tokens": 5000}))
    assert all(choice.finish_reason in {"stop", "length"} for choice in reply.choices)
    assert reply.usage.completion_tokens <= 8 * 50


def test_nor_is_one_that_judges_or_reflects(strict: Served) -> None:
    key = {"Authorization": "Bearer secret"}
    items = [{"question": "5?4?3?9=32", "response": "x" * 40}] * 4
    judged = strict.post("/v1/judge", {"items": items, "max_tokens": 200, "temperature": 50}, key).json()
    assert judged["usage"]["completion_tokens"] <= 4 * 50
    spark = {"messages": ASKED, "max_tokens": 200, "temperature": 50, "spark": {"rounds": 0}}
    reply = strict.post("/v1/chat/completions", spark, key).json()
    assert reply["usage"]["completion_tokens"] <= 50


def test_too_many_requests_are_told_to_come_again(strict: Served) -> None:
    """Two whose bodies are still to come are under way."""
    port = int(strict.url.rpartition(":")[2])
    head = b"POST /v1/judge HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nContent-Length: 10\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as other:
        for connection in (one, other):
            connection.sendall(head)
        time.sleep(0.5)
        with pytest.raises(RateLimitError, match="2 requests are under way already"):
            strict.client("secret").chat.completions.create(model="embedded", messages=ASKED)
    time.sleep(0.5)
    assert strict.client("secret").chat.completions.create(model="embedded", messages=ASKED, max_tokens=2).choices


def test_a_body_that_is_too_long_is_refused(served: Served) -> None:
    with pytest.raises(APIStatusError, match="the request is longer than") as found:
        served.client().chat.completions.create(
            model="embedded", messages=[{"role": "user", "content": "x" * 40_000_000}]
        )
    assert found.value.status_code == 413


@pytest.mark.parametrize(("headers", "status"), [({}, 413), ({"Host": "evil.example"}, 403)])
def test_who_sends_slowly_is_told_why_it_is_refused(served: Served, headers: dict[str, str], status: int) -> None:
    """An answer that comes before the body is sent is lost where the connection is closed with it."""

    def body() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1_000_000
            time.sleep(0.005)

    for _ in range(5):
        assert httpx.post(f"{served.url}/v1/chat/completions", content=body(), headers=headers).status_code == status


def test_who_never_ends_is_refused_all_the_same(served: Served) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port)) as client:
        client.sendall(b"POST /v1/judge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{")
        assert client.recv(1000).startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("host", "status"), [("localhost", b"413"), ("evil.example", b"403")])
def test_who_asks_before_it_sends_is_refused_without_a_body(served: Served, host: str, status: bytes) -> None:
    """As curl does before a large one."""
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port)) as client:
        head = f"POST /v1/judge HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_who_is_refused_and_sends_on_is_left(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port), timeout=60) as client:
        client.sendall(b"POST /v1/judge HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000\r\n\r\n{")
        said = b""
        while piece := client.recv(1000):
            said += piece
    assert said.startswith(b"HTTP/1.1 403")


def test_another_host_name_is_not_answered(served: Served) -> None:
    """A page on the web may have a browser ask under a name that leads to this machine."""
    reply = httpx.get(f"{served.url}/v1/models", headers={"Host": "evil.example"})
    assert reply.status_code == 403
    assert "localhost alone" in reply.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_rows(served: Served, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.3) as client:  # noqa: PT012
        body = LONG | {"n": 128, "repetition_penalty": 3, "stream": stream}
        with client.stream("POST", f"{served.url}/v1/chat/completions", json=body) as reply:
            for _ in reply.iter_bytes():
                raise httpx.ReadTimeout("hang up in the middle of the stream")
    assert served.idle()


def test_a_stream_that_nobody_ever_reads_frees_its_rows(offline: Reasoner) -> None:
    """A client may leave between its request and the first piece."""

    async def left() -> None:
        asked = Embedded(offline, "embedded", queue=8)
        try:
            request = ChatRequest.model_validate(LONG | {"n": 128, "repetition_penalty": 3, "stream": True})
            stream = await asked.chat(request, {})
            assert asked.engine._open
            del stream
            end = time.monotonic() + 30
            while asked.engine._open:
                assert time.monotonic() < end
                await asyncio.sleep(0.001)
            assert not asked.engine.load.tokens, "it was taken back, and did not decode to its end"
        finally:
            await asked.close()

    asyncio.run(left())


def test_many_at_a_time_get_what_each_gets_alone(served: Served) -> None:
    def ask(seed: int) -> str:
        reply = served.post("/v1/chat/completions", {"messages": ASKED, "seed": seed, "max_tokens": 40})
        return str(reply.json()["choices"][0]["message"]["content"])

    alone, together = [ask(seed) for seed in range(24)], [""] * 24
    threads = [threading.Thread(target=lambda k=k: together.__setitem__(k, ask(k))) for k in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert len(set(alone)) > 5


def test_hostile_requests_leave_nothing(served: Served) -> None:
    findings = attack(served.url, served.process.pid, requests=240, clients=4, seed=5)
    assert not findings.lost
    assert sum(findings.statuses.values()) == 240
    assert served.process.poll() is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_requests_end(how: signal.Signals) -> None:
    with Served("--model", "embedded") as server:
        replies = list[httpx.Response]()
        thread = threading.Thread(target=lambda: replies.append(server.post("/v1/chat/completions", LONG | {"n": 128})))
        thread.start()
        while thread.is_alive() and not server.measured()["spark_rl_requests"]:
            time.sleep(0.002)
        status = server.stop(how)
        thread.join()
        assert [reply.status_code for reply in replies] == [200]
        assert status == (0 if how == signal.SIGINT else -15)
        assert "Traceback" not in server.said()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines: set a key in SPARK_RL_API_KEY"),  # noqa: S104
        (["--upstream", "localhost:8000"], "is no address; give http://"),
        (["--upstream", "http://localhost:1/v1", "--model", "embedded"], "give one of the two"),
        (["--upstream", "http://localhost:1/v1"], "is the server running"),
        (["--model", "nowhere"], "nowhere"),
        (["--host", "203.0.113.5"], "set a key"),
        (["--port", "99999999"], "can't listen on"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "spark_rl", "serve", *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
