"""How what is served is asked: the embedded engine with continuous batching, or another server behind this one.

Both answer, judge and reflect by :class:`spark_rl.inference.Reasoner`; plain completions go to the engine as they are,
or to the other server as they came.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import httpx
from pydantic import ValidationError

from spark_rl.chat import MARKER, ChatFormat, Prompt, end_tokens
from spark_rl.config import InferenceConfig
from spark_rl.config.section import one_line
from spark_rl.engine.base import Engine, Sampling
from spark_rl.engine.continuous import BusyError, ContinuousEngine, Request, Session, Tokens
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.engine.endpoint import EndpointError
from spark_rl.engine.openai import OpenAIEngine
from spark_rl.errors import UserError
from spark_rl.inference import TURNED, Reasoner, Trace
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion, Problem
from spark_rl.serve.deltas import Deltas
from spark_rl.serve.protocol import ApiError, ChatRequest, JudgeItem, JudgeRequest
from spark_rl.serve.replies import (
    DONE,
    Reply,
    choice,
    delta,
    event,
    logprobs_of,
    rounds_of,
    tokens_of,
    trace_of,
    usage,
)

_Found = TypeVar("_Found")

SEVERAL_TEMPERATURE = 0.7
"""Of several answers or judgements where neither the request nor the run says another: greedy ones are all alike."""
BEGUN = b""
"""The first event of a stream, which is not sent."""
RETRIES = 2
"""How often a server behind this one is asked again: somebody waits, and is told sooner."""
REASONERS = 64
"""Requests that answer, judge and reflect, or are made into tokens, at a time."""


class Threads:
    """Work that waits for an engine, off the event loop: so much of it at a time."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], _Found]) -> _Found:
        """What ``work`` returns, in a thread that is left to itself if this is cancelled."""
        if self._limiter is None:  # which belongs to a loop that runs
            self._limiter = anyio.CapacityLimiter(REASONERS)
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


class Spent:
    """An engine that counts what is asked of it, and can be told to take no more calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.stopped = engine, False
        self.read = self.written = 0
        """Tokens of prompts, once each however many completions they have, and of completions."""
        self.cut: set[str] = set()
        """Completions that ended for want of room."""

    @property
    def version(self) -> int:
        return self.engine.version

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """What the engine gives. Raises :class:`concurrent.futures.CancelledError` once it was stopped."""
        if self.stopped:
            raise CancelledError
        drawn = self.engine.generate(prompts, sampling)
        self.read += sum(len(prompt.token_ids) for prompt in prompts)
        self.written += sum(map(tokens_of, drawn))
        self.cut |= {one.text for completions in drawn for one in completions if one.finish == "length"}
        return drawn

    def sync(self, weights: Weights) -> None:
        self.engine.sync(weights)

    def sleep(self) -> None:
        self.engine.sleep()

    def wake(self) -> None:
        self.engine.wake()

    def close(self) -> None:
        self.engine.close()

    @property
    def usage(self) -> dict[str, int]:
        """For a reply."""
        return usage(self.read, self.written)


class Asked(Protocol):
    """What a server asks."""

    name: str
    reasoner: Reasoner
    max_tokens: int | None
    """Of a completion at most, whatever a request says."""

    async def chat(self, request: ChatRequest, body: Mapping[str, Any]) -> dict[str, Any] | AsyncIterator[bytes]:
        """A whole reply, or the events of a stream."""
        ...

    async def think(self, work: Callable[[Reasoner], _Found]) -> tuple[_Found, Spent]:
        """What ``work`` makes of the model in its three roles, and what it took; cancelling this ends what it asks of
        the engine."""
        ...

    def load(self) -> dict[str, float]:
        """What is measured of it."""
        ...

    async def close(self) -> None:
        """Free what it holds."""
        ...


class Embedded:
    """A model in this process."""

    def __init__(self, reasoner: Reasoner, name: str, *, queue: int, max_tokens: int | None = None) -> None:
        """Take over the engine of ``reasoner``.

        Args:
            reasoner: with an embedded engine.
            name: of the model, for clients.
            queue: prompts under way at most.
            max_tokens: of a completion at most, whatever a request says; ``None`` for the model's positions alone.

        Raises:
            UserError: it has another engine.
        """
        if not isinstance(reasoner.engine, EmbeddedEngine) or not isinstance(reasoner.chat, ChatFormat):
            raise UserError("serve decodes with engine.name=embedded; start another engine's own server, and put this "
                            "one in front of it with --upstream URL")  # fmt: skip
        self.reasoner, self.name, self.max_tokens = reasoner, name, max_tokens
        self.engine = ContinuousEngine(reasoner.engine, queue)
        self.embedded, self.format = reasoner.engine, reasoner.chat
        self._threads = Threads()
        self._encoding = threading.Lock()

    async def chat(self, request: ChatRequest, body: Mapping[str, Any]) -> dict[str, Any] | AsyncIterator[bytes]:
        """A whole reply, or the events of a stream."""
        request.check_own()
        prompt = await self._threads.run(partial(self._encode, request))
        sampling = self._sampling(request, prompt)
        if request.stream:
            return await begun(_Stream(self, request, prompt, sampling).events())
        asked = self.engine.submit(prompt, sampling)
        try:
            completions = await asyncio.wrap_future(asked.future)
        finally:
            self.engine.cancel(asked)
        choices = [choice(i, one.text, one.finish, self.logprobs(one, request)) for i, one in enumerate(completions)]
        return Reply(self.name).whole(choices, usage(len(prompt.token_ids), tokens_of(completions)))

    async def think(self, work: Callable[[Reasoner], _Found]) -> tuple[_Found, Spent]:
        """In a thread, with a session of the engine that ends with this."""
        session = Session(self.engine)
        spent = Spent(session)
        try:
            return await self._threads.run(partial(work, replace(self.reasoner, engine=spent))), spent
        except CancelledError:  # of the engine's, which is being closed
            raise ApiError(503, "the server is shutting down") from None
        finally:
            session.cancel()

    def load(self) -> dict[str, float]:
        """What the engine does."""
        load = self.engine.load
        return {"rows": load.rows, "waiting": load.waiting, "steps": load.steps, "tokens": load.tokens}

    async def close(self) -> None:
        """End the engine's thread."""
        await anyio.to_thread.run_sync(self.engine.close)

    def logprobs(self, one: Completion | Tokens, request: ChatRequest) -> dict[str, Any] | None:
        """Of a completion, or of some tokens, where they are asked for."""
        if not request.logprobs:
            return None
        return logprobs_of(one.token_ids, one.logprobs, one.top, request.top_logprobs or 0, self.embedded.piece)

    def _encode(self, request: ChatRequest) -> Prompt:
        turns = [("system" if one.role == "developer" else one.role, one.texts()) for one in request.messages]
        with self._encoding:
            return self.format.encode_chat(turns, request.images())

    def _sampling(self, request: ChatRequest, prompt: Prompt) -> Sampling:
        """Raises :class:`ApiError` for what has no room in the model."""
        config, positions = self.reasoner.config, self.embedded.positions
        if not self.embedded.fits(prompt):
            raise ApiError(400, f"the prompt has {len(prompt.token_ids)} tokens, and the model {positions} positions "
                           "for prompt and response together", "context_length_exceeded", "messages")  # fmt: skip
        wanted = config.max_new_tokens if request.limit is None else request.limit
        room = None if positions is None else positions - len(prompt.token_ids)
        limit = min(wanted, *(most for most in (room, self.max_tokens) if most is not None), wanted)
        end_tokens(self.format.tokenizer, request.stops)
        if not prompt.token_ids:
            raise ApiError(400, "the chat has no tokens; say something", param="messages")
        return Sampling(
            n=request.n or 1, temperature=1.0 if request.temperature is None else request.temperature,
            max_new_tokens=limit, seed=secrets.randbits(62) if request.seed is None else request.seed,
            stop=request.stops, repetition_penalty=request.repetition_penalty or 1.0, top=request.top_logprobs or 0,
        )  # fmt: skip


class _Stream:
    """A streamed completion of the embedded engine."""

    def __init__(self, asked: Embedded, request: ChatRequest, prompt: Prompt, sampling: Sampling) -> None:
        """Submit the request; :meth:`events` has to be asked, and closed."""
        self.asked, self.request, self.prompt = asked, request, prompt
        self.reply = Reply(asked.name)
        self.heard: asyncio.Queue[Tokens | None] = asyncio.Queue()
        self.texts = [Deltas(asked.embedded.decode, (*sampling.stop, *prompt.stop)) for _ in range(sampling.n)]
        self.told = [0] * sampling.n
        loop = asyncio.get_running_loop()

        def put(tokens: Tokens | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.heard.put_nowait, tokens)

        self.submitted: Request = asked.engine.submit(prompt, sampling, heard=put)
        self.submitted.future.add_done_callback(lambda _: put(None))

    async def events(self) -> AsyncGenerator[bytes]:
        """Pieces as they are certain, then the ends, then the tokens that were used if they are asked for."""
        try:
            yield BEGUN
            yield self.reply.piece([delta(i, "", first=True) for i in range(len(self.texts))])
            while (tokens := await self.heard.get()) is not None:
                self.told[tokens.row] = tokens.start + len(tokens.token_ids)
                text = self.texts[tokens.row].feed(tokens.token_ids)
                logprobs = self.asked.logprobs(tokens, self.request)
                if text or logprobs:
                    yield self.reply.piece([delta(tokens.row, text, logprobs=logprobs)])
            try:
                completions = self.submitted.future.result()
            except (UserError, CancelledError) as error:
                yield event(ApiError(503, str(error) or "the server is shutting down").body())
                return
            for row, one in enumerate(completions):
                yield self.reply.piece([self._end(row, one)])
            options = self.request.stream_options
            if options is not None and options.include_usage:
                used = usage(len(self.prompt.token_ids), tokens_of(completions))
                yield self.reply.piece([], usage=used)
            yield DONE
        finally:
            self.asked.engine.cancel(self.submitted)

    def _end(self, row: int, one: Completion) -> dict[str, Any]:
        """The rest of a completion, and why it ended."""
        start = self.told[row]
        rest = Tokens(row, start, one.token_ids[start:], one.logprobs[start:], one.top[start:])
        logprobs = self.asked.logprobs(rest, self.request) if rest.token_ids else None
        return delta(row, self.texts[row].finish(one.text), one.finish, logprobs)


class Upstream:
    """Another server, which is asked on behalf of clients; plain completions are passed on as they are."""

    def __init__(self, reasoner: Reasoner, *, timeout: float) -> None:
        """``reasoner`` has an :class:`OpenAIEngine`; a request takes ``timeout`` seconds at most."""
        assert isinstance(reasoner.engine, OpenAIEngine)
        self.server, self.reasoner, self.name = reasoner.engine, reasoner, reasoner.engine.model
        self.server.endpoint.retries = min(self.server.endpoint.retries, RETRIES)
        self.timeout = timeout
        self.max_tokens: int | None = None
        self._client: httpx.AsyncClient | None = None
        self._threads = Threads()

    async def chat(self, request: ChatRequest, body: Mapping[str, Any]) -> dict[str, Any] | AsyncIterator[bytes]:
        """What the other server replies."""
        client = self._client = self._client or self.server.endpoint.client()
        try:
            passed = client.build_request(
                "POST", f"{self.server.endpoint.url}/chat/completions", json={**body, "model": self.server.model},
                timeout=self.timeout,
            )  # fmt: skip
        except ValueError:  # infinity, or half a character
            raise ApiError(400, "the request holds something that JSON has no form for") from None
        try:
            response = await client.send(passed, stream=True)
            if request.stream and response.status_code == 200:
                return await begun(self._passed_on(response))
            try:
                await response.aread()
                reply = response.json()
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise ApiError(504, "the upstream server gave no reply in time") from None
        except httpx.HTTPError as error:
            raise ApiError(502, f"the upstream server can't be reached ({type(error).__name__})") from None
        except ValueError:
            raise ApiError(502, "the upstream server's reply is no JSON") from None
        if response.status_code != 200 or not isinstance(reply, dict):
            said = reply.get("error") if isinstance(reply, dict) else None
            words = said.get("message") if isinstance(said, dict) else said or reply
            raise ApiError(response.status_code if response.status_code >= 400 else 502, f"upstream: {words!s:.500}")
        return reply

    async def think(self, work: Callable[[Reasoner], _Found]) -> tuple[_Found, Spent]:
        """In a thread; it asks the server nothing more once this is cancelled."""
        engine = Spent(self.server)
        try:
            return await self._threads.run(partial(work, replace(self.reasoner, engine=engine))), engine
        except EndpointError as error:
            raise ApiError(502, f"upstream: {error}") from None
        finally:
            engine.stopped = True

    def load(self) -> dict[str, float]:
        """Nothing is known."""
        return {}

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    @staticmethod
    async def _passed_on(response: httpx.Response) -> AsyncGenerator[bytes]:
        try:
            yield BEGUN
            async for piece in response.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            yield event(ApiError(502, f"the upstream server broke off ({type(error).__name__})").body())
        finally:
            await response.aclose()


class Reasoned:
    """A question that is answered, judged and reflected on, as ``request.spark`` says."""

    def __init__(self, asked: Asked, request: ChatRequest) -> None:
        """Raises :class:`ApiError` for what does not go together."""
        assert request.spark is not None
        request.check_spark()
        self.asked, self.spark, self.seed = asked, request.spark, request.seed
        message = request.messages[0]
        texts = message.texts()
        # images before the text stand before the run's own prompt too, as those of a problem without markers do
        question = MARKER.join(texts) if any(texts[:-1]) else texts[-1]
        self.problem = Problem(id="asked", question=question, answer="", images=tuple(message.images()))
        config, n = asked.reasoner.config, self.spark.n
        self.rounds = (0 if n > 1 else config.rounds) if self.spark.rounds is None else self.spark.rounds
        temperature = config.temperature if request.temperature is None else request.temperature
        if n > 1 and request.temperature is None and temperature == 0:
            temperature = SEVERAL_TEMPERATURE
        limit = _limit(asked, request.limit)
        changes = {"temperature": temperature, "max_new_tokens": limit}
        self.chosen = changed(config, **changes, select=self.spark.select if n > 1 else "last", samples=n)
        self.reflecting = changed(config, **changes, select="last", samples=1, rounds=self.rounds)

    async def whole(self) -> dict[str, Any]:
        """A reply."""
        trace, spent = await self.asked.think(lambda reasoner: list(self._watched(reasoner))[-1])
        facts = trace_of(trace, self.spark.n, whole=self.spark.trace)
        choices = [choice(0, trace.response, self._finish(trace, spent))]
        return Reply(self.asked.name).whole(choices, spent.usage, spark=facts)

    async def events(self) -> AsyncGenerator[bytes]:
        """A stream: rounds as they are answered, judged and reflected on, if they are asked for; then the answer, then
        what a whole reply holds. What goes wrong before anything is known is raised, and is an event afterwards.
        """
        heard: asyncio.Queue[Trace | None] = asyncio.Queue()
        loop, sent = asyncio.get_running_loop(), Reply(self.asked.name)

        def work(reasoner: Reasoner) -> None:
            for trace in self._watched(reasoner):
                if not loop.is_closed():
                    loop.call_soon_threadsafe(heard.put_nowait, trace)

        thinking = asyncio.ensure_future(self.asked.think(work))
        thinking.add_done_callback(lambda _: heard.put_nowait(None))
        try:
            trace = following = await heard.get()
            if trace is None:
                await thinking
            yield BEGUN
            yield sent.piece([delta(0, "", first=True)])
            told: list[dict[str, Any]] = []
            while following is not None:
                trace = following
                rounds = rounds_of(trace, self.spark.n)
                new = [{"index": i, **one} for i, one in enumerate(rounds) if told[i : i + 1] != [one]]
                if new and self.spark.trace:
                    yield sent.piece([], spark={"rounds": new})
                told, following = rounds, await heard.get()
            try:
                _, spent = await thinking
            except (ApiError, UserError) as error:
                told_of = error if isinstance(error, ApiError) else ApiError(503, str(error))
                yield event(told_of.body())
                return
            assert trace is not None
            yield sent.piece([delta(0, trace.response)])
            facts = trace_of(trace, self.spark.n, whole=self.spark.trace)
            yield sent.piece([delta(0, None, self._finish(trace, spent))], usage=spent.usage, spark=facts)
            yield DONE
        finally:
            thinking.cancel()

    def _watched(self, reasoner: Reasoner) -> Iterator[Trace]:
        """What is known so far, after each call of the engine."""
        reasoner = replace(reasoner, seed=reasoner.seed if self.seed is None else self.seed)
        first = None
        if self.spark.n > 1:
            for (first,) in replace(reasoner, config=self.chosen).watch([self.problem]):
                yield first
        if first is None or self.rounds:
            begun = None if first is None else [first.final]
            for (trace,) in replace(reasoner, config=self.reflecting).watch([self.problem], begun):
                yield trace if first is None else _joined(first, trace)

    @staticmethod
    def _finish(trace: Trace, spent: Spent) -> str:
        return "length" if trace.response in spent.cut else "stop"


def _limit(asked: Asked, wanted: int | None) -> int:
    """Tokens of each completion at most, of those that answer, judge and reflect."""
    limit = asked.reasoner.config.max_new_tokens if wanted is None else wanted
    return limit if asked.max_tokens is None else min(limit, asked.max_tokens)


async def begun(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """A stream whose first event, :data:`BEGUN`, has been taken: one that has begun gives up what it holds wherever it
    is dropped, and one that has not would not. Its client may leave before anybody asks for a piece."""
    assert await anext(events) is BEGUN
    return events


def _joined(first: Trace, again: Trace) -> Trace:
    """Answers of which one was chosen, then what reflecting on it gave."""
    assert first.chosen is not None
    rounds = list(first.rounds)
    rounds[first.chosen] = again.rounds[0]  # judged by now
    final = again.rounds.index(again.final)
    at = first.chosen if final == 0 else len(rounds) - 1 + final
    return Trace(first.problem, (*rounds, *again.rounds[1:]), at)


async def judge(asked: Asked, request: JudgeRequest) -> dict[str, Any]:
    """What the model thinks of responses: of one whether it is right, of two which is, asked in both orders."""
    config = asked.reasoner.config
    temperature = config.temperature if request.temperature is None else request.temperature
    if request.judgements > 1 and request.temperature is None and temperature == 0:
        temperature = SEVERAL_TEMPERATURE
    limit = _limit(asked, request.max_tokens)
    wanted = changed(
        config, temperature=temperature, judgements=request.judgements, max_new_tokens=limit, select="last", samples=1
    )
    items = request.asked()
    problems = [Problem(id="judged", question=one.question, answer="", images=tuple(one.images)) for one in items]

    def work(reasoner: Reasoner) -> list[dict[str, Any]]:
        seed = reasoner.seed if request.seed is None else request.seed
        return _judged(replace(reasoner, config=wanted, seed=seed), items, problems)

    data, spent = await asked.think(work)
    return {"object": "judgements", "model": asked.name, "data": data, "usage": spent.usage}


def _judged(reasoner: Reasoner, items: Sequence[JudgeItem], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in items]
    single = [i for i, item in enumerate(items) if item.other is None]
    opinions = reasoner.judge([problems[i] for i in single], [items[i].response for i in single])
    for i, (text, accepted, _, chance) in zip(single, opinions, strict=True):
        verdict = None if accepted is None else "Yes" if accepted else "No"
        reward = chance if chance is not None else float(bool(accepted))
        rows[i] = {"index": i, "verdict": verdict, "probability": chance, "reward": reward, "judgement": text}
    pairs = [(i, item.response, item.other) for i, item in enumerate(items) if item.other is not None]
    turned = [(one, other) for _, one, other in pairs], [(other, one) for _, one, other in pairs]
    asked = [problems[i] for i, _, _ in pairs]
    orders = [reasoner.compare(asked, order) for order in turned]
    for (i, _, _), (text, verdict, _), (text_b, verdict_b, _) in zip(pairs, *orders, strict=True):
        back = TURNED[verdict_b]
        said = [one for one in (verdict, back) if one is not None]
        agreed = verdict if verdict == back else None
        reward = sum(one == "A" for one in said) / len(said) if said else 0.5
        rows[i] = {
            "index": i, "verdict": agreed, "reward": reward,
            "orders": [{"first": "response", "verdict": verdict, "judgement": text},
                       {"first": "other", "verdict": back, "judgement": text_b}],
        }  # fmt: skip
    return rows


def changed(config: InferenceConfig, **changes: Any) -> InferenceConfig:
    """The settings with some of them changed. Raises :class:`ApiError` where they do not go together."""
    try:
        return config.changed(**changes)
    except ValidationError as error:
        raise ApiError(400, one_line(error)) from None


__all__ = ["Asked", "BusyError", "Embedded", "Reasoned", "Upstream", "begun", "judge"]
