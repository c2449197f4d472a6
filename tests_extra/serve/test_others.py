"""Our own `eval` against a server, and a server in front of a server: the same answers as offline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError
from served import Served

from spark_rl.config import load_config
from spark_rl.data import load_problems
from spark_rl.inference import Reasoner
from spark_rl.problem import Problem

QUESTION = "5?4?3?9=32"
ASKED = [{"role": "user", "content": f"solve {QUESTION}"}]


@pytest.fixture(scope="module")
def front(served: Served) -> Iterator[Served]:
    """A server that stands before another, with the prompts of the embedded base."""
    with Served("--upstream", served.url, "--config", "tiny") as server:
        yield server


def evaluated(folder: Path, model: str) -> list[dict[str, Any]]:
    """The rows of ``spark-rl eval``."""
    rows = folder / f"{len(list(folder.iterdir()))}.jsonl"
    command = [
        "eval",
        "--model",
        model,
        "--config",
        "tiny",
        "--data",
        str(folder / "problems.jsonl"),
        "--out",
        str(rows),
    ]
    options = ["--tts", "1", "--judge", "inference.reflect_temperature=0"]
    ended = subprocess.run(
        [sys.executable, "-m", "spark_rl", *command, *options], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in rows.read_text().splitlines()]


def test_eval_finds_the_same_through_a_server(served: Served, front: Served, tmp_path: Path) -> None:
    problems = load_problems("procedural:missing", load_config("tiny").data, "heldout")[:24]
    lines = [json.dumps({"question": one.question, "answer": one.answer}) for one in problems]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines) + "\n")
    offline = evaluated(tmp_path, "embedded")
    assert len(offline) == 24
    assert len({row["response"] for row in offline}) > 4
    for url in (served.url, front.url):
        found = evaluated(tmp_path, url)
        for ours, theirs in zip(found, offline, strict=True):
            for key in ("id", "response", "tokens", "judgement", "accepted", "rounds"):
                assert ours[key] == theirs[key]
            assert ours["final"]["response"] == theirs["final"]["response"]
            assert ours["verdict_probability"] == pytest.approx(theirs["verdict_probability"], abs=1e-3)


def test_a_server_behind_gives_what_it_gives_alone(served: Served, front: Served) -> None:
    settings = {"model": "embedded", "messages": ASKED, "n": 2, "temperature": 1, "seed": 4, "max_tokens": 40}
    alone = served.client().chat.completions.create(**settings)
    passed_on = front.client().chat.completions.create(**settings)
    assert [c.message.content for c in passed_on.choices] == [c.message.content for c in alone.choices]
    texts = ["", ""]
    for piece in front.client().chat.completions.create(**settings, stream=True):
        for choice in piece.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [c.message.content for c in alone.choices]
    with pytest.raises(APIStatusError, match="upstream: top_p is not supported here") as found:
        front.client().chat.completions.create(**settings, top_p=0.5)
    assert found.value.status_code == 400


def test_a_server_behind_is_judged_and_reflected_with(front: Served, offline: Reasoner) -> None:
    problem = Problem(id="q", question=QUESTION, answer="")
    trace = offline.solve([problem])[0]
    reply = front.client().chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": QUESTION}], extra_body={"spark": {"trace": True}}
    )
    assert reply.spark["rounds"][0]["response"] == trace.rounds[0].response
    assert reply.spark["rounds"][0]["judgement"] == trace.rounds[0].judgement
    judged = front.post("/v1/judge", {"question": QUESTION, "response": r"\boxed{*++}"}).json()["data"][0]
    expected = offline.judge([problem], [r"\boxed{*++}"])[0]
    assert judged["judgement"] == expected.text
    assert judged["probability"] == pytest.approx(expected.probability, abs=1e-3)


def test_a_server_behind_that_has_gone_is_one_line() -> None:
    with (
        Served("--model", "embedded") as behind,
        Served("--upstream", behind.url, "--config", "tiny", "--timeout", "30") as front,
    ):
        behind.stop()
        for more in ({}, {"spark": {}}):
            reply = front.post("/v1/chat/completions", {"messages": ASKED, **more})
            assert reply.status_code == 502
            said = reply.json()["error"]["message"]
            assert "upstream" in said
            assert "\n" not in said
