"""The clips that are trained on, and the cache of what is computed from them once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ltxtrain.config.entries import DatasetEntry, EntryStrategy
from ltxtrain.config.option import LARGEST, Fraction, LocalPath, Section, SkipWords, option

CaptionStrategy = EntryStrategy
ResolutionType = Literal["pixel", "area", "pixel_area"]


class DataConfig(Section):
    instance_data_dir: LocalPath | None = option(
        None, "A folder of clips, each with a .txt file of the same name that holds its caption."
    )
    data_backend_config: LocalPath | None = option(None, "The guides' JSON list of data sets.")
    datasets: tuple[DatasetEntry, ...] = option((), "The data sets, as [[datasets]] tables with the guides' keys.")
    resolution: float = option(
        640, "The size of training videos, in the unit of resolution_type.", gt=0, le=8192, documented=1024
    )
    resolution_type: ResolutionType = option(
        "pixel_area",
        "What resolution means: the side of a square of the same area (pixel_area), megapixels (area), "
        "or the short side (pixel).",
    )
    minimum_image_size: float = option(0.0, "Leave out clips smaller than this.", ge=0, le=LARGEST, documented=None)
    maximum_image_size: float | None = option(None, "Shrink clips larger than this before cropping.", gt=0, le=LARGEST)
    target_downsample_size: float | None = option(None, "The size that such clips are shrunk to.", gt=0, le=LARGEST)
    aspect_bucket_rounding: int = option(2, "Decimal places of the ratio that names a bucket.", ge=1, le=9)
    aspect_bucket_alignment: Literal[32, 64] = option(
        32, "Sides of training videos are multiples of this many pixels.", documented=64
    )
    framerate: float = option(25.0, "Clips are resampled to this many frames per second.", gt=0, le=240)
    num_frames: int = option(
        121, "Frames of a training video; rounded down to a multiple of 8, plus 1.", ge=1, le=1025, documented=125
    )
    video_window: Literal["first", "uniform", "all"] = option(
        "first", "Which part of a long clip is used: its start, several parts evenly spread, or all of it."
    )
    video_windows_per_clip: int = option(1, "How many parts 'uniform' takes from a clip.", ge=1, le=1000)
    video_window_stride: int | None = option(
        None,
        "Frames from the start of one part of 'all' to the start of the next; not set means that parts do not overlap.",
        ge=1,
    )
    video_fps_policy: Literal["resample", "as_is"] = option(
        "resample", "Resample clips to framerate, or take every frame whatever the rate is (the guides' way)."
    )
    caption_strategy: CaptionStrategy = option("textfile", "Where captions come from.")
    instance_prompt: str | None = option(None, "The caption of every clip, or the start of it.")
    prepend_instance_prompt: bool = option(False, "Put instance_prompt in front of each caption.")
    only_instance_prompt: bool = option(False, "Use instance_prompt instead of captions.")
    disable_multiline_split: bool = option(False, "Take a caption file as one caption, not one for each line.")
    caption_dropout_probability: Fraction = option(0.1, "How often a caption is replaced by an empty one.")
    train_batch_size: int = option(4, "Clips in one batch, for each GPU.", ge=1, le=4096)
    train_batch_tokens: int = option(
        0, "Fill each batch with clips of so many latent tokens together, instead of train_batch_size; 0 is off.", ge=0
    )
    disable_bucket_pruning: bool = option(False, "Refuse a bucket that is too small instead of leaving it out.")
    allow_dataset_oversubscription: bool = option(False, "Repeat the clips of a bucket that is too small.")
    delete_problematic_images: bool = option(
        False, "Put clips that cannot be read on a list and leave them out. Nothing is ever deleted."
    )
    delete_unwanted_images: bool = option(False, "Put clips that do not fit on a list. Nothing is ever deleted.")
    override_dataset_config: bool = option(False, "Accept changed data sets over an old cache; never needed here.")
    data_backend_sampling: Literal["uniform", "auto-weighting"] = option(
        "auto-weighting", "Draw from data sets evenly, or by their size."
    )
    skip_file_discovery: SkipWords | None = option(
        None, "Which searches to leave out: vae, aspect, metadata, text; several with commas between."
    )
    preserve_data_backend_cache: bool = option(False, "Keep lists of files between runs.")
    metadata_update_interval: int = option(3600, "Seconds between writes of the clips' facts.", ge=60)
    read_batch_size: int = option(25, "Files read at once.", ge=1)
    image_processing_batch_size: int = option(32, "Pictures prepared at once.", ge=1)
    aspect_bucket_worker_count: int = option(12, "Processes that sort clips into buckets.", ge=1)
    max_workers: int = option(32, "Threads that read and write files.", ge=1)
    made_clips: int = option(0, "Make this many short captioned clips when no data is named.", ge=0, le=1000)


class CacheConfig(Section):
    cache_dir: LocalPath = option(Path("cache"), "The folder of latents and prompt embeddings; runs may share it.")
    compress_disk_cache: bool = option(False, "Compress the cache.", documented=True)
    vae_batch_size: int = option(1, "Clips encoded at once by the VAE.", ge=1, documented=4)
    vae_enable_tiling: bool = option(False, "Encode large frames in tiles to save memory.")
    vae_enable_slicing: bool = option(False, "Encode the clips of a batch one by one.")
    vae_enable_framewise_encoding: bool = option(
        False, "Encode, and for validation decode, clips in groups of 17 frames: less memory for long clips."
    )
    vae_enable_patch_conv: bool = option(False, "Compute the VAE's convolutions in patches.")
    vae_enable_temporal_roll: bool = option(False, "Encode long clips piece by piece; for LTX-2.")
    keep_vae_loaded: bool = option(False, "Keep the VAE in memory while training.")
    vae_cache_ondemand: bool = option(False, "Encode clips when they are first needed.")
    vae_cache_disable: bool = option(False, "Encode clips each time and write no cache.")
    vae_cache_scan_behaviour: Literal["recreate", "sync"] = option(
        "recreate", "What to do with entries that do not fit; here they are always made again."
    )
    text_cache_ondemand: bool = option(False, "Encode captions when they are first needed.")
    text_cache_disable: bool = option(False, "Encode captions each time and write no cache.")
    text_encoder_batch_size: int = option(1, "Captions encoded at once.", ge=1)
    write_batch_size: int = option(128, "Cache entries written at once.", ge=1)
