"""A model in this process: the embedded engine with continuous batching, which all requests share."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread

from spark_rl.chat import ChatFormat, Prompt, end_tokens
from spark_rl.engine.base import Sampling
from spark_rl.engine.continuous import ContinuousEngine, Request, Session, Tokens
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.errors import UserError
from spark_rl.inference import Reasoner
from spark_rl.problem import Completion
from spark_rl.serve.backend import BEGUN, Spent, Threads, begun
from spark_rl.serve.deltas import Deltas
from spark_rl.serve.errors import EXPECTED, ApiError, told
from spark_rl.serve.protocol import ChatRequest
from spark_rl.serve.replies import DONE, Reply, choice, delta, event, logprobs_of, tokens_of, usage

_Found = TypeVar("_Found")


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
        submitted = self.engine.submit(prompt, sampling)
        try:
            completions = await asyncio.wrap_future(submitted.future)
        finally:
            self.engine.cancel(submitted)
        choices = [choice(i, one.text, one.finish, self.logprobs(one, request)) for i, one in enumerate(completions)]
        return Reply(self.name).whole(choices, usage(len(prompt.token_ids), tokens_of(completions)))

    async def think(self, work: Callable[[Reasoner], _Found]) -> tuple[_Found, Spent]:
        """In a thread, with a session of the engine that ends with this."""
        session = Session(self.engine)
        spent = Spent(session)
        try:
            return await self._threads.run(partial(work, replace(self.reasoner, engine=spent))), spent
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

    def __init__(self, backend: Embedded, request: ChatRequest, prompt: Prompt, sampling: Sampling) -> None:
        """Submit the request; :meth:`events` has to be asked, and closed."""
        self.backend, self.request, self.prompt = backend, request, prompt
        self.reply = Reply(backend.name)
        self.heard: asyncio.Queue[Tokens | None] = asyncio.Queue()
        self.texts = [Deltas(backend.embedded.decode, (*sampling.stop, *prompt.stop)) for _ in range(sampling.n)]
        self.told = [0] * sampling.n
        loop = asyncio.get_running_loop()

        def put(tokens: Tokens | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.heard.put_nowait, tokens)

        self.submitted: Request = backend.engine.submit(prompt, sampling, heard=put)
        self.submitted.future.add_done_callback(lambda _: put(None))

    async def events(self) -> AsyncGenerator[bytes]:
        """Pieces as they are certain, then the ends, then the tokens that were used if they are asked for."""
        try:
            yield BEGUN
            yield self.reply.piece([delta(i, "", first=True) for i in range(len(self.texts))])
            while (tokens := await self.heard.get()) is not None:
                self.told[tokens.row] = tokens.start + len(tokens.token_ids)
                text = self.texts[tokens.row].feed(tokens.token_ids)
                logprobs = self.backend.logprobs(tokens, self.request)
                if text or logprobs:
                    yield self.reply.piece([delta(tokens.row, text, logprobs=logprobs)])
            try:
                completions = self.submitted.future.result()
            except EXPECTED as error:
                yield event(told(error).body())
                return
            for row, one in enumerate(completions):
                yield self.reply.piece([self._end(row, one)])
            options = self.request.stream_options
            if options is not None and options.include_usage:
                used = usage(len(self.prompt.token_ids), tokens_of(completions))
                yield self.reply.piece([], usage=used)
            yield DONE
        finally:
            self.backend.engine.cancel(self.submitted)

    def _end(self, row: int, one: Completion) -> dict[str, Any]:
        """The rest of a completion, and why it ended."""
        start = self.told[row]
        rest = Tokens(row, start, one.token_ids[start:], one.logprobs[start:], one.top[start:])
        logprobs = self.backend.logprobs(rest, self.request) if rest.token_ids else None
        return delta(row, self.texts[row].finish(one.text), one.finish, logprobs)
