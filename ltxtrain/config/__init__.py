"""The configuration of a run: one schema, its layers, and every fault told in one pass."""

from __future__ import annotations

from ltxtrain.config.conflicts import half_period_meant, parse_optimizer_settings
from ltxtrain.config.datasets import VideoDataset
from ltxtrain.config.load import LoadedConfig, load_config
from ltxtrain.config.resolve import dataset_notices, resolve_datasets
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.validation import parse_resolutions

__all__ = [
    "LoadedConfig",
    "TrainConfig",
    "VideoDataset",
    "dataset_notices",
    "half_period_meant",
    "load_config",
    "parse_optimizer_settings",
    "parse_resolutions",
    "resolve_datasets",
]
