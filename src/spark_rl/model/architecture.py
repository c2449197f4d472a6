"""Which architectures run in the embedded engine and the learner, told from a configuration before any weight is read.

Both need a decoder that keeps the keys and values of every token, is told the tokens' positions, and takes no more
from padding than a mask. A window over the last tokens is such a mask. :func:`check_architecture` refuses what the
configuration and the code that it names say is not so, :func:`prove_decoder` what turns out not to be so on a few
tokens: a family that nobody here has seen is refused rather than trained on wrong numbers.

Shape suffixes: _B rows, _S padded prompt positions, _T tokens of a row, _H hidden width.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from spark_rl.errors import ConfigError
from spark_rl.model.cache import RolloutCache, cache_argument
from spark_rl.model.prefill import PromptCache, batch_prompts, extend, prefill, respond
from spark_rl.model.sizes import windows_of

if TYPE_CHECKING:
    from spark_rl.model.loaded import LoadedModel

LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers, as configurations call them, of which everything is kept that a later token may need."""
PROMPTS, RESPONSE = (6, 2), 4
"""Tokens of each row of the proof: the second prompt is padded on the left."""
PROOF_WINDOW = 3
OTHERS_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What the code of a decoder may raise where it does not fit."""


def check_architecture(config: PreTrainedConfig) -> None:
    """Refuse a model that can't run.

    Raises:
        ConfigError: why, in one line.
    """
    reason = _configured_hindrance(config) or (
        _coded_hindrance(MODEL_MAPPING[type(config)], sees=hasattr(config, "vision_config"))
        if type(config) in MODEL_MAPPING  # the code of a hub repository is there when the model is
        else None
    )
    if reason is not None:
        raise ConfigError(f"{config.model_type} models can't be trained or decoded here, as {reason}; choose another")


def _configured_hindrance(config: PreTrainedConfig) -> str | None:
    """The reason in a configuration why its model can't run here, or ``None``."""
    if config.is_encoder_decoder:
        return "they are encoder-decoders"
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or [])
    if layers - LAYERS:
        return f"they have {' and '.join(sorted(layers - LAYERS))} layers"
    if not layers and getattr(text, "attention_chunk_size", None) is not None:
        return "they attend in chunks (attention_chunk_size)"
    if _says_alibi(text):
        return "they place tokens by ALiBi, not by positions that they are given"
    if getattr(text, "is_decoder", True) is False:
        return "they are encoders, which attend in both directions (is_decoder is false)"
    causal = getattr(text, "is_causal", True) and getattr(text, "causal", True)  # the second is XLM's name for it
    if not causal or getattr(text, "use_bidirectional_attention", None) in {True, "all"}:
        return "they attend in both directions"
    windows = "sliding_attention" in layers or (not layers and getattr(text, "sliding_window", None) is not None)
    if windows and hasattr(config, "vision_config"):
        return "they see images through sliding windows, which spark-rl does not do yet"
    return None


def _coded_hindrance(decoder: Any, sees: bool) -> str | None:
    """What a decoder's class says that keeps it from running."""
    if getattr(decoder, "_is_stateful", False):
        return "they keep a state of all tokens (recurrent layers) beside or in place of keys and values"
    accepted = inspect.signature(decoder.forward).parameters
    if cache_argument(decoder) is None:
        return "they keep no keys and values"
    if "position_ids" not in accepted:
        return "their decoder is not told the positions of tokens (ALiBi and the like)"
    if sees and "token_type_ids" in accepted:
        return "they attend to images in both directions, which spark-rl does not do yet"
    return None


def _says_alibi(config: Any) -> bool:
    """Whether a configuration, or the part of it that is about attention, switches ALiBi on by any of its names."""
    parts = (config, getattr(config, "attn_config", None))
    settings = [vars(part) if hasattr(part, "__dict__") else part for part in parts if part]
    named = any(value is True for part in settings for name, value in part.items() if "alibi" in name.lower())
    return named or getattr(config, "position_embedding_type", None) == "alibi"


@torch.no_grad()
def prove_decoder(loaded: LoadedModel) -> tuple[int | None, ...]:
    """Prove on a few tokens that shared prompts, padding and windows change nothing, or refuse the model.

    Hidden states of responses behind a shared prompt pass, all at once as in the learner and one by one as in the
    engine, must be those of a plain pass over each sequence alone, with windows cut to :data:`PROOF_WINDOW` tokens.

    Returns:
        Of each layer the tokens that a token sees, so that the engine may forget others; ``None`` for all.

    Raises:
        ConfigError: they are not, in one line.
    """
    name, text = type(loaded.causal_lm).__name__, loaded.causal_lm.config.get_text_config()
    reason = _coded_hindrance(type(loaded.decoder), sees=loaded.processor is not None)
    if reason is not None:
        raise ConfigError(f"{name} models can't be trained or decoded here, as {reason}; choose another")
    windows, all_seen = windows_of(text), (None,) * int(text.num_hidden_layers)
    if windows != all_seen and _reads_window(loaded):
        with suppress(ConfigError):  # its masks may know nothing of columns that are forgotten
            _prove(loaded, name, forgets=True)
            return windows
    _prove(loaded, name, forgets=False)
    return all_seen


def _reads_window(loaded: LoadedModel) -> bool:
    """Whether a window changes anything: a configuration may name one that the code does not know."""
    row = torch.tensor(_sequences(loaded)[:1], device=loaded.device)
    with suppress(*OTHERS_ERRORS):
        found = []
        for window in (row.shape[1] + 1, PROOF_WINDOW):
            with _window(loaded.causal_lm.config.get_text_config(), window):
                found.append(loaded.decoder(input_ids=row, use_cache=False).last_hidden_state)
        return not torch.equal(*found)
    return False


def _sequences(loaded: LoadedModel) -> list[list[int]]:
    """The tokens of each prompt of the proof and its response."""
    allowed = torch.ones(loaded.causal_lm.config.get_text_config().vocab_size, dtype=torch.bool)
    if loaded.banned is not None:  # tokens that stand for images, not for text
        allowed[loaded.banned.cpu()] = False
    ids = allowed.nonzero().squeeze(-1)
    drawn = torch.randint(len(ids), (len(PROMPTS), max(PROMPTS) + RESPONSE), generator=torch.Generator().manual_seed(0))
    return [ids[row][: length + RESPONSE].tolist() for row, length in zip(drawn, PROMPTS, strict=True)]


def _prove(loaded: LoadedModel, name: str, *, forgets: bool) -> None:
    """See :func:`prove_decoder`; ``forgets`` says whether the engine forgets what windows leave out."""
    text = loaded.causal_lm.config.get_text_config()
    try:
        with _window(text, PROOF_WINDOW):
            windows = windows_of(text) if forgets else (None,) * text.num_hidden_layers
            alone_BTH, learner_BTH, engine_BTH = _hidden_states(loaded, windows)
    except OTHERS_ERRORS as error:
        raise ConfigError(
            f"{name} does not get through a pass with a shared prompt ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}), so it can't be trained or decoded here"
        ) from error
    # Half precision rounds, and where it tips a router over, a token or two differ but not most of them.
    tolerance = 1e-3 if loaded.causal_lm.dtype == torch.float32 else 0.2
    for found_BTH in (learner_BTH, engine_BTH):
        gap_BT = (found_BTH - alone_BTH).norm(dim=-1) / alone_BTH.norm(dim=-1)
        gap = float(gap_BT.cpu().median(dim=-1).values.max())
        if not gap < tolerance:
            raise ConfigError(
                f"{name} gives other hidden states behind a shared prompt than alone (relative difference {gap:.2g}), "
                "so it can't be trained or decoded here; please report the model"
            )


def _hidden_states(loaded: LoadedModel, windows: Sequence[int | None]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, H) states of each prompt's last token and its response: of each sequence alone, as the learner computes
    them, and as the engine does with these ``windows``.
    """
    rows = _sequences(loaded)
    prompts = [row[:-RESPONSE] for row in rows]
    response_BT = torch.tensor([row[-RESPONSE:] for row in rows], device=loaded.device)
    alone = [
        loaded.decoder(input_ids=torch.tensor([row], device=loaded.device), use_cache=False).last_hidden_state[0]
        for row in rows
    ]
    batch = batch_prompts(loaded, prompts)
    kept, cache = PromptCache(len(windows)), RolloutCache(windows)
    prompt_B1H = prefill(loaded, batch, kept)[:, None]
    everything_BT = torch.ones_like(response_BT, dtype=torch.bool)
    each_B = torch.arange(len(rows), device=loaded.device)
    together_BTH = respond(loaded, batch, kept, each_B, response_BT, everything_BT)
    prefill(loaded, batch, cache)
    cache.fork(1, RESPONSE)
    steps = []
    for t in range(RESPONSE):
        seen_BS = torch.cat((batch.seen_PS, everything_BT[:, : t + 1]), dim=-1)
        steps.append(extend(loaded, response_BT[:, t], batch.next_P + t, seen_BS, cache))
    alone_BTH = torch.stack([states_TH[-RESPONSE - 1 :] for states_TH in alone])
    learner_BTH = torch.cat((prompt_B1H, together_BTH), dim=1)
    engine_BTH = torch.cat((prompt_B1H, torch.stack(steps, dim=1)), dim=1)
    return alone_BTH.float(), learner_BTH.float(), engine_BTH.float()


@contextmanager
def _window(config: Any, tokens: int) -> Iterator[None]:
    """Make a sliding window, if there is one, this wide. Masks are written at every pass."""
    window = getattr(config, "sliding_window", None)
    if window is not None:
        config.sliding_window = tokens
    try:
        yield
    finally:
        if window is not None:
            config.sliding_window = window
