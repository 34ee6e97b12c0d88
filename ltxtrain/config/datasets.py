"""The data sets of a run with every value settled: what the plan reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["train", "eval"]
Kind = Literal["video", "image"]


@dataclass(frozen=True)
class ShuffleRule:
    """``caption_shuffle``: ``count`` copies of a caption with its tags in another order become alternatives of it.

    ``split_on`` is comma, space or period; tags before ``position_start`` keep their places. No ``seed``: the run's.
    """

    count: int = 1
    seed: int | None = None
    split_on: str = "comma"
    position_start: int = 0
    include_original: bool = True


@dataclass(frozen=True)
class TableRule:
    """A table that names clips and holds their captions. ``path`` is a .parquet, .jsonl or .csv file.

    ``caption_columns`` are alternatives, in order; a column may be dotted (``meta.caption``). Without
    ``filename_column`` it is the first of the usual names that the table has.
    """

    path: Path
    filename_column: str | None = None
    caption_columns: tuple[str, ...] = ()
    fallback_caption_column: str | None = None
    width_column: str | None = None
    height_column: str | None = None
    identifier_includes_extension: bool = True


@dataclass(frozen=True)
class HubRule:
    """A data set read by the ``datasets`` library: a folder on this disk, or a name on the Hub that is fetched once."""

    name: str
    split: str = "train"
    revision: str | None = None
    media_column: str | None = None
    caption_columns: tuple[str, ...] = ()
    fallback_caption_column: str | None = None
    width_column: str | None = None
    height_column: str | None = None
    filters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionRule:
    """Where captions come from and what is done to them: taken out (``filters``), shuffled, then the prefix.

    ``filters`` are plain words, regular expressions to delete, or ``s/search/replace/``, as documented.
    """

    strategy: str = "textfile"
    instance_prompt: str | None = None
    prepend_instance_prompt: bool = False
    only_instance_prompt: bool = False
    disable_multiline_split: bool = False
    filters: tuple[str, ...] = ()
    shuffle: ShuffleRule | None = None
    table: TableRule | None = None


@dataclass(frozen=True)
class TextRule:
    """The same for a data set's captions, as its store of prompt embeddings has it. ``batch_size``: at one time."""

    ondemand: bool = False
    written: bool = True
    batch_size: int = 1


@dataclass(frozen=True)
class CacheRule:
    """``ondemand``: encode when first needed. ``written`` False: write no entry, which is on demand too. ``scanned``:
    read every entry whole at the start. ``redrawn``: random cuts are drawn anew in each epoch, and the entries of the
    one before are removed. ``batch_size``: clips encoded at one time."""

    ondemand: bool = False
    written: bool = True
    redrawn: bool = False
    scanned: bool = False
    batch_size: int = 1
    text: TextRule = TextRule()


@dataclass(frozen=True)
class Schedule:
    """When a data set is drawn from, and how often. Epochs and steps count from 1; None means no end.

    ``weight`` is ``probability``. With ``fade_out_step`` it falls in a straight line to nothing at that step.
    """

    weight: float = 1.0
    start_epoch: int = 1
    start_step: int = 0
    end_epoch: int | None = None
    end_step: int | None = None
    fade_out_step: int | None = None


@dataclass(frozen=True)
class Dataset:
    """One set of clips. All values are resolved: entry first, then the global option, then the default.

    The sizes are in the unit of ``resolution_type``. ``min_frames`` and ``max_frames`` are as configured; rounding to
    8k+1 is the plan's. An image is a clip of one frame. ``aspects`` are (aspect ratio, weight). ``batch_size`` None is
    the run's. ``hub`` is set where the files come through the ``datasets`` library; ``root`` is then where they lie.
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
    captions: CaptionRule
    is_i2v: bool
    window: str
    windows_per_clip: int
    minimum_aspect_ratio: float | None
    maximum_aspect_ratio: float | None
    max_num_samples: int | None
    kind: Kind = "video"
    role: Role = "train"
    maximum_image_size: float | None = None
    target_downsample_size: float | None = None
    max_upscale_threshold: float | None = None
    aspects: tuple[tuple[float, float], ...] = ()
    fps_policy: str = "resample"  # or "as_is": every frame of the file, whatever its rate
    window_stride: int | None = None  # frames from one window of "all" to the next; None: no overlap
    batch_size: int | None = None
    schedule: Schedule = Schedule()
    cache: CacheRule = CacheRule()
    regularisation: bool = False
    timestep_offset: float = 0.0
    quarantine: bool = False
    hub: HubRule | None = None
