"""The engine: prompts to a ``vllm.LLM`` of its own, weights of a learner into it.

vLLM runs in processes of its own, so nothing that it does to threads, signals or torch's settings reaches the learner.
They do not hear the signals that ask a run to stop, which terminals and Slurm send to all processes at once: the step
that is running can end, and the run says how to go on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from spark_rl.chat import Prompt
from spark_rl.config import Config
from spark_rl.engine.base import Sampling
from spark_rl.engine.vllm.arguments import RUN, cpu_arguments, engine_arguments, import_vllm
from spark_rl.engine.vllm.prompts import (
    completion,
    fitting,
    is_adapted,
    read_facts,
    request,
    sampling_arguments,
    source_of,
)
from spark_rl.engine.vllm.transfer import send
from spark_rl.engine.vllm.watched import Watched
from spark_rl.errors import ConfigError, EngineError
from spark_rl.model.load import load_model
from spark_rl.model.weights import ModelWeights, Weights
from spark_rl.problem import Completion
from spark_rl.seeds import stream_seed

COLOCATED_SHARE = 0.5
"""Share of a GPU's memory for vLLM beside a learner, where ``engine.options`` does not say."""

SECONDS = 2
"""What vLLM's processes have to end by themselves."""


class VllmEngine:
    """Generates with vLLM on this machine."""

    def __init__(
        self, config: Config, weights: str | Path | None = None, *, colocated: bool = False, **options: Any
    ) -> None:
        """Load the model.

        Args:
            config: ``model`` says which, ``chat`` and ``data.images`` how prompts are made, ``rollout`` and
                ``inference`` how long they may be, ``engine`` how many are decoded together, and more of vLLM's.
            weights: a directory with weights, or adapters, in place of those of ``config.model``.
            colocated: a learner is on the same GPU: vLLM leaves it room, and gives back its own while it sleeps.
            options: further arguments of ``vllm.LLM``; they win over ``engine.options``, which win over ours.

        Raises:
            UserError: vLLM is not installed.
            ConfigError: the model can't be loaded.
        """
        vllm: Any = import_vllm()
        self._watched = Watched()
        self._parameters = vllm.SamplingParams
        self.version = 0
        source = source_of(config, weights)
        self.facts = read_facts(config, source)
        """``facts.chat`` makes the prompts of this engine."""
        ours, wished = engine_arguments(config, source, self.facts), dict(config.engine.options) | options
        on_cpu = on_a_cpu()
        self._sleeps = colocated and not on_cpu
        if on_cpu:
            ours |= cpu_arguments(ours | wished, self.facts)
        elif colocated:
            ours |= {"enable_sleep_mode": True, "gpu_memory_utilization": COLOCATED_SHARE}
        arguments = ours | wished
        self.context: int = arguments["max_model_len"]
        os.environ[RUN] = str(os.getpid())
        try:
            with self._watched.starting():
                self._llm: Any = vllm.LLM(**arguments)
        except (OSError, ValueError, RuntimeError, ImportError, TypeError) as error:
            raise ConfigError(f"vLLM can't load {source!r}: {_said(error)}") from None
        if is_adapted(config, weights):
            self.sync(ModelWeights(load_model(config, weights).model, 0))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions per prompt.

        A completion is cut (``length``) where the context ends; of a prompt that fills it the completion is empty,
        which is logged.

        Raises:
            UserError: a prompt holds an image that can't be used.
            EngineError: vLLM failed, or has ended.
        """
        found = [[Completion("", (), (), "length", version=self.version)] * sampling.n for _ in prompts]
        places = fitting(prompts, self.context)
        if not places:
            return found
        seeded = [replace(sampling, seed=stream_seed(sampling.seed, sampling.first + i)) for i in places]
        asked = [
            self._parameters(**sampling_arguments(each, self.facts, prompts[i].stop))
            for each, i in zip(seeded, places, strict=True)
        ]
        requests = [request(prompts[i], self.facts.chat) for i in places]
        outputs = self._call("generate", requests, asked, use_tqdm=False)
        for i, output in zip(places, outputs, strict=True):
            found[i] = [completion(choice, self.version, top=sampling.top > 0) for choice in output.outputs]
        return found

    def sync(self, weights: Weights) -> None:
        """Take over a learner's weights, bucket by bucket, and forget what was cached of prompts and of their images.

        Raises:
            EngineError: vLLM does not take them, or has ended.
        """
        send(weights, self._call)
        if self._sleeps:
            self._call("wake_up", tags=["kv_cache"])
        self._call("reset_prefix_cache")
        if self.facts.banned:  # what the old projector made of images; vLLM keeps it apart from keys and values
            self._call("llm_engine.reset_encoder_cache")
        self.version = weights.version

    def sleep(self) -> None:
        """Give weights and cache of a GPU to the learner beside it. Elsewhere nothing is gained by it."""
        if self._sleeps:
            self._call("sleep", level=1)

    def wake(self) -> None:
        """Take the memory of the weights again; that of the cache follows with :meth:`sync`."""
        if self._sleeps:
            self._call("wake_up", tags=["weights"])

    def close(self) -> None:
        """End vLLM's processes."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown(timeout=SECONDS)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A method of ``vllm.LLM`` or of a part of it. What comes back from vLLM's processes may be any exception.

        Raises:
            EngineError: it failed, or vLLM has ended.
        """
        if self._llm is None:
            raise EngineError("this vLLM engine is closed")
        try:
            return self._watched.call(attrgetter(method)(self._llm), *arguments, **options)
        except Exception as error:
            raise EngineError(f"vLLM failed ({method}): {_said(error)}; its own lines above say more") from error


def on_a_cpu() -> bool:
    """Whether the vLLM that is installed runs on CPUs."""
    from vllm.platforms import current_platform  # noqa: PLC0415  # vLLM may be missing

    return bool(current_platform.is_cpu())


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
