"""Talking to an OpenAI-compatible server over HTTP: one request, its time limit, its repetitions, its errors.

What may pass by itself is asked again with growing pauses: 408, 425, 429, 5xx, lost connections, and once a request
that got no whole reply in time or whose response the server gave up. A reply of status 200 that holds an error is that
error. Everything else is one line that begins with the server's address. A server that could not be reached the first
time is not asked again: the address is more likely wrong than the server down.

A refusal of what one request holds (its length, its image, a content filter) is a :class:`RefusedError`, which says
nothing of the next request; :mod:`spark_rl.engine.refusals` tells them apart.

Redirects are not followed, so the key goes nowhere else. It is in no message either, not even where a server repeats
it.

httpx makes the connections, keeps them for the length of one :meth:`Endpoint.run` and takes proxies from the
environment (``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``). Certificates are checked against the
system's store.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import os
import queue
import ssl
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

import anyio
import httpx

from spark_rl.engine import refusals
from spark_rl.engine.calls import Calls
from spark_rl.errors import UserError

CONNECT_SECONDS = 20.0
"""A connection must be there within this time, or within the time limit of the request if that is shorter."""
FIRST_PAUSE = 1.0
"""Seconds between the first two attempts; each further pause is twice as long, unless the server asks for more."""
GRACE = 3.0
"""Seconds that whoever interrupts waits for connections to close."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most, whatever the server asks for."""
_GZIP_OR_ZLIB = 32 + 15
"""To zlib: either header, the largest window."""
MOST_BYTES = 256_000_000
"""Longer replies are refused."""
QUOTED = 300
"""Characters of a server's own words in an error."""
READ = 10 * QUOTED
"""Characters of them that are searched for what it refuses."""

_Found = TypeVar("_Found")


class EndpointError(UserError):
    """A server can't be reached, or refuses: one line that begins with its address."""

    def __init__(self, message: str, status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, or the one that an error in the reply names; ``None`` if there was no reply."""
        self.said = said
        """The server's own words."""


class RefusedError(EndpointError):
    """The server refuses a request for what it holds, and may well answer the next one."""


class Endpoint:
    """An OpenAI-compatible server: JSON goes out, JSON comes back."""

    def __init__(self, url: str, *, api_key_env: str, timeout: float, retries: int, path: str = "/v1") -> None:
        """Nothing is sent yet.

        Args:
            url: ``http://host:8000/v1``; without a path ``path`` is added.
            api_key_env: the environment variable that holds the key. Without a value no key is sent.
            timeout: seconds that one request may take, the whole reply included.
            retries: how often a request is asked again.
            path: of the server's interface, where addresses usually end.

        Raises:
            UserError: the address or the key can't be used.
        """
        parts = _address(url)
        given = parts.path.rstrip("/").removesuffix("/chat/completions") or path
        self.url = f"{parts.scheme}://{parts.netloc}{given}"
        self._usual = path
        self.timeout, self.retries, self.api_key_env = timeout, retries, api_key_env
        self._key = _key(api_key_env)
        self._trust = ssl.create_default_context()
        self._reached = threading.Event()
        self._calls = Calls()

    def session(self) -> Self:
        """The same server for one caller, who may :meth:`cancel` what it asks."""
        own = copy.copy(self)
        own._calls = Calls()
        return own

    def cancel(self) -> None:
        """End what is under way, and whatever is asked from now on; from any thread.

        Whoever waits for it gets a :class:`concurrent.futures.CancelledError`.
        """
        self._calls.cancel()

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[_Found]]) -> _Found:
        """What ``work`` makes of a client, whose connections are closed afterwards.

        It is done in a thread of its own, so that it can be called where an event loop runs already (a notebook).
        Ctrl-C here cancels it there, and never waits for it longer than :data:`GRACE` seconds.

        Raises:
            UserError: the proxy of the environment can't be used.
        """
        with self._apart(work) as found:
            return found.result()

    def each(self, work: Callable[[httpx.AsyncClient, Callable[[_Found], None]], Awaitable[None]]) -> Iterator[_Found]:
        """What ``work`` hands over with the function that it is given, as it does; otherwise like :meth:`run`.

        Closing the iterator cancels it too.
        """
        handed: queue.SimpleQueue[tuple[_Found] | None] = queue.SimpleQueue()
        with self._apart(lambda client: work(client, lambda one: handed.put((one,)))) as found:
            found.add_done_callback(lambda _: handed.put(None))
            while (one := handed.get()) is not None:
                yield one[0]
            found.result()

    @contextmanager
    def _apart(self, work: Callable[[httpx.AsyncClient], Awaitable[_Found]]) -> Iterator[Future[_Found]]:
        """The future of what ``work`` makes; what is not done when the block ends is cancelled."""
        began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
        found: Future[_Found] = Future()

        async def whole() -> _Found:
            task = asyncio.current_task()
            assert task is not None
            began.set_result((asyncio.get_running_loop(), task))
            async with self.client() as client:
                return await work(client)

        def apart() -> None:
            try:
                result = asyncio.run(whole())
            except asyncio.CancelledError:
                found.cancel()
            except BaseException as error:  # noqa: BLE001  # it is raised again where the result is waited for
                found.set_exception(error)
            else:
                found.set_result(result)

        def end() -> None:
            if not found.done():
                loop, task = began.result(GRACE)
                with suppress(RuntimeError):  # it has ended meanwhile
                    loop.call_soon_threadsafe(task.cancel)

        thread = threading.Thread(target=apart, name="spark-endpoint", daemon=True)
        with self._calls.noted(end):
            thread.start()
            try:
                yield found
            finally:
                end()  # Ctrl-C, or nobody wants more
                thread.join(GRACE)

    async def ask(
        self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any] | None = None, retries: int | None = None
    ) -> dict[str, Any]:
        """The JSON object that the server replies to ``body``, or to a plain GET without one.

        ``retries`` stands in place of the endpoint's, for what must not be done twice.

        Raises:
            RefusedError: it refuses what ``body`` holds.
            EndpointError: it can't be reached, refuses, or replies with something else.
        """
        failures = once = 0
        retries = self.retries if retries is None else retries
        while True:
            wanted, own = 0.0, False
            try:
                with anyio.fail_after(self.timeout):
                    status, wanted, content = await self._exchange(client, path, body)
            except TimeoutError:
                once += 1
                why = f"no whole reply within {self.timeout:g} s"
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
                why = f"no connection ({_reason(error)})"
                if not self._reached.is_set():
                    raise self._error(f"{why}; is the server running, and is this its address?") from None
            except httpx.RequestError as error:
                why = f"the connection was lost ({type(error).__name__})"
            else:
                self._reached.set()
                found = _read(content)
                if status != 200:
                    failed: refusals.Failure | None = refusals.of_status(status, found)
                elif isinstance(found, dict):
                    failed = refusals.of_reply(found)
                else:
                    raise self._error(f"the reply is no JSON object: {self.quoted(str(found))}")
                if failed is None:
                    assert isinstance(found, dict), "anything else was an error above"
                    return found
                if not failed.passes:
                    raise self._refusal(failed)
                own = failed.own
                once += failed.once
                why = f"{failed.what}: {self.quoted(failed.words)}"
            failures += 1
            if failures > retries or once > 1:
                times = "once" if failures == 1 else f"{failures} times"
                kind = RefusedError if own else EndpointError
                raise kind(f"{self.url}: {why} (asked {times})")
            await anyio.sleep(min(LONGEST_PAUSE, max(wanted, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))))

    async def _exchange(
        self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, float, bytes]:
        """Status, seconds to wait before asking again as the server has it, and content."""
        url, headers = f"{self.url}{path}", {"Content-Type": "application/json"}
        if body is None:
            request = client.stream("GET", url)
        else:  # ASCII, because a text may hold lone surrogates
            request = client.stream("POST", url, content=json.dumps(body).encode("ascii"), headers=headers)
        content = bytearray()
        async with request as response:
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > MOST_BYTES:
                    raise self._too_much()
        whole = self._expanded(bytes(content), response.headers.get("Content-Encoding", "identity"))
        return response.status_code, _seconds(response.headers.get("Retry-After")), whole

    def _expanded(self, content: bytes, encoding: str) -> bytes:
        """The content as it was before it was compressed. httpx would expand each piece whatever it becomes: one
        compressed twice takes kilobytes on the wire and gigabytes in memory.
        """
        if encoding.strip().lower() in {"identity", ""}:
            return content
        if encoding.strip().lower() not in {"gzip", "deflate"}:
            raise self._error(f"its reply is compressed as {self.quoted(encoding)}, which was not asked for")
        try:
            whole = zlib.decompressobj(wbits=_GZIP_OR_ZLIB).decompress(content, MOST_BYTES + 1)
        except zlib.error:
            raise self._error(f"its reply is not the {encoding.strip()} that it says it is") from None
        if len(whole) > MOST_BYTES:
            raise self._too_much()
        return whole

    def _too_much(self) -> EndpointError:
        return self._error(f"a reply of more than {MOST_BYTES / 1e6:.0f} MB")

    def client(self) -> httpx.AsyncClient:
        """A client with the key and the trust that requests to this server need. Whoever asks closes it.

        Raises:
            UserError: the proxy of the environment can't be used.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": "spark-rl"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limit = httpx.Timeout(None, connect=min(CONNECT_SECONDS, self.timeout))
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        try:
            return httpx.AsyncClient(verify=self._trust, headers=headers, timeout=limit, limits=unlimited)
        except (ImportError, ValueError, httpx.InvalidURL):  # their words may hold the proxy's password
            raise UserError(
                f"{self.url}: the proxy of the environment can't be used; http_proxy, https_proxy and all_proxy are "
                "addresses such as http://host:3128, or unset"
            ) from None

    def quoted(self, text: str) -> str:
        """The beginning of a server's words on one line, the key taken out."""
        text = self._said(text)
        return (text if len(text) <= QUOTED else f"{text[:QUOTED]}...") or "nothing"

    def _said(self, text: str) -> str:
        text = " ".join(text[: 10 * READ].split())
        return (text.replace(self._key, "***") if self._key else text)[:READ]

    def _refusal(self, failed: refusals.Failure) -> EndpointError:
        status, said = failed.status, self._said(failed.words)
        what = f"{failed.what}: {self.quoted(failed.words)}"
        if failed.own:
            return RefusedError(f"{self.url}: {what}", status, said)
        if status in {401, 403}:
            name = self.api_key_env
            mend = f"it refuses the key in ${name}" if self._key else f"it wants a key; put it into ${name}"
            return self._error(f"{mend} ({what})", status, said)
        if 300 <= status < 400:
            return self._error(f"it sends requests elsewhere (HTTP {status}); give the address it names", status, said)
        odd = status == 404 and not self.url.endswith(self._usual)
        hint = f"; the address usually ends in {self._usual}" if odd else ""
        return self._error(f"{what}{hint}", status, said)

    def _error(self, what: str, status: int | None = None, said: str = "") -> EndpointError:
        return EndpointError(f"{self.url}: {what}", status, said)


def _read(content: bytes) -> Any:
    """The JSON, or the text of what is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content[: 10 * READ].decode("utf-8", "replace")


def _reason(error: BaseException) -> str:
    """Why there is no connection, in the words of the system where some error behind this one has them."""
    words, behind = "", [error]
    for found in behind:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate can't be trusted: {found.verify_message}"
        if isinstance(found, OSError) and found.errno is not None:
            own = found.errno < 0 or isinstance(found, ssl.SSLError)  # numbers that are not the system's
            words = str(found.strerror) if own else os.strerror(found.errno)
        further = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found.__cause__ or found.__context__
        if further is not None and len(behind) < 20:
            behind.append(further)
    return words or str(error) or type(error).__name__


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
