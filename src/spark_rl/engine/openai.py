"""Any OpenAI-compatible chat-completions server as an engine: vLLM, SGLang, llama.cpp, hosted models.

For evaluation and test-time scaling, not for training: a server does not tell its token ids, and its weights can't be
synchronised. So ``Completion.token_ids`` is empty and ``Completion.tokens`` is what the server counted.

:class:`ServerChat` is the chat format that goes with it: the server has its own template, so a prompt is messages only.

Departures from what the embedded engine promises, each the server's doing:

- Log-probabilities are those the server reports, most often of temperature 1; empty where it reports none or any that
  is not finite.
- ``top_p`` is sent as 1. Other truncation and penalties are the server's settings (start vLLM with
  ``--generation-config vllm``, or it takes the model's own).
- A server that refuses ``logprobs`` (or only ``top_logprobs``), ``seed``, ``top_p``, ``temperature``, ``stop`` or
  ``n`` by name is asked without, which is said once: without a seed sampling does not repeat, without a temperature the
  server's own holds, without ``n`` each response is a request.
- A request that is refused for what it holds gives completions that are ``refused``, with the server's words. A call
  with such ends with a trivial question: a server that refuses it too refuses everything, which is an error.
- Control tokens in untrusted text are broken in their common forms only, because the tokenizer is not at hand.
- Stop strings are passed on as they are, special tokens too; whether a server sees those is the server's affair.
- Reasoning that the server keeps apart from the answer is not in the text, though its tokens are counted.

API: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
import httpx
from PIL import Image

from spark_rl.chat import MARKER, TURN_ENDS, Prompt, chat_messages, check_policy, user_turn
from spark_rl.config import ChatConfig, ImagesConfig
from spark_rl.engine.base import Arrival, Sampling, gathered
from spark_rl.engine.dialect import ReplyError, body, completions, counted, data_url, refused
from spark_rl.engine.endpoint import Endpoint, EndpointError, RefusedError
from spark_rl.engine.refusals import OPTIONAL, parameters, wants_other_limit
from spark_rl.errors import ChatError, UserError
from spark_rl.problem import Completion, Problem
from spark_rl.recycle.candidate import CONTROL_TOKEN
from spark_rl.seeds import stream_seed

if TYPE_CHECKING:
    from spark_rl.model.weights import Weights

logger = logging.getLogger(__name__)

TRIVIAL = "What is 1+1?"
"""Asked of a server that has refused something."""

_IMAGE = re.escape(MARKER)
_CONTROL = re.compile(
    rf"(?!{_IMAGE}|<\|\s)(?:{CONTROL_TOKEN.pattern}|<\|[^<>|\s]{{1,40}}\|>|" + "|".join(map(re.escape, TURN_ENDS)) + ")"
)
"""Control tokens of common templates. The marker of an image stays, as it does in a local chat."""


class ServerChat:
    """Turns problems into messages for a server that applies its own template."""

    def __init__(self, config: ChatConfig) -> None:
        """Raises :class:`ChatError` if ``chat.policy`` can't work, or ``chat.template`` is set."""
        if config.template is not None:
            raise ChatError("chat.template does nothing here: a server applies its own template; remove it")
        check_policy(config)
        self.config = config

    def encode(self, problem: Problem, system: str | None = None) -> Prompt:
        """The problem as messages. Its tokens are not known here: ``token_ids`` is empty, ``text`` the user's turn.

        ``system`` is a system message of the problem's own, trusted, in place of ``chat.system``.
        """
        turn = user_turn(problem, self.config, _CONTROL)
        messages = chat_messages(turn, self.config.system if system is None else system)
        return Prompt(MARKER.join(turn), (), tuple(messages), problem.images, stop=self.config.stop_of(problem.task))


@dataclass(slots=True)
class Usage:
    """Tokens that a server has counted, of everything that it was asked."""

    read: int = 0
    """Of prompts, as often as they were sent; 0 where the server does not say."""
    written: int = 0
    """Of completions, those of a thought that is not shown included."""

    def add(self, reply: Mapping[str, Any], found: Sequence[Completion]) -> None:
        """Count a reply, which holds the completions ``found``."""
        written = counted(reply, "completion_tokens")
        self.read += counted(reply, "prompt_tokens") or 0
        self.written += sum(one.tokens for one in found) if written is None else written


@dataclass(slots=True)
class _Accepted:
    """What requests may hold, as far as the server has said."""

    without: set[str] = field(default_factory=set)
    """Fields that it refuses."""
    limit: str = "max_tokens"
    """What it calls the limit of tokens."""


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
            chat: ``min_pixels`` and ``max_pixels`` of it bound the images that are sent; ``template_arguments`` go
                with each request.
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
        self._template_arguments = chat.template_arguments if chat else {}
        self._accepted = _Accepted()
        self.usage = Usage()
        self.model = model if model is not None else self._only_model()

    def session(self) -> Self:
        """The same server for one caller, whose tokens are counted in a :attr:`usage` of its own and who may
        :meth:`cancel` what it asks."""
        own = copy.copy(self)
        own.endpoint, own.usage = self.endpoint.session(), Usage()
        return own

    def cancel(self) -> None:
        """End what is under way, and whatever is asked from now on, with a
        :class:`concurrent.futures.CancelledError`; from any thread."""
        self.endpoint.cancel()

    def list_models(self) -> list[str]:
        """Names of the models that the server serves.

        Raises:
            EndpointError: it can't be reached, or does not say.
        """
        return self.endpoint.run(self._models)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt. Errors as for :meth:`arriving`."""
        return gathered(self.arriving(prompts, sampling), len(prompts))

    def arriving(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Arrival]:
        """``sampling.n`` completions per prompt, each prompt as it is answered, several requests at a time.

        A request that is refused for what it holds gives ``refused`` completions. The first error, and Ctrl-C, end all
        requests under way.

        Raises:
            EndpointError: the server can't be reached, refuses everything, or replies with something else.
            UserError: an image can't be read.
        """
        if not prompts:
            return

        async def all_of_them(client: httpx.AsyncClient, hand_over: Callable[[Arrival], None]) -> None:
            slots, refusals = anyio.Semaphore(self.parallel), dict[int, str | None]()

            async def one(number: int) -> None:
                async with slots:
                    own = replace(sampling, seed=stream_seed(sampling.seed, sampling.first + number))
                    completions = await self._complete(client, prompts[number], own)
                refusals.update((number, each.error) for each in completions if each.finish == "refused")
                hand_over((number, completions))

            async with anyio.create_task_group() as tasks:
                for number in range(len(prompts)):
                    tasks.start_soon(one, number)
            if refusals:
                await self._try_trivial(client, prompts, sampling, refusals[min(refusals)])

        try:
            yield from self.endpoint.each(all_of_them)
        except ExceptionGroup as errors:  # one, but for requests that fail at the same moment
            raise errors.exceptions[0] from None

    def sync(self, weights: Weights) -> None:
        """Raises :class:`UserError`: the server's weights are not ours to change."""
        raise UserError(
            f"{self.endpoint.url} serves weights that can't be trained from here; train with engine.name=embedded"
        )

    def sleep(self) -> None:
        """Nothing to do: the server's memory is its own."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to free: no connection outlives its call."""

    def _only_model(self) -> str:
        served = self.list_models()
        if len(served) != 1:
            raise UserError(f"{self.endpoint.url} serves {_listed(served)}; name the model to ask")
        return served[0]

    async def _models(self, client: httpx.AsyncClient) -> list[str]:
        entries = (await self.endpoint.ask(client, "/models")).get("data")
        if not isinstance(entries, list) or not all(
            isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries
        ):
            raise EndpointError(f"{self.endpoint.url}: it does not list its models; name one")
        return [entry["id"] for entry in entries]

    async def _complete(self, client: httpx.AsyncClient, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        """``sampling.n`` completions of one prompt. Servers that ignore ``n`` are asked again for the rest."""
        stop = (*sampling.stop, *prompt.stop)
        messages = await anyio.to_thread.run_sync(self._messages, prompt) if prompt.images else self._messages(prompt)
        found: list[Completion] = []
        while len(found) < sampling.n:
            seed = stream_seed(sampling.seed, len(found))
            left = replace(sampling, n=sampling.n - len(found), seed=seed, stop=stop)
            try:
                reply = await self._reply(client, messages, left)
                new = completions(reply, stop, top=sampling.top > 0)
            except RefusedError as error:
                why = str(error).removeprefix(f"{self.endpoint.url}: ")
                return found + [refused(why)] * left.n
            except ReplyError as error:
                said = self.endpoint.quoted(json.dumps(reply))
                raise EndpointError(f"{self.endpoint.url}: {error}; it says {said}") from None
            self.usage.add(reply, new)
            found += new
        return found[: sampling.n]

    async def _reply(
        self, client: httpx.AsyncClient, messages: Sequence[Mapping[str, Any]], sampling: Sampling
    ) -> dict[str, Any]:
        """The server's reply, asked in the dialect it understands: remembered once it has helped."""
        without, limit = set(self._accepted.without), self._accepted.limit
        while True:
            request = body(self.model, messages, sampling, without, limit, self._template_arguments)
            try:
                reply = await self.endpoint.ask(client, "/chat/completions", request)
            except EndpointError as error:
                other = isinstance(error, RefusedError) and limit == "max_tokens" and wants_other_limit(error.said)
                named = set(parameters(error.said)) & request.keys() if isinstance(error, RefusedError) else set()
                if not other and not named:
                    raise await self._explained(client, error) from None
                without |= named
                limit = "max_completion_tokens" if other else limit
            else:
                self._remember(without, limit)
                return reply

    def _remember(self, without: set[str], limit: str) -> None:
        for name in sorted(without - self._accepted.without):
            logger.warning("%s refuses %s and is asked without: %s", self.endpoint.url, name, OPTIONAL[name])
        self._accepted.without |= without
        self._accepted.limit = limit

    async def _try_trivial(
        self, client: httpx.AsyncClient, prompts: Sequence[Prompt], sampling: Sampling, why: str | None
    ) -> None:
        """Raises :class:`EndpointError` if the server, which refused some prompts, refuses a trivial one too.

        It is like them in all but the question: the settings, the system message and an image, if all have one.
        """
        first, asked = prompts[0], chat_messages([TRIVIAL], None)
        seen = (Image.new("RGB", (64, 64), "white"),) if all(prompt.images for prompt in prompts) else ()
        if seen:
            asked = chat_messages(["", TRIVIAL], None)
        if all(prompt.messages[0]["role"] == "system" for prompt in prompts):
            asked = [first.messages[0], *asked]
        trivial = replace(first, messages=tuple(asked), images=seen)
        (answer,) = await self._complete(client, trivial, replace(sampling, n=1))
        if answer.finish == "refused":
            raise EndpointError(f"{self.endpoint.url} refuses every request, a trivial one too: {why}")

    async def _explained(self, client: httpx.AsyncClient, error: EndpointError) -> EndpointError:
        """A 404 with the models that there are, if the server tells."""
        if error.status != 404:
            return error
        try:
            served = await self._models(client)
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
