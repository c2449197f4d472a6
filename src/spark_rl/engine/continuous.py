"""The embedded engine for requests that arrive at any time: continuous batching (Yu et al. 2022, Orca).

One thread owns the model. A request joins the rows that decode as soon as there is room, and leaves when its own rows
have ended; taking it back frees them at the next token. What a request draws is what the embedded engine draws for the
same prompt and sampling in a call of its own, but for the rounding of logits beside other rows.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import torch

from spark_rl.chat import Prompt
from spark_rl.engine.base import Sampling
from spark_rl.engine.calls import Calls
from spark_rl.engine.decoding import Decoding
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.errors import EngineError, UserError
from spark_rl.model.memory import is_out_of_memory, let_go
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion, Place

logger = logging.getLogger(__name__)

FAREWELL = 30.0
"""Seconds that closing waits for the token that is being decoded."""
PATIENCE = 4
"""Tokens that a few requests wait for others beside many rows that decode: each time some enter, all keys and values
are copied."""


class BusyError(UserError):
    """More requests wait than the engine lets wait."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that a row of a request has just been given."""

    row: int
    """Which of the ``n`` completions."""
    start: int
    """How many it had before."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[Place, ...]
    """As in :attr:`Completion.top`; empty unless asked for."""


@dataclass(eq=False, slots=True)
class Request:
    """A prompt on its way through the engine."""

    prompt: Prompt
    sampling: Sampling
    place: int
    heard: Callable[[Tokens], None] | None
    """Told of tokens as they are drawn, in the engine's thread."""
    number: int
    future: Future[list[Completion]] = field(default_factory=Future)
    """Its completions; :class:`concurrent.futures.CancelledError` once it is taken back."""
    told: dict[int, int] = field(default_factory=dict)
    """How many tokens of each row ``heard`` knows."""


@dataclass(slots=True)
class Load:
    """What the engine does at the moment, and has done."""

    rows: int = 0
    """Rows that decode."""
    waiting: int = 0
    """Requests that wait for room."""
    steps: int = 0
    """Times that the model was asked for a token a row."""
    tokens: int = 0
    """Tokens of completions that were handed over."""


class ContinuousEngine:
    """An :class:`EmbeddedEngine` that many threads ask at a time: an ``Engine`` whose weights stay as they are."""

    def __init__(self, engine: EmbeddedEngine, most_waiting: int = 1024) -> None:
        """Start the thread.

        Args:
            engine: nobody else may use it, nor train its weights, until this is closed.
            most_waiting: requests under way at most, in rows and waiting together.
        """
        self.engine, self.most_waiting = engine, most_waiting
        self.load = Load()
        self._numbers = count()
        self._inbox: queue.SimpleQueue[Request | int | None] = queue.SimpleQueue()
        self._open: dict[int, Request] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="spark-decoding", daemon=True)
        self._thread.start()

    @property
    def version(self) -> int:
        """Which policy generates."""
        return self.engine.version

    def submit(
        self, prompt: Prompt, sampling: Sampling, place: int = 0, heard: Callable[[Tokens], None] | None = None
    ) -> Request:
        """Let a prompt be completed; its ``future`` tells when.

        Args:
            prompt: as for :meth:`generate`.
            sampling: of this prompt alone.
            place: of the prompt in the whole of what it belongs to, from ``sampling.first`` on.
            heard: called with tokens as they are drawn. It must neither wait nor raise.

        Raises:
            BusyError: too many requests are under way.
            UserError: it may need more positions than ``engine.max_tokens``.
            EngineError: the engine is closed.
        """
        self.engine.check(prompt, sampling)
        request = Request(prompt, sampling, place, heard, next(self._numbers))
        with self._lock:
            if self._closed:
                raise EngineError("the engine is closed")
            if len(self._open) >= self.most_waiting:
                raise BusyError(f"{self.most_waiting} prompts are under way already; ask again later")
            self._open[request.number] = request
            self._inbox.put(request)
        return request

    def cancel(self, request: Request) -> None:
        """Take a request back; nothing happens to one that is done."""
        if request.future.cancel():
            self._inbox.put(request.number)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt, beside whatever else decodes. Errors as for :meth:`submit`."""
        with Session(self) as session:
            return session.generate(prompts, sampling)

    def sync(self, weights: Weights) -> None:
        """Raises :class:`UserError`: what is served is not trained."""
        raise UserError("the weights of an engine that serves requests can't be changed; serve the trained model anew")

    def sleep(self) -> None:
        """Nothing to do: without requests the engine holds no memory."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """End the thread; requests under way are taken back."""
        with self._lock:
            self._closed = True
            left = list(self._open.values())
        for request in left:
            self.cancel(request)
        self._inbox.put(None)
        self._thread.join(FAREWELL)

    @torch.inference_mode()
    def _work(self) -> None:
        begun = partial(Decoding, self.engine, retire_share=0, patience=PATIENCE)
        decoding = begun()
        while True:
            try:
                if not self._listen(decoding):
                    return
                decoding.step()
                self.load.steps += 1
                self._tell(decoding)
                self._hand_over(decoding)
            except Exception as error:  # noqa: BLE001  # whatever it is, requests that come later must not wait for ever
                self._give_up(error)
                decoding = begun()

    def _listen(self, decoding: Decoding) -> bool:
        """Take in what has arrived, and wait for it where there is nothing else to do; whether to go on."""
        while True:
            self.load.rows = 0 if decoding.live is None else len(decoding.live.names)
            self.load.waiting = len(decoding.waiting.left)
            try:
                message = self._inbox.get(block=not decoding.busy)
            except queue.Empty:
                return True
            if message is None:
                return False
            if isinstance(message, int):
                decoding.remove(message)
                if (request := self._forget(message)) is not None:
                    request.future.set_running_or_notify_cancel()
            elif not message.future.done():
                decoding.add(message.number, message.prompt, message.sampling, message.place)

    def _tell(self, decoding: Decoding) -> None:
        """Tell those who listen of the tokens of rows that go on; those that have ended are in the completions."""
        live = decoding.live
        if live is None or not any(self._open[number].heard for number, _ in live.names if number in self._open):
            return
        drawn = live.drawn_R.tolist()
        for row, (number, place) in enumerate(live.names):
            request = self._open.get(number)
            if request is None or request.heard is None:
                continue
            start, end = request.told.get(place, 0), drawn[row]
            if end > start:
                ids, logprobs = live.tokens_RT[row, start:end].tolist(), live.logprobs_RT[row, start:end].tolist()
                top = decoding.top(live, row, ids, logprobs, start) if request.sampling.top else ()
                request.told[place] = end
                request.heard(Tokens(place, start, tuple(ids), tuple(logprobs), top))

    def _hand_over(self, decoding: Decoding) -> None:
        for number, completions in decoding.handed_over():
            request = self._forget(number)
            self.load.tokens += sum(completion.tokens for completion in completions)
            if request is not None and request.future.set_running_or_notify_cancel():
                request.future.set_result(completions)

    def _forget(self, number: int) -> Request | None:
        with self._lock:
            return self._open.pop(number, None)

    def _give_up(self, error: Exception) -> None:
        """End every request with an error; where memory was not enough, fewer rows decode together from now on."""
        if is_out_of_memory(error):
            let_go(self.engine.loaded.device)
            self.engine.max_rows = max(1, min(self.engine.max_rows, self.load.rows or self.engine.max_rows) // 2)
            logger.warning("out of memory; at most %d rows decode together from now on (engine.max_rows)",
                           self.engine.max_rows)  # fmt: skip
            told: Exception = EngineError("out of memory; ask again, with fewer or shorter responses")
        else:
            logger.error("decoding failed, and all requests under way with it", exc_info=error)
            told = EngineError(f"decoding failed ({type(error).__name__}); see the log of the server")
        with self._lock:
            left, self._open = list(self._open.values()), {}
        for request in left:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(told)


class Session:
    """One caller's part of a :class:`ContinuousEngine`, for code that asks an engine several times: an ``Engine``.

    :meth:`cancel`, from any thread, takes back what is under way and ends what is asked later.
    """

    def __init__(self, engine: ContinuousEngine) -> None:
        self.engine = engine
        self._calls = Calls()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    @property
    def version(self) -> int:
        """Which policy generates."""
        return self.engine.version

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt. Errors as for :meth:`ContinuousEngine.submit`.

        Raises:
            concurrent.futures.CancelledError: the session was cancelled.
        """
        asked: list[Request] = []
        with ExitStack() as calls:
            for place, prompt in enumerate(prompts):
                request = self.engine.submit(prompt, sampling, place)
                asked.append(request)
                end = partial(self.engine.cancel, request)
                calls.callback(end)  # for those of a call that has failed
                calls.enter_context(self._calls.noted(end))
            return [request.future.result() for request in asked]

    def cancel(self) -> None:
        """Take back whatever is under way, and whatever is asked from now on."""
        self._calls.cancel()

    def sync(self, weights: Weights) -> None:
        """Raises :class:`UserError`, as the engine does."""
        self.engine.sync(weights)

    def sleep(self) -> None:
        """Nothing to do."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Cancel."""
        self.cancel()
