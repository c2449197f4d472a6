"""What a model is without its weights, and prompts, sampling and outputs in vLLM's words.

What differs from vLLM's defaults, and why:

- Images go in with the prompt's tokens as the tokenizer makes them, one placeholder an image. vLLM expands them itself;
  tokens already expanded by our processor would be expanded twice (trl#6294).
- Tokens that stand for images get a bias of -100, so they are not sampled (trl#3847).
- ``logprobs_mode="processed_logprobs"``: log-probabilities of the distribution that is sampled from.
- Every prompt has a seed of its own, or equal seeds would draw the same numbers for all prompts; vLLM gives the samples
  of a prompt its seed and those that follow.
- Settings of the model's ``generation_config`` for sampling are not used; its end tokens are.

Dictionaries: https://docs.vllm.ai/en/latest/api/vllm/inputs/; sampling:
https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from spark_rl.chat import ChatFormat, Prompt, end_tokens
from spark_rl.config import Config
from spark_rl.data.images import ImageError
from spark_rl.engine.base import Sampling
from spark_rl.errors import ConfigError, UserError
from spark_rl.model.places import find_model, has_adapters, layers_of
from spark_rl.model.sizes import cached_numbers
from spark_rl.model.vision import load_processor, sees, vision_tokens
from spark_rl.problem import Completion, Place

logger = logging.getLogger(__name__)


def source_of(config: Config, weights: str | Path | None = None) -> str:
    """The whole model that vLLM loads: ``weights``, or what ``config.model.path`` stands for, beneath its adapters.

    Raises:
        ConfigError: there is no such model.
    """
    return layers_of(str(weights or find_model(config.model.path)))[0]


def is_adapted(config: Config, weights: str | Path | None = None) -> bool:
    """Whether what :func:`source_of` says is not all of the model, because adapters lie upon it."""
    return has_adapters(str(weights or find_model(config.model.path)))


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model without its weights."""

    chat: ChatFormat
    banned: tuple[int, ...]
    """Tokens that no response may hold: those that stand for images."""
    ends: tuple[int, ...]
    """Tokens that end a response."""
    context: int | None
    """Tokens of prompt and response together at most; ``None`` if the model does not say."""
    token_bytes: int = 0
    """Bytes that the keys and values of one token take."""
    vocabulary: int = 0
    """How many tokens the model has scores for."""


def read_facts(config: Config, source: str) -> Facts:
    """Tokenizer, processor and settings of a model.

    Raises:
        ConfigError: there is no tokenizer or processor at ``source``.
        ChatError: the template can't work.
    """
    options = {"trust_remote_code": config.model.trust_remote_code}
    try:
        described = AutoConfig.from_pretrained(source, **options)
        processor = load_processor(source, described, **options) if sees(described) else None
        tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"cannot load the model {source!r}: {' '.join(str(error).split())[:300]}") from None
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:  # not every model has one
        generation = None
    chat = ChatFormat(tokenizer, config.chat, processor, config.data.images)
    banned = vision_tokens(described, processor) if processor else []
    text = described.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    ends = tuple(sorted(chat.eos_ids(generation)))
    token_bytes = cached_numbers(text) * (4 if config.model.dtype == "float32" else 2)
    return Facts(chat, tuple(banned), ends, context, token_bytes, int(text.vocab_size))


def fitting(prompts: Sequence[Prompt], context: int) -> list[int]:
    """Which of the prompts leave room for a response. How many do not is logged."""
    places = [i for i, prompt in enumerate(prompts) if len(prompt.token_ids) < context]
    if len(places) < len(prompts):
        logger.warning(
            "%d of %d prompts are longer than the %d tokens of vLLM's context, the longest has %d; their responses "
            "are empty", len(prompts) - len(places), len(prompts), context,
            max(len(prompt.token_ids) for prompt in prompts),
        )  # fmt: skip
    return places


def sampling_arguments(sampling: Sampling, facts: Facts, stop: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments of ``vllm.SamplingParams``, for one prompt and its stop strings.

    Those that are special tokens go as tokens, because vLLM looks for strings in text without them.
    """
    strings = (*sampling.stop, *stop)
    ends = end_tokens(facts.chat.tokenizer, strings)
    arguments: dict[str, Any] = {
        "n": sampling.n, "temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed, "logprobs": sampling.top,  # beside that of the sampled token
        "stop": list(strings), "stop_token_ids": list(dict.fromkeys((*facts.ends, *ends))),
    }  # fmt: skip
    if facts.banned:
        arguments["logit_bias"] = dict.fromkeys(facts.banned, -100.0)
    return arguments


def request(prompt: Prompt, chat: ChatFormat) -> dict[str, Any]:
    """A prompt as vLLM takes it: tokens, and pictures where it has images.

    Raises:
        UserError: one of the images can't be read.
    """
    if not prompt.images:
        return {"prompt_token_ids": list(prompt.token_ids)}
    try:
        pictures = chat.pictures(prompt.images)
    except ImageError as error:
        raise UserError(f"an image can't be used: {error}") from None
    unexpanded = chat.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    return {"prompt_token_ids": list(unexpanded), "multi_modal_data": {"image": pictures}}


def completion(choice: Any, version: int | None = None, *, top: bool = False) -> Completion:
    """A ``vllm.CompletionOutput`` as ours; with ``top``, the most likely tokens of each place with it."""
    tokens = tuple(choice.token_ids)
    logprobs = tuple(float(at[token].logprob) for at, token in zip(choice.logprobs, tokens, strict=True))
    finish: Literal["stop", "length"] = "length" if choice.finish_reason == "length" else "stop"
    found = tuple(_place(at, token) for at, token in zip(choice.logprobs, tokens, strict=True)) if top else ()
    return Completion(choice.text, tokens, logprobs, finish, version=version, top=found)


def _place(at: Mapping[int, Any], sampled: int) -> Place:
    """Tokens of one place with the sampled one first."""
    told = {token: (str(one.decoded_token or ""), float(one.logprob)) for token, one in at.items()}
    return (told.pop(sampled), *told.values())
