"""From ``DataConfig`` to the data sets of the run, with every value settled."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from ltxtrain.config.data import DataConfig
from ltxtrain.config.datasets import CaptionRule, Dataset
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.idle import entry_notices
from ltxtrain.config.read_entries import Entries, read_entries
from ltxtrain.config.text import read_document
from ltxtrain.config.unbuilt import unbuilt_entry_faults
from ltxtrain.errors import ConfigError, DataError, Fault

Value = TypeVar("Value")

SHORTEST_CLIP = 9
"""Frames that a clip must have when it is used as long as it is: one latent frame after the first."""


def resolve_datasets(data: DataConfig) -> tuple[Dataset, ...]:
    """The video data sets that ``data`` names: its ``datasets``, its file, or its folder.

    Raises ConfigError for a list that is wrong, DataError when no data is named or nothing is left to train on.
    """
    listed = listed_entries(data)
    if listed is None:
        if data.instance_data_dir is None:
            raise DataError("no clips are named", hint="say --data FOLDER, a folder of clips with a .txt beside each")
        return (_folder_alone(data, data.instance_data_dir),)
    faults = list(listed.faults)
    datasets = []
    for entry, place in zip(listed.entries, listed.places, strict=True):
        if _disabled(entry):
            continue
        faults += unbuilt_entry_faults(entry, place)
        if entry.dataset_type != "video":
            continue
        if entry.instance_data_dir is None:
            if entry.type == "local":
                faults.append(
                    Fault(f"{entry.id}.instance_data_dir", "is missing", place, "name the folder of the clips")
                )
            continue
        dataset = _settled(data, entry, entry.instance_data_dir)
        faults += _dataset_faults(dataset, place)
        datasets.append(dataset)
    if faults:
        raise ConfigError(faults)
    if not datasets:
        raise DataError(
            "no data set is left to train on", hint="give one entry of dataset_type video that is not disabled"
        )
    return tuple(datasets)


def dataset_settings(data: DataConfig) -> list[dict[str, object]]:
    """What ``data`` says of its data sets with every value settled, but not where they lie: for digests.

    The same settings give the same list, whether they stand in a JSON file, in ``[[datasets]]`` or in options; it is
    empty when no data is named. Raises as ``resolve_datasets`` does.
    """
    if not data.datasets and data.data_backend_config is None and data.instance_data_dir is None:
        return []
    return [{name: value for name, value in vars(found).items() if name != "root"} for found in resolve_datasets(data)]


def dataset_notices(data: DataConfig) -> tuple[str, ...]:
    """What is worth saying about keys that have no effect here. Raises ConfigError when the file cannot be read."""
    listed = listed_entries(data)
    if listed is None:
        return ()
    return tuple(notice for entry in listed.entries if not _disabled(entry) for notice in entry_notices(entry))


def listed_entries(data: DataConfig) -> Entries | None:
    """The entries as written, or None when there is no list."""
    if data.datasets:
        return Entries(list(data.datasets), ["datasets"] * len(data.datasets))
    if data.data_backend_config is not None:
        document = read_document(data.data_backend_config)
        raw = document.data
        if isinstance(raw, dict) and set(raw) == {"datasets"}:
            return read_entries(raw["datasets"], document, ("datasets",))
        return read_entries(raw, document)
    return None


def _disabled(entry: DatasetEntry) -> bool:
    return entry.disabled or entry.disable


def _dataset_faults(dataset: Dataset, place: str) -> list[Fault]:
    """What cannot work together in one data set, with the global options that it falls back on."""
    faults = []
    wanted, least, most = dataset.num_frames, dataset.min_frames, dataset.max_frames
    if least < wanted and dataset.bucket_strategy == "aspect_ratio":
        faults.append(
            Fault(
                f"{dataset.id}.video.min_frames",
                f"{least} is below num_frames {wanted}",
                place,
                "leave min_frames out, lower num_frames, or set bucket_strategy resolution_frames",
            )
        )
    if most is not None and most < _floored(least):
        faults.append(
            Fault(f"{dataset.id}.video.max_frames", f"{most} is below {_floored(least)}, so no clip fits", place)
        )
    low, high = dataset.minimum_aspect_ratio, dataset.maximum_aspect_ratio
    if low is not None and high is not None and low > high:
        faults.append(Fault(f"{dataset.id}.minimum_aspect_ratio", f"{low:g} is above the maximum {high:g}", place))
    captions = dataset.captions
    if not captions.instance_prompt:
        if captions.strategy == "instanceprompt":
            problem = "is missing for caption_strategy instanceprompt"
            faults.append(Fault(f"{dataset.id}.instance_prompt", problem, place))
        faults += [
            Fault(f"{dataset.id}.{key}", "needs an instance_prompt", place, f"set instance_prompt, or leave {key} out")
            for key in ("prepend_instance_prompt", "only_instance_prompt")
            if getattr(captions, key)
        ]
    return faults


def _floored(frames: int) -> int:
    """The frames that are used of so many: 8k+1. ``max_frames`` is compared with this, as documented."""
    return (frames - 1) // 8 * 8 + 1


def _settled(data: DataConfig, entry: DatasetEntry, root: Path) -> Dataset:
    """Own value first, then the global option.

    As documented, clips must have ``num_frames`` unless ``min_frames`` says otherwise; where ``num_frames`` is left out
    with ``resolution_frames``, clips are used as long as they are, up to the global ``num_frames``.
    """
    video = entry.video
    num_frames = _first(video.num_frames, data.num_frames)
    as_they_are = video.bucket_strategy == "resolution_frames" and video.num_frames is None
    shortest = min(SHORTEST_CLIP, num_frames) if as_they_are else num_frames
    return Dataset(
        id=entry.id,
        root=root,
        resolution=_first(entry.resolution, data.resolution),
        resolution_type=_first(entry.resolution_type, data.resolution_type),
        minimum_image_size=_first(entry.minimum_image_size, data.minimum_image_size),
        crop=entry.crop,
        crop_style="center" if entry.crop_style == "centre" else entry.crop_style,
        crop_aspect=entry.crop_aspect,
        num_frames=num_frames,
        min_frames=_first(video.min_frames, shortest),
        max_frames=video.max_frames,
        bucket_strategy=video.bucket_strategy,
        frame_interval=video.frame_interval,
        repeats=entry.repeats,
        captions=CaptionRule(
            strategy=_first(entry.caption_strategy, data.caption_strategy),
            instance_prompt=entry.instance_prompt or data.instance_prompt,
            prepend_instance_prompt=_first(entry.prepend_instance_prompt, data.prepend_instance_prompt),
            only_instance_prompt=_first(entry.only_instance_prompt, data.only_instance_prompt),
            disable_multiline_split=_first(entry.disable_multiline_split, data.disable_multiline_split),
        ),
        is_i2v=video.is_i2v,
        window=_first(video.window, data.video_window),
        windows_per_clip=_first(video.windows_per_clip, data.video_windows_per_clip),
        minimum_aspect_ratio=entry.minimum_aspect_ratio,
        maximum_aspect_ratio=entry.maximum_aspect_ratio,
        max_num_samples=entry.max_num_samples,
    )


def _first(own: Value | None, general: Value) -> Value:
    return general if own is None else own


def _folder_alone(data: DataConfig, root: Path) -> Dataset:
    """A folder named by ``--data``: its clips are used as long as they are, up to ``num_frames``."""
    return Dataset(
        id="clips",
        root=root,
        resolution=data.resolution,
        resolution_type=data.resolution_type,
        minimum_image_size=data.minimum_image_size,
        crop=False,
        crop_style="center",
        crop_aspect="preserve",
        num_frames=data.num_frames,
        min_frames=min(SHORTEST_CLIP, data.num_frames),
        max_frames=None,
        bucket_strategy="resolution_frames",
        frame_interval=None,
        repeats=0,
        captions=CaptionRule(
            strategy=data.caption_strategy,
            instance_prompt=data.instance_prompt,
            prepend_instance_prompt=data.prepend_instance_prompt,
            only_instance_prompt=data.only_instance_prompt,
            disable_multiline_split=data.disable_multiline_split,
        ),
        is_i2v=True,
        window=data.video_window,
        windows_per_clip=data.video_windows_per_clip,
        minimum_aspect_ratio=None,
        maximum_aspect_ratio=None,
        max_num_samples=None,
    )
