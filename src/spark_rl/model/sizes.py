"""What can be compared without weights: tokenizer with embedding, lengths with positions, ends of responses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_rl.config import Config
from spark_rl.errors import ConfigError
from spark_rl.model.vision import VISION_TOKEN

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt",
    "tekken.json",
)  # fmt: skip
"""A directory with none of them has no tokenizer; transformers would make an empty one of some families."""

EXTENDED = ("linear", "yarn")
"""Kinds of rotary scaling whose ``factor`` multiplies the positions of the original model."""

SAMPLE = "What is 1 + 1?"
"""A text that any tokenizer makes tokens of."""


def head_width(text: Any) -> int:
    """Of one attention head, of a text configuration."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def cached_numbers(text: Any) -> int:
    """That one token leaves in the key-value cache, all layers of a text configuration together."""
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * head_width(text))


def windows_of(text: Any) -> tuple[int | None, ...]:
    """Tokens that a token sees in each layer of a text configuration, itself among them; ``None`` where it sees all.
    Read as transformers' own caches read it."""
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * text.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a directory holds a tokenizer's files."""
    return any((Path(folder) / name).is_file() for name in TOKENIZER_FILES)


def positions_of(model_config: Any) -> int | None:
    """Tokens of prompt and response together that a model can hold here; ``None`` if its configuration says no limit.

    Rotations of the kinds ``dynamic`` and ``longrope`` (Phi-3 and 4 with 128k tokens) change for all tokens of a batch
    once one of its sequences is longer than the original model's: keys that are kept, or shared by the responses of a
    prompt, would be turned otherwise than new ones. So these end where the original model did.
    """
    text = model_config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    rope = getattr(text, "rope_parameters", None)
    for scaling in [rope, *rope.values()] if isinstance(rope, Mapping) else ():
        if not isinstance(scaling, Mapping):
            continue
        original = scaling.get("original_max_position_embeddings") or positions
        if scaling.get("rope_type") in EXTENDED:
            positions = max(positions, int(original * (scaling.get("factor") or 1.0)))
        elif scaling.get("rope_type") == "longrope":
            positions = min(positions, original)
    return positions


def check_tokenizer(tokenizer: Any, model_config: Any, source: str, *, sees: bool) -> None:
    """Refuse a tokenizer that is empty or that makes tokens the embedding has no row for.

    Raises:
        ConfigError: in one line, with the tokens.
    """
    try:
        made = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    except (TypeError, ValueError, AttributeError, LookupError) as error:  # settings of wrong types
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"the tokenizer of {source!r} reads no text ({why}); its tokenizer_config.json is "
                          "damaged") from None  # fmt: skip
    if not made:
        raise ConfigError(f"the tokenizer of {source!r} makes no token of {SAMPLE!r}: it is empty; copy the "
                          "tokenizer's files of the model it was made from")  # fmt: skip
    rows = getattr(model_config.get_text_config(), "vocab_size", None)
    if rows is None:
        return
    if not isinstance(rows, int):
        raise ConfigError(f"the config.json of {source!r} says vocab_size {rows!r:.40}, which is no whole number")
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    if not sees:  # Gemma 3 without eyes shares its tokenizer with the one that sees: no text becomes that token
        beyond = {token: i for token, i in beyond.items() if not VISION_TOKEN.search(token)}
    if beyond:
        token, i = min(beyond.items(), key=lambda item: item[1])
        raise ConfigError(
            f"the tokenizer of {source!r} is larger than the model's embedding of {rows:,} rows: {len(beyond):,} "
            f"tokens have no row, the first is {token!r} ({i}); take the model's own tokenizer, or resize the embedding"
        )


def check_end(tokenizer: Any, model_config: Any, source: str) -> None:
    """Whether a response can end before the length limit.

    A padding token is not asked for: padded positions are masked, whatever token stands there.

    Raises:
        ConfigError: the tokenizer names no end; the line names the one that the model's configuration does.
    """
    if tokenizer.eos_token_id is not None:
        return
    ends = getattr(model_config.get_text_config(), "eos_token_id", None)
    names = [tokenizer.convert_ids_to_tokens(end) for end in ([ends] if isinstance(ends, int) else ends or [])]
    hint = f", to {names[0]!r} as its config.json has it" if names and names[0] is not None else ""
    raise ConfigError(f"the tokenizer of {source!r} has no end-of-sequence token, so no response could ever end; set "
                      f"eos_token in its tokenizer_config.json{hint}")  # fmt: skip


def prompt_limit(config: Config, positions: int | None, few_shot: int) -> int:
    """The longest prompt of a training run: ``rollout.max_prompt_tokens``, or what the model's positions leave room for
    where that setting was not given.

    Args:
        config: of the run.
        positions: of the model, ``None`` if it has no limit.
        few_shot: tokens of the longest ``chat.few_shot`` of a task.

    Raises:
        ConfigError: a prompt as long as was asked for and its response are longer than the model can hold, or the
            examples alone are longer than a prompt may be.
    """
    limit = config.rollout.max_prompt_tokens
    lengths = {"rollout.max_new_tokens": config.rollout.max_new_tokens}
    if config.data.heldout is not None or config.data.transfer is not None:
        lengths["inference.max_new_tokens"] = config.inference.max_new_tokens
    for name, new in lengths.items():
        if positions is None or limit + new <= positions:
            continue
        if new >= positions:
            raise ConfigError(f"{name} ({new}) leaves no room for a prompt in the {positions} positions of the model; "
                              f"set {name} to less")  # fmt: skip
        if "max_prompt_tokens" in config.rollout.model_fields_set:
            raise ConfigError(f"rollout.max_prompt_tokens ({limit}) and {name} ({new}) together are more than the "
                              f"{positions} positions of the model; set rollout.max_prompt_tokens={positions - new} or "
                              "less")  # fmt: skip
        limit = positions - new
    if few_shot >= limit:
        raise ConfigError(f"chat.few_shot has {few_shot} tokens, and a prompt may have {limit} at most "
                          "(rollout.max_prompt_tokens, and the positions of the model); shorten it")  # fmt: skip
    return limit
