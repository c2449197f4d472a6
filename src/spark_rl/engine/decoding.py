"""Rows that decode, and prompts that wait for room beside them: the batch of the embedded engine on its way.

A call of the engine hands over all its prompts at the beginning; :mod:`.continuous` adds them as they come and may take
them back. Each prompt has its own sampling: what a row draws depends on nothing but its own, and rows that are drawn
alike are drawn together.

A prompt that enters is padded on the left to where the other rows have come, so that all end in one column and the
tokens of each stand side by side.

Shape suffixes: _P prompts, _R live rows, _T positions, _H hidden width, _V vocabulary, _K most likely tokens, _E end
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from spark_rl.chat import Prompt, end_tokens
from spark_rl.engine.base import Sampling
from spark_rl.engine.draw import most_likely, penalised, portion, sample
from spark_rl.engine.graphs import Graphs
from spark_rl.engine.live import Kind, Live
from spark_rl.engine.scheduler import Entry, Waiting
from spark_rl.engine.streams import stream_keys, uniforms
from spark_rl.model.cache import RolloutCache
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.memory import is_out_of_memory
from spark_rl.model.prefill import PromptBatch, batch_prompts, prefill
from spark_rl.problem import Completion, Place

ROOM = 64
"""Positions reserved behind a prompt at first; as many again as there are when they are used up."""
RETIRE_SHARE = 1 / 8
"""Finished rows leave the batch when they are at least this share of it."""
LOGITS = 2**24
"""Logits that exist at a time, 64 MB in float32: they never are rows x vocabulary of a large model."""
SHARED = 32
"""Columns of prompts from which their rollouts share keys and values; with fewer, two products take less time."""
STOP_WINDOW = 24
"""Tokens decoded at the end of a row to look for a stop string, or more if the string is longer."""


class Decoder(Protocol):
    """What decodes: :class:`spark_rl.engine.embedded.EmbeddedEngine`, which says what each of these is."""

    loaded: LoadedModel
    decode: Callable[[Sequence[int]], str]
    eos: Tensor
    version: int
    positions: int | None
    windows: Sequence[int | None]
    max_rows: int
    max_tokens: int | None
    graphs: bool
    shares: bool | None

    def fits(self, prompt: Prompt) -> bool: ...
    def reach(self, prompt: Prompt, sampling: Sampling) -> int: ...
    def piece(self, token: int) -> str: ...


@dataclass(slots=True)
class Asked:
    """A prompt that waits or decodes."""

    prompt: Prompt
    sampling: Sampling
    place: int
    """Of the prompt among those of its call: with ``sampling.first`` it chooses the random streams."""
    reach: int
    """Positions that prompt and response take at most."""
    found: list[Completion]
    """(n,) its completions, empty until they are there."""
    open: int
    """Rows that have not ended."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a completion of it."""
        return (*self.sampling.stop, *self.prompt.stop)


class Decoding:
    """Rows and waiting prompts, a token a row at each :meth:`step`."""

    def __init__(self, engine: Decoder, retire_share: float = RETIRE_SHARE, patience: int = 0) -> None:
        """Nothing decodes yet.

        Args:
            engine: whose model decodes, within its ``max_rows`` and ``max_tokens``.
            retire_share: of the rows that must have ended before their places are cleared, and they are handed over.
            patience: tokens that few prompts wait for others to enter with.
        """
        self.engine, self.loaded = engine, engine.loaded
        self.retire_share = retire_share
        self.waiting = Waiting((), (), 1, engine.max_rows, engine.max_tokens, patience)
        self.asked: dict[int, Asked] = {}
        """Prompts that were added and not handed over, by their numbers."""
        self.done: list[int] = []
        """Those that are to be handed over."""
        self.windows = engine.windows if not engine.graphs else [None] * len(engine.windows)
        """Recorded passes read and write all columns, so there no layer forgets any."""
        self.cache = RolloutCache(self.windows)
        self.graphs = Graphs(engine)
        self.live: Live | None = None

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do or to hand over."""
        return self.live is not None or bool(self.waiting.left) or bool(self.done)

    def add(self, number: int, prompt: Prompt, sampling: Sampling, place: int) -> None:
        """Let a prompt wait for room, under a number of its own. One that fills all positions of the model is done."""
        empty = Completion("", (), (), "length", version=self.engine.version)
        reach = self.engine.reach(prompt, sampling)
        self.asked[number] = Asked(prompt, sampling, place, reach, [empty] * sampling.n, sampling.n)
        if self.engine.fits(prompt):
            self.waiting.add(number, reach, sampling.n)
        else:
            self.done.append(number)

    def remove(self, number: int) -> None:
        """Forget a prompt: its rows leave the batch, and nothing of it is handed over."""
        if self.asked.pop(number, None) is None:
            return
        self.waiting.remove(number)
        self.done = [one for one in self.done if one != number]
        live = self.live
        if live is not None and (rows := [i for i, (of, _) in enumerate(live.names) if of == number]):
            live.alive_R[rows] = False
            self._leave(live)

    def step(self) -> None:
        """Let prompts enter, and draw a token for every row that had entered before."""
        if self.live is not None:
            self._draw(self.live, self._extend(self.live), steady=True)
            self._leave(self.live)
        self._enter()

    def handed_over(self) -> list[tuple[int, list[Completion]]]:
        """The completions of prompts whose rows have all ended since this was asked last, by number."""
        done, self.done = self.done, []
        return [(number, self.asked.pop(number).found) for number in done]

    def _enter(self) -> None:
        """Prefill what fits beside the rows that live, each prompt and its images once, and draw its first tokens."""
        while self.waiting.left:
            live = self.live
            entry = self.waiting.enter(0 if live is None else len(live.names), 0 if live is None else max(live.reach))
            if not entry.prompts:
                return
            copies, cache = len(entry.rows), RolloutCache(self.windows)
            asked = [self.asked[number].prompt for number in entry.prompts]
            batch = batch_prompts(self.loaded, [p.token_ids for p in asked], [p.vision for p in asked])
            hidden_RH = prefill(self.loaded, batch, cache).repeat_interleave(copies, dim=0)
            new = self._rows(entry, batch)
            width = batch.tokens_PS.shape[1]
            if live is None:
                may_share = self.engine.shares is not False and not self.engine.graphs
                share = may_share and copies > 1 and width >= SHARED
                cache.fork(copies, self._room(new, width), share)
                self.cache = cache
            else:
                drop = int(live.pad_R.min())
                before = self.cache.length - drop
                joint = max(before, width)
                room = max(self._room(live, joint), self._room(new, joint))
                self.cache.relay(drop, room, cache, copies)
                live.pad_R = live.pad_R - drop + (joint - before)
                new.pad_R = new.pad_R + (joint - width)
            self._draw(new, hidden_RH, steady=False)
            self.live = new if live is None else live.joined(new)
            self._leave(self.live)

    def _room(self, live: Live, width: int) -> int:
        """Positions to reserve behind ``width`` of them: twice as many as there are, or :data:`ROOM` at first, but
        none that no row will reach."""
        return max(1, min(max(live.reach) - width, max(ROOM, width)))

    def _rows(self, entry: Entry, batch: PromptBatch) -> Live:
        """The rows of prompts that were prefilled, before anything is drawn."""
        device, copies = self.loaded.device, len(entry.rows)
        asked = [self.asked[number] for number in entry.prompts]
        row_R = [one for one in asked for _ in entry.rows]
        kinds = [Kind(one.sampling.temperature, one.sampling.repetition_penalty, one.sampling.top) for one in row_R]
        keys = [key for one in asked for key in stream_keys(one.sampling, [one.place], entry.rows)]
        held_RV = None
        if any(kind.repetition_penalty != 1 for kind in kinds):
            size = self.loaded.causal_lm.get_output_embeddings().weight.shape[0]
            held_RV = _held([one.prompt for one in asked], size).to(device).repeat_interleave(copies, dim=0)
        most = self.engine.positions
        width = 1 + max(min(one.sampling.max_new_tokens, most or one.sampling.max_new_tokens) for one in asked)
        top_RTK = top_logprobs_RTK = None
        if top := max(kind.top for kind in kinds):
            top_RTK = torch.zeros(len(row_R), width, top, dtype=torch.long, device=device)
            top_logprobs_RTK = torch.zeros(len(row_R), width, top, dtype=torch.float32, device=device)
        pad_P = batch.tokens_PS.shape[1] - batch.seen_PS.sum(-1)
        return Live(
            names=[(number, row) for number in entry.prompts for row in entry.rows],
            kinds=kinds, stops=[one.stop for one in row_R], reach=[one.reach for one in row_R],
            key_R=torch.tensor(keys, device=device),
            pad_R=pad_P.repeat_interleave(copies), next_R=batch.next_P.repeat_interleave(copies),
            limit_R=torch.tensor([one.sampling.max_new_tokens for one in row_R], device=device),
            ends_RE=self._ends(asked).repeat_interleave(copies, dim=0),
            tokens_RT=torch.zeros(len(row_R), width, dtype=torch.long, device=device),
            logprobs_RT=torch.zeros(len(row_R), width, dtype=torch.float32, device=device),
            last_R=torch.zeros(len(row_R), dtype=torch.long, device=device),
            drawn_R=torch.zeros(len(row_R), dtype=torch.long, device=device),
            alive_R=torch.ones(len(row_R), dtype=torch.bool, device=device),
            stopped_R=torch.zeros(len(row_R), dtype=torch.bool, device=device),
            top_RTK=top_RTK, top_logprobs_RTK=top_logprobs_RTK, held_RV=held_RV,
        )  # fmt: skip

    def _extend(self, live: Live) -> Tensor:
        """(R, H) final hidden states of the tokens that were drawn last."""
        if self.cache.full:
            drop = int(live.pad_R.min())
            self.cache.relay(drop, self._room(live, self.cache.length - drop))
            live.pad_R = live.pad_R - drop
        # what has ended must not count as a longer sequence
        position_R = (live.next_R + live.drawn_R - 1).masked_fill(~live.alive_R, 0)
        if self.cache.places is not None and self.engine.shares is None:
            self._try_sharing(live, position_R)
        return self.graphs.extend(live.last_R, position_R, live.pad_R, self.cache)

    def _try_sharing(self, live: Live, position_R: Tensor) -> None:
        """See in a pass of its own whether all layers of the decoder attend to shared prompts. One that attends in
        ways of its own shares none, from now on."""
        length = self.cache.length
        try:
            self.graphs.extend(live.last_R, position_R, live.pad_R, self.cache)
            self.engine.shares = self.cache.attended
        except (RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            self.engine.shares = False
        if self.engine.shares:
            self.cache.forget(length)
        else:
            self.cache.unshare(length)

    def _draw(self, live: Live, hidden_RH: Tensor, steady: bool) -> None:
        """Draw one token a row and see which rows it ends. ``steady``: the same rows are drawn for again and again."""
        at_R = live.drawn_R
        row_R = torch.arange(len(at_R), device=at_R.device)
        kinds = dict.fromkeys(live.kinds)
        logprob_R = torch.empty(len(at_R), dtype=torch.float32, device=at_R.device)
        for kind in kinds:
            given = [hidden_RH, live.key_R, at_R]
            if live.held_RV is not None and kind.repetition_penalty != 1:
                given.append(live.held_RV)
            some_R, draw = row_R, partial(self._sampled, kind)
            if len(kinds) > 1:
                some_R = torch.tensor([i for i, own in enumerate(live.kinds) if own == kind], device=at_R.device)
                given = [tensor[some_R] for tensor in given]
            elif steady:
                draw = partial(self.graphs.draw, kind, draw)
            last_R, some_logprob_R, *likely = draw(*given)
            live.last_R[some_R], logprob_R[some_R] = last_R, some_logprob_R
            if kind.top and live.top_RTK is not None and live.top_logprobs_RTK is not None:
                live.top_RTK[some_R, at_R[some_R], : kind.top] = likely[0]
                live.top_logprobs_RTK[some_R, at_R[some_R], : kind.top] = likely[1]
        if live.held_RV is not None:
            live.held_RV[row_R, live.last_R] = True
        live.tokens_RT[row_R, at_R] = live.last_R
        live.logprobs_RT[row_R, at_R] = logprob_R
        live.drawn_R = at_R + live.alive_R
        ended_R = torch.isin(live.last_R, self.engine.eos)
        if any(live.stops):
            ended_R = ended_R | (live.last_R[:, None] == live.ends_RE).any(-1) | self._stops(live)
        live.stopped_R = live.stopped_R | (live.alive_R & ended_R)
        live.alive_R = live.alive_R & ~ended_R & (live.drawn_R < live.limit_R)
        if self.engine.positions is not None:
            live.alive_R = live.alive_R & (live.next_R + live.drawn_R < self.engine.positions)

    def _sampled(
        self, kind: Kind, hidden_RH: Tensor, key_R: Tensor, drawn_R: Tensor, held_RV: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Tokens and log-probabilities of rows of one kind, then the (R, K) most likely tokens where they are asked
        for. The output layer makes :data:`LOGITS` at a time, in its own number format, and those of a portion of the
        rows are logits in float32 while they are drawn from. ``held_RV``: tokens that are penalised."""
        size = max(1, LOGITS // self.loaded.causal_lm.get_output_embeddings().weight.shape[0])
        uniform_R = uniforms(key_R, drawn_R) if kind.temperature > 0 else None
        drawn, end = [], 0
        for projected_RV in map(self.loaded.project, torch.split(hidden_RH, size)):
            rows, vocabulary = projected_RV.shape
            for part_RV in torch.split(projected_RV, portion(vocabulary, rows, projected_RV.device)):
                some, end = slice(end, end + len(part_RV)), end + len(part_RV)
                logits_RV = self.loaded.possible(part_RV)
                if held_RV is not None:
                    logits_RV = penalised(logits_RV, held_RV[some], kind.repetition_penalty)
                one = sample(logits_RV, kind.temperature, None if uniform_R is None else uniform_R[some])
                likely = most_likely(logits_RV, kind.temperature, kind.top) if kind.top else ()
                drawn.append((*one, *likely))
        return tuple(torch.cat(parts) for parts in zip(*drawn, strict=True))

    def _leave(self, live: Live) -> None:
        """Read off the completions of rows that have ended, once they are many or their place is needed."""
        rows, living = len(live.names), int(live.alive_R.sum())
        if living == rows or (living and rows - living < rows * self.retire_share and not self.cache.full):
            return
        self._read(live.kept((~live.alive_R).nonzero().squeeze(-1)))
        self.live = live.kept(self.cache.retire(live.alive_R)) if living else None

    def _read(self, ended: Live) -> None:
        columns = (ended.tokens_RT, ended.logprobs_RT, ended.drawn_R, ended.stopped_R)
        rows = zip(ended.names, *(column.tolist() for column in columns), strict=True)
        for row, ((number, place), tokens, logprobs, length, stopped) in enumerate(rows):
            asked = self.asked.get(number)
            if asked is None:  # nobody waits for it any more
                continue
            completion = self._completion(tokens[:length], logprobs[:length], stopped, asked.stop)
            if asked.sampling.top:
                completion = replace(completion, top=self.top(ended, row, completion.token_ids, completion.logprobs))
            asked.found[place] = completion
            asked.open -= 1
            if not asked.open:
                self.done.append(number)

    def top(
        self, live: Live, row: int, tokens: Sequence[int], logprobs: Sequence[float], start: int = 0
    ) -> tuple[Place, ...]:
        """What could have stood at the places of a row from ``start`` on, where these tokens stand."""
        assert live.top_RTK is not None
        assert live.top_logprobs_RTK is not None
        places, most, piece = slice(start, start + len(tokens)), live.kinds[row].top, self.engine.piece
        likely = zip(
            live.top_RTK[row, places, :most].tolist(), live.top_logprobs_RTK[row, places, :most].tolist(), strict=True
        )
        return tuple(
            ((piece(token), logprob), *((piece(k), p) for k, p in zip(*others, strict=True) if k != token))
            for token, logprob, others in zip(tokens, logprobs, likely, strict=True)
        )

    def _ends(self, asked: Sequence[Asked]) -> Tensor:
        """(P, E) ids of each prompt's stop strings that are special tokens, which text never shows; -1 for none."""
        found = [end_tokens(self.loaded.tokenizer, one.stop) for one in asked]
        most = max(map(len, found))
        rows = [[*ends, *[-1] * (most - len(ends))] for ends in found]
        return torch.tensor(rows, dtype=torch.long, device=self.loaded.device).reshape(len(found), most)

    def _stops(self, live: Live) -> Tensor:
        """(R,) whether the text of a row's last tokens holds one of its stop strings."""
        longest = max(len(s.encode()) for stop in live.stops for s in stop)  # a token is a byte or more
        window = max(STOP_WINDOW, longest)
        behind_R1 = live.drawn_R[:, None]
        at_RT = behind_R1 + torch.arange(-window, 0, device=behind_R1.device)
        tails = zip(live.tokens_RT.gather(-1, at_RT.clamp(min=0)).tolist(), live.drawn_R.tolist(), strict=True)
        texts = [
            self.engine.decode(tail[max(0, window - drawn) :]) if stop else ""
            for (tail, drawn), stop in zip(tails, live.stops, strict=True)
        ]
        found = [any(s in text for s in stop) for text, stop in zip(texts, live.stops, strict=True)]
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
