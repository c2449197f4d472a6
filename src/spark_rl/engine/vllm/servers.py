"""The engine: prompts to running ``vllm serve`` processes, weights of a learner into them.

Each prompt is a request of its own, with its own random seed, so neither the number of servers nor who is asked what
changes what is drawn, but for the rounding of logits. Servers are asked at the same time; each has as many requests
under way as it decodes sequences together.

A request may take half an hour. Whether a server answers at all is looked at every minute meanwhile.

While weights come in a server is paused, which ends what it samples and empties its caches. The weights get a name
that no other run has, and every token that comes back says from which weights it was sampled: a server that was started
again, or that another run hands weights to, is told at once.

Endpoints: ``/server_info``, ``/inference/v1/generate``, ``/pause``, ``/start_weight_update``, ``/update_weights``,
``/finish_weight_update``, ``/resume``; over NCCL ``/get_world_size`` and ``/init_weight_transfer_engine`` too. All but
the second are there with ``VLLM_SERVER_DEV_MODE=1`` only, and ask for no key: servers belong in a network of their own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
import torch

from spark_rl.chat import Prompt
from spark_rl.config import Config
from spark_rl.data.decode import ImageError
from spark_rl.engine.base import Sampling, stretches
from spark_rl.engine.dialect import ReplyError
from spark_rl.engine.endpoint import Endpoint, EndpointError
from spark_rl.engine.vllm.arguments import cpu_arguments, engine_arguments
from spark_rl.engine.vllm.prompts import fitting, read_facts, request, sampling_arguments, source_of
from spark_rl.engine.vllm.transfer import send
from spark_rl.engine.vllm.wire import NCCL, completions, generate_body, serve_command, weights_way
from spark_rl.errors import EngineError, UserError
from spark_rl.model.weights import Weights
from spark_rl.problem import Completion
from spark_rl.seeds import stream_seed

KEY = "VLLM_API_KEY"
"""The environment variable of the key: vLLM's own."""
SECONDS = 1800.0
"""One request may take this long, with the whole generation in it."""
ANSWERS = 120.0
"""Seconds in which a server must have told how it was started, and sampled a token: an address where nobody answers
would hold a run for :data:`SECONDS` before its first line."""
LOOK = 60.0
"""Seconds between two looks at whether a server that is asked for something still answers at all: a process that stands
still or a machine that is gone would cost :data:`SECONDS` twice."""
RETRIES = 6
"""How often a request for completions is asked again, over a minute."""
GENERATE = "/inference/v1/generate"
INFO = "/server_info?config_format=json"

_Found = TypeVar("_Found")


def endpoints(config: Config) -> list[Endpoint]:
    """The servers of ``engine.servers``; nothing is sent.

    Raises:
        UserError: an address can't be used.
    """
    addresses = [address.strip().rstrip("/").removesuffix("/v1") for address in config.engine.servers]
    try:
        return [Endpoint(each, api_key_env=KEY, timeout=SECONDS, retries=RETRIES, path="") for each in addresses]
    except UserError as error:
        raise UserError(f"engine.servers: {error}") from None


class VllmServers:
    """Generates with vLLM servers that run already."""

    def __init__(self, config: Config, weights: str | Path | None = None) -> None:
        """See that each server can serve this run.

        They have other weights than the run's until :meth:`sync` is called.

        Args:
            config: ``engine.servers`` are asked; the rest as for :class:`spark_rl.engine.vllm.VllmEngine`.
            weights: a directory with weights, or adapters, in place of those of ``config.model``.

        Raises:
            ConfigError: there is no such model.
            UserError: an address can't be used, or weights come over NCCL and this process has no GPU.
            EngineError: a server can't be reached, or was started in another way than the run needs.
        """
        source = source_of(config, weights)
        self.facts = read_facts(config, source)
        """``facts.chat`` makes the prompts of this engine."""
        self._started = engine_arguments(config, source, self.facts)
        self.context: int = self._started["max_model_len"]
        self.version = 0
        self._servers = endpoints(config)
        self._run_name = secrets.token_hex(4)
        self._label: str | None = None
        ways = self._run(self._checked)
        if len(set(ways)) > 1:
            raise EngineError(
                f"engine.servers take over weights in different ways ({', '.join(ways)}); start all alike"
            )
        self._collective = self._connected() if ways[0] == NCCL else None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt, as :meth:`spark_rl.engine.vllm.VllmEngine.generate` gives them. The
        first error, and Ctrl-C, end all requests under way.

        Raises:
            UserError: a prompt holds an image that can't be used.
            EngineError: a server can't be reached, refuses, gives something else than was asked for, or has other
                weights.
        """
        found = [[Completion("", (), (), "length", version=self.version)] * sampling.n for _ in prompts]
        places = fitting(prompts, self.context)
        width = 1 + -(-self._started["max_num_seqs"] // sampling.n)

        async def everything(client: httpx.AsyncClient) -> None:
            async def one(server: Endpoint, slots: anyio.Semaphore, i: int) -> None:
                async with slots:
                    own = replace(sampling, seed=stream_seed(sampling.seed, sampling.first + i))
                    found[i] = await self._complete(client, server, prompts[i], own)

            async with anyio.create_task_group() as tasks:
                for server, stretch in zip(self._servers, stretches(len(places), len(self._servers)), strict=True):
                    slots = anyio.Semaphore(width)
                    for k in stretch:
                        tasks.start_soon(one, server, slots, places[k])

        try:
            self._run(everything)
        except EndpointError as error:
            mend = "" if error.status else "; resume the run when it runs again, or with other engine.servers"
            raise EngineError(f"{error}{mend}") from None
        return found

    def sync(self, weights: Weights) -> None:
        """Hand a learner's weights to every server, bucket by bucket.

        Raises:
            EndpointError: a server can't be reached, or does not take them.
        """
        label = f"{self._run_name}-{weights.version}"
        self._tell("pause?mode=abort")

        def call(method: str, body: Mapping[str, Any] | None = None) -> None:
            if method == "start_weight_update":
                self._begin()
            else:
                self._tell(method, {"weight_version": label} if method == "finish_weight_update" else body)

        if self._collective is None:
            send(weights, call)
        else:
            self._collective.send(weights, call)
        self._tell("resume")
        self.version, self._label = weights.version, label

    def sleep(self) -> None:
        """Nothing to do: a server's memory is its own."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let go of the connection that weights take; the servers stay."""
        collective, self._collective = self._collective, None
        if collective is not None:
            collective.close()

    async def _checked(self, client: httpx.AsyncClient) -> list[str]:
        """How each server takes over weights.

        Raises:
            EngineError: it can't be reached, or can't serve the run; the line says how to start it.
        """
        ways = [""] * len(self._servers)

        async def one(k: int, server: Endpoint) -> None:
            try:
                with anyio.fail_after(ANSWERS):
                    ways[k] = await self._way(client, server)
            except (ReplyError, EndpointError, TimeoutError) as error:
                said = f"no whole reply within {ANSWERS:g} s; is this its address?"
                why = f"{server.url}: {said if isinstance(error, TimeoutError) else error}"
                if isinstance(error, EndpointError):
                    why = str(error)
                mend = f"{'' if why.endswith('?') else ';'} start it with: {self._command(server)}"
                raise EngineError(why + mend) from None

        async with anyio.create_task_group() as tasks:
            for k, server in enumerate(self._servers):
                tasks.start_soon(one, k, server)
        return ways

    async def _way(self, client: httpx.AsyncClient, server: Endpoint) -> str:
        """How a server takes over weights, after it has sampled a token."""
        info = await server.ask(client, INFO, retries=0)
        way = weights_way(info, self.context)
        await server.ask(client, "/resume", {}, 0)  # a run that was killed while it handed weights over
        word = self.facts.chat.tokenizer("1", add_special_tokens=False)["input_ids"]
        await self._answer(client, server, {"prompt_token_ids": word}, Sampling(max_new_tokens=1), retries=0)
        return way

    def _command(self, server: Endpoint) -> str:
        on_cpu = not torch.cuda.is_available()
        arguments = self._started | (cpu_arguments(self._started, self.facts) if on_cpu else {})
        return serve_command(arguments, on_cpu=on_cpu, port=urlsplit(server.url).port or 8000)

    def _connected(self) -> Any:
        """The connection to all servers' workers."""
        from spark_rl.engine.vllm.collective import Collective  # noqa: PLC0415  # it needs vLLM here

        async def sizes(client: httpx.AsyncClient) -> list[int]:
            replies = [await server.ask(client, "/get_world_size", retries=0) for server in self._servers]
            return [int(reply["world_size"]) for reply in replies]

        hosts = [str(urlsplit(server.url).hostname) for server in self._servers]
        return Collective(self._run(sizes), hosts, self._tell_each)

    async def _complete(
        self, client: httpx.AsyncClient, server: Endpoint, prompt: Prompt, sampling: Sampling
    ) -> list[Completion]:
        """The completions of one prompt, by one server."""
        asked = await anyio.to_thread.run_sync(request, prompt, self.facts.chat)
        room = self.context - len(prompt.token_ids)
        sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
        expanded = prompt.token_ids if prompt.images else None
        try:
            return await self._answer(client, server, asked, sampling, prompt.stop, expanded)
        except ReplyError as error:
            raise EngineError(f"{server.url}: {error}") from None

    async def _answer(
        self,
        client: httpx.AsyncClient,
        server: Endpoint,
        asked: Mapping[str, Any],
        sampling: Sampling,
        stop: Sequence[str] = (),
        expanded: Sequence[int] | None = None,
        retries: int | None = None,
    ) -> list[Completion]:
        """What a server replies to one request. Raises :class:`ReplyError`."""
        arguments = sampling_arguments(sampling, self.facts, stop)
        try:
            body = await anyio.to_thread.run_sync(generate_body, asked, arguments)
        except ImageError as error:
            raise UserError(f"an image can't be sent: {error}") from None
        reply = await server.ask(client, GENERATE, body, retries)
        try:
            return completions(
                reply, arguments, self.facts.vocabulary, self.version, self._label, expanded, self._piece
            )
        except ReplyError as error:
            said = server.quoted(json.dumps(reply.get("choices", reply)))
            raise ReplyError(f"{error} (it says {said})") from None

    def _piece(self, token: int) -> str:
        return self.facts.chat.decode([token])

    def _begin(self) -> None:
        """Make every server ready to take weights, those too whose last update was broken off."""
        for server in self._servers:
            try:
                self._tell("start_weight_update", servers=[server])
            except EndpointError as error:
                if "already active" not in str(error):
                    raise
                self._tell("finish_weight_update", servers=[server])
                self._tell("start_weight_update", servers=[server])

    def _tell(
        self, method: str, body: Mapping[str, Any] | None = None, servers: Sequence[Endpoint] | None = None
    ) -> None:
        """Call a method of every server, or of these, at the same time, once."""
        self._tell_each(method, [body or {}] * len(servers or self._servers), servers)

    def _tell_each(
        self, method: str, bodies: Sequence[Mapping[str, Any]], servers: Sequence[Endpoint] | None = None
    ) -> None:
        """The same with a body for each. Connections are new ones: vLLM closes one after an error."""

        async def everyone(client: httpx.AsyncClient) -> None:
            async with anyio.create_task_group() as tasks:
                for server, body in zip(servers or self._servers, bodies, strict=True):
                    tasks.start_soon(server.ask, client, f"/{method}", body, 0)

        self._run(everyone)

    def _run(self, work: Callable[[httpx.AsyncClient], Awaitable[_Found]]) -> _Found:
        """Do it with one client for all servers: the key is the same. Meanwhile they are watched.

        Raises:
            EngineError: one of them answers nothing any more.
        """

        async def watched(client: httpx.AsyncClient) -> _Found:
            async with anyio.create_task_group() as tasks:
                for server in self._servers:
                    tasks.start_soon(_watch, client, server)
                found = await work(client)
                tasks.cancel_scope.cancel()
            return found

        try:
            return self._servers[0].run(watched)
        except ExceptionGroup as errors:  # groups of one, but for requests that fail at the same moment
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None


async def _watch(client: httpx.AsyncClient, server: Endpoint) -> None:
    """Until this is cancelled, look whether a server answers. What it refuses is told by whoever asked it.

    Raises:
        EngineError: it does not.
    """
    while True:
        await anyio.sleep(LOOK)
        try:
            with anyio.fail_after(ANSWERS):
                await server.ask(client, INFO, retries=0)
        except TimeoutError:
            raise EngineError(f"{server.url}: it takes requests and answers none within {ANSWERS:g} s, not even what "
                              "it serves, so it hangs; start it again") from None  # fmt: skip
        except EndpointError:
            continue
