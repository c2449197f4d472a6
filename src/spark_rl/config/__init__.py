"""The settings of a run: their groups, and how they are read. Nothing here imports torch."""

from __future__ import annotations

from spark_rl.config.chat import ANSWER_FORMAT, ChatConfig
from spark_rl.config.cluster import ClusterConfig
from spark_rl.config.data import ColumnsConfig, DataConfig, ImagesConfig, TrainSource
from spark_rl.config.load import (
    RECIPE_FOLDERS,
    load_config,
    merge_settings,
    parse_config,
    recipe_path,
    saved_settings,
    settings_table,
)
from spark_rl.config.method import (
    HELDOUT_SCORES,
    PRESETS,
    THINKING,
    AdvantageConfig,
    AnswerForm,
    EvaluationConfig,
    InferenceConfig,
    LearnerConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RecycleConfig,
    RewardConfig,
    RewardFunction,
    RolloutConfig,
    SelfRewardConfig,
    Thinking,
    TrainConfig,
    VerifyConfig,
)
from spark_rl.config.model import EngineConfig, LoraConfig, ModelConfig
from spark_rl.config.schema import Config
from spark_rl.config.section import IN_MEMORY, Section
from spark_rl.errors import ConfigError

__all__ = [
    "ANSWER_FORMAT", "HELDOUT_SCORES", "IN_MEMORY", "PRESETS", "RECIPE_FOLDERS", "THINKING", "AdvantageConfig",
    "AnswerForm", "ChatConfig", "ClusterConfig", "ColumnsConfig", "Config", "ConfigError", "DataConfig", "EngineConfig",
    "EvaluationConfig", "ImagesConfig", "InferenceConfig", "LearnerConfig", "LoraConfig", "ModelConfig",
    "ObjectiveConfig", "OptimiserConfig", "RecycleConfig", "RewardConfig", "RewardFunction", "RolloutConfig",
    "Section", "SelfRewardConfig", "Thinking", "TrainConfig", "TrainSource", "VerifyConfig", "load_config",
    "merge_settings", "parse_config", "recipe_path", "saved_settings", "settings_table",
]  # fmt: skip
