"""What cannot work in one data set, with the general options that it falls back on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ltxtrain.config.datasets import Dataset, Schedule
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.entry_faults import EntryFaults
from ltxtrain.config.settle import SHORTEST_CLIP

LARGEST_AREA = 20  # megapixels


class Sizes(Protocol):
    """Where sizes are said: a data set, or the general options."""

    @property
    def resolution(self) -> float: ...
    @property
    def resolution_type(self) -> str: ...
    @property
    def minimum_image_size(self) -> float: ...
    @property
    def maximum_image_size(self) -> float | None: ...
    @property
    def target_downsample_size(self) -> float | None: ...


def check_dataset(dataset: Dataset, entry: DatasetEntry, found: EntryFaults) -> None:
    if dataset.kind == "video":
        _check_frames(dataset, entry, found)
    for key, problem, hint in size_faults(dataset):
        found.add(key, problem, hint)
    _check_crop(dataset, entry, found)
    _check_schedule(dataset.schedule, found)


def _check_frames(dataset: Dataset, entry: DatasetEntry, found: EntryFaults) -> None:
    wanted, least, most = dataset.num_frames, dataset.min_frames, dataset.max_frames
    if least < wanted and dataset.bucket_strategy == "aspect_ratio":
        found.add(
            "video.min_frames",
            f"{least} is below num_frames {wanted}",
            "leave min_frames out, lower num_frames, or set bucket_strategy resolution_frames",
        )
    if most is not None and most < _floored(least):
        found.add("video.max_frames", f"{most} is below {_floored(least)}, so no clip fits")
    interval = dataset.frame_interval
    if interval is not None and dataset.bucket_strategy == "resolution_frames":
        used = _floored((wanted - 1) // interval * interval + 1)
        if used < _floored(least if least < wanted else min(SHORTEST_CLIP, wanted)):
            problem = f"{interval} leaves {used} of {wanted} frames"
            found.add("video.frame_interval", problem, "lower it below num_frames and min_frames, or leave it out")
    if entry.video.window_stride is not None and dataset.window != "all":
        found.add("video.window_stride", "a stride needs window all", "set window to all")


def _floored(frames: int) -> int:
    """The frames that are used of so many: 8k+1. ``max_frames`` is compared with this, as documented."""
    return (frames - 1) // 8 * 8 + 1


def size_faults(sizes: Sizes) -> Iterator[tuple[str, str, str]]:
    """Sizes that are in another unit than ``resolution_type`` says, and those that do nothing without another: key,
    problem and what helps."""
    if sizes.resolution_type == "area":
        for key in ("resolution", "minimum_image_size", "target_downsample_size"):
            value = getattr(sizes, key)
            if value is not None and value > LARGEST_AREA:
                hint = "write megapixels such as 0.5, or set resolution_type to pixel_area"
                yield key, f"{value:g} megapixels is too large", hint
    else:
        for key in ("resolution", "target_downsample_size"):
            value = getattr(sizes, key)
            if value is not None and value < 32:
                yield key, f"{value:g} pixels is too small", "at least 32"
    largest, target = sizes.maximum_image_size, sizes.target_downsample_size
    if largest is None:
        return
    if target is None:
        yield "maximum_image_size", "needs target_downsample_size", "give both"
    elif target > largest:
        yield "target_downsample_size", f"{target:g} is above maximum_image_size {largest:g}", "lower it"
    if sizes.resolution_type == "area" and largest > 5:
        yield "maximum_image_size", f"{largest:g} is more than 5 megapixels", "write megapixels, such as 1.0"
    if sizes.resolution_type == "pixel" and largest < 512:
        yield "maximum_image_size", f"{largest:g} is below 512 pixels", "write pixels, such as 1024"


def _check_crop(dataset: Dataset, entry: DatasetEntry, found: EntryFaults) -> None:
    low, high = dataset.minimum_aspect_ratio, dataset.maximum_aspect_ratio
    if low is not None and high is not None and low > high:
        found.add("minimum_aspect_ratio", f"{low:g} is above the maximum {high:g}")
    if dataset.crop and dataset.crop_aspect in ("closest", "random") and entry.crop_aspect_buckets is None:
        found.add("crop_aspect", f"{dataset.crop_aspect} needs crop_aspect_buckets", "list the ratios, such as 1.78")


def _check_schedule(schedule: Schedule, found: EntryFaults) -> None:
    if schedule.end_epoch is not None and schedule.end_epoch < schedule.start_epoch:
        found.add("end_epoch", f"{schedule.end_epoch} is before start_epoch {schedule.start_epoch}")
    if schedule.end_step is not None and schedule.end_step < schedule.start_step:
        found.add("end_step", f"{schedule.end_step} is before start_step {schedule.start_step}")
    fade, start = schedule.fade_out_step, max(1, schedule.start_step)
    if fade is not None and fade <= start:
        found.add("disable_after_epoch_step", f"{fade} is not after the first step that it is drawn from, {start}")


def starts_at_once(schedule: Schedule) -> bool:
    """Whether a data set is drawn from in the first step: the documented rule, and a weight above 0."""
    return schedule.weight > 0 and schedule.start_epoch <= 1 and schedule.start_step <= 1
