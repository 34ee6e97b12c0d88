"""The plan as frozen records. ``train`` executes exactly what stands in them.

Sizes are pixels, times are seconds, memory and disk are bytes. A step is an optimiser step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.config import CacheRule, Dataset, Schedule
from ltxtrain.events import MAIN_MEMORY
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.fingerprint import samples_digest
from ltxtrain.plan.prompts import ValidationVideo

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig

SPATIAL_RATIO = 32  # pixels for one latent cell, in each direction: LTX-Video's VAE
TEMPORAL_RATIO = 8  # frames for one latent frame, after the first, which has its own


@dataclass(frozen=True, order=True)
class Bucket:
    """One shape of training samples: width and height are multiples of 32, frames is 8k+1."""

    width: int
    height: int
    frames: int

    @property
    def latent_frames(self) -> int:
        return (self.frames - 1) // TEMPORAL_RATIO + 1

    @property
    def latent_height(self) -> int:
        return self.height // SPATIAL_RATIO

    @property
    def latent_width(self) -> int:
        return self.width // SPATIAL_RATIO

    @property
    def tokens(self) -> int:
        """The transformer's sequence length for one sample: its patch is one latent cell."""
        return self.latent_frames * self.latent_height * self.latent_width

    @property
    def key(self) -> str:
        """``640x448@121``: for people and for file names."""
        return f"{self.width}x{self.height}@{self.frames}"


@dataclass(frozen=True)
class Sample:
    """One window of one clip, with all that is needed to encode it.

    ``id`` is ``"dataset/path/in/dataset.mp4#window"``. ``path`` is absolute. ``start`` counts from the clip's
    first frame; frame i of the sample is the frame shown at ``start + i / fps``. The frame, turned by its rotation,
    is scaled to ``resize`` (width, height), then the bucket's size is cut out at ``crop`` (left, top). ``captions`` are
    alternatives: one of them is drawn at each use. ``kind`` is "video" or "image", which is a clip of one frame.
    """

    id: str
    dataset: str
    path: str
    captions: tuple[str, ...]
    start: float
    fps: float
    bucket: Bucket
    resize: tuple[int, int]
    crop: tuple[int, int]
    repeats: int
    i2v: bool
    kind: str = "video"


def clip_name(sample: Sample) -> str:
    """The clip's path inside its data set. Two clips may be one file: a set may have two rows for it."""
    return sample.id.removeprefix(f"{sample.dataset}/").rpartition("#")[0]


@dataclass(frozen=True)
class Dropped:
    """A clip that is not trained on, and why. ``path`` is inside the dataset; ``a.mp4#3`` is one window."""

    dataset: str
    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class BucketPlan:
    """One bucket of one data set. ``uses`` = samples * (repeats + 1) in one epoch; ``batches`` of ``batch_size`` hold
    them, and the last one may be shorter."""

    bucket: Bucket
    samples: int
    uses: int
    batches: int
    dataset: str = "clips"
    batch_size: int = 1


@dataclass(frozen=True)
class DatasetPlan:
    """One data set as training needs to know it. ``uses`` are those of one epoch."""

    id: str
    kind: str
    role: str
    clips_found: int
    clips_used: int
    samples: int
    uses: int
    schedule: Schedule = field(default_factory=Schedule)
    cache: CacheRule = field(default_factory=CacheRule)
    regularisation: bool = False
    timestep_offset: float = 0.0


@dataclass(frozen=True)
class PhaseMemory:
    """Estimated peak of one phase on one device. ``total`` is the sum of the lines and of ``margin``."""

    phase: str
    device: str
    lines: tuple[tuple[str, int], ...]
    total: int
    margin: int

    @property
    def on_device(self) -> bool:
        """Whether it is taken of the device that computes, and not of main memory beside it."""
        return self.device != MAIN_MEMORY

    def available(self, machine: Machine) -> int:
        """Bytes of the smallest device of its kind that ``machine`` has; 0 where that is not known."""
        if self.device in ("cpu", MAIN_MEMORY) or not machine.gpus:
            return machine.memory_bytes
        return min(gpu.memory_bytes for gpu in machine.gpus)


CLIPS = ("samples", "eval_samples", "dropped")
"""Fields of ``Plan`` that grow with the number of clips: the run folder has them in dataset.jsonl."""


@dataclass(frozen=True)
class Plan:
    """``settled`` are the data sets with all their settings as they were when this was planned, in the order of
    ``datasets``: a list that is changed or removed afterwards changes nothing.
    """

    config: TrainConfig
    sources: dict[str, str]
    run_name: str
    run_dir: Path
    cache_dir: Path
    made_clips: bool
    clips_found: int
    settled: tuple[Dataset, ...]
    datasets: tuple[DatasetPlan, ...]
    samples: tuple[Sample, ...]
    eval_samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    buckets: tuple[BucketPlan, ...]
    batch_size: int
    accumulation: int
    steps: int
    steps_per_epoch: int
    epochs: float
    videos: tuple[ValidationVideo, ...]
    disk: tuple[tuple[str, int], ...]
    memory: tuple[PhaseMemory, ...]
    notices: tuple[str, ...]
    warnings: tuple[str, ...]
    machine: Machine

    @cached_property
    def clips_used(self) -> int:
        """Clips with at least one sample, in all data sets. ``clips_found`` = ``clips_used`` + clips that gave none."""
        return len({(sample.dataset, clip_name(sample)) for sample in (*self.samples, *self.eval_samples)})

    @cached_property
    def clips_digest(self) -> str:
        """A digest of what is trained on. Reads the clips' bytes, or what is remembered of them, once in a plan."""
        return samples_digest(self.samples, self.cache_dir / "digests")

    def to_json(self, *, clips: bool = True) -> dict[str, Any]:
        """The whole plan as plain JSON values, the resolved configuration and its sources included.

        Without ``clips`` those that are used and left out are not listed one by one.
        """
        left_out = {"config"} if clips else {"config", *CLIPS}
        names = [name for name in self.__dataclass_fields__ if name not in left_out]
        whole = {name: getattr(self, name) for name in names}
        whole |= {"clips_used": self.clips_used, "config": self.config.model_dump(mode="json")}
        values: dict[str, Any] = plain(whole)
        for entry, bucket in zip(values["buckets"], self.buckets, strict=True):
            entry["bucket"] |= _derived(bucket.bucket)
        return values


def _derived(bucket: Bucket) -> dict[str, Any]:
    return {"key": bucket.key, "latent_frames": bucket.latent_frames, "tokens": bucket.tokens}


def plain(value: Any) -> Any:
    """``value`` as JSON has it: records and mappings are objects, sequences are lists, paths are text."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if is_dataclass(value):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    raise TypeError(f"no JSON form for {type(value).__name__}")
