"""The embedded engine: decodes in PyTorch on the learner's own weights.

No second copy of the weights exists, so nothing is synchronised and nothing can be stale. Each problem is prefilled
once, with its images, and forked into its n rollouts; the key-value cache is written in place; finished rows leave the
batch, and prompts that waited for room take their places (:mod:`.scheduler`). A prompt that enters is padded on the
left to where the other rows have come, so that all end in one column and the tokens of each stand side by side.

Shape suffixes: _P prompts, _R live rows, _T positions, _H hidden width, _V vocabulary, _K most likely
tokens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from spark_rl.chat import Prompt, end_tokens
from spark_rl.engine import attention
from spark_rl.engine.base import Arrival, Sampling, gathered
from spark_rl.engine.draw import most_likely, penalised, sample
from spark_rl.engine.live import Live
from spark_rl.engine.scheduler import Entry, Waiting
from spark_rl.engine.streams import stream_keys, uniforms
from spark_rl.errors import UserError
from spark_rl.model.cache import RolloutCache
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.memory import is_out_of_memory, let_go
from spark_rl.model.prefill import PromptBatch, batch_prompts, extend, prefill
from spark_rl.model.sizes import positions_of
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion, Place

logger = logging.getLogger(__name__)

ROOM = 64
"""Positions reserved behind a prompt at first; as many again as there are when they are used up."""
RETIRE_SHARE = 1 / 8
"""Finished rows leave the batch when they are at least this share of it."""
LOGITS = 2**24
"""Logits that exist at a time, 64 MB in float32: they never are rows x vocabulary of a large model."""
STOP_WINDOW = 24
"""Tokens decoded at the end of a row to look for a stop string, or more if the string is longer."""


class EmbeddedEngine:
    """Generates with the weights of a :class:`LoadedModel`, whatever they are at the moment."""

    def __init__(
        self,
        loaded: LoadedModel,
        eos_ids: Collection[int],
        decode: Callable[[Sequence[int]], str],
        max_rows: int = 512,
        max_tokens: int | None = None,
    ) -> None:
        """Prepare to generate.

        Args:
            loaded: the model; shared with the learner.
            eos_ids: tokens that end a completion.
            decode: token ids -> text, special tokens dropped.
            max_rows: rows decoded together at most, but never less than the n rows of one prompt.
            max_tokens: key-value positions held together at most; ``None`` for no bound but the rows.
        """
        self.loaded = loaded
        self.decode = decode
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self.eos = torch.tensor(sorted(eos_ids), device=loaded.device)
        self.version = 0
        self._warned = False
        self._pieces: dict[int, str] = {}
        self.positions = positions_of(loaded.causal_lm.config)
        self.layers: int = loaded.causal_lm.config.get_text_config().num_hidden_layers
        if loaded.device.type == "cpu" and loaded.causal_lm.config._attn_implementation == "sdpa":
            loaded.causal_lm.set_attn_implementation(attention.NAME)

    def sync(self, weights: Weights) -> None:
        """Count: the learner's weights are this engine's weights."""
        self.version = weights.version

    def sleep(self) -> None:
        """Nothing to do: between two calls the engine holds no memory."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to free: the weights belong to the learner."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt. Errors as for :meth:`arriving`."""
        return gathered(self.arriving(prompts, sampling), len(prompts))

    @torch.inference_mode()
    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        """``sampling.n`` completions per prompt, each prompt as it is done; short prompts are decoded first.

        A completion is cut (``length``) where the model has no more positions; of a prompt that fills them all it is
        empty, which is logged.

        Raises:
            UserError: a prompt and its response may need more positions than ``max_tokens``.
        """
        self._warn(prompts, sampling)
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt.token_ids) < (self.positions or math.inf)]
        order = sorted(fitting, key=lambda i: (len(prompts[i].token_ids), i))
        reach = [len(prompt.token_ids) + sampling.max_new_tokens for prompt in prompts]
        if self.positions is not None:
            reach = [min(each, self.positions) for each in reach]
        widest = max((reach[i] for i in order), default=0)
        if self.max_tokens is not None and widest > self.max_tokens:
            raise UserError(
                f"engine.max_tokens is {self.max_tokens}, but the longest prompt and its response may need {widest} "
                "positions; raise it, or lower max_new_tokens"
            )
        given: set[int] = set()
        while True:
            waiting = Waiting([i for i in order if i not in given], reach, sampling.n, self.max_rows, self.max_tokens)
            try:
                for arrival in Decoding(self, prompts, sampling, waiting, given).run():
                    given.add(arrival[0])
                    yield arrival
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.max_rows <= sampling.n:
                    raise
            self._take_fewer(len(prompts) * sampling.n, sampling.n)

    def _take_fewer(self, rows: int, least: int) -> None:
        """Decode half as many rows together from now on, because the memory was not enough. What a row draws does not
        depend on the others, so nothing but rounding changes.
        """
        let_go(self.loaded.device)
        before = min(self.max_rows, rows)
        self.max_rows = max(least, before // 2)
        logger.warning("out of memory with %d rows decoded together; goes on with %d (engine.max_rows)",
                       before, self.max_rows)  # fmt: skip

    def piece(self, token: int) -> str:
        """One token as text."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    def _warn(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Say what the model has no positions for."""
        lengths = [len(prompt.token_ids) for prompt in prompts]
        if self.positions is not None and max(lengths, default=0) >= self.positions:
            logger.warning(
                "%d of %d prompts are longer than the %d positions of the model, the longest has %d tokens; their "
                "responses are empty", sum(length >= self.positions for length in lengths), len(prompts),
                self.positions, max(lengths),
            )  # fmt: skip
        if self.positions is not None and sampling.max_new_tokens >= self.positions and not self._warned:
            self._warned = True
            logger.warning(
                "max_new_tokens is %d, but the model has %d positions for prompt and response together: responses end "
                "there", sampling.max_new_tokens, self.positions,
            )  # fmt: skip


class Decoding:
    """One call of :meth:`EmbeddedEngine.arriving` on its way: rows that decode, and prompts that wait for room."""

    def __init__(
        self, engine: EmbeddedEngine, prompts: Sequence[Prompt], sampling: Sampling, waiting: Waiting,
        given: Collection[int],
    ) -> None:  # fmt: skip
        """``given`` are the places of prompts whose completions were handed over before."""
        self.engine, self.loaded = engine, engine.loaded
        self.prompts, self.sampling, self.waiting = prompts, sampling, waiting
        self.stop_P = [(*sampling.stop, *prompt.stop) for prompt in prompts]
        self.ends_PE = self._ends()
        empty = Completion("", (), (), "length", version=engine.version)
        self.found = [[empty] * sampling.n for _ in prompts]
        self.open = dict.fromkeys(waiting.left, sampling.n)
        """Prompts of which some rows have not ended, and how many."""
        self.done = [place for place in range(len(prompts)) if place not in self.open and place not in given]
        """Prompts that are to be handed over."""
        self.cache = RolloutCache(engine.layers)
        self.live: Live | None = None

    def run(self) -> Iterator[Arrival]:
        """Decode until nothing lives and nothing waits; prompts are handed over when the last of their rows leaves."""
        self._enter()
        yield from self._handed_over()
        while self.live is not None:
            self._draw(self.live, self._extend(self.live))
            self._leave(self.live)
            self._enter()
            yield from self._handed_over()

    def _handed_over(self) -> Iterator[Arrival]:
        done, self.done = self.done, []
        return ((place, self.found[place]) for place in done)

    def _enter(self) -> None:
        """Prefill what fits beside the rows that live, each prompt and its images once, and draw its first tokens."""
        while self.waiting.left:
            live = self.live
            entry = self.waiting.enter(0 if live is None else len(live.names), 0 if live is None else max(live.reach))
            if not entry.prompts:
                return
            copies, cache = len(entry.rows), RolloutCache(self.engine.layers)
            asked = [self.prompts[i] for i in entry.prompts]
            batch = batch_prompts(self.loaded, [p.token_ids for p in asked], [p.vision for p in asked])
            hidden_RH = prefill(self.loaded, batch, cache).repeat_interleave(copies, dim=0)
            new = self._rows(entry, batch)
            width = batch.tokens_PS.shape[1]
            if live is None:
                cache.fork(copies, self._room(new, width))
                self.cache = cache
            else:
                drop = int(live.pad_R.min())
                before = self.cache.length - drop
                joint = max(before, width)
                room = max(self._room(live, joint), self._room(new, joint))
                self.cache.relay(drop, room, cache, copies)
                live.pad_R = live.pad_R - drop + (joint - before)
                new.pad_R = new.pad_R + (joint - width)
            self._draw(new, hidden_RH)
            self.live = new if live is None else live.joined(new)
            self._leave(self.live)

    def _room(self, live: Live, width: int) -> int:
        """Positions to reserve behind ``width`` of them: twice as many as there are, or :data:`ROOM` at first, but
        none that no row will reach."""
        return max(1, min(max(live.reach) - width, max(ROOM, width)))

    def _rows(self, entry: Entry, batch: PromptBatch) -> Live:
        """The rows of prompts that were prefilled, before anything is drawn."""
        device, copies, n, limit = self.loaded.device, len(entry.rows), self.sampling.n, self.sampling.max_new_tokens
        rows = len(entry.prompts) * copies
        names = [prompt * n + row for prompt in entry.prompts for row in entry.rows]
        at_P = torch.tensor(entry.prompts, device=device)
        keys = stream_keys(self.sampling, entry.prompts, entry.rows)
        held_RV = None
        if self.sampling.repetition_penalty != 1:
            size = self.loaded.causal_lm.get_output_embeddings().weight.shape[0]
            held_PV = _held([self.prompts[i] for i in entry.prompts], size)
            held_RV = held_PV.to(device).repeat_interleave(copies, dim=0)
        top_RTK = top_logprobs_RTK = None
        if top := self.sampling.top:
            top_RTK = torch.zeros(rows, limit + 1, top, dtype=torch.long, device=device)
            top_logprobs_RTK = torch.zeros(rows, limit + 1, top, dtype=torch.float32, device=device)
        pad_P = batch.tokens_PS.shape[1] - batch.seen_PS.sum(-1)
        return Live(
            names=names, reach=[self.waiting.reach[name // n] for name in names],
            key_R=torch.tensor(keys, device=device),
            pad_R=pad_P.repeat_interleave(copies), next_R=batch.next_P.repeat_interleave(copies),
            ends_RE=self.ends_PE[at_P].repeat_interleave(copies, dim=0),
            tokens_RT=torch.zeros(rows, limit + 1, dtype=torch.long, device=device),
            logprobs_RT=torch.zeros(rows, limit + 1, dtype=torch.float32, device=device),
            last_R=torch.zeros(rows, dtype=torch.long, device=device),
            drawn_R=torch.zeros(rows, dtype=torch.long, device=device),
            alive_R=torch.ones(rows, dtype=torch.bool, device=device),
            stopped_R=torch.zeros(rows, dtype=torch.bool, device=device),
            top_RTK=top_RTK, top_logprobs_RTK=top_logprobs_RTK, held_RV=held_RV,
        )  # fmt: skip

    def _extend(self, live: Live) -> Tensor:
        """(R, H) final hidden states of the tokens that were drawn last."""
        if self.cache.full:
            drop = int(live.pad_R.min())
            self.cache.relay(drop, self._room(live, self.cache.length - drop))
            live.pad_R = live.pad_R - drop
        seen_RT = torch.arange(self.cache.length + 1, device=self.loaded.device) >= live.pad_R[:, None]
        # what has ended must not count as a longer sequence
        position_R = (live.next_R + live.drawn_R - 1).masked_fill(~live.alive_R, 0)
        return extend(self.loaded, live.last_R, position_R, seen_RT, self.cache)

    def _draw(self, live: Live, hidden_RH: Tensor) -> None:
        """Draw one token a row and see which rows it ends."""
        at_R = live.drawn_R
        row_R = torch.arange(len(at_R), device=at_R.device)
        uniform_R = uniforms(live.key_R, at_R) if self.sampling.temperature > 0 else None
        live.last_R, logprob_R, *likely = self._sampled(live, hidden_RH, uniform_R)
        if live.held_RV is not None:
            live.held_RV[row_R, live.last_R] = True
        live.tokens_RT[row_R, at_R] = live.last_R
        live.logprobs_RT[row_R, at_R] = logprob_R
        if live.top_RTK is not None and live.top_logprobs_RTK is not None:
            live.top_RTK[row_R, at_R], live.top_logprobs_RTK[row_R, at_R] = likely
        live.drawn_R = at_R + live.alive_R
        ended_R = torch.isin(live.last_R, self.engine.eos)
        if any(self.stop_P):
            ended_R = ended_R | (live.last_R[:, None] == live.ends_RE).any(-1) | self._stops(live)
        live.stopped_R = live.stopped_R | (live.alive_R & ended_R)
        live.alive_R = live.alive_R & ~ended_R & (live.drawn_R < self.sampling.max_new_tokens)
        if self.engine.positions is not None:
            live.alive_R = live.alive_R & (live.next_R + live.drawn_R < self.engine.positions)

    def _sampled(self, live: Live, hidden_RH: Tensor, uniform_R: Tensor | None) -> tuple[Tensor, ...]:
        """(R,) tokens and (R,) log-probabilities, then (R, K) of the most likely tokens where they are asked
        for; logits exist for :data:`LOGITS` of them at a time."""
        sampling = self.sampling
        size = max(1, LOGITS // self.loaded.causal_lm.get_output_embeddings().weight.shape[0])
        drawn = []
        for begin in range(0, len(hidden_RH), size):
            some = slice(begin, begin + size)
            logits_RV = self.loaded.head(hidden_RH[some])
            if live.held_RV is not None:
                logits_RV = penalised(logits_RV, live.held_RV[some], sampling.repetition_penalty)
            one = sample(logits_RV, sampling.temperature, None if uniform_R is None else uniform_R[some])
            likely = most_likely(logits_RV, sampling.temperature, sampling.top) if sampling.top else ()
            drawn.append((*one, *likely))
        return tuple(torch.cat(parts) for parts in zip(*drawn, strict=True))

    def _leave(self, live: Live) -> None:
        """Read off the completions of rows that have ended, once they are many or their place is needed."""
        rows, living = len(live.names), int(live.alive_R.sum())
        if living == rows or (living and rows - living < rows * RETIRE_SHARE and not self.cache.full):
            return
        self._read(live.kept((~live.alive_R).nonzero().squeeze(-1)))
        self.live = live.kept(self.cache.retire(live.alive_R)) if living else None

    def _read(self, ended: Live) -> None:
        n = self.sampling.n
        columns = (ended.tokens_RT, ended.logprobs_RT, ended.drawn_R, ended.stopped_R)
        rows = zip(ended.names, *(column.tolist() for column in columns), strict=True)
        for row, (name, tokens, logprobs, length, stopped) in enumerate(rows):
            prompt = name // n
            completion = self._completion(tokens[:length], logprobs[:length], stopped, self.stop_P[prompt])
            if self.sampling.top:
                completion = replace(completion, top=self._top(ended, row, completion))
            self.found[prompt][name % n] = completion
            self.open[prompt] -= 1
            if not self.open[prompt]:
                self.done.append(prompt)

    def _top(self, ended: Live, row: int, completion: Completion) -> tuple[Place, ...]:
        """What could have stood at each place of a row's completion."""
        assert ended.top_RTK is not None
        assert ended.top_logprobs_RTK is not None
        length, piece = len(completion.token_ids), self.engine.piece
        likely = zip(ended.top_RTK[row, :length].tolist(), ended.top_logprobs_RTK[row, :length].tolist(), strict=True)
        return tuple(
            ((piece(token), logprob), *((piece(k), p) for k, p in zip(*others, strict=True) if k != token))
            for token, logprob, others in zip(completion.token_ids, completion.logprobs, likely, strict=True)
        )

    def _ends(self) -> Tensor:
        """(P, E) ids of each prompt's stop strings that are special tokens, which text never shows; -1 for none."""
        found = [end_tokens(self.loaded.tokenizer, stop) for stop in self.stop_P]
        most = max(map(len, found), default=0)
        rows = [[*ends, *[-1] * (most - len(ends))] for ends in found]
        return torch.tensor(rows, dtype=torch.long, device=self.loaded.device).reshape(len(found), most)

    def _stops(self, live: Live) -> Tensor:
        """(R,) whether the text of a row's last tokens holds one of its stop strings."""
        n = self.sampling.n
        stop_R = [self.stop_P[name // n] for name in live.names]
        window = max((STOP_WINDOW, *(len(s.encode()) for stop in stop_R for s in stop)))  # a token is a byte or more
        behind_R1 = live.drawn_R[:, None]
        at_RT = behind_R1 + torch.arange(-window, 0, device=behind_R1.device)
        tails = zip(live.tokens_RT.gather(-1, at_RT.clamp(min=0)).tolist(), live.drawn_R.tolist(), strict=True)
        texts = [
            self.engine.decode(tail[max(0, window - drawn) :]) if stop else ""
            for (tail, drawn), stop in zip(tails, stop_R, strict=True)
        ]
        found = [any(s in text for s in stop) for text, stop in zip(texts, stop_R, strict=True)]
        return torch.tensor(found, device=behind_R1.device)

    def _completion(self, tokens: list[int], logprobs: list[float], stopped: bool, stop: Sequence[str]) -> Completion:
        text = self.engine.decode(tokens)
        cuts = [text.index(s) for s in stop if s in text]
        text = text[: min(cuts)] if cuts else text
        finish: Literal["stop", "length"] = "stop" if stopped else "length"
        return Completion(text, tuple(tokens), tuple(logprobs), finish, version=self.engine.version)


def _held(prompts: Sequence[Prompt], size: int) -> Tensor:
    """(P, V) which tokens each prompt holds."""
    held_PV = torch.zeros(len(prompts), size, dtype=torch.bool)
    for row_V, prompt in zip(held_PV, prompts, strict=True):
        row_V[list(prompt.token_ids)] = True
    return held_PV
