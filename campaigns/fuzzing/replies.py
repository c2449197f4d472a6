"""What a server of chat completions may answer."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import socket
import threading
import time
import zlib
from typing import Any

from fuzzing.hostile import damaged, dumped, hostile, mangled
from fuzzing.watch import Bench, check_line
from spark_rl.engine.base import Sampling
from spark_rl.engine.openai import OpenAIEngine
from spark_rl.errors import UserError

REPLY: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{
        "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "\\boxed{2}"},
        "logprobs": {"content": [
            {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]},
        ]},
    }],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}
ERRORS = (
    {"error": {"message": "no", "type": "x", "param": "seed", "code": None}},
    {"detail": [{"loc": ["body", "n"], "msg": "extra"}]}, {"message": "\x1b[31m"}, {"error": "x"},
)  # fmt: skip
STATUSES = (200,) * 60 + (
    100, 101, 204, 206, 301, 302, 307, 308, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 599, 999, 0, -1,
)  # fmt: skip


class Server:
    """Answers each connection with bytes that the try has made."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.answers: list[tuple[bytes, str]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(3)
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(65536)
                if not piece:
                    return
                asked += piece
            found = re.search(rb"(?i)content-length: *(\d+)", asked)
            left = int(found[1]) if found else 0
            left -= len(asked.partition(b"\r\n\r\n")[2])
            while left > 0:
                piece = connection.recv(65536)
                if not piece:
                    return
                left -= len(piece)
            content, manner = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            if manner == "drip":
                for at in range(0, len(content), 7):
                    connection.sendall(content[at : at + 7])
                    time.sleep(0.02)
            elif manner == "endless":
                connection.sendall(content)
                for _ in range(4000):
                    connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            elif manner == "silent":
                connection.sendall(content[: len(content) // 2])
                time.sleep(2)
            else:
                connection.sendall(content)


def reply_bytes(rng: random.Random) -> tuple[bytes, str]:
    """One answer of a server, and the manner in which it comes."""
    status = rng.choice(STATUSES)
    tree: Any = (
        damaged(rng, REPLY)
        if rng.random() < 0.75
        else rng.choice((damaged(rng, MODELS), damaged(rng, rng.choice(ERRORS)), hostile(rng)))
    )
    body = dumped(tree).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        body = mangled(rng, body)
    headers = {"Content-Type": rng.choice(("application/json", "text/html", "application/json; charset=utf-7", "\x7f"))}
    manner = rng.choice(("plain",) * 14 + ("drip", "endless", "silent"))
    how = rng.random()
    if how < 0.02:
        body = rng.choice((b" " * 90_000_000, b"[" * 3_000_000, b'{"choices": [' + b"{}," * 500_000 + b"{}]}"))
    if how < 0.12:
        level = b" " * rng.choice((1000, 200_000_000)) if rng.random() < 0.15 else body
        encoding = rng.choice(("gzip", "deflate", "gzip, gzip", "br", "zstd", "identity", "x"))
        body = gzip.compress(level, 1) if "gzip" in encoding else zlib.compress(level, 1)
        body = gzip.compress(body, 1) if encoding.count("gzip") == 2 else body
        headers["Content-Encoding"] = encoding
    if 300 <= status < 400:
        headers["Location"] = rng.choice(
            (
                "file:///etc/passwd",
                "http://127.0.0.1:9/v1",
                "/v1/chat/completions",
                "http://169.254.169.254/",
                "//x",
                "\ud83d".encode("utf-8", "replace").decode(),
            )
        )
    if rng.random() < 0.1:
        headers["Retry-After"] = rng.choice(
            ("0", "-1", "nan", "1e999", "99999999", "x", "Wed, 21 Oct 2015 07:28:00 GMT")
        )
    length = rng.choice(
        (str(len(body)),) * 12 + ("0", "-1", str(len(body) + 5), "x", "9" * 30, str(max(0, len(body) - 3)))
    )
    if manner == "endless" or rng.random() < 0.1:
        headers["Transfer-Encoding"] = "chunked"
        if manner != "endless":
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    else:
        headers["Content-Length"] = length
    if rng.random() < 0.02:
        headers["X"] = "y" * 200_000
    head = (
        f"HTTP/1.1 {status} {rng.choice(('OK', chr(27) + '[31m', ''))}\r\n"
        + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        + "Connection: close\r\n\r\n"
    )
    whole = head.encode("latin-1", "replace") + (body if manner != "endless" else b"")
    return (mangled(rng, whole, 1) if rng.random() < 0.05 else whole), manner


def try_replies(rng: random.Random, bench: Bench) -> None:
    """One call of an engine, answered by a server that nobody may trust."""
    with bench.watch.off():
        server: Server = bench.made.setdefault("server", None) or Server()
        bench.made["server"] = server
        server.answers = [reply_bytes(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
    from spark_rl.chat import Prompt  # noqa: PLC0415

    engine = OpenAIEngine(server.url, "m" if rng.random() < 0.9 else None, timeout=1.0, retries=0)
    prompt = Prompt("1+1?", (), ({"role": "user", "content": "1+1?"},))
    sampling = Sampling(n=rng.choice((1, 1, 3)), max_new_tokens=8, top=rng.choice((0, 3)), seed=rng.randrange(99))
    ((*found,),) = engine.generate([prompt], sampling)
    assert len(found) == sampling.n
    for each in found:
        assert isinstance(each.text, str)
        assert all(-1e6 < value < 1e6 for value in each.logprobs)
        if each.error is not None:
            check_line(UserError(each.error))
