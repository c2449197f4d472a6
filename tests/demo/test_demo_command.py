"""``spark-rl demo`` before anything is loaded: mistakes are one line; and what stands before the page."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from spark_rl.cli import main
from spark_rl.demo.limits import BODY, Bounded


def test_without_its_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "spark_rl.demo.page", raising=False)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "spark-rl: demo needs Gradio: pip install 'spark-rl[demo]'\n"


def test_only_the_page_needs_gradio() -> None:
    code = (
        "import sys; sys.modules['gradio'] = None; import spark_rl.demo.ask, spark_rl.demo.cards, spark_rl.demo.limits;"
        "import spark_rl.commands.demo, spark_rl.commands"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("size", "status"), [(BODY, 200), (BODY + 1, 413)])
def test_a_request_that_holds_too_much_is_refused(size: int, status: int) -> None:
    async def app(_: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    pieces = [{"type": "http.request", "body": b"x" * (size // 2), "more_body": True},
              {"type": "http.request", "body": b"x" * (size - size // 2), "more_body": False}]  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(Bounded(app)({"type": "http"}, receive, send))
    assert sent[0]["status"] == status
