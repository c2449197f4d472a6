"""vLLM inside this process, for evaluation and test-time scaling (``pip install 'spark-rl[vllm]'``).

It holds its own copy of the weights, and does not take over a learner's: training keeps to the embedded engine.

Written against the public interface of vLLM 0.32 (``LLM``, ``SamplingParams``, prompts as dictionaries) and **not yet
run with it**: vLLM is not installed where this was made. What needs no vLLM (arguments, prompts, reading outputs) is
tested.

What differs from vLLM's defaults, and why:

- Images go in with the prompt's tokens as the tokenizer makes them, one placeholder an image. vLLM expands them itself;
  tokens already expanded by our processor would be expanded twice (trl#6294).
- Tokens that stand for images get a bias of -100, so they are not sampled (trl#3847).
- ``logprobs_mode="processed_logprobs"``: log-probabilities of the distribution that is sampled from.
- Every prompt has a seed of its own, or equal seeds would draw the same numbers for all prompts.
- Settings of the model's ``generation_config`` for sampling are not used; its end tokens are.

Dictionaries: https://docs.vllm.ai/en/latest/api/vllm/inputs/; sampling:
https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from spark_rl.chat import ChatFormat, Prompt, end_tokens
from spark_rl.config import Config
from spark_rl.data.images import ImageError
from spark_rl.engine.base import Sampling
from spark_rl.errors import ConfigError, UserError
from spark_rl.model.places import find_model, has_adapters
from spark_rl.model.vision import load_processor, vision_tokens
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion
from spark_rl.seeds import stream_seed

MOST_IMAGES = 16
"""Images in one prompt at most; vLLM reserves room for them."""


class VllmEngine:
    """Generates with vLLM on this machine's accelerators."""

    def __init__(self, config: Config, weights: str | Path | None = None, **options: Any) -> None:
        """Load the model.

        Args:
            config: ``model`` says which, ``chat`` and ``data.images`` how prompts are made, ``rollout`` and
                ``inference`` how long they may be, ``engine.max_rows`` how many are decoded together.
            weights: a directory with weights in place of those of ``config.model``.
            options: further arguments of ``vllm.LLM``, such as ``tensor_parallel_size``; they win over ours.

        Raises:
            UserError: vLLM is not installed.
            ConfigError: the model can't be loaded.
        """
        self._vllm = import_vllm()
        self.version = 0
        source = source_of(config, weights)
        self.facts = read_facts(config, source)
        """``facts.chat`` makes the prompts of this engine."""
        arguments = engine_arguments(config, source, self.facts) | options
        try:
            self._llm: Any = self._vllm.LLM(**arguments)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ConfigError(f"vLLM can't load {source!r}: {' '.join(str(error).split())[:300]}") from None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt.

        Raises:
            UserError: a prompt is too long, or holds an image that can't be used.
        """
        seeds = [stream_seed(sampling.seed, sampling.first + i) for i in range(len(prompts))]
        seeded = [replace(sampling, seed=seed) for seed in seeds]
        asked = [
            self._vllm.SamplingParams(**sampling_arguments(each, self.facts, prompt.stop))
            for each, prompt in zip(seeded, prompts, strict=True)
        ]
        requests = [request(prompt, self.facts.chat) for prompt in prompts]
        try:
            outputs = self._llm.generate(requests, asked, use_tqdm=False) if requests else []
        except ValueError as error:
            raise UserError(f"vLLM refuses a prompt: {' '.join(str(error).split())[:300]}") from None
        return [[completion(choice) for choice in output.outputs] for output in outputs]

    def sync(self, weights: Weights) -> None:
        """Raises :class:`UserError`: this engine's copy of the weights can't be replaced yet."""
        raise UserError(
            "the vLLM engine evaluates and does not take over trained weights; train with engine.name=embedded"
        )

    def sleep(self) -> None:
        """Nothing to do: nothing is trained beside it."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Drop the model; its memory is freed when nothing else refers to it."""
        self._llm = None


def import_vllm() -> Any:
    """The module ``vllm``. Raises :class:`UserError` if it is not installed or does not load."""
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise UserError(f"vLLM does not load, {error.name} is missing; install it again") from None
        raise UserError("this engine needs vLLM: pip install 'spark-rl[vllm]'") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"vLLM does not load: {' '.join(str(error).split())[:300]}") from None


def source_of(config: Config, weights: str | Path | None = None) -> str:
    """Where the weights are: ``weights``, or what ``config.model.path`` stands for.

    Raises:
        ConfigError: there is no such model, or it is a directory of adapters.
    """
    source = str(weights or find_model(config.model.path))
    if has_adapters(source):
        raise ConfigError(f"{source!r} holds adapters, which this engine does not read; leave --engine vllm out")
    return source


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


def read_facts(config: Config, source: str) -> Facts:
    """Tokenizer, processor and settings of a model.

    Raises:
        ConfigError: there is no tokenizer or processor at ``source``.
        ChatError: the template can't work.
    """
    options = {"trust_remote_code": config.model.trust_remote_code}
    try:
        described = AutoConfig.from_pretrained(source, **options)
        sees = type(described) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and hasattr(described, "vision_config")
        processor = load_processor(source, described, **options) if sees else None
        tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"cannot load the model {source!r}: {' '.join(str(error).split())[:300]}") from None
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:  # not every model has one
        generation = None
    chat = ChatFormat(tokenizer, config.chat, processor, config.data.images)
    banned = vision_tokens(described, processor) if processor else []
    context = getattr(described.get_text_config(), "max_position_embeddings", None)
    return Facts(chat, tuple(banned), tuple(sorted(chat.eos_ids(generation))), context)


def engine_arguments(config: Config, source: str, facts: Facts) -> dict[str, Any]:
    """Arguments of ``vllm.LLM``."""
    wanted = config.rollout.max_prompt_tokens + config.inference.max_new_tokens
    arguments: dict[str, Any] = {
        "model": source, "dtype": config.model.dtype, "trust_remote_code": config.model.trust_remote_code,
        "seed": config.seed % 2**31, "max_num_seqs": config.engine.max_rows,
"max_model_len": min(wanted, facts.context or wanted),
        "logprobs_mode": "processed_logprobs",
    }  # fmt: skip
    if facts.chat.processor is not None:
        arguments["limit_mm_per_prompt"] = {"image": MOST_IMAGES, "video": 0}
        if facts.chat.pixel_bounds:
            arguments["mm_processor_kwargs"] = facts.chat.pixel_bounds
    return arguments


def sampling_arguments(sampling: Sampling, facts: Facts, stop: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments of ``vllm.SamplingParams``, for one prompt and its stop strings.

    Those that are special tokens go as tokens, because vLLM looks for strings in text without them.
    """
    strings = (*sampling.stop, *stop)
    ends = end_tokens(facts.chat.tokenizer, strings)
    arguments: dict[str, Any] = {
        "n": sampling.n, "temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed, "logprobs": 0,  # no others than that of the sampled token
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


def completion(choice: Any) -> Completion:
    """A ``vllm.CompletionOutput`` as ours."""
    tokens = tuple(choice.token_ids)
    logprobs = tuple(float(at[token].logprob) for at, token in zip(choice.logprobs, tokens, strict=True))
    return Completion(choice.text, tokens, logprobs, "length" if choice.finish_reason == "length" else "stop")
