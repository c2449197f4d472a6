"""One nested, frozen configuration: every setting of a run, each with its own docstring.

Defaults are the authors' published settings wherever the paper or its release states one (``docs/paper-map.md``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from spark_rl.config.chat import ChatConfig
from spark_rl.config.cluster import ClusterConfig
from spark_rl.config.data import DataConfig
from spark_rl.config.method import (
    AdvantageConfig,
    EvaluationConfig,
    InferenceConfig,
    LearnerConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RecycleConfig,
    RewardConfig,
    RolloutConfig,
    TrainConfig,
    VerifyConfig,
)
from spark_rl.config.model import EngineConfig, ModelConfig
from spark_rl.config.section import Section, one_line
from spark_rl.errors import ConfigError
from spark_rl.problem import TASKS


class Config(Section):
    """Everything a run depends on."""

    def __init__(self, **settings: Any) -> None:
        """Raises :class:`ConfigError`, in one line, for an unknown setting or a value that it can't have."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError(one_line(error)) from None

    seed: int = Field(0, ge=0)
    """The one seed: every random stream of the run is derived from it, the step and its purpose. It fixes a run to the
    bit on one kind of machine, with one number of threads, one ``learner.micro_tokens`` and one version of torch."""
    run_dir: str | None = None
    """Where the run is written; null makes ``runs/<time>-seed<seed>``."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    chat: ChatConfig = ChatConfig()
    rollout: RolloutConfig = RolloutConfig()
    engine: EngineConfig = EngineConfig()
    verify: VerifyConfig = VerifyConfig()
    reward: RewardConfig = RewardConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    recycle: RecycleConfig = RecycleConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    learner: LearnerConfig = LearnerConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()
    track: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that hear of every step, evaluation and some rollouts (docs/tracking.md): any of ``tensorboard``,
    ``wandb`` and ``trackio``, of the extra ``track``. One that fails is left, and the run goes on."""

    def with_model(self, **changes: Any) -> Config:
        """The configuration with these settings of the model, which are taken as they are."""
        return self.model_copy(update={"model": self.model.model_copy(update=changes)})

    @property
    def decoding_dtype(self) -> Literal["float32", "bfloat16"]:
        """Number format in which the embedded engine decodes: ``engine.dtype``, or ``model.dtype``."""
        return self.engine.dtype or self.model.dtype

    @field_validator("track", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        """``wandb`` and ``wandb,trackio`` are lists too; null is none."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return () if value is None else value

    @field_validator("run_dir", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _contradictions(self) -> Self:
        """Settings that are fine alone and wrong together."""
        if self.run_dir == "":
            raise ValueError("run_dir is empty; name a directory, or leave it out")
        if self.train.best is not None and self.train.eval_every is None:
            raise ValueError("train.best needs evaluations to choose from; set train.eval_every, e.g. to 10")
        if self.train.patience is not None and self.train.best is None:
            raise ValueError("train.patience waits for a better train.best; set that, e.g. to tts_accuracy")
        if not self.train.policy_update and not self.recycle.on:
            raise ValueError(
                "train.policy_update is false and recycle makes nothing, so no update would ever happen; "
                "turn one of recycle.pointwise, recycle.pairwise, recycle.reflection on"
            )
        if self.recycle.on and self.recycle.ready > self.recycle.pool_size:
            raise ValueError(
                f"recycle.ready ({self.recycle.ready}) is larger than recycle.pool_size ({self.recycle.pool_size}), "
                "so the pool could never be ready; raise pool_size"
            )
        if self.engine.servers and self.cluster.engines:
            raise ValueError(
                f"cluster.engines ({self.cluster.engines}) starts engines, and engine.servers names some that run "
                "already; remove one of the two"
            )
        own = self.reward.self
        if own is not None and (self.reward.function or self.reward.verifier is not None):
            raise ValueError(
                "reward.self puts the model's verdict in the place of gold answers, so reward.function and "
                "reward.verifier can't stand beside it; leave them out, or reward.self"
            )
        if own is not None and own.hidden == 1 and own.floor is not None:
            raise ValueError(
                "reward.self.hidden is 1, so no gold answer is left to check on; hide less, or set "
                "reward.self.floor=null to train without a guard"
            )
        if own is not None and self.rollout.ahead:
            raise ValueError("reward.self judges a batch by the weights that sampled it; set rollout.ahead=0")
        low, high = self.chat.min_pixels, self.chat.max_pixels
        if low is not None and high is not None and low > high:
            raise ValueError(f"chat.min_pixels ({low}) is larger than chat.max_pixels ({high}); swap or change them")
        if "{question}" not in self.chat.policy:
            raise ValueError("chat.policy must contain {question}, or the model never sees the problem")
        if any("" in pair or pair[0].lower() == pair[1].lower() for pair in self.verify.thinking):
            raise ValueError("verify.thinking holds pairs of an opening and another closing tag, none of them empty")
        if any("" in self.chat.stop_of(task) for task in TASKS):
            raise ValueError("chat.stop has an empty string, which would end every response at once; remove it")
        if not all(0 <= beta < 1 for beta in self.optimiser.betas):
            raise ValueError(f"optimiser.betas must be at least 0 and below 1 (got {list(self.optimiser.betas)})")
        return self
