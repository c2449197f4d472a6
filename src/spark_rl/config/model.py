"""Settings of the model and of what generates with it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from spark_rl.config.section import Section
from spark_rl.plugins import is_file_and_name


class LoraConfig(Section):
    """Low-rank adapters instead of full fine-tuning."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(32.0, gt=0)
    """Scaling numerator: what the adapters add is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped at random in the pass of an update that is differentiated; the
    engine, the judge, and the log-probabilities before the update see no dropout. Above 0 an update costs one more
    pass, without gradients, for the latter."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear modules to adapt, whole or their ends from a dot on (``q_proj``), or ``all-linear``: all but
    the output layer. What ``model.freeze`` names gets no adapters."""

    @field_validator("target_modules")
    @classmethod
    def _some(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if not value or (not isinstance(value, str) and "" in value):
            raise ValueError("name at least one module, or all-linear")
        return value


class ModelConfig(Section):
    """Which model, in which number format, where."""

    path: str = "embedded"
    """A local directory (of a model, of adapters, or of a run, whose trained model is meant), a hub id, or ``embedded``
    for the tiny base that ships with the package. A run stores it as an absolute path; a run whose base has moved is
    resumed with the place where it is now."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations. In bfloat16 the optimiser keeps float32 copies of what it trains and
    sums its gradients in float32: small updates would round away otherwise."""
    device: str = "auto"
    """``auto`` (CUDA or MPS if present, else CPU), or any torch device string."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation passed to transformers; ``sdpa`` becomes ``eager`` where a family's scores need it
    (Gemma 2 caps them, gpt-oss adds sinks)."""
    trust_remote_code: bool = False
    """Allow a hub repository to run its own Python code. Off unless you trust the author."""
    gradient_checkpointing: bool = False
    """Trade compute for memory in the backward pass."""
    lora: LoraConfig | None = None
    """Train low-rank adapters only; null trains all weights."""
    freeze: tuple[str, ...] = ("vision",)
    """What is not trained: ``vision`` (the tower of a model that sees, without its projector), ``projector`` (what
    carries its features over to the language model), and names of modules or weights, whole or their ends from a dot
    on, ``*`` for anything (``model.embed_tokens``, ``layers.0``, ``*.mlp``). ``[]`` trains everything. ``vision`` and
    ``projector`` are nothing in a model that sees nothing."""
    threads: int = Field(0, ge=0)
    """CPU threads for torch; 0 uses all cores this process may run on. Two runs of one seed are the same bit for bit
    with the same number of threads."""
    deterministic: bool = False
    """Two runs of one seed are the same bit for bit on a GPU too, by kernels that add in a fixed order; an update takes
    longer. A CPU does so anyway. What has no such kernel ends the run."""


class EngineConfig(Section):
    """What generates."""

    name: str = "embedded"
    """``embedded`` decodes on the learner's own weights: no second copy, nothing to synchronise. ``vllm`` holds a copy
    of its own (docs/vllm.md). ``FILE.py:CLASS`` is an engine of yours (docs/extending.md)."""
    max_rows: int = Field(512, ge=1)
    """Sequences decoded together. More is faster until memory or cache runs out."""
    max_tokens: int | None = Field(None, ge=1)
    """Positions whose keys and values the embedded engine holds together at most, prompts and responses of all rows;
    ``null`` bounds nothing but the rows. A row is charged the longest prompt beside it and ``max_new_tokens``: prompts
    wait until there is room, and enter as rows finish."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format in which the embedded engine decodes; null is the model's. Another one is a copy of the weights,
    which takes them over after every update: half the bytes and, where a CPU has units for bfloat16, less time a token.
    What it samples differs from the learner's policy by rounding, which the importance weight corrects
    (``objective.importance_cap``)."""
    max_kl: float | None = Field(0.05, gt=0)
    """Nats a token that an engine with weights of its own and the learner may be apart on a few sequences that are
    compared after every update; beyond it the run stops. Null compares nothing."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``vllm.LLM`` by their names there, such as ``{gpu_memory_utilization: 0.4,
    tensor_parallel_size: 2}``; they win over those that are chosen here (docs/vllm.md). For ``vllm`` only."""
    servers: tuple[str, ...] = ()
    """Addresses of running ``vllm serve`` processes that generate in place of a vLLM that is started here, such as
    ``[http://node1:8000, http://node2:8000]``. Each samples for a stretch of the prompts, and takes over the weights
    after every update (docs/vllm.md). For ``vllm`` only."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in {"embedded", "vllm"} and not is_file_and_name(self.name):
            raise ValueError(f"engine.name is {self.name!r}, and must be embedded, vllm, or FILE.py:CLASS")
        if self.dtype is not None and self.name != "embedded":
            raise ValueError(f"engine.dtype is of the embedded engine, and engine.name is {self.name}; remove it"
                             + (", or set engine.options={dtype: ...}" if self.name == "vllm" else ""))  # fmt: skip
        if self.servers and self.name != "vllm":
            raise ValueError(f"engine.servers are of vLLM, and engine.name is {self.name}; set engine.name=vllm")
        if self.servers and self.options:
            raise ValueError("engine.options are for a vLLM that is started here, and engine.servers run already; "
                             "give them to vllm serve, and remove them here")  # fmt: skip
        if len({server.strip().rstrip("/").removesuffix("/v1") for server in self.servers}) < len(self.servers):
            raise ValueError("engine.servers names a server twice; remove one")
        return self
