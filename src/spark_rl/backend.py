"""Which engine and which learner a configuration means: the one place that knows the implementations.

The embedded engine decodes on the weights that the local learner trains, so both are given the same loaded model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging as transformers_logging

from spark_rl.chat import ChatFormat, chat_of
from spark_rl.config import Config
from spark_rl.cores import usable_cores
from spark_rl.engine.base import Engine, innermost
from spark_rl.engine.checked import Checked
from spark_rl.engine.copied import CopiedEngine
from spark_rl.engine.embedded import EmbeddedEngine
from spark_rl.engine.probe import Probed
from spark_rl.engine.vllm import VllmEngine, VllmServers, endpoints, import_vllm
from spark_rl.errors import ConfigError, UserError
from spark_rl.inference import Reasoner, build_reasoner
from spark_rl.learner.base import Learner
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import Description, copied, describe_model, load_model, set_arithmetic
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.places import find_model
from spark_rl.model.restore import restore_weights
from spark_rl.model.weights import ModelWeights
from spark_rl.objective import with_importance_cap
from spark_rl.plugins import load_object, said
from spark_rl.problem import Group
from spark_rl.verify import Verifier

if TYPE_CHECKING:
    from spark_rl.cluster.session import Cluster
    from spark_rl.learner.sharded import ShardedLearner


@dataclass(frozen=True, slots=True)
class Backend:
    """One model that can be asked: its engine, and the chat format that makes the engine's prompts."""

    config: Config
    model: LoadedModel | None
    """The model in this process; ``None`` where it is trained in others."""
    engine: Engine
    chat: ChatFormat
    cluster: Cluster | None = None
    """Where other processes of this run are."""

    @property
    def loaded(self) -> LoadedModel:
        """The model in this process, where there is one."""
        assert self.model is not None, "the learners of a cluster have it"
        return self.model

    @property
    def device(self) -> torch.device:
        """Where the model is trained."""
        if self.model is not None:
            return self.model.device
        return torch.device("cuda" if self.cluster is not None and self.cluster.on_gpus else "cpu")

    def restarts(self) -> dict[str, int]:
        """Processes that died and were started again since this was asked last, by their kind."""
        if self.cluster is None:
            return {}
        found = {f"restarts/{kind}": count for kind, count in self.cluster.restarts.items()}
        self.cluster.restarts = Counter()
        return found

    def verifier(self) -> Verifier:
        """What grades responses: workers beside this process, or on each machine of a cluster of several."""
        places = [] if self.cluster is None else self.cluster.machines()
        if self.cluster is None or not places:
            return Verifier(self.config.verify)
        from spark_rl.cluster.verifiers import RayVerifier

        return RayVerifier(self.cluster, self.config.verify, places)

    def close(self) -> None:
        """Free what the engine holds, and end the processes of a cluster."""
        try:
            self.engine.close()
        finally:
            if self.cluster is not None:
                self.cluster.close()


def check_engine(config: Config, given: Engine | None = None) -> None:
    """Whether what a configuration names can generate for training; nothing is loaded.

    Raises:
        ConfigError: it is no engine, or vLLM is to read a model that is only in memory.
        UserError: vLLM is not installed, or the address of a server can't be used.
    """
    if given is not None:
        _check_parts(given, f"the engine given, a {type(given).__name__},")
    apart = config.cluster.learners or config.cluster.engines or config.engine.name != "embedded"
    if config.rollout.ahead and given is None and not apart:
        raise ConfigError("rollout.ahead samples while the learner updates, and the embedded engine decodes on the "
                          "learner's own weights; set cluster.engines=1, or rollout.ahead=0")  # fmt: skip
    if given is None and config.engine.name == "vllm":
        _ = endpoints(config) or import_vllm()  # servers have their own
        find_model(config.model.path)  # it reads the model itself, so one in memory is none


def open_backend(
    config: Config,
    weights: str | Path | None = None,
    loaded: LoadedModel | None = None,
    engine: Engine | None = None,
) -> Backend:
    """The model of ``config.model`` with its engine.

    Args:
        config: of the run or command.
        weights: a directory with weights in place of those of ``config.model``.
        loaded: the model itself, where it is in memory already; it is given ``weights``.
        engine: what generates, in place of the engine of ``config.engine``.

    Raises:
        ConfigError: the model can't be loaded.
        ChatError: its chat template can't work.
    """
    set_arithmetic(config.model)
    if loaded is None and (config.cluster.learners or config.cluster.engines):
        return _open_cluster(config, None if weights is None else Path(weights).absolute(), engine)
    if loaded is None:
        loaded = load_model(config, weights)
    elif weights is not None:
        restore_weights(loaded, Path(weights))
    chat = chat_of(config, loaded)
    engine = build_engine(config, loaded, chat) if engine is None else _held(engine, loaded)
    return Backend(config, loaded, engine, chat)


def _open_cluster(config: Config, weights: Path | None, engine: Engine | None) -> Backend:
    """The places of all processes, and the engine: in this process on a model of its own, or in others.

    Raises:
        UserError: Ray is not installed, has no room, or what it runs can't be loaded.
    """
    try:
        from spark_rl.cluster.engines import RayEngine
        from spark_rl.cluster.session import Cluster
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise UserError("cluster.learners and cluster.engines need Ray: pip install 'spark-rl[cluster]'") from None
    described = describe_model(config, weights)
    chat = chat_of(config, described)
    cluster = Cluster(config)
    try:
        loaded = None if config.cluster.learners else load_model(config, weights)
        if engine is None and config.cluster.engines:
            engine = RayEngine(cluster, partial(engine_of_its_own, config, weights, cluster.processes, cluster.shared))
        elif engine is None and loaded is None:
            engine = engine_of_its_own(config, weights)[0]
        elif engine is None and loaded is not None:
            engine = build_engine(config, loaded, chat)
        elif engine is not None:
            engine = _held(engine, described)
        assert engine is not None, "one of the four"
    except BaseException:
        cluster.close()
        raise
    return Backend(config, loaded, engine, chat, cluster)


def engine_of_its_own(
    config: Config, weights: Path | None, processes: int = 1, colocated: bool = True
) -> tuple[Engine, ChatFormat]:
    """The engine of ``engine.name`` with a copy of the weights, without adapters, and the model's chat format.

    Args:
        config: of the run.
        weights: a folder in place of ``config.model``.
        processes: how many share the cores of a machine.
        colocated: whether a learner may be on the same GPU, so that vLLM sleeps while it updates.
    """
    config = _shared_threads(config, processes)
    transformers_logging.disable_progress_bar()
    if config.engine.name != "embedded":
        described = describe_model(config, weights)
        chat = chat_of(config, described)
        own = config.engine.name != "vllm"
        return own_engine(config, chat, described) if own else _vllm(config, colocated), chat
    loaded = load_model(_decoded_alone(config), weights)
    chat = chat_of(config, loaded)
    return _embedded(CopiedEngine, config, loaded, chat), chat


def learner_of_a_rank(config: Config, processes: int, weights: Path | None) -> ShardedLearner:
    """The learner of this process, one of those that torch.distributed connects; images are prepared here."""
    from spark_rl.learner.handout import load_on_first_rank
    from spark_rl.learner.sharded import ShardedLearner

    config = _shared_threads(config, processes)
    transformers_logging.disable_progress_bar()
    loaded = load_on_first_rank(config, weights)
    chat = chat_of(config, loaded)

    def vision_of(group: Group) -> dict[str, Any]:
        return dict(chat.encode(group.problem).vision) if group.problem.images else {}

    reference = load_on_first_rank(config) if _needs_reference(config, loaded) else None
    return ShardedLearner(loaded, config, reference, vision_of)


def _shared_threads(config: Config, processes: int) -> Config:
    """Set torch's threads: ``model.threads``, or a fair share of this machine's cores."""
    if config.model.threads == 0 and processes > 1:
        threads = max(1, usable_cores() // processes)
        config = config.with_model(threads=threads)
    set_arithmetic(config.model)
    return config


def open_reasoner(config: Config, weights: str | Path | None = None) -> Reasoner:
    """The model of ``config.model`` with its engine, ready to answer, to judge and to reflect.

    Engines with weights of their own read them themselves; only the embedded one has the model loaded here.

    Raises:
        UserError: the model or the engine can't be loaded, or the chat template can't work.
    """
    if config.engine.name == "vllm" and config.engine.servers:
        servers = VllmServers(config, weights)
        servers.sync(ModelWeights(load_model(config, weights).model, 0))
        return build_reasoner(servers, servers.facts.chat, config)
    if config.engine.name == "vllm":
        vllm = VllmEngine(config, weights)
        return build_reasoner(vllm, vllm.facts.chat, config)
    if config.engine.name == "embedded":
        backend = open_backend(config, weights)
        return build_reasoner(backend.engine, backend.chat, config)
    described = describe_model(config, weights)
    chat = chat_of(config, described)
    if weights is not None:
        config = config.with_model(path=str(weights))
    return build_reasoner(own_engine(config, chat, described), chat, config)


def build_engine(config: Config, loaded: LoadedModel, chat: ChatFormat) -> Engine:
    """The engine of ``config.engine`` beside a loaded model.

    Raises:
        ConfigError: vLLM can't load the model; a class of the user's own can't be loaded, or is no engine.
        UserError: vLLM is not installed, or a server can't be asked.
    """
    if config.engine.name == "vllm":
        return _vllm(config, colocated=True)  # a run hands it the learner's weights before it begins
    if config.engine.name != "embedded":
        return own_engine(config, chat, loaded)
    dtype = loaded.causal_lm.dtype if config.engine.dtype is None else getattr(torch, config.engine.dtype)
    if dtype == loaded.causal_lm.dtype:
        return _embedded(EmbeddedEngine, config, loaded, chat)
    engine = _embedded(CopiedEngine, config, copied(loaded, dtype), chat)
    engine.sync(ModelWeights(loaded.model, 0))
    return engine


def _vllm(config: Config, colocated: bool) -> Engine:
    """vLLM in processes of this run, or the servers that run already."""
    return VllmServers(config) if config.engine.servers else VllmEngine(config, colocated=colocated)


def _embedded(kind: type[EmbeddedEngine], config: Config, loaded: LoadedModel, chat: ChatFormat) -> EmbeddedEngine:
    """The embedded engine, or one that is like it."""
    generation_config = getattr(loaded.causal_lm, "generation_config", None)
    eos, bounds = chat.eos_ids(generation_config), (config.engine.max_rows, config.engine.max_tokens)
    return kind(loaded, eos, chat.decode, *bounds)


def own_engine(config: Config, chat: ChatFormat, model: LoadedModel | Description) -> Engine:
    """An engine of the class that ``engine.name`` names, made with the configuration and the chat format, and held to
    what the model has.

    Raises:
        ConfigError: there is no such class, it lacks a part of :class:`spark_rl.engine.base.Engine`, or it can't be
            made.
    """
    spec = config.engine.name
    kind = load_object(spec, "engine.name")
    if not callable(kind):
        raise ConfigError(f"engine.name {spec!r} is no class but a value of type {type(kind).__name__}")
    try:
        engine: Engine = kind(config, chat)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  # the user's own code, which may raise anything
        raise ConfigError(f"engine.name {spec!r} can't be made from (config, chat): {said(error)}") from None
    _check_parts(engine, f"engine.name {spec!r}")
    return _held(engine, model)


def _held(engine: Engine, model: LoadedModel | Description) -> Engine:
    """An engine, checked at each call if it is of the user's own."""
    if type(engine).__module__.startswith("spark_rl."):
        return engine
    described = model.causal_lm.config if isinstance(model, LoadedModel) else model.config
    return Checked(engine, int(described.get_text_config().vocab_size))


def _check_parts(engine: Any, what: str) -> None:
    """Raises :class:`ConfigError` if something lacks a part of :class:`spark_rl.engine.base.Engine`."""
    parts = ("generate", "sync", "sleep", "wake", "close", "version")
    missing = [name for name in parts if not hasattr(engine, name)]
    if missing:
        raise ConfigError(f"{what} is no engine: it lacks {', '.join(missing)} (see docs/extending.md)")


def build_learner(backend: Backend, reference: LoadedModel | None = None, weights: str | Path | None = None) -> Learner:
    """The learner that trains the model of a backend.

    Args:
        backend: what :func:`open_backend` returned.
        reference: that of the KL term, in memory; else the model that the configuration names; adapters need none.
        weights: the directory that the backend was opened with.

    Raises:
        ConfigError: the model or its reference can't be loaded.
    """
    config = with_importance_cap(backend.config, shared=_shares_weights(backend.engine))
    if backend.model is not None:
        return LocalLearner(backend.loaded, config, _reference(config, backend.loaded, reference))
    assert backend.cluster is not None, "or the model would be here"
    from spark_rl.cluster.learners import RayLearner

    make = partial(learner_of_a_rank, config, backend.cluster.processes)
    folder = None if weights is None else Path(weights).absolute()
    return RayLearner(backend.cluster, make, folder, config.learner.micro_tokens)


def _reference(config: Config, loaded: LoadedModel, given: LoadedModel | None = None) -> LoadedModel | None:
    """What the KL term compares with, where it needs a model of its own."""
    return (given or load_model(config)) if _needs_reference(config, loaded) else None


def _decoded_alone(config: Config) -> Config:
    """The configuration of a model that nothing but the embedded engine uses."""
    return config.with_model(lora=None, dtype=config.decoding_dtype)


def frozen_engine(backend: Backend, given: LoadedModel | None = None) -> Engine:
    """An engine on the weights that a run begins with, whatever is trained meanwhile: a second copy in this process.

    Args:
        backend: that of the run.
        given: those weights, in memory; else they are loaded from ``model.path``, without adapters.

    Raises:
        ConfigError: they can't be loaded, or this process has no room for a model because others train it.
    """
    config = backend.config
    if backend.cluster is not None:
        raise ConfigError("reward.self.judge=frozen decodes on a second model in this process, which cluster.learners "
                          "and cluster.engines are there to avoid; take judge=current")  # fmt: skip
    return _embedded(EmbeddedEngine, config, given or load_model(_decoded_alone(config)), backend.chat)


def _needs_reference(config: Config, loaded: LoadedModel) -> bool:
    return config.objective.kl > 0 and not loaded.adapted


def _shares_weights(engine: Engine) -> bool:
    """Whether an engine decodes on the learner's own weights."""
    engine = innermost(engine)
    return isinstance(engine, EmbeddedEngine) and not isinstance(engine, CopiedEngine)


def probed(config: Config, engine: Engine, learner: Learner) -> Engine:
    """The engine, compared with the learner after every sync if it has weights of its own (``engine.max_kl``)."""
    if _shares_weights(engine) or config.engine.max_kl is None:
        return engine
    return Probed(engine, learner.logprobs, config.engine.max_kl, config.rollout.temperature)
