"""Replies to ``spark``: a question that the model answers, judges and reflects on (Eq. 9 to 11), whole or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from spark_rl.chat import MARKER
from spark_rl.inference import Reasoner, Trace
from spark_rl.problem import Problem
from spark_rl.serve.backend import BEGUN, Backend, Spent, settings
from spark_rl.serve.errors import EXPECTED, told
from spark_rl.serve.protocol import ChatRequest
from spark_rl.serve.replies import DONE, Reply, choice, delta, event, rounds_of, trace_of


class Reasoned:
    """A question that is answered, judged and reflected on, as ``request.spark`` says."""

    def __init__(self, backend: Backend, request: ChatRequest) -> None:
        """Raises :class:`ApiError` for what does not go together."""
        assert request.spark is not None
        request.check_spark()
        self.backend, self.spark, self.seed = backend, request.spark, request.seed
        message = request.messages[0]
        texts = message.texts()
        # images before the text stand before the run's own prompt too, as those of a problem without markers do
        question = MARKER.join(texts) if any(texts[:-1]) else texts[-1]
        self.problem = Problem(id="asked", question=question, answer="", images=tuple(message.images()))
        n = self.spark.n
        usual = 0 if n > 1 else backend.reasoner.config.rounds
        self.rounds = usual if self.spark.rounds is None else self.spark.rounds
        changed = partial(settings, backend, request.temperature, request.limit, several=n > 1)
        self.chosen = changed(select=self.spark.select if n > 1 else "last", samples=n)
        self.reflecting = changed(select="last", samples=1, rounds=self.rounds)

    async def whole(self) -> dict[str, Any]:
        """A reply."""
        trace, spent = await self.backend.think(lambda reasoner: list(self._watched(reasoner))[-1])
        finish, beside = self._end(trace, spent)
        return Reply(self.backend.name).whole([choice(0, trace.response, finish)], **beside)

    async def events(self) -> AsyncGenerator[bytes]:
        """A stream: rounds as they are answered, judged and reflected on, if they are asked for; then the answer, then
        what a whole reply holds. What goes wrong before anything is known is raised, and is an event afterwards.
        """
        heard: asyncio.Queue[Trace | None] = asyncio.Queue()
        loop, sent = asyncio.get_running_loop(), Reply(self.backend.name)

        def work(reasoner: Reasoner) -> None:
            for trace in self._watched(reasoner):
                if not loop.is_closed():
                    loop.call_soon_threadsafe(heard.put_nowait, trace)

        thinking = asyncio.ensure_future(self.backend.think(work))
        thinking.add_done_callback(lambda _: heard.put_nowait(None))
        try:
            trace = following = await heard.get()
            if trace is None:
                await thinking
            yield BEGUN
            yield sent.piece([delta(0, "", first=True)])
            known: list[dict[str, Any]] = []
            while following is not None:
                trace = following
                rounds = rounds_of(trace, self.spark.n)
                new = [{"index": i, **one} for i, one in enumerate(rounds) if known[i : i + 1] != [one]]
                if new and self.spark.trace:
                    yield sent.piece([], spark={"rounds": new})
                known, following = rounds, await heard.get()
            try:
                _, spent = await thinking
            except EXPECTED as error:
                yield event(told(error).body())
                return
            assert trace is not None
            yield sent.piece([delta(0, trace.response)])
            finish, beside = self._end(trace, spent)
            yield sent.piece([delta(0, None, finish)], **beside)
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

    def _end(self, trace: Trace, spent: Spent) -> tuple[str, dict[str, Any]]:
        """Why the answer ended, and what stands beside it in a reply."""
        facts = trace_of(trace, self.spark.n, whole=self.spark.trace)
        return "length" if trace.response in spent.cut else "stop", {"usage": spent.usage, "spark": facts}


def _joined(first: Trace, again: Trace) -> Trace:
    """Answers of which one was chosen, then what reflecting on it gave."""
    assert first.chosen is not None
    rounds = list(first.rounds)
    rounds[first.chosen] = again.rounds[0]  # judged by now
    final = again.rounds.index(again.final)
    at = first.chosen if final == 0 else len(rounds) - 1 + final
    return Trace(first.problem, (*rounds, *again.rounds[1:]), at)
