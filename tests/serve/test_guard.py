"""What stands before the routes, in front of an app of a few lines: who may ask, how much and how long."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from spark_rl.serve.guard import Guard, Limits
from spark_rl.serve.metrics import Metrics

BODY: Sequence[Any] = ({"type": "http.request", "body": b"{}", "more_body": False},)


class App:
    """Echoes the length of a body, or takes its time first."""

    def __init__(self, seconds: float = 0, *, begins: bool = False) -> None:
        self.seconds, self.begins, self.cancelled = seconds, begins, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        try:
            if self.begins:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if not self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(body)).encode()})


class Exchange:
    """One request to a guarded app: what it sends, and what came back."""

    def __init__(
        self, app: App, limits: Limits | None = None, *, key: str | None = None, hosts: frozenset[str] = frozenset()
    ) -> None:
        self.metrics = Metrics()
        self.guard = Guard(app, limits=limits or Limits(), metrics=self.metrics, key=key, hosts=hosts)

    async def ask(
        self, messages: Sequence[Any] = BODY, path: str = "/v1/judge", method: str = "POST", **headers: str
    ) -> tuple[int, bytes]:
        """Status and body; the status is 0 where nothing came. A number among the messages is a pause in seconds."""
        left, status, content = list(messages), 0, b""

        async def receive() -> Any:
            while left:
                one = left.pop(0)
                if not isinstance(one, float):
                    return one
                await asyncio.sleep(one)
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            nonlocal status, content
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                content += message["body"]

        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": named}
        await asyncio.wait_for(self.guard(scope, receive, send), 30)
        return status, content


def asked(exchange: Exchange, *given: Any, **more: Any) -> tuple[int, str]:
    """Status and what the error says, or the body."""
    status, content = asyncio.run(exchange.ask(*given, **more))
    text = content.decode()
    return status, json.loads(text)["error"]["message"] if text.startswith('{"error"') else text


def pieces(*sizes: int) -> list[Any]:
    return [
        {"type": "http.request", "body": b"x" * size, "more_body": i < len(sizes) - 1} for i, size in enumerate(sizes)
    ]


def test_a_body_arrives_whole() -> None:
    assert asked(Exchange(App()), pieces(5, 0, 7)) == (200, "12")


@pytest.mark.parametrize(("messages", "headers"), [(pieces(60, 60), {}), (BODY, {"content_length": "101"}),
                                                   (BODY, {"content_length": "9" * 5000})])  # fmt: skip
def test_a_long_body_is_refused(messages: Any, headers: dict[str, str]) -> None:
    assert asked(Exchange(App(), Limits(body=100)), messages, **headers) == (
        413,
        "the request is longer than 100 bytes",
    )


def test_bodies_are_bounded_together() -> None:
    status, said = asked(Exchange(App(), Limits(bodies=100)), pieces(60, 60))
    assert (status, "too much is being sent" in said) == (429, True)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    status, said = asked(Exchange(App(), Limits(reading=0.05)), [pieces(1, 1)[0], 20.0])
    assert (status, said) == (408, "the body did not arrive within 0.05 s")


def test_an_answer_that_takes_too_long_is_ended() -> None:
    app = App(20)
    assert asked(Exchange(app, Limits(seconds=0.05))) == (408, "the request took longer than 0.05 s")
    assert app.cancelled == 1


def test_a_stream_that_takes_too_long_ends_with_the_error() -> None:
    status, content = asyncio.run(Exchange(App(20, begins=True), Limits(seconds=0.05)).ask())
    assert status == 200
    assert content.startswith(b'data: {"error"')
    assert content.endswith(b"\n\n")


def test_who_hangs_up_ends_the_answer() -> None:
    app = App(20)
    exchange = Exchange(app)
    assert asked(exchange, [*BODY, 0.05, {"type": "http.disconnect"}])[0] in {0, 499}
    assert app.cancelled == 1
    assert 'status="499"' in exchange.metrics.text({}), "counted, though nobody reads it"


def test_who_hangs_up_while_sending_is_forgotten() -> None:
    exchange = Exchange(App())
    asked(exchange, [pieces(5, 5)[0], {"type": "http.disconnect"}])
    assert asked(exchange) == (200, "2")
    assert exchange.guard._open == exchange.guard._held == 0


@pytest.mark.parametrize("messages", [BODY, [pieces(1, 1)[0], 20.0]])
def test_who_still_waits_when_the_server_stops_is_told_so(messages: Any) -> None:
    async def stopped() -> list[tuple[int, bytes]]:
        exchange = Exchange(App(20))
        waiting = asyncio.ensure_future(exchange.ask(messages))
        await asyncio.sleep(0.05)
        exchange.guard.dismiss()
        return [await waiting, await exchange.ask()]

    began = time.monotonic()
    for status, content in asyncio.run(stopped()):
        assert (status, json.loads(content)["error"]["message"]) == (503, "the server is shutting down")
    assert time.monotonic() - began < 3


def test_a_stream_that_still_goes_on_ends_with_the_error() -> None:
    async def stopped() -> tuple[int, bytes]:
        exchange = Exchange(App(20, begins=True))
        waiting = asyncio.ensure_future(exchange.ask())
        await asyncio.sleep(0.05)
        exchange.guard.dismiss()
        return await waiting

    status, content = asyncio.run(stopped())
    assert status == 200
    assert content.startswith(b'data: {"error": {"message": "the server is shutting down"')


def test_requests_are_bounded_in_number() -> None:
    async def both() -> list[tuple[int, bytes]]:
        exchange = Exchange(App(0.2), Limits(requests=1))
        found = await asyncio.gather(exchange.ask(), exchange.ask())
        return [*found, await exchange.ask()]

    assert [status for status, _ in asyncio.run(both())] == [200, 429, 200]


@pytest.mark.parametrize("sent", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic key"},
                                  {"authorization": "key"}, {"authorization": "Bearer "}])  # fmt: skip
def test_strangers_are_turned_away(sent: dict[str, str]) -> None:
    exchange = Exchange(App(), key="key")
    assert asked(exchange, **sent)[0] == 401
    assert asked(exchange, authorization="Bearer key") == (200, "2")
    assert asked(exchange, BODY, "/health", "GET")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example:8000", 403), ("", 403),
     ("localhost.evil.example", 403)],
)  # fmt: skip
def test_only_its_own_names_are_answered(host: str, status: int) -> None:
    exchange = Exchange(App(), hosts=frozenset(("localhost", "127.0.0.1", "[::1]")))
    assert asked(exchange, host=host)[0] == status


def test_strangers_make_no_names_in_the_metrics() -> None:
    exchange = Exchange(App())
    for number in range(20):
        asked(exchange, BODY, f"/{number}")
    lines = [line for line in exchange.metrics.text({}).splitlines() if line.startswith("spark_rl_requests_total")]
    assert lines == ['spark_rl_requests_total{path="other",status="200"} 20']
