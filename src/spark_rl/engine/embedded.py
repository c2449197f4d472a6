"""The embedded engine: decodes in PyTorch on the learner's own weights.

No second copy of the weights exists, so nothing is synchronised and nothing can be stale. Each problem is prefilled
once, with its images, and forked into its n rollouts; the key-value cache is written in place; finished rows leave the
batch.

Shape suffixes: _P prompts, _R live rows (prompts * n), _T positions, _V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from spark_rl.chat import Prompt, end_tokens
from spark_rl.engine import attention
from spark_rl.engine.base import Sampling
from spark_rl.engine.streams import stream_keys, uniforms
from spark_rl.model.cache import RolloutCache
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.prefill import batch_prompts, extend, prefill
from spark_rl.model.sizes import positions_of
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion

logger = logging.getLogger(__name__)

ROOM = 64
"""Positions reserved behind a prompt at first; the cache doubles when they are used up."""
RETIRE_SHARE = 1 / 8
"""Finished rows leave the batch when they are at least this share of it."""
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
    ) -> None:
        """Prepare to generate.

        Args:
            loaded: the model; shared with the learner.
            eos_ids: tokens that end a completion.
            decode: token ids -> text, special tokens dropped.
            max_rows: rows decoded together at most, but never less than the n rows of one prompt.
        """
        self.loaded = loaded
        self.decode = decode
        self.max_rows = max_rows
        self.eos = torch.tensor(sorted(eos_ids), device=loaded.device)
        self.version = 0
        self._warned = False
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

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt; prompts of similar length are decoded together.

        A completion is cut (``length``) where the model has no more positions; of a prompt that fills them all it is
        empty, which is logged.
        """
        longest = max((len(prompt.token_ids) for prompt in prompts), default=0)
        size = max(1, self.max_rows // sampling.n)
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].token_ids), i))
        found = [[Completion("", (), (), "length", version=self.version)] * sampling.n for _ in prompts]
        if self.positions is not None and longest >= self.positions:
            order = [i for i in order if len(prompts[i].token_ids) < (self.positions or 0)]
            logger.warning(
                "%d of %d prompts are longer than the %d positions of the model, the longest has %d tokens; their "
                "responses are empty", len(prompts) - len(order), len(prompts), self.positions, longest,
            )  # fmt: skip
        if self.positions is not None and sampling.max_new_tokens >= self.positions and not self._warned:
            self._warned = True
            logger.warning(
                "max_new_tokens is %d, but the model has %d positions for prompt and response together: responses end "
                "there", sampling.max_new_tokens, self.positions,
            )  # fmt: skip
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            completions = self._generate_batch([prompts[i] for i in batch], stream_keys(sampling, batch), sampling)
            for place, index in enumerate(batch):
                found[index] = completions[place * sampling.n : (place + 1) * sampling.n]
        return found

    def _generate_batch(self, prompts: Sequence[Prompt], keys: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Completions of all rows of one batch, prompt by prompt, each drawn from the stream of its key."""
        device, n = self.loaded.device, sampling.n

        # 1. Prefill every prompt and its images once, then fork it into its rollouts.
        cache = RolloutCache(self.layers)
        batch = batch_prompts(self.loaded, [p.token_ids for p in prompts], [p.vision for p in prompts])
        logits_RV = self.loaded.head(prefill(self.loaded, batch, cache)).repeat_interleave(n, dim=0)
        cache.fork(n, min(sampling.max_new_tokens, ROOM))
        longest = batch.tokens_PS.shape[1]
        pad_R = (longest - batch.seen_PS.sum(-1)).repeat_interleave(n)
        next_R = batch.next_P.repeat_interleave(n)
        stop_P = [(*sampling.stop, *prompt.stop) for prompt in prompts]
        ends_RE = self._ends(stop_P).repeat_interleave(n, dim=0)

        # 2. Decode. ``row_R`` says which completion each live row is; it shrinks as rows finish.
        rows = len(prompts) * n
        row_R = torch.arange(rows, device=device)
        key_R = torch.tensor(keys, device=device)
        alive_R = torch.ones(rows, dtype=torch.bool, device=device)
        tokens_RT = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
        logprobs_RT = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.float32, device=device)
        length_R = torch.zeros(rows, dtype=torch.long, device=device)
        stopped_R = torch.zeros(rows, dtype=torch.bool, device=device)
        penalty = sampling.repetition_penalty
        held_RV = None if penalty == 1 else _held(prompts, logits_RV.shape[-1]).to(device).repeat_interleave(n, dim=0)
        for step in range(sampling.max_new_tokens):
            if held_RV is not None:
                logits_RV = penalised(logits_RV, held_RV[row_R], penalty)
            uniform_R = uniforms(key_R[row_R], torch.full_like(row_R, step)) if sampling.temperature > 0 else None
            token_R, logprob_R = sample(logits_RV, sampling.temperature, uniform_R)
            if held_RV is not None:
                held_RV[row_R, token_R] = True
            tokens_RT[row_R, step] = token_R
            logprobs_RT[row_R, step] = logprob_R
            length_R[row_R[alive_R]] = step + 1
            ended_R = torch.isin(token_R, self.eos)
            if any(stop_P):
                ended_R = ended_R | (token_R[:, None] == ends_RE[row_R]).any(-1)
                ended_R = ended_R | self._stops(tokens_RT[row_R, : step + 1], [stop_P[r // n] for r in row_R.tolist()])
            stopped_R[row_R[alive_R & ended_R]] = True
            alive_R = alive_R & ~ended_R
            if self.positions is not None:
                alive_R = alive_R & (next_R + step + 1 < self.positions)
            living = int(alive_R.sum())
            if living == 0 or step + 1 == sampling.max_new_tokens:
                break
            if len(row_R) - living >= len(row_R) * RETIRE_SHARE:
                kept_R = cache.retire(alive_R)
                row_R, pad_R, next_R = row_R[kept_R], pad_R[kept_R], next_R[kept_R]
                token_R, alive_R = token_R[kept_R], alive_R[kept_R]
            seen_RT = torch.arange(longest + step + 1, device=device) >= pad_R[:, None]
            position_R = (next_R + step).masked_fill(~alive_R, 0)  # what has ended must not count as a longer sequence
            logits_RV = self.loaded.head(extend(self.loaded, token_R, position_R, seen_RT, cache))

        # 3. Read the completions off.
        return [
            self._completion(tokens[:length], logprobs[:length], stopped, stop_P[row // n])
            for row, (tokens, logprobs, length, stopped) in enumerate(
                zip(tokens_RT.tolist(), logprobs_RT.tolist(), length_R.tolist(), stopped_R.tolist(), strict=True)
            )
        ]

    def _ends(self, stop_P: Sequence[Sequence[str]]) -> Tensor:
        """(P, E) ids of each prompt's stop strings that are special tokens, which text never shows; -1 for none."""
        found = [end_tokens(self.loaded.tokenizer, stop) for stop in stop_P]
        most = max(map(len, found))
        return torch.tensor(
            [[*ends, *[-1] * (most - len(ends))] for ends in found], dtype=torch.long, device=self.loaded.device
        )

    def _stops(self, tokens_RT: Tensor, stop_R: Sequence[Sequence[str]]) -> Tensor:
        """(R,) whether the text of a row's last tokens holds one of its stop strings."""
        window = max((STOP_WINDOW, *(len(s.encode()) for stop in stop_R for s in stop)))  # a token is a byte or more
        tails = tokens_RT[:, -window:].tolist()
        texts = [self.decode(tail) if stop else "" for tail, stop in zip(tails, stop_R, strict=True)]
        found = [any(s in text for s in stop) for text, stop in zip(texts, stop_R, strict=True)]
        return torch.tensor(found, device=tokens_RT.device)

    def _completion(self, tokens: list[int], logprobs: list[float], stopped: bool, stop: Sequence[str]) -> Completion:
        text = self.decode(tokens)
        cuts = [text.index(s) for s in stop if s in text]
        text = text[: min(cuts)] if cuts else text
        finish: Literal["stop", "length"] = "stop" if stopped else "length"
        return Completion(text, tuple(tokens), tuple(logprobs), finish, version=self.version)


def _held(prompts: Sequence[Prompt], size: int) -> Tensor:
    """(P, V) which tokens each prompt holds."""
    held_PV = torch.zeros(len(prompts), size, dtype=torch.bool)
    for row_V, prompt in zip(held_PV, prompts, strict=True):
        row_V[list(prompt.token_ids)] = True
    return held_PV


def penalised(logits_RV: Tensor, held_RV: Tensor, penalty: float) -> Tensor:
    """(R, V) logits, those of tokens that are held already made less likely by :attr:`Sampling.repetition_penalty`."""
    less_RV = torch.where(logits_RV > 0, logits_RV / penalty, logits_RV * penalty)
    return torch.where(held_RV, less_RV, logits_RV)


def sample(logits_RV: Tensor, temperature: float, uniform_R: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token a row with its exact log-probability.

    Args:
        logits_RV: (R, V) float32.
        temperature: 0 takes the most likely token and reports its log-probability at temperature 1.
        uniform_R: (R,) float64 in [0, 1), which draw the tokens; not used at temperature 0.

    Returns:
        (R,) token ids and (R,) log-probabilities in nats.
    """
    if temperature > 0 and temperature != 1.0:
        logits_RV = logits_RV / temperature
    logprobs_RV = logits_RV.log_softmax(-1)
    if temperature == 0:
        token_R = logprobs_RV.argmax(-1)
    else:
        assert uniform_R is not None, "sampling needs randomness"
        # Inverse transform in float64: a token of probability zero can't be drawn, whatever the vocabulary's size.
        cumulative_RV = logprobs_RV.exp().double().cumsum(-1)
        drawn_R1 = torch.searchsorted(cumulative_RV, uniform_R[:, None] * cumulative_RV[:, -1:], right=True)
        token_R = drawn_R1.squeeze(-1).clamp(max=logits_RV.shape[-1] - 1)
    return token_R, logprobs_RV.gather(-1, token_R[:, None]).squeeze(-1)
