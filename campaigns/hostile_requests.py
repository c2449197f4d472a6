"""Hostile requests to a server: ``python campaigns/hostile_requests.py``, in ``.venv-serve``.

A server of the embedded model is started as people start it. Clients at a time send it what no honest client would:
JSON that is broken, nested, huge or full of numbers that are none, messages with every control character and special
token, images that are no images, settings of any type, bodies that break off, bytes that are no HTTP, answers that are
asked for and not waited for. Among them are honest requests, whose answers must stay what they were at the beginning.

Lost is: a status of 500 or more but 503, an error that is not in OpenAI's format, an honest answer that has changed, a
server that is gone, rows or requests that stay under way at the end, or memory, open files or threads that grow from
the second quarter of the requests to the last. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

HONEST = {"messages": [{"role": "user", "content": "solve 5?4?3?9=32"}], "temperature": 0, "max_tokens": 12}
GROWTH = 48.0
"""MB that a server may grow by from the second quarter to the last: allocators keep what they once had."""
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\x00" * 64).decode()
TEXTS = (
    "", "\x00", "<bos>", "<eos>", "<|im_end|>", "<image>" * 50, "\\boxed{" * 300, "()" * 500, "9" * 5000, "𝕏" * 200,
    "\u202e\u200f", "{question}", "{{ 7*7 }}", "%s%n", "'; DROP TABLE", "../../etc/passwd", "\r\n\r\nGET / HTTP/1.1",
    "A" * 20000, "\\frac{1}{0}", "\\sum_{a=1}^{999}" * 40, "é\u0301" * 100,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**30, -(10**30), 0.5, 1e308, "", "x", [], {}, [[]], {"a": {}}, ["x"] * 40, "1",
    "\x00", [None], 3.7, "true",
)  # fmt: skip
FIELDS = (
    "messages", "model", "n", "temperature", "max_tokens", "max_completion_tokens", "seed", "stop", "stream",
    "logprobs", "top_logprobs", "repetition_penalty", "spark", "stream_options", "top_p", "tools", "response_format",
    "user", "frob",
)  # fmt: skip


@dataclass
class Findings:
    """What was lost, and what was seen."""

    lost: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def see(self, kind: str, reply: httpx.Response) -> None:
        """Check a reply."""
        self.statuses[f"{kind} {reply.status_code}"] += 1
        if reply.status_code >= 500 and reply.status_code != 503:
            self.lost.append(f"{kind}: status {reply.status_code}: {reply.text[:300]}")
        elif reply.status_code >= 400 and "application/json" in reply.headers.get("content-type", ""):
            error = reply.json().get("error")
            if not isinstance(error, dict) or not isinstance(error.get("message"), str) or "\n" in error["message"]:
                self.lost.append(f"{kind}: no error of OpenAI's format: {reply.text[:300]}")
        elif reply.status_code >= 400:
            self.lost.append(f"{kind}: status {reply.status_code} without JSON: {reply.text[:300]}")


class Hostile:
    """One client, with its own randomness."""

    def __init__(self, url: str, seed: int, findings: Findings, expected: str) -> None:
        self.url, self.rng, self.findings, self.expected = url, random.Random(seed), findings, expected
        host, port = re.findall(r"http://([^:]+):(\d+)", url)[0]
        self.address = host, int(port)
        self.http = httpx.Client(timeout=120)
        self.kinds: tuple[Callable[[], None], ...] = (
            self.honest, self.settings, self.texts, self.images, self.damaged, self.nested, self.judged, self.spark,
            self.leaves, self.no_http, self.breaks_off, self.elsewhere,
        )  # fmt: skip

    def turn(self) -> None:
        """One request."""
        kind = self.rng.choice(self.kinds)
        try:
            kind()
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, ConnectionError) as error:
            # a body that is refused before it is read may end the connection while it is sent
            self.findings.statuses[f"{kind.__name__} {type(error).__name__}"] += 1
            if kind in (self.honest, self.texts, self.spark):
                self.findings.lost.append(f"{kind.__name__}: {error!r}")

    def post(self, kind: str, path: str, **given: Any) -> httpx.Response:
        reply = self.http.post(self.url + path, **given)
        self.findings.see(kind, reply)
        return reply

    def honest(self) -> None:
        reply = self.post("honest", "/v1/chat/completions", json=HONEST)
        if reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] != self.expected:
            self.findings.lost.append(f"honest: another answer: {reply.text[:300]}")
        if reply.status_code not in {200, 429}:
            self.findings.lost.append(f"honest: status {reply.status_code}: {reply.text[:300]}")

    def settings(self) -> None:
        body: dict[str, Any] = dict(HONEST)
        for _ in range(self.rng.randint(1, 4)):
            body[self.rng.choice(FIELDS)] = self.rng.choice(VALUES)
        self.post("settings", "/v1/chat/completions", content=json.dumps(body), headers=JSON)

    def texts(self) -> None:
        text = "".join(self.rng.choice(TEXTS) for _ in range(self.rng.randint(1, 3)))
        roles = [self.rng.choice(["system", "user", "assistant"]) for _ in range(self.rng.randint(0, 3))]
        chat = [{"role": role, "content": text} for role in (*roles, "user")]
        stop = [self.rng.choice(TEXTS)[:300]] if self.rng.random() < 0.3 else None
        more = {"n": self.rng.randint(1, 8), "stream": self.rng.random() < 0.3, "logprobs": True, "top_logprobs": 20}
        self.post("texts", "/v1/chat/completions", json={"messages": chat, "max_tokens": 30, "stop": stop, **more})

    def images(self) -> None:
        url = self.rng.choice([
            f"data:image/png;base64,{PNG}", "data:,", "data:image/png;base64,", "file:///etc/passwd", "http://127.0.0.1/",
            "data:image/svg+xml;base64,PHN2Zz4=", "data:" + "x" * 5000, PNG,
        ])  # fmt: skip
        content = [{"type": "image_url", "image_url": {"url": url}}] * self.rng.randint(1, 70)
        self.post("images", "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})

    def damaged(self) -> None:
        whole = json.dumps(HONEST).encode()
        place = self.rng.randrange(len(whole))
        changed = whole[:place] + self.rng.randbytes(self.rng.randint(0, 9)) + whole[place + self.rng.randint(0, 9) :]
        self.post("damaged", self.rng.choice(PATHS), content=changed, headers=self.rng.choice([JSON, {}]))

    def nested(self) -> None:
        opened, closed = self.rng.choice([("[", "]"), ('{"a":', "}"), ('{"messages":[', "]}")])
        depth = self.rng.choice([10, 1000, 100_000])
        body = opened * depth + self.rng.choice(["1", "1e999", "NaN", '"\\ud800"', "9" * 5000]) + closed * depth
        self.post("nested", self.rng.choice(PATHS), content=body, headers=JSON)

    def judged(self) -> None:
        text, other = self.rng.choice(TEXTS), self.rng.choice(TEXTS)
        item: dict[str, Any] = {"question": text, "response": other}
        if self.rng.random() < 0.3:
            item["other"] = text
        body = self.rng.choice([item, {"items": [item] * self.rng.randint(1, 6)}, {**item, "judgements": 3}, {}])
        self.post("judged", "/v1/judge", json={**body, "max_tokens": 20})

    def spark(self) -> None:
        asked = {"rounds": self.rng.choice([0, 1, 3]), "n": self.rng.choice([1, 2, 4]), "trace": True,
                 "select": self.rng.choice(["majority", "verdict", "weighted"])}  # fmt: skip
        chat = [{"role": "user", "content": self.rng.choice(TEXTS)}]
        self.post("spark", "/v1/chat/completions", json={"messages": chat, "spark": asked, "max_tokens": 20})

    def leaves(self) -> None:
        """Asks for much, and hangs up."""
        body = json.dumps({**HONEST, "n": 16, "temperature": 1, "max_tokens": 200, "stream": self.rng.random() < 0.5})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" \
               f"Content-Length: {len(body)}\r\n\r\n"  # fmt: skip
        self.raw("leaves", (head + body).encode(), self.rng.random() * 0.05)

    def no_http(self) -> None:
        self.raw("no_http", self.rng.choice([
            self.rng.randbytes(200), b"GET", b"\x16\x03\x01" + self.rng.randbytes(80), b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/judge HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/judge HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
        ]), 0.01)  # fmt: skip

    def breaks_off(self) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
        self.raw("breaks_off", head + b"{" * self.rng.randint(0, 4000), 0.01)

    def elsewhere(self) -> None:
        path = self.rng.choice(["/", "/v1", "/v1/../etc/passwd", "/v1/completions", "/%00", "/" + "a" * 3000])
        method = self.rng.choice(["GET", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"])
        self.findings.see("elsewhere", self.http.request(method, self.url + path))

    def raw(self, kind: str, data: bytes, wait: float) -> None:
        self.findings.statuses[kind] += 1
        with socket.create_connection(self.address, 30) as connection:
            connection.sendall(data)
            time.sleep(wait)


JSON = {"Content-Type": "application/json"}
PATHS = ("/v1/chat/completions", "/v1/judge")


def held(process: int) -> tuple[float, int, int]:
    """(MB of memory, open files, threads) of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    kilobytes, threads = re.findall(r"VmRSS:\s+(\d+)", status)[0], re.findall(r"Threads:\s+(\d+)", status)[0]
    return int(kilobytes) / 1024, len(list(Path(f"/proc/{process}/fd").iterdir())), int(threads)


def attack(url: str, process: int, requests: int, clients: int, seed: int) -> Findings:
    """Send so many requests in four quarters, and look at the server between them."""
    findings, marks = Findings(), []
    expected = httpx.post(f"{url}/v1/chat/completions", json=HONEST, timeout=120).json()["choices"][0]["message"]
    for quarter in range(4):
        hostile = [Hostile(url, 1000 * seed + 10 * k + quarter, findings, expected["content"]) for k in range(clients)]

        def work(client: Hostile) -> None:
            for _ in range(requests // 4 // clients):
                client.turn()
            client.http.close()

        threads = [threading.Thread(target=work, args=(client,)) for client in hostile]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        findings.lost += unsettled(url)
        marks.append(held(process))
        print(f"{(quarter + 1) * 25}%: {marks[-1][0]:.0f} MB, {marks[-1][1]} open files, {marks[-1][2]} threads, "
              f"{len(findings.lost)} lost", flush=True)  # fmt: skip
    (before, files, threads_before), (after, files_after, threads_after) = marks[1], marks[3]
    if after - before > GROWTH or files_after > files + 8 or threads_after > threads_before + 8:
        findings.lost.append(f"it grows: {marks}")
    return findings


def unsettled(url: str) -> list[str]:
    """What stays under way although nobody asks."""
    end, left = time.monotonic() + 60, ""
    while time.monotonic() < end:
        lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
        left = ", ".join(
            line for line in lines if re.match(r"spark_rl_(requests|engine_rows|engine_waiting) [^0]", line)
        )
        if not left:
            return []
        time.sleep(0.1)
    return [f"still under way: {left}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()
    started = time.monotonic()
    command = [sys.executable, "-m", "spark_rl", "serve", "--model", arguments.model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        assert server.stdout is not None
        url = next(found[1] for line in server.stdout if (found := re.search(r"on (http://\S+)/v1", line)))
        try:
            findings = attack(url, server.pid, arguments.requests, arguments.clients, arguments.seed)
            if server.poll() is not None:
                findings.lost.append(f"the server is gone, with status {server.returncode}")
        finally:
            server.terminate()
    for seen, count in sorted(findings.statuses.items()):
        print(f"  {seen}: {count}")
    print(f"{arguments.requests} requests in {time.monotonic() - started:.0f} s, {len(findings.lost)} lost")
    print("\n".join(dict.fromkeys(findings.lost[:20])))
    return int(bool(findings.lost))


if __name__ == "__main__":
    sys.exit(main())
