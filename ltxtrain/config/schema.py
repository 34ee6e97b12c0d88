"""The whole configuration as one frozen tree of sections. Each option's name is unique in the tree."""

from __future__ import annotations

from ltxtrain.config.compute import MemoryConfig, PrecisionConfig, SpeedConfig
from ltxtrain.config.data import CacheConfig, DataConfig
from ltxtrain.config.model import AdapterConfig, ModelConfig
from ltxtrain.config.objective import CrepaConfig, ObjectiveConfig, RolloutConfig
from ltxtrain.config.optim import EmaConfig, OptimizerConfig, ScheduleConfig
from ltxtrain.config.option import Section
from ltxtrain.config.outputs import CheckpointConfig, LaunchConfig, PublishingConfig, TrackingConfig
from ltxtrain.config.validation import ValidationConfig


class TrainConfig(Section):
    """Everything that decides a run. ``load_config`` makes it from presets, files, environment and flags."""

    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    cache: CacheConfig = CacheConfig()
    precision: PrecisionConfig = PrecisionConfig()
    memory: MemoryConfig = MemoryConfig()
    speed: SpeedConfig = SpeedConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    crepa: CrepaConfig = CrepaConfig()
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig = EmaConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    publishing: PublishingConfig = PublishingConfig()
    tracking: TrackingConfig = TrackingConfig()
    launch: LaunchConfig = LaunchConfig()
