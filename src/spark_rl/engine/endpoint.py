"""Talking to an OpenAI-compatible server over HTTP: one request, its time limit, its repetitions, its errors.

What may pass by itself is asked again with growing pauses: 408, 425, 429, every 5xx, lost connections, and once a
request that got no whole reply in time. Everything else is one line that begins with the server's address. A server
that could not be reached the first time is not asked again: the address is more likely wrong than the server down.

Redirects are not followed, so the key goes nowhere else. It is in no message either, not even where a server repeats
it.

Standard library only. Proxies are those of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).
"""

from __future__ import annotations

import base64
import json
import math
import os
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from spark_rl.engine.cancel import Cancel, NoAnswerError
from spark_rl.errors import UserError

CONNECT_SECONDS = 20.0
"""A connection must be there within this time, or within the time limit of the request if that is shorter."""
FIRST_PAUSE = 1.0
"""Seconds between the first two attempts; each further pause is twice as long, unless the server asks for more."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most, whatever the server asks for."""
MOST_BYTES = 256_000_000
"""Longer replies are refused."""
QUOTED = 300
"""Characters of a server's own words in an error."""

_PASSING = frozenset((408, 425, 429))


class EndpointError(UserError):
    """A server can't be reached, or refuses: one line that begins with its address."""

    def __init__(self, message: str, status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, if there was a reply."""
        self.said = said
        """The server's own words."""


class Endpoint:
    """An OpenAI-compatible server: JSON goes out, JSON comes back."""

    def __init__(self, url: str, *, api_key_env: str, timeout: float, retries: int) -> None:
        """Nothing is sent yet.

        Args:
            url: ``http://host:8000/v1``; without a path ``/v1`` is added.
            api_key_env: the environment variable that holds the key. Without a value no key is sent.
            timeout: seconds that one request may take, the whole reply included.
            retries: how often a request is asked again.

        Raises:
            UserError: the address or the key can't be used.
        """
        parts = _address(url)
        self._parts = parts
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        self._path = path
        self.url = f"{parts.scheme}://{parts.netloc}{path}"
        self.timeout, self.retries, self.api_key_env = timeout, retries, api_key_env
        self._key = _key(api_key_env)
        self._trust = ssl.create_default_context() if parts.scheme == "https" else None
        self._reached = False

    def ask(self, path: str, body: Mapping[str, Any] | None = None, cancel: Cancel | None = None) -> dict[str, Any]:
        """The JSON object that the server replies to ``body``, or to a plain GET without one.

        Raises:
            EndpointError: it can't be reached, refuses, or replies with something else.
            AbandonedError: ``cancel`` was used.
        """
        cancel = cancel or Cancel()
        failures = timeouts = 0
        while True:
            wanted = 0.0
            try:
                status, wanted, content = self._exchange(path, body, cancel)
            except TimeoutError:
                timeouts += 1
                why = f"no whole reply within {self.timeout:g} s"
            except NoAnswerError as error:
                why = f"no connection ({error})"
                if not self._reached:
                    raise self._error(f"{why}; is the server running, and is this its address?") from None
            except (OSError, HTTPException) as error:
                why = f"the connection was lost ({getattr(error, 'strerror', None) or type(error).__name__})"
            else:
                self._reached = True
                if status == 200:
                    return self._object(content)
                said = self._said(content)
                if (status not in _PASSING and status < 500) or "insufficient_quota" in said:
                    raise self._refusal(status, said)
                why = f"HTTP {status}: {said}"
            failures += 1
            if failures > self.retries or timeouts > 1:
                times = "once" if failures == 1 else f"{failures} times"
                raise self._error(f"{why} (asked {times})")
            cancel.pause(min(LONGEST_PAUSE, max(wanted, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))))

    def _exchange(self, path: str, body: Mapping[str, Any] | None, cancel: Cancel) -> tuple[int, float, bytes]:
        """Status, seconds to wait before asking again as the server has it, and content."""
        connection, target, headers = self._connection(f"{self._path}{path}")
        headers |= {"Accept": "application/json", "Connection": "close", "User-Agent": "spark-rl"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode("ascii")
            headers["Content-Type"] = "application/json"
        with cancel.watching(connection, self.timeout) as line:
            line.open()
            cancel.check()
            assert connection.sock is not None
            connection.sock.settimeout(self.timeout)
            connection.request("GET" if payload is None else "POST", target, payload, headers)
            with connection.getresponse() as response:  # it keeps the socket open when it is cut off half-read
                content = response.read(MOST_BYTES + 1)
                missing = response.length
            if len(content) > MOST_BYTES:
                raise self._error(f"a reply of more than {MOST_BYTES / 1e6:.0f} MB")
            if missing:
                raise IncompleteRead(content, missing)
        return response.status, _seconds(response.headers.get("Retry-After")), content

    def _connection(self, path: str) -> tuple[HTTPConnection, str, dict[str, str]]:
        """A connection not yet made, what to ask it for, and headers for a proxy."""
        parts = self._parts
        host = parts.hostname or ""
        limit = min(CONNECT_SECONDS, self.timeout)

        def to(host: str, port: int | None) -> HTTPConnection:
            if self._trust is None:
                return HTTPConnection(host, port, timeout=limit)
            return HTTPSConnection(host, port, timeout=limit, context=self._trust)

        proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme)
        if proxy is None:
            return to(host, parts.port), path, {}
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        word = f"{unquote(via.username or '')}:{unquote(via.password or '')}".encode()
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(word).decode()}"} if via.username else {}
        connection = to(via.hostname or "", via.port or 80)
        if parts.scheme == "http":
            return connection, f"http://{parts.netloc}{path}", headers
        connection.set_tunnel(host, parts.port, headers)
        return connection, path, {}

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._error(f"the reply is no JSON object: {self._quoted(content)}")
        return found

    def _said(self, content: bytes) -> str:
        """The server's own words for what went wrong, with its code."""
        try:
            found: Any = json.loads(content)
        except (ValueError, RecursionError):
            return self._quoted(content)
        if isinstance(found, dict):
            found = found.get("error", found)
        if isinstance(found, dict):
            words = next((found[name] for name in ("message", "detail") if name in found), found)
            code = found.get("code")
            found = f"{words} ({code})" if isinstance(code, str) and code not in str(words) else words
        return self._quoted(str(found).encode())

    def _quoted(self, content: bytes) -> str:
        """The beginning of a reply on one line, the key taken out."""
        text = " ".join(content[: 100 * QUOTED].decode("utf-8", "replace").split())
        if self._key:
            text = text.replace(self._key, "***")
        return (text if len(text) <= QUOTED else f"{text[:QUOTED]}...") or "nothing"

    def _refusal(self, status: int, said: str) -> EndpointError:
        if status in {401, 403}:
            name = self.api_key_env
            mend = f"it refuses the key in ${name}" if self._key else f"it wants a key; put it into ${name}"
            return self._error(f"{mend} (HTTP {status}: {said})", status, said)
        if 300 <= status < 400:
            return self._error(f"it sends requests elsewhere (HTTP {status}); give the address it names", status, said)
        hint = "; the address usually ends in /v1" if status == 404 and not self._path.endswith("/v1") else ""
        return self._error(f"HTTP {status}: {said}{hint}", status, said)

    def _error(self, what: str, status: int | None = None, said: str = "") -> EndpointError:
        return EndpointError(f"{self.url}: {what}", status, said)


def _address(url: str) -> SplitResult:
    """The parts of a server's address. Raises :class:`UserError`, without repeating a password."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
        usable = usable and url.isascii() and url.strip().isprintable() and " " not in url.strip()
    except ValueError:
        usable = False
    if not usable:
        raise UserError("that is no address of a server; give one such as http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"the address of {parts.hostname} holds a password; put it into the variable of the key instead"
        )
    if parts.query or parts.fragment:
        raise UserError(f"{parts.scheme}://{parts.netloc}{parts.path}: leave out what follows ? or #")
    return parts


def _key(name: str) -> str:
    """The key in the environment variable. Raises :class:`UserError`, without showing it, if no header can hold it."""
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"${name} holds characters that no key has; set it again")
    return key


def _seconds(text: str | None) -> float:
    """``Retry-After`` as seconds; 0 for what is no number, such as a date."""
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
