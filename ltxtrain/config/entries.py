"""One entry of the documented list of data sets, with every documented key (section ``[[datasets]]`` in TOML)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ltxtrain.config.option import Fraction, LocalPath, Section, option


class VideoSettings(Section):
    num_frames: int | None = option(
        None, "Frames of a training video; not set means the global num_frames.", ge=1, le=1025
    )
    min_frames: int | None = option(None, "Leave out clips with fewer frames; not set means num_frames.", ge=1)
    max_frames: int | None = option(None, "Leave out clips with more frames.", ge=1)
    is_i2v: bool = option(True, "Also teach to go on from a first frame.")
    bucket_strategy: Literal["aspect_ratio", "resolution_frames"] = option(
        "aspect_ratio", "Sort clips by ratio, or by size and number of frames."
    )
    frame_interval: int | None = option(None, "With resolution_frames, round frames down to a multiple of this.", ge=1)
    window: Literal["first", "uniform", "all"] | None = option(None, "Which part of a long clip is used.")
    windows_per_clip: int | None = option(None, "How many parts 'uniform' takes from a clip.", ge=1, le=1000)


class DatasetEntry(Section):
    id: str = Field(description="A name of your own, unique in the list.", min_length=1, max_length=80)
    disabled: bool = option(False, "Leave this entry out.")
    disable: bool = option(False, "The same as disabled.")
    type: Literal["local", "aws", "memory", "csv", "huggingface", "webshart"] = option("local", "Where the files are.")
    dataset_type: Literal[
        "image",
        "video",
        "audio",
        "text_embeds",
        "image_embeds",
        "conditioning_image_embeds",
        "conditioning",
        "eval",
        "caption",
    ] = option("video", "What the files are.", documented="image")
    default: bool = option(False, "With text_embeds: the store of validation prompts.")
    instance_data_dir: LocalPath | None = option(None, "The folder of the clips.")
    aws_bucket_name: str | None = option(None, "The bucket of an S3-compatible store.")
    aws_region_name: str | None = option(None, "The region of that store.")
    aws_endpoint_url: str | None = option(None, "The address of that store.")
    aws_data_prefix: str | None = option(None, "The folder in that bucket.")
    cache_dir_vae: str | None = option(None, "Where the guides cache latents; here everything is under cache_dir.")
    cache_dir: str | None = option(None, "Where the guides cache embeddings; here everything is under cache_dir.")
    text_embeds: str | None = option(None, "The text store of this entry.")
    image_embeds: str | None = option(None, "The image store of this entry.")
    conditioning_image_embeds: str | None = option(None, "The conditioning store of this entry.")
    train_batch_size: int | None = option(None, "Clips in one batch of this entry.", ge=1)
    write_batch_size: int | None = option(None, "Cache entries written at once.", ge=1)
    text_encoder_batch_size: int | None = option(None, "Captions encoded at once.", ge=1)
    text_cache_ondemand: bool = option(False, "Encode captions when they are first needed.")
    text_cache_disable: bool = option(False, "Write no cache of captions.")
    vae_batch_size: int | None = option(None, "Clips encoded at once.", ge=1)
    read_batch_size: int | None = option(None, "Files read at once.", ge=1)
    image_processing_batch_size: int | None = option(None, "Pictures prepared at once.", ge=1)
    resolution: float | None = option(None, "The size of training videos.", gt=0, le=8192)
    resolution_type: Literal["pixel", "area", "pixel_area"] | None = option(None, "What resolution means.")
    minimum_image_size: float | None = option(None, "Leave out clips smaller than this.", ge=0)
    maximum_image_size: float | None = option(None, "Shrink clips larger than this before cropping.", gt=0)
    target_downsample_size: float | None = option(None, "The size that such clips are shrunk to.", gt=0)
    minimum_aspect_ratio: float | None = option(None, "Leave out clips narrower than this.", gt=0)
    maximum_aspect_ratio: float | None = option(None, "Leave out clips wider than this.", gt=0)
    max_upscale_threshold: Fraction | None = option(None, "With crop_aspect: how much a clip may be enlarged.")
    crop: bool = option(False, "Cut clips to one shape.")
    crop_style: Literal["random", "center", "centre", "corner", "face"] = option("random", "Where a cut is placed.")
    crop_aspect: Literal["square", "preserve", "closest", "random"] = option("square", "The shape that is cut.")
    crop_aspect_buckets: tuple[float | dict[str, float], ...] | None = option(None, "Ratios for crop_aspect.")
    caption_strategy: (
        Literal["textfile", "filename", "instanceprompt", "parquet", "csv", "huggingface", "webshart"] | None
    ) = option(None, "Where captions come from.")
    instance_prompt: str | None = option(None, "The caption of every clip, or the start of it.")
    prepend_instance_prompt: bool | None = option(None, "Put instance_prompt in front of each caption.")
    only_instance_prompt: bool | None = option(None, "Use instance_prompt instead of captions.")
    disable_multiline_split: bool | None = option(None, "Take a caption file as one caption.")
    caption_shuffle: dict[str, Any] | None = option(None, "Shuffle the tags of captions.")
    caption_filter_list: tuple[str, ...] | str | None = option(None, "Words to take out of captions.")
    caption_dropout_probability: Fraction | None = option(None, "Not per entry; see the global option.")
    metadata_backend: Literal["discovery", "parquet", "huggingface", "webshart"] = option(
        "discovery", "How the sizes of clips are learnt."
    )
    metadata_update_interval: int | None = option(None, "Seconds between writes of the clips' facts.", ge=60)
    repeats: int = option(0, "Extra uses of each clip in an epoch.", ge=0, le=1_000_000)
    probability: float = option(1.0, "The weight of this entry.", ge=0)
    start_epoch: int = option(1, "Use this entry from this epoch on.", ge=0)
    start_step: int = option(0, "Use this entry from this step on.", ge=0)
    end_epoch: int | None = option(None, "Use this entry up to this epoch.")
    end_step: int | None = option(None, "Use this entry up to this step.")
    disable_after_epoch_step: int | None = option(None, "Let this entry fade out until this step.", ge=0)
    max_num_samples: int | None = option(None, "Use at most this many clips, always the same ones.", ge=1)
    is_regularisation_data: bool = option(False, "Hold the model where it was on these clips.")
    slider_strength: float | None = option(None, "The side of a slider that these clips are.")
    timestep_sampling_offset: float = option(0.0, "Move the draw of sigma for these clips.")
    conditioning: tuple[dict[str, Any], ...] | dict[str, Any] | None = option(None, "Conditioning made from the clips.")
    conditioning_data: str | tuple[str, ...] | None = option(None, "The entries that condition this one.")
    conditioning_type: Literal["controlnet", "mask", "segmentation", "reference_strict", "reference_loose"] | None = (
        option(None, "What a conditioning entry is for.")
    )
    source_dataset_id: str | None = option(None, "The entry that this one conditions.")
    video: VideoSettings = option(VideoSettings(), "How clips are cut in time.")
    vae_cache_clear_each_epoch: bool = option(False, "Encode the clips anew in each epoch.")
    vae_cache_ondemand: bool = option(False, "Encode clips when they are first needed.")
    vae_cache_disable: bool = option(False, "Write no cache of latents.")
    scan_for_errors: bool = option(False, "Check each cache entry at the start; here always done when it is read.")
    skip_file_discovery: str | None = option(None, "Which searches for files to leave out.")
    preserve_data_backend_cache: bool = option(False, "Keep lists of files between runs.")
    delete_problematic_images: bool = option(False, "Put clips that cannot be read on a list; nothing is deleted.")
    delete_unwanted_images: bool = option(False, "Put clips that do not fit on a list; nothing is deleted.")
    delete_nsfw_images: bool = option(False, "Put unsafe pictures on a list; nothing is deleted.")
    cache_file_suffix: str | None = option(None, "The end of the guides' file names of facts.")
    hash_filenames: bool = option(True, "Always so.")
    parquet: dict[str, Any] | None = option(None, "A table of clips and captions.")
    huggingface: dict[str, Any] | None = option(None, "A data set on the Hub.")
    csv_file: str | None = option(None, "A table of clips and captions.")
    csv_caption_column: str | None = option(None, "The column of captions.")
    csv_cache_dir: str | None = option(None, "Where downloads of the table are kept.")
    webshart: dict[str, Any] | None = option(None, "A data set of archives.")
    audio: dict[str, Any] | None = option(None, "Sound; for LTX-2.")
    grounding: dict[str, Any] | None = option(None, "Regions in captions.")
