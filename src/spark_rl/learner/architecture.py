"""Which architectures run in the embedded engine and the learner, told from a configuration before any weight is read.

Both need a decoder that keeps the keys and values of every token, is told the tokens' positions, and takes no more
from padding than a mask. A window over the last tokens is such a mask. :func:`check_architecture` refuses what the
configuration and the code that it names say is not so, :func:`prove_decoder` what turns out not to be so on a few
tokens: a family that nobody here has seen is refused rather than trained on wrong numbers.

Shape suffixes: _B rows, _S padded prompt positions, _T tokens of a row, _H hidden width.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from spark_rl.config import ConfigError
from spark_rl.engine.cache import RolloutCache
from spark_rl.learner.prefill import PromptCache, batch_prompts, extend, prefill, respond

if TYPE_CHECKING:
    from spark_rl.learner.model import LoadedModel

LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers, as configurations call them, of which everything is kept that a later token may need."""
PROOF = ((6, 4), (2, 4))
"""Tokens of prompt and response of each row of the proof: the second row is padded on the left."""
PROOF_WINDOW = 3


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
    """What a configuration says that keeps a model from running, if it says such a thing."""
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
    if not getattr(text, "is_causal", True) or getattr(text, "use_bidirectional_attention", None) in {True, "all"}:
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
    if "past_key_values" not in accepted:
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
def prove_decoder(loaded: LoadedModel) -> None:
    """Prove on a few tokens that shared prompts, padding and windows change nothing, or refuse the model.

    Hidden states of responses behind a shared prompt pass, all at once as in the learner and one more as in the engine,
    must be those of a plain pass over each sequence alone, with windows cut to :data:`PROOF_WINDOW` tokens.

    Raises:
        ConfigError: they are not, in one line.
    """
    name = type(loaded.causal_lm).__name__
    reason = _coded_hindrance(type(loaded.decoder), sees=loaded.processor is not None)
    if reason is not None:
        raise ConfigError(f"{name} models can't be trained or decoded here, as {reason}; choose another")
    text = loaded.causal_lm.config.get_text_config()
    rows = _proof_tokens(loaded, text.vocab_size)
    prompts = [row[:length] for row, (length, _) in zip(rows, PROOF, strict=True)]
    tails = [row[length:] for row, (length, _) in zip(rows, PROOF, strict=True)]
    response_BT, each_B = (torch.tensor(t, device=loaded.device) for t in (tails, range(len(rows))))
    with _narrow_window(text):
        alone = [
            loaded.decoder(input_ids=torch.tensor([row], device=loaded.device), use_cache=False).last_hidden_state[0]
            for row in rows
        ]
        batch = batch_prompts(loaded, prompts)
        kept, cache = PromptCache(text.num_hidden_layers), RolloutCache(text.num_hidden_layers)
        prompt_BH = prefill(loaded, batch, kept)
        learner_BTH = respond(loaded, batch, kept, each_B, response_BT, torch.ones_like(response_BT, dtype=torch.bool))
        prefill(loaded, batch, cache)
        cache.fork(1, response_BT.shape[1])
        seen_BS, steps = batch.seen_PS, []
        for t in range(response_BT.shape[1]):
            seen_BS = torch.nn.functional.pad(seen_BS, (0, 1), value=True)
            steps.append(extend(loaded, response_BT[:, t], batch.next_P + t, seen_BS, cache))
    # Half precision rounds, and where it tips a router over, a token or two differ but not most of them.
    tolerance = 1e-3 if loaded.causal_lm.dtype == torch.float32 else 0.2
    for found_BTH in (learner_BTH, torch.stack(steps, dim=1)):
        for i, (whole_TH, (length, _)) in enumerate(zip(alone, PROOF, strict=True)):
            found_TH, expected_TH = torch.cat((prompt_BH[i : i + 1], found_BTH[i])).float(), whole_TH[length - 1 :]
            gap_T = (found_TH - expected_TH.float()).norm(dim=-1) / expected_TH.float().norm(dim=-1)
            gap = float(gap_T.median())
            if not gap < tolerance:
                raise ConfigError(
                    f"{name} gives other hidden states behind a shared prompt than alone (relative difference "
                    f"{gap:.2g}), so it can't be trained or decoded here; please report the model"
                )


def _proof_tokens(loaded: LoadedModel, vocabulary: int) -> list[list[int]]:
    """Sequences of tokens that stand for text, as long as :data:`PROOF` says."""
    allowed = torch.ones(vocabulary, dtype=torch.bool)
    if loaded.banned is not None:
        allowed[loaded.banned.cpu()] = False
    ids = allowed.nonzero().squeeze(-1)
    generator = torch.Generator().manual_seed(0)
    return [ids[torch.randint(len(ids), (sum(one),), generator=generator)].tolist() for one in PROOF]


@contextmanager
def _narrow_window(config: Any) -> Iterator[None]:
    """Cut a sliding window, if there is one, so that a few tokens reach beyond it. Masks are written at every pass."""
    window = getattr(config, "sliding_window", None)
    if window is not None:
        config.sliding_window = PROOF_WINDOW
    try:
        yield
    finally:
        if window is not None:
            config.sliding_window = window
