"""The data set that tests start from: what ``--data c`` alone gives."""

from __future__ import annotations

from pathlib import Path

from ltxtrain.config import CaptionRule, Dataset, dataset_notices, resolve_datasets
from ltxtrain.config.data import CacheConfig, DataConfig
from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.config.validation import ValidationConfig

PLAIN = Dataset(
    id="clips",
    root=Path("c"),
    resolution=640,
    resolution_type="pixel_area",
    minimum_image_size=0,
    crop=False,
    crop_style="center",
    crop_aspect="preserve",
    num_frames=121,
    min_frames=9,
    max_frames=None,
    bucket_strategy="resolution_frames",
    frame_interval=None,
    repeats=0,
    captions=CaptionRule(),
    is_i2v=True,
    window="first",
    windows_per_clip=1,
    minimum_aspect_ratio=None,
    maximum_aspect_ratio=None,
    max_num_samples=None,
)


def resolved(
    data: DataConfig, cache: CacheConfig | None = None, validation: ValidationConfig | None = None
) -> tuple[Dataset, ...]:
    """The data sets of ``data``; what is not given is at its default."""
    return resolve_datasets(data, cache or CacheConfig(), validation or ValidationConfig())


def noticed(
    data: DataConfig, validation: ValidationConfig | None = None, objective: ObjectiveConfig | None = None
) -> tuple[str, ...]:
    """What is told of ``data`` before a clip is looked at."""
    return dataset_notices(data, validation or ValidationConfig(), objective or ObjectiveConfig())
