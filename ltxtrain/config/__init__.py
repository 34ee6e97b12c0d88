"""The configuration of a run: one schema, its layers, and every fault told in one pass."""

from __future__ import annotations

from ltxtrain.config.datasets import (
    CacheRule,
    CaptionRule,
    Dataset,
    HubRule,
    Schedule,
    ShuffleRule,
    TableRule,
    TextRule,
)
from ltxtrain.config.load import LoadedConfig, load_config
from ltxtrain.config.overruled import overruled_notices
from ltxtrain.config.resolve import dataset_notices, dataset_settings, resolve_datasets
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.validation import parse_resolutions

__all__ = [
    "CacheRule",
    "CaptionRule",
    "Dataset",
    "HubRule",
    "LoadedConfig",
    "Schedule",
    "ShuffleRule",
    "TableRule",
    "TextRule",
    "TrainConfig",
    "dataset_notices",
    "dataset_settings",
    "load_config",
    "overruled_notices",
    "parse_resolutions",
    "resolve_datasets",
]
