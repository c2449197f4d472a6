"""A server in front of one that hangs, or that counts: what clients are told, and what they pay for."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from behind import Behind
from served import Served

QUESTION = [{"role": "user", "content": "5?4?3?9=32"}]
EVERYTHING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": QUESTION}),
    ("/v1/chat/completions", {"messages": QUESTION, "stream": True}),
    ("/v1/chat/completions", {"messages": QUESTION, "spark": {}}),
    ("/v1/chat/completions", {"messages": QUESTION, "spark": {"trace": True}, "stream": True}),
    ("/v1/judge", {"question": "1+1", "response": "2"}),
)


def until(done: Callable[[], bool]) -> None:
    """Wait for what has to happen within some seconds."""
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def answer(front: Served, path: str, body: dict[str, Any]) -> tuple[httpx.Response, float]:
    """What a client gets, and when."""
    return front.post(path, body), time.monotonic()


@pytest.mark.parametrize(("how", "seconds"), [([signal.SIGTERM], 10), ([signal.SIGINT], 10), ([signal.SIGINT] * 2, 5)])
def test_a_stop_while_the_server_behind_hangs_is_an_answer(how: list[signal.Signals], seconds: float) -> None:
    """Within ten seconds: who stops a container kills it then. Ctrl-C once more waits no longer."""
    with (
        Behind(lambda _: None) as behind,
        Served("--upstream", behind.url) as front,
        ThreadPoolExecutor(len(EVERYTHING)) as clients,
    ):
        replies = [clients.submit(answer, front, *one) for one in EVERYTHING]
        until(lambda: len(behind.asked) == len(EVERYTHING))
        began = time.monotonic()
        for one in how[1:]:
            front.process.send_signal(one)
            time.sleep(0.5)
        assert front.stop(how[0]) == (0 if how[0] == signal.SIGINT else -signal.SIGTERM)
        for reply, when in (one.result() for one in replies):
            assert reply.status_code == 503
            assert reply.json()["error"]["message"] == "the server is shutting down"
            assert when - began < seconds
        until(lambda: behind.given_up == len(EVERYTHING))
        assert "Traceback" not in front.said()


def test_nothing_is_asked_on_behalf_of_who_has_hung_up() -> None:
    with Behind(lambda _: None) as behind, Served("--upstream", behind.url) as front:
        for path, body in EVERYTHING:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(front.url + path, json=body, timeout=1)
        until(lambda: behind.given_up == len(EVERYTHING))


def answered(body: dict[str, Any]) -> dict[str, Any]:
    """An answer that is wrong, its judgement and a reflection: each with its own count of tokens."""
    asked = json.dumps(body["messages"])
    text = r"\boxed{No}" if "Yes" in asked else r"\boxed{7}"
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i in range(body.get("n", 1))
    ]
    return {"choices": choices, "usage": {"prompt_tokens": len(asked), "completion_tokens": 100 * len(choices) + 1}}


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with Behind(answered) as server:
        yield server


@pytest.fixture(scope="module")
def counting(behind: Behind) -> Iterator[Served]:
    with Served("--upstream", behind.url) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "body", "calls"),
    [
        ("/v1/chat/completions", {"messages": QUESTION, "n": 2}, 1),
        ("/v1/chat/completions", {"messages": QUESTION, "spark": {"rounds": 0}}, 1),
        ("/v1/chat/completions", {"messages": QUESTION, "spark": {"rounds": 2}}, 5),
        ("/v1/chat/completions", {"messages": QUESTION, "spark": {"n": 3, "rounds": 0}}, 4),
        ("/v1/chat/completions", {"messages": QUESTION, "spark": {"rounds": 1}, "stream": True}, 3),
        ("/v1/judge", {"question": "1+1", "response": "2", "judgements": 3}, 1),
        ("/v1/judge", {"question": "1+1", "response": "2", "other": "3"}, 2),
    ],
)
def test_usage_is_the_sum_of_what_the_server_behind_counts(
    behind: Behind, counting: Served, path: str, body: dict[str, Any], calls: int
) -> None:
    behind.asked.clear()
    reply = counting.post(path, body)
    usages = [json.loads(line[6:]).get("usage") for line in reply.text.splitlines() if line.startswith('data: {"')]
    usage = usages[-1] if body.get("stream") else reply.json()["usage"]
    assert len(behind.asked) == calls
    for name in ("prompt_tokens", "completion_tokens"):
        assert usage[name] == sum(answered(one)["usage"][name] for one in behind.asked)
