"""From ``DataConfig`` to the data sets of the run, with every value settled."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from ltxtrain.config.data import DataConfig
from ltxtrain.config.datasets import VideoDataset
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.read_entries import Entries, read_entries
from ltxtrain.config.text import read_document
from ltxtrain.config.unbuilt import unbuilt_entry_faults
from ltxtrain.errors import ConfigError, DataError, Fault

Value = TypeVar("Value")

SHORTEST_CLIP = 9
"""Frames that a clip must have when only a folder is named: one latent frame after the first."""


def resolve_datasets(data: DataConfig) -> tuple[VideoDataset, ...]:
    """The video data sets that ``data`` names: its ``datasets``, its file, or its folder.

    Raises ConfigError for a list that is wrong, DataError when no data is named or nothing is left to train on.
    """
    listed = listed_entries(data)
    if listed is None:
        if data.instance_data_dir is None:
            raise DataError("no clips are named", hint="say --data FOLDER, a folder of clips with a .txt beside each")
        return (_folder_alone(data, data.instance_data_dir),)
    faults = [*listed.faults, *_entry_faults(listed)]
    if faults:
        raise ConfigError(faults)
    datasets = tuple(_settled(data, entry) for entry in listed.entries if _is_used(entry))
    if not datasets:
        raise DataError(
            "no data set is left to train on", hint="give one entry of dataset_type video that is not disabled"
        )
    return datasets


def dataset_notices(data: DataConfig) -> tuple[str, ...]:
    """What is worth saying about keys that have no effect here. Raises ConfigError when the file cannot be read."""
    listed = listed_entries(data)
    if listed is None:
        return ()
    return tuple(notice for entry in listed.entries if not _disabled(entry) for notice in _entry_notices(entry))


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


def _is_used(entry: DatasetEntry) -> bool:
    return entry.dataset_type == "video" and not _disabled(entry)


def _entry_faults(listed: Entries) -> list[Fault]:
    faults: list[Fault] = []
    for entry, place in zip(listed.entries, listed.places, strict=True):
        if _disabled(entry):
            continue
        faults += unbuilt_entry_faults(entry, place)
        if entry.dataset_type == "video":
            faults += _video_faults(entry, place)
    return faults


def _video_faults(entry: DatasetEntry, place: str) -> list[Fault]:
    faults = []
    video = entry.video
    if entry.instance_data_dir is None and entry.type == "local":
        faults.append(Fault(f"{entry.id}.instance_data_dir", "is missing", place, "name the folder of the clips"))
    if video.min_frames is not None and video.num_frames is not None and video.min_frames < video.num_frames:
        faults.append(
            Fault(
                f"{entry.id}.video.min_frames",
                f"{video.min_frames} is below num_frames {video.num_frames}",
                place,
                "leave min_frames out, or lower num_frames",
            )
        )
    lowest = video.min_frames or video.num_frames
    if video.max_frames is not None and lowest is not None and video.max_frames < lowest:
        faults.append(
            Fault(f"{entry.id}.video.max_frames", f"{video.max_frames} is below {lowest}, so no clip fits", place)
        )
    low, high = entry.minimum_aspect_ratio, entry.maximum_aspect_ratio
    if low is not None and high is not None and low > high:
        faults.append(Fault(f"{entry.id}.minimum_aspect_ratio", f"{low:g} is above the maximum {high:g}", place))
    if entry.caption_strategy == "instanceprompt" and not entry.instance_prompt:
        faults.append(Fault(f"{entry.id}.instance_prompt", "is missing for caption_strategy instanceprompt", place))
    return faults


def _settled(data: DataConfig, entry: DatasetEntry) -> VideoDataset:
    video = entry.video
    num_frames = video.num_frames if video.num_frames is not None else data.num_frames
    assert entry.instance_data_dir is not None
    return VideoDataset(
        id=entry.id,
        root=entry.instance_data_dir,
        resolution=_first(entry.resolution, data.resolution),
        resolution_type=_first(entry.resolution_type, data.resolution_type),
        minimum_image_size=_first(entry.minimum_image_size, data.minimum_image_size),
        crop=entry.crop,
        crop_style="center" if entry.crop_style == "centre" else entry.crop_style,
        crop_aspect=entry.crop_aspect,
        num_frames=num_frames,
        min_frames=_first(video.min_frames, num_frames),
        max_frames=video.max_frames,
        bucket_strategy=video.bucket_strategy,
        frame_interval=video.frame_interval,
        repeats=entry.repeats,
        caption_strategy=_first(entry.caption_strategy, data.caption_strategy),
        instance_prompt=entry.instance_prompt or data.instance_prompt,
        prepend_instance_prompt=_first(entry.prepend_instance_prompt, data.prepend_instance_prompt),
        only_instance_prompt=_first(entry.only_instance_prompt, data.only_instance_prompt),
        disable_multiline_split=_first(entry.disable_multiline_split, data.disable_multiline_split),
        is_i2v=video.is_i2v,
        window=_first(video.window, data.video_window),
        windows_per_clip=_first(video.windows_per_clip, data.video_windows_per_clip),
        minimum_aspect_ratio=entry.minimum_aspect_ratio,
        maximum_aspect_ratio=entry.maximum_aspect_ratio,
        max_num_samples=entry.max_num_samples,
    )


def _first(own: Value | None, general: Value) -> Value:
    return general if own is None else own


def _folder_alone(data: DataConfig, root: Path) -> VideoDataset:
    """A folder named by ``--data``: its clips are used as long as they are, up to ``num_frames``."""
    return VideoDataset(
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
        caption_strategy=data.caption_strategy,
        instance_prompt=data.instance_prompt,
        prepend_instance_prompt=data.prepend_instance_prompt,
        only_instance_prompt=data.only_instance_prompt,
        disable_multiline_split=data.disable_multiline_split,
        is_i2v=True,
        window=data.video_window,
        windows_per_clip=data.video_windows_per_clip,
        minimum_aspect_ratio=None,
        maximum_aspect_ratio=None,
        max_num_samples=None,
    )


_OWN_CACHE = "caches are keyed by content and lie under cache_dir"
_NO_EFFECT = {
    "cache_dir_vae": _OWN_CACHE,
    "cache_dir": _OWN_CACHE,
    "write_batch_size": "entries are written as they are made",
    "cache_file_suffix": "facts about clips are not written beside them",
    "metadata_update_interval": "facts about clips are not written beside them",
    "preserve_data_backend_cache": "folders are always read anew",
    "skip_file_discovery": "folders are always read anew",
    "scan_for_errors": "each cache entry is checked when it is read",
    "caption_dropout_probability": "it is a global option",
    "text_embeds": "there is one store of prompt embeddings",
}


def _entry_notices(entry: DatasetEntry) -> list[str]:
    notices = [
        f"data set {entry.id}: {key} has no effect: {reason}"
        for key, reason in _NO_EFFECT.items()
        if key in entry.model_fields_set
    ]
    if not entry.crop and {"maximum_image_size", "target_downsample_size"} & entry.model_fields_set:
        notices.append(
            f"data set {entry.id}: maximum_image_size and target_downsample_size have no effect while crop is false"
        )
    return notices
