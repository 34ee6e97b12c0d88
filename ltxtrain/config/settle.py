"""One entry of the list of data sets, every value settled: its own first, then the general one, then the default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ltxtrain.config.caption_rules import caption_rule
from ltxtrain.config.data import CacheConfig, DataConfig
from ltxtrain.config.datasets import CacheRule, CaptionRule, Dataset, Kind, Role, Schedule, TextRule
from ltxtrain.config.entries import AspectWeight, DatasetEntry, VideoSettings
from ltxtrain.config.entry_faults import EntryFaults
from ltxtrain.config.hub_rules import fetched_folder, hub_rule
from ltxtrain.config.option import search_words
from ltxtrain.config.refusals import check_generators

Value = TypeVar("Value")

SHORTEST_CLIP = 9
"""Frames that a clip must have when it is used as long as it is: one latent frame after the first."""


@dataclass(frozen=True)
class Store:
    """A store of prompt embeddings: its entry, and its filters as they were read."""

    entry: DatasetEntry
    filters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fallback:
    """What an entry falls back on. ``eval_kind`` is what eval sets hold: what the train sets hold."""

    data: DataConfig
    cache: CacheConfig
    store: Store | None = None
    eval_kind: Kind = "video"


@dataclass(frozen=True)
class _Frames:
    """The part of a data set that ``video`` decides; as it is, that of a picture."""

    num_frames: int = 1
    min_frames: int = 1
    max_frames: int | None = None
    bucket_strategy: str = "aspect_ratio"
    frame_interval: int | None = None
    is_i2v: bool = False
    window: str = "first"
    windows_per_clip: int = 1
    window_stride: int | None = None
    fps_policy: str = "resample"


def kind_of(entry: DatasetEntry, fallback: Fallback) -> Kind:
    return "image" if entry.dataset_type == "image" else fallback.eval_kind if is_eval(entry) else "video"


def is_eval(entry: DatasetEntry) -> bool:
    return entry.dataset_type == "eval"


def settled(entry: DatasetEntry, fallback: Fallback, found: EntryFaults) -> Dataset:
    """The data set of ``entry``. What is missing or does not fit goes to ``found``."""
    data = fallback.data
    kind = kind_of(entry, fallback)
    role: Role = "eval" if is_eval(entry) else "train"
    check_generators(entry, found)
    hub = hub_rule(entry, kind, found)
    frames = _Frames() if kind == "image" else _frames(entry.video, data)
    with_aspects = entry.crop and entry.crop_aspect in ("closest", "random")
    return Dataset(
        id=entry.id,
        root=_root(entry, fallback.cache.cache_dir, found),
        resolution=_first(entry.resolution, data.resolution),
        resolution_type=_first(entry.resolution_type, data.resolution_type),
        minimum_image_size=_first(entry.minimum_image_size, data.minimum_image_size),
        crop=entry.crop,
        crop_style="center" if entry.crop_style == "centre" else entry.crop_style,
        crop_aspect=entry.crop_aspect,
        repeats=entry.repeats if role == "train" else 0,
        captions=_captions(entry, fallback, found),
        minimum_aspect_ratio=entry.minimum_aspect_ratio,
        maximum_aspect_ratio=entry.maximum_aspect_ratio,
        max_num_samples=entry.max_num_samples,
        kind=kind,
        role=role,
        maximum_image_size=_first(entry.maximum_image_size, data.maximum_image_size),
        target_downsample_size=_first(entry.target_downsample_size, data.target_downsample_size),
        max_upscale_threshold=entry.max_upscale_threshold if with_aspects else None,
        aspects=_aspects(entry) if with_aspects else (),
        batch_size=entry.train_batch_size,
        schedule=_schedule(entry, data) if role == "train" else Schedule(),
        cache=_cache_rule(entry, fallback, role),
        regularisation=entry.is_regularisation_data and role == "train",
        timestep_offset=entry.timestep_sampling_offset if role == "train" else 0.0,
        quarantine=_first(entry.delete_problematic_images, data.delete_problematic_images),
        hub=hub,
        **vars(frames),
    )


def folder_alone(root: Path, fallback: Fallback, found: EntryFaults) -> Dataset:
    """A folder named by ``--data``: its clips are used as long as they are, up to ``num_frames``."""
    entry = DatasetEntry(
        id="clips",
        instance_data_dir=root,
        crop_style="center",
        crop_aspect="preserve",
        video=VideoSettings(bucket_strategy="resolution_frames"),
    )
    return settled(entry, fallback, found)


def _first(own: Value | None, general: Value) -> Value:
    return general if own is None else own


def _frames(video: VideoSettings, data: DataConfig) -> _Frames:
    """As documented, clips must have ``num_frames`` unless ``min_frames`` says otherwise; where ``num_frames`` is left
    out with ``resolution_frames``, clips are used as long as they are, up to the global ``num_frames``."""
    num_frames = _first(video.num_frames, data.num_frames)
    as_they_are = video.bucket_strategy == "resolution_frames" and video.num_frames is None
    shortest = min(SHORTEST_CLIP, num_frames) if as_they_are else num_frames
    window = _first(video.window, data.video_window)
    return _Frames(
        num_frames=num_frames,
        min_frames=_first(video.min_frames, shortest),
        max_frames=video.max_frames,
        bucket_strategy=video.bucket_strategy,
        frame_interval=video.frame_interval,
        is_i2v=video.is_i2v,
        window=window,
        windows_per_clip=_first(video.windows_per_clip, data.video_windows_per_clip),
        window_stride=_first(video.window_stride, data.video_window_stride if window == "all" else None),
        fps_policy=_first(video.fps_policy, data.video_fps_policy),
    )


def _captions(entry: DatasetEntry, fallback: Fallback, found: EntryFaults) -> CaptionRule:
    store = fallback.store
    rule = caption_rule(entry, fallback.data, found)
    if entry.caption_filter_list is None and store is not None:
        return replace(rule, filters=store.filters)
    return rule


def _aspects(entry: DatasetEntry) -> tuple[tuple[float, float], ...]:
    written = entry.crop_aspect_buckets or ()
    return tuple(
        (item.aspect, item.weight) if isinstance(item, AspectWeight) else (float(item), 1 / len(written))
        for item in written
    )


def _schedule(entry: DatasetEntry, data: DataConfig) -> Schedule:
    """Ends of 0 and below mean none, as documented."""
    fades = data.data_backend_sampling == "auto-weighting"
    return Schedule(
        weight=entry.probability,
        start_epoch=max(1, entry.start_epoch),
        start_step=entry.start_step,
        end_epoch=_end(entry.end_epoch),
        end_step=_end(entry.end_step),
        fade_out_step=_end(entry.disable_after_epoch_step) if fades else None,
    )


def _end(written: int | None) -> int | None:
    return written if written is not None and written > 0 else None


def is_redrawn(entry: DatasetEntry) -> bool:
    """Random cuts are drawn anew where that is asked for, and, as documented, where ``crop`` is true."""
    trained = entry.dataset_type in ("video", "image")
    return trained and entry.crop_style == "random" and _first(entry.vae_cache_clear_each_epoch, entry.crop)


def _cache_rule(entry: DatasetEntry, fallback: Fallback, role: Role) -> CacheRule:
    data, cache = fallback.data, fallback.cache
    skipped = {*search_words(data.skip_file_discovery), *search_words(entry.skip_file_discovery)}
    written = not _first(entry.vae_cache_disable, cache.vae_cache_disable)
    ondemand = _first(entry.vae_cache_ondemand, cache.vae_cache_ondemand) or "vae" in skipped
    return CacheRule(
        ondemand=ondemand or not written,
        written=written,
        redrawn=is_redrawn(entry),
        scanned=entry.scan_for_errors,
        batch_size=_first(entry.vae_batch_size, cache.vae_batch_size),
        text=_text_rule(entry, fallback, "text" in skipped),
    )


def _text_rule(entry: DatasetEntry, fallback: Fallback, skipped: bool) -> TextRule:
    """The entry's own value, else its store's, else the general one. A store in memory writes nothing."""
    cache = fallback.cache
    store = fallback.store.entry if fallback.store else entry
    in_memory = store.dataset_type == "text_embeds" and store.type == "memory"
    disabled = _first(_first(entry.text_cache_disable, store.text_cache_disable), cache.text_cache_disable)
    ondemand = _first(_first(entry.text_cache_ondemand, store.text_cache_ondemand), cache.text_cache_ondemand)
    skipped = skipped or "text" in search_words(store.skip_file_discovery)
    size = _first(entry.text_encoder_batch_size, store.text_encoder_batch_size)
    written = not (disabled or in_memory)
    return TextRule(ondemand or skipped or not written, written, _first(size, cache.text_encoder_batch_size))


def _root(entry: DatasetEntry, cache_dir: Path, found: EntryFaults) -> Path:
    """The folder of the clips. A table's clips may lie beside it; a fetched set has its place below the cache."""
    if entry.instance_data_dir is not None:
        return entry.instance_data_dir
    if entry.type == "huggingface":
        return fetched_folder(entry, cache_dir)
    if entry.type == "csv" and entry.csv_file is not None:
        return found.found_file(entry.csv_file, None).parent
    if entry.type == "local":
        found.add("instance_data_dir", "is missing", "name the folder of the clips")
    return Path()
