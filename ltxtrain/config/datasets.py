"""The data sets of a run with every value settled: what the plan reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VideoDataset:
    """One set of clips. All values are resolved: entry first, then the global option, then the default.

    ``resolution`` and ``minimum_image_size`` are in the unit of ``resolution_type``. ``min_frames`` and ``max_frames``
    are as configured; rounding to 8k+1 is the plan's.
    """

    id: str
    root: Path
    resolution: float
    resolution_type: str
    minimum_image_size: float
    crop: bool
    crop_style: str
    crop_aspect: str
    num_frames: int
    min_frames: int
    max_frames: int | None
    bucket_strategy: str
    frame_interval: int | None
    repeats: int
    caption_strategy: str
    instance_prompt: str | None
    prepend_instance_prompt: bool
    only_instance_prompt: bool
    disable_multiline_split: bool
    is_i2v: bool
    window: str
    windows_per_clip: int
    minimum_aspect_ratio: float | None
    maximum_aspect_ratio: float | None
    max_num_samples: int | None
