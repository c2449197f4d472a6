"""The prompt pass and the response pass: a prompt and its images go through the model once, whatever is done with it.

The engine prefills a prompt and forks it into n rollouts that decode; the learner prefills it and lets the n responses
attend to its keys and values, with gradients. So neither encodes an image n times, and both compute the same numbers
in the same way (Sec. 3.1: all rollouts of a group share q and I).

Nothing here knows a model family. Tokens, pixels and grids go to the decoder under the names the processor gave them;
positions come from the decoder's own ``get_rope_index`` where it has one (M-RoPE, Qwen2-VL and its kin) and count up
otherwise; of attention we say which keys are padding, and the decoder writes the masks of its layers from it, each for
its own window. It counts keys by their place in the row. As prompts are padded on the left and responses on the right,
the tokens of a row stand side by side, so that the distance of two places is that of their tokens.

Shape suffixes: _P prompts, _S prompt positions (padded on the left), _B responses, _T response positions (padded on the
right), _H hidden width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from spark_rl.model.cache import cache_argument

if TYPE_CHECKING:
    from spark_rl.model.loaded import LoadedModel

Vision = Mapping[str, Tensor]
"""What a processor returned for one prompt beside its tokens: pixels and grids, and per-token types."""


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts of different lengths, padded on the left, with what their images became."""

    tokens_PS: Tensor
    seen_PS: Tensor
    """True on prompt tokens, false on padding."""
    positions: Tensor
    """(P, S), or (3, P, S) for models whose image tokens have a time, a row and a column."""
    next_P: Tensor
    """The position of the first response token: with M-RoPE an image counts for less than its tokens."""
    vision: dict[str, Tensor]
    """Keyword arguments of the decoder, for the whole batch; empty without images."""


def batch_prompts(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], vision: Sequence[Vision] | None = None
) -> PromptBatch:
    """Pad prompts and gather their images."""
    longest = max(map(len, prompts))
    tokens_PS = torch.zeros(len(prompts), longest, dtype=torch.long)
    seen_PS = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens_PS[i, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        seen_PS[i, longest - len(prompt) :] = True
    tokens_PS, seen_PS = tokens_PS.to(loaded.device), seen_PS.to(loaded.device)
    images = {} if not any(vision or ()) else _gather(vision or (), [len(p) for p in prompts], longest)
    images = {name: value.to(loaded.device) for name, value in images.items()}
    decoder: Any = loaded.decoder
    if images and hasattr(decoder, "get_rope_index"):
        grids = {name: value for name, value in images.items() if name.endswith(("_grid_thw", "_type_ids"))}
        positions, _ = decoder.get_rope_index(tokens_PS, attention_mask=seen_PS.long(), **grids)
        reached_PS = positions.amax(0)
    else:
        positions = reached_PS = (seen_PS.cumsum(-1) - 1).clamp(min=0)
    next_P = reached_PS.masked_fill(~seen_PS, 0).amax(-1) + 1
    accepted = inspect.signature(type(decoder).forward).parameters
    return PromptBatch(tokens_PS, seen_PS, positions, next_P, {k: v for k, v in images.items() if k in accepted})


def prefill(loaded: LoadedModel, batch: PromptBatch, cache: Cache) -> Tensor:
    """(P, H) final hidden state of each prompt's last token; keys and values of the prompts go into ``cache``."""
    # Where transformers keeps the embedding of token 0 at zero for padding, a state of padding is zero in every layer,
    # and the roots of some norms (Gemma 3n's) have no gradient there.
    filler = 1 if getattr(loaded.causal_lm.get_input_embeddings(), "padding_idx", None) == 0 else 0
    tokens_PS = batch.tokens_PS.masked_fill(~batch.seen_PS, filler)
    return _pass(loaded, tokens_PS, batch.positions, batch.seen_PS, cache, batch.vision)[:, -1]


def respond(
    loaded: LoadedModel, batch: PromptBatch, cache: PromptCache, row_B: Tensor, tokens_BT: Tensor, seen_BT: Tensor
) -> Tensor:
    """(B, T, H) final hidden states of response tokens that follow their prompts, differentiable in the weights.

    Args:
        loaded: the model.
        batch: the prompts.
        cache: what :func:`prefill` left of them.
        row_B: the prompt of each response.
        tokens_BT: response tokens, padded on the right.
        seen_BT: true on response tokens.
    """
    length = tokens_BT.shape[1]
    reached_BT = torch.cat((batch.seen_PS[row_B], seen_BT), dim=-1)
    positions_BT = batch.next_P[row_B, None] + torch.arange(length, device=tokens_BT.device)
    positions_BT = positions_BT.masked_fill(~seen_BT, 0)  # padding must not count as a longer sequence
    return _pass(loaded, tokens_BT, positions_BT, reached_BT, ResponseCache(cache, row_B))


def extend(loaded: LoadedModel, token_R: Tensor, position_R: Tensor, seen_RT: Tensor, cache: Cache) -> Tensor:
    """(R, H) final hidden states of one more token a row, whose keys and values join the others in ``cache``.

    Args:
        loaded: the model.
        token_R: the tokens.
        position_R: their positions.
        seen_RT: which keys of a row are no padding, the new one among them.
        cache: what came before.
    """
    return _pass(loaded, token_R[:, None], position_R[:, None], seen_RT, cache)[:, -1]


def _pass(
    loaded: LoadedModel,
    tokens_BT: Tensor,
    positions: Tensor,
    seen_BS: Tensor,
    cache: Cache,
    vision: Vision | None = None,
) -> Tensor:
    """(B, T, H) final hidden states of tokens behind what a cache holds, of S keys in all with the tokens' own."""
    kind: Any = type(loaded.decoder)
    name = cache_argument(kind)
    assert name is not None  # check_architecture and prove_decoder refuse a decoder without one
    hidden_BTH: Tensor = loaded.decoder(
        input_ids=tokens_BT, position_ids=positions, attention_mask=seen_BS.long(), use_cache=True, **{name: cache},
        **(vision or {}),
    ).last_hidden_state  # fmt: skip
    return hidden_BTH


class PromptLayer(CacheLayerMixin):  # type: ignore[misc]
    """Remembers the keys and values of one attention layer. Written again when the layer is recomputed, never grown."""

    is_sliding = False
    is_croppable = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = key_states, value_states
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self.lazy_initialization(key_states, value_states)
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class ResponseLayer(PromptLayer):
    """Puts the prompt's keys and values before those of its responses; keeps nothing."""

    def __init__(self, prompt: PromptLayer, row_B: Tensor) -> None:
        super().__init__()
        self.prompt_keys, self.prompt_values = prompt.keys, prompt.values
        self.row_B = row_B

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        # index_select, whose gradient adds in a fixed order; that of indexing adds as threads arrive
        keys = torch.cat((self.prompt_keys.index_select(0, self.row_B), key_states), dim=2)
        values = torch.cat((self.prompt_values.index_select(0, self.row_B), value_states), dim=2)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return int(self.prompt_keys.shape[2])


class PromptCache(Cache):  # type: ignore[misc]
    """The keys and values of prompts, with their gradients."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[PromptLayer() for _ in range(layers)])

    def states(self) -> list[Tensor]:
        """Keys and values of each layer that has some."""
        return [state for layer in self.layers if layer.is_initialized for state in (layer.keys, layer.values)]

    def replace(self, states: Sequence[Tensor]) -> None:
        """Put others in place of :meth:`states`."""
        given = iter(states)
        for layer in self.layers:
            if layer.is_initialized:
                layer.lazy_initialization(next(given), next(given))


class ResponseCache(Cache):  # type: ignore[misc]
    """What responses see before them: response b continues prompt ``row_B[b]``."""

    def __init__(self, prompts: PromptCache, row_B: Tensor) -> None:
        super().__init__(layers=[ResponseLayer(layer, row_B) for layer in prompts.layers])


def _gather(vision: Sequence[Vision], lengths: Sequence[int], longest: int) -> dict[str, Tensor]:
    """One tensor a name for the whole batch.

    Per-token values are padded on the left like the tokens. Everything else has one entry an image (or a tile, or a
    patch) in its first dimension: it is laid end to end, the other dimensions padded with zeros.
    """
    gathered: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for one in vision for name in one):
        if name.endswith("_type_ids"):
            rows = torch.zeros(len(vision), longest, dtype=torch.long)
            for i, (one, length) in enumerate(zip(vision, lengths, strict=True)):
                if name in one:
                    rows[i, longest - length :] = one[name].flatten()
            gathered[name] = rows
            continue
        pieces = [one[name] for one in vision if name in one]
        shape = [max(sizes) for sizes in zip(*(piece.shape[1:] for piece in pieces), strict=True)]
        padded = []
        for piece in pieces:
            room = [n for size, full in zip(reversed(piece.shape[1:]), reversed(shape), strict=True)
                    for n in (0, full - size)]  # fmt: skip
            padded.append(torch.nn.functional.pad(piece, room) if any(room) else piece)
        gathered[name] = torch.cat(padded)
    return gathered
