"""Any OpenAI-compatible chat-completions server as an engine: vLLM, SGLang, llama.cpp, hosted models.

For evaluation and test-time scaling, not for training: a server does not tell its token ids, and its weights can't be
synchronised. So ``Completion.token_ids`` is empty and ``Completion.tokens`` is what the server counted.

:class:`ServerChat` is the chat format that goes with it: the server has its own template, so a prompt is messages only.

Departures from what the embedded engine promises, each the server's doing:

- Log-probabilities are those the server reports, most often of temperature 1; empty where it reports none or any that
  is not finite.
- ``top_p`` is sent as 1. Other truncation and penalties are the server's settings (start vLLM with
  ``--generation-config vllm``, or it takes the model's own).
- A server that refuses ``logprobs``, ``seed`` or ``top_p`` by name is asked without; without a seed, sampling does not
  repeat.
- Special tokens in untrusted text are broken in their common forms only, because the tokenizer is not at hand.
- Reasoning that the server keeps apart from the answer is not in the text, though its tokens are counted.

API: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from spark_rl.chat import MARKER, TURN_ENDS, ChatError, Prompt, chat_messages, check_policy, user_turn
from spark_rl.config import ChatConfig, ImagesConfig
from spark_rl.engine.base import Sampling
from spark_rl.engine.cancel import Cancel
from spark_rl.engine.dialect import ReplyError, body, completions, data_url
from spark_rl.engine.endpoint import Endpoint, EndpointError
from spark_rl.errors import UserError
from spark_rl.problem import Completion, Problem
from spark_rl.rollout import stream_seed

OPTIONAL = ("logprobs", "seed", "top_p")
"""What a request can do without, if the server refuses it."""

_CONTROL = re.compile(
    "|".join((r"<\|[^<>|\s]{1,40}\|>", r"</?s>", "<start_of_turn>", *(re.escape(end) for end in TURN_ENDS)))
)
"""Special tokens of common templates."""


class ServerChat:
    """Turns problems into messages for a server that applies its own template."""

    def __init__(self, config: ChatConfig) -> None:
        """Raises :class:`ChatError` if ``chat.policy`` can't work, or ``chat.template`` is set."""
        if config.template is not None:
            raise ChatError("chat.template does nothing here: a server applies its own template; remove it")
        check_policy(config)
        self.config = config

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a response."""
        return self.config.stop

    def encode(self, problem: Problem, system: str | None = None) -> Prompt:
        """The problem as messages. Its tokens are not known here: ``token_ids`` is empty, ``text`` the user's turn.

        ``system`` is a system message of the problem's own, trusted, in place of ``chat.system``.
        """
        turn = user_turn(problem, self.config, _CONTROL)
        messages = chat_messages(turn, self.config.system if system is None else system)
        return Prompt(MARKER.join(turn), (), tuple(messages), problem.images)


class OpenAIEngine:
    """Generates with whatever model a server serves."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        parallel: int = 8,
        timeout: float = 600.0,
        retries: int = 6,
        chat: ChatConfig | None = None,
        images: ImagesConfig | None = None,
    ) -> None:
        """Prepare to generate. The server is asked only if ``model`` is ``None``.

        Args:
            url: the server, such as ``http://localhost:8000/v1``.
            model: the name of the model as the server knows it; ``None`` takes the one it serves.
            api_key_env: the environment variable that holds the key; no key is sent if it has no value.
            parallel: requests under way at the same time.
            timeout: seconds a request may take, with the whole generation in it.
            retries: how often a request that failed for a passing reason is asked again.
            chat: ``min_pixels`` and ``max_pixels`` of it bound the images that are sent.
            images: which images are refused.

        Raises:
            UserError: the address or the key can't be used, or the server does not serve exactly one model.
        """
        if parallel < 1 or timeout <= 0 or retries < 0:
            raise UserError(
                "a server needs at least one request at a time, more than 0 seconds and no negative retries"
            )
        self.endpoint = Endpoint(url, api_key_env=api_key_env, timeout=timeout, retries=retries)
        self.parallel = parallel
        self.version = 0
        self._bounds = (chat.min_pixels, chat.max_pixels) if chat else (None, None)
        self._images = images or ImagesConfig()
        self._refused: set[str] = set()
        self._limit = "max_tokens"
        self.model = model if model is not None else self._only_model()

    def list_models(self) -> list[str]:
        """Names of the models that the server serves.

        Raises:
            EndpointError: it can't be reached, or does not say.
        """
        entries = self.endpoint.ask("/models").get("data")
        if not isinstance(entries, list) or not all(
            isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries
        ):
            raise EndpointError(f"{self.endpoint.url}: it does not list its models; name one")
        return [entry["id"] for entry in entries]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt, several requests at a time.

        The first error, and Ctrl-C, end all requests under way.

        Raises:
            EndpointError: the server can't be reached, refuses, or replies with something else.
            UserError: an image can't be read.
        """
        cancel = Cancel()
        seeds = [stream_seed(sampling.seed, number) for number in range(len(prompts))]
        threads = ThreadPoolExecutor(self.parallel, "spark-rl-request")
        try:
            asked = [
                threads.submit(self._complete, prompt, replace(sampling, seed=seed), cancel)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            ended, _ = wait(asked, return_when=FIRST_EXCEPTION)
            error = next((e for future in asked if future in ended and (e := future.exception())), None)
            if error is not None:
                raise error
            return [future.result() for future in asked]
        finally:
            cancel.now()
            threads.shutdown(wait=False, cancel_futures=True)

    def sync(self, source: Any) -> None:
        """Raises :class:`UserError`: the server's weights are not ours to change."""
        raise UserError(
            f"{self.endpoint.url} serves weights that can't be trained from here; train with engine.name=embedded"
        )

    def close(self) -> None:
        """Nothing to free: no connection outlives its request."""

    def _only_model(self) -> str:
        served = self.list_models()
        if len(served) != 1:
            raise UserError(f"{self.endpoint.url} serves {_listed(served)}; name the model to ask")
        return served[0]

    def _complete(self, prompt: Prompt, sampling: Sampling, cancel: Cancel) -> list[Completion]:
        """``sampling.n`` completions of one prompt. Servers that ignore ``n`` are asked again for the rest."""
        messages = self._messages(prompt)
        found: list[Completion] = []
        while len(found) < sampling.n:
            cancel.check()
            left = replace(sampling, n=sampling.n - len(found), seed=stream_seed(sampling.seed, len(found)))
            reply = self._reply(messages, left, cancel)
            try:
                found += completions(reply, sampling.stop)
            except ReplyError as error:
                raise EndpointError(f"{self.endpoint.url}: {error}") from None
        return found[: sampling.n]

    def _reply(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling, cancel: Cancel) -> dict[str, Any]:
        """The server's reply, asked in the dialect it understands."""
        while True:
            request = body(self.model, messages, sampling, self._refused, self._limit)
            try:
                return self.endpoint.ask("/chat/completions", request, cancel)
            except EndpointError as error:
                if not self._adapts(error, request):
                    raise self._explained(error) from None

    def _adapts(self, error: EndpointError, request: Mapping[str, Any]) -> bool:
        """Whether leaving something out, or calling it by its other name, may mend a refusal."""
        if error.status not in {400, 422}:
            return False
        if "max_tokens" in request and "max_completion_tokens" in error.said:
            self._limit = "max_completion_tokens"
            return True
        refused = [name for name in OPTIONAL if name in request and re.search(rf"\b{name}\b", error.said)]
        self._refused.update(refused)
        return bool(refused)

    def _explained(self, error: EndpointError) -> EndpointError:
        """A 404 with the models that there are, if the server tells."""
        if error.status != 404:
            return error
        try:
            served = self.list_models()
        except EndpointError:
            return error
        if self.model in served:
            return error
        return EndpointError(
            f"{self.endpoint.url} does not serve {self.model!r}; it serves {_listed(served)}", 404, error.said
        )

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        """The messages with the images in their places."""
        images = iter(prompt.images)

        def part(found: dict[str, Any]) -> dict[str, Any]:
            if found["type"] != "image":
                return found
            return {"type": "image_url", "image_url": {"url": data_url(next(images), self._images, *self._bounds)}}

        return [
            {**message, "content": message["content"] if isinstance(message["content"], str)
             else [part(found) for found in message["content"]]}
            for message in prompt.messages
        ]  # fmt: skip


def _listed(models: Sequence[str]) -> str:
    """Model names for an error, ten at most."""
    shown = ", ".join(models[:10]) + (f" and {len(models) - 10} more" if len(models) > 10 else "")
    return shown or "no model"
