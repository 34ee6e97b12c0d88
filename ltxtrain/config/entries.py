"""One entry of the documented list of data sets, with every documented key (section ``[[datasets]]`` in TOML)."""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from ltxtrain.config.option import LARGEST, Fraction, LocalPath, Section, SkipWords, option

_ID_SIGNS = frozenset("-_. ")


def _plain_id(text: str) -> str:
    """An id is shown, and stands in names of files."""
    if text.startswith(".") or not all(sign in _ID_SIGNS or unicodedata.category(sign)[0] in "LMN" for sign in text):
        raise ValueError("an id is letters, digits, - _ . and spaces, and does not start with a dot")
    return text


EntryId = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_plain_id)]
Columns = tuple[str, ...] | str
TableStrategy = Literal["parquet", "csv", "jsonl", "huggingface", "webshart"]
EntryStrategy = Literal["textfile", "filename", "instanceprompt"] | TableStrategy


class VideoSettings(Section):
    num_frames: int | None = option(
        None, "Frames of a training video; not set means the global num_frames.", ge=1, le=1025, documented=125
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
    window_stride: int | None = option(
        None, "Frames from the start of one part of 'all' to the next; not set means that parts do not overlap.", ge=1
    )
    fps_policy: Literal["resample", "as_is"] | None = option(None, "Resample clips to framerate, or take every frame.")


class ShuffleSettings(Section):
    enable: bool = option(False, "Whether tags are shuffled.")
    count: int = option(1, "Shuffled copies of each caption.", ge=1, le=100)
    seed: int | None = option(None, "The seed of the shuffle; not set means the run's.", ge=0, le=2**63 - 1)
    split_on: Literal["comma", "space", "period"] = option("comma", "What stands between tags.")
    position_start: int = option(0, "Tags before this one keep their places.", ge=0)
    include_original: bool = option(True, "Keep the caption as it was, too.")


class TableSettings(Section):
    """A table with one row for each clip. ``bbox_column`` is documented and refused."""

    path: LocalPath = Field(description="The file: .parquet, .jsonl or .csv.")
    filename_column: str | None = option(None, "The column that names the clip.", min_length=1)
    caption_column: Columns | None = option(None, "The column of the caption; several are alternatives.")
    fallback_caption_column: str | None = option(None, "The column that is read where that one is empty.")
    width_column: str | None = option(None, "The column of the width in pixels.")
    height_column: str | None = option(None, "The column of the height in pixels.")
    identifier_includes_extension: bool = option(True, "Whether the names in the table end in .mp4 and the like.")
    bbox_column: str | None = option(None, "The column of regions; not for LTX-Video.")


class RowFilter(Section):
    """``filter_func``: which rows of a ``datasets`` set are used."""

    quality_thresholds: dict[str, float] | None = option(None, "The least value of each quality.")
    quality_column: str | None = option(None, "The column that holds the qualities.")
    collection: Columns | None = option(None, "Only rows of this collection, or of these.")
    min_width: int | None = option(None, "Only rows that are at least this wide.", ge=1)
    min_height: int | None = option(None, "Only rows that are at least this high.", ge=1)


class HubSettings(Section):
    """A set of the ``datasets`` library. These keys may stand in the entry itself or in its ``huggingface`` table."""

    dataset_name: str | None = option(None, "The set's name on the Hub, or its folder.", min_length=1)
    split: str | None = option(None, "The part of the set; not set means train.", min_length=1)
    revision: str | None = option(None, "The branch, tag or commit of the set.", min_length=1)
    image_column: str | None = option(None, "The column of pictures.")
    video_column: str | None = option(None, "The column of videos.")
    caption_column: Columns | None = option(None, "The column of the caption; several are alternatives.")
    fallback_caption_column: str | None = option(None, "The column that is read where that one is empty.")
    width_column: str | None = option(None, "The column of the width in pixels.")
    height_column: str | None = option(None, "The column of the height in pixels.")
    filter_func: RowFilter | None = option(None, "Which rows are used.")
    num_proc: int | None = option(None, "Processes that filter rows.", ge=1, documented=16)
    streaming: bool = option(False, "Read rows from the network while training.")


class AspectWeight(Section):
    aspect: Annotated[float, Field(gt=0, le=100)]
    weight: Annotated[float, Field(ge=0, le=1)]


def _checked_aspects(raw: object) -> object:
    """A list of ratios above 0, or of {aspect, weight} whose weights sum to 1. Raises ValueError."""
    if not isinstance(raw, (list, tuple)):
        return raw
    if not raw:
        raise ValueError("the list of ratios is empty")
    try:
        items = TypeAdapter(tuple[AspectWeight, ...] | tuple[Ratio, ...]).validate_python(raw)
    except ValidationError:
        words = "write ratios above 0 such as [1.0, 1.78], or [{aspect, weight}, ...] with weights from 0 to 1"
        raise ValueError(words) from None
    weights = [item.weight for item in items if isinstance(item, AspectWeight)]
    if weights and not math.isclose(sum(weights), 1, abs_tol=1e-3):
        raise ValueError(f"the weights sum to {sum(weights):g}, not to 1")
    return items


Ratio = Annotated[float, Field(gt=0, le=100)]
Aspects = Annotated[tuple[Ratio | AspectWeight, ...], BeforeValidator(_checked_aspects)]


class DatasetEntry(HubSettings):
    id: EntryId = Field(
        description="A name of your own, unique in the list: letters, digits, - _ . and spaces, no dot in front."
    )
    disabled: bool = option(False, "Leave this entry out.")
    disable: bool = option(False, "The same as disabled.")
    type: Literal["local", "aws", "memory", "csv", "huggingface", "webshart"] = option(
        "local", "Where the files are; memory is for text_embeds."
    )
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
    ] = option("video", "What the files are; eval holds out clips of the kind that is trained on.", documented="image")
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
    write_batch_size: int | None = option(None, "Cache entries written at once.", ge=1, documented=128)
    text_encoder_batch_size: int | None = option(None, "Captions encoded at once.", ge=1, documented=1)
    text_cache_ondemand: bool | None = option(None, "Encode captions when they are first needed.")
    text_cache_disable: bool | None = option(None, "Write no cache of captions.")
    vae_batch_size: int | None = option(None, "Clips encoded at once.", ge=1, documented=1)
    read_batch_size: int | None = option(None, "Files read at once.", ge=1, documented=1)
    image_processing_batch_size: int | None = option(None, "Pictures prepared at once.", ge=1, documented=1)
    resolution: float | None = option(None, "The size of training videos.", gt=0, le=8192)
    resolution_type: Literal["pixel", "area", "pixel_area"] | None = option(None, "What resolution means.")
    minimum_image_size: float | None = option(None, "Leave out clips smaller than this.", ge=0, le=LARGEST)
    maximum_image_size: float | None = option(None, "Shrink clips larger than this before cropping.", gt=0, le=LARGEST)
    target_downsample_size: float | None = option(None, "The size that such clips are shrunk to.", gt=0, le=LARGEST)
    minimum_aspect_ratio: float | None = option(None, "Leave out clips narrower than this.", gt=0)
    maximum_aspect_ratio: float | None = option(None, "Leave out clips wider than this.", gt=0)
    max_upscale_threshold: Fraction | None = option(
        None, "With crop_aspect closest and random: how much a clip may be enlarged."
    )
    crop: bool = option(False, "Cut clips to one shape.")
    crop_style: Literal["random", "center", "centre", "corner", "face"] = option(
        "random", "Where a cut is placed; with crop false too, where a clip does not fit its size."
    )
    crop_aspect: Literal["square", "preserve", "closest", "random"] = option("square", "The shape that is cut.")
    crop_aspect_buckets: Aspects | None = option(
        None, "Ratios for crop_aspect closest and random, alone or as {aspect, weight}."
    )
    caption_strategy: EntryStrategy | None = option(None, "Where captions come from.")
    instance_prompt: str | None = option(None, "The caption of every clip, or the start of it.")
    prepend_instance_prompt: bool | None = option(None, "Put instance_prompt in front of each caption.")
    only_instance_prompt: bool | None = option(None, "Use instance_prompt instead of captions.")
    disable_multiline_split: bool | None = option(None, "Take a caption file as one caption.")
    caption_shuffle: ShuffleSettings | None = option(None, "Shuffle the tags of captions.")
    caption_filter_list: tuple[str, ...] | str | None = option(
        None, "Words, regular expressions and s/search/replace/ that change captions: a list, or a file of lines."
    )
    caption_dropout_probability: Fraction | None = option(None, "Not per entry; see the global option.")
    metadata_backend: Literal["discovery", "parquet", "huggingface", "webshart"] = option(
        "discovery", "How the sizes of clips are learnt."
    )
    metadata_update_interval: int | None = option(
        None, "Seconds between writes of the clips' facts.", ge=60, documented=3600
    )
    repeats: int = option(0, "Extra uses of each clip in an epoch: 1 means twice.", ge=0, le=LARGEST)
    probability: float = option(1.0, "The weight of this entry.", ge=0, le=LARGEST)
    start_epoch: int = option(1, "Use this entry from this epoch on.", ge=0)
    start_step: int = option(0, "Use this entry from this step on.", ge=0)
    end_epoch: int | None = option(None, "Use this entry up to this epoch.")
    end_step: int | None = option(None, "Use this entry up to this step.")
    disable_after_epoch_step: int | None = option(None, "Let this entry fade out until this step.")
    max_num_samples: int | None = option(None, "Use at most this many clips, always the same ones.", ge=1)
    is_regularisation_data: bool = option(False, "Hold the model where it was on these clips.")
    slider_strength: float | None = option(None, "The side of a slider that these clips are.")
    timestep_sampling_offset: float = option(0.0, "Move the draw of sigma for these clips.")
    conditioning: tuple[dict[str, Any], ...] | dict[str, Any] | None = option(
        None, "Only {type = i2v_first_frame}, which is what video.is_i2v says."
    )
    conditioning_data: str | tuple[str, ...] | None = option(None, "The entries that condition this one.")
    conditioning_type: Literal["controlnet", "mask", "segmentation", "reference_strict", "reference_loose"] | None = (
        option(None, "What a conditioning entry is for.")
    )
    source_dataset_id: str | None = option(None, "The entry that this one conditions.")
    video: VideoSettings = option(VideoSettings(), "How clips are cut in time.")
    vae_cache_clear_each_epoch: bool | None = option(
        None, "Draw random cuts anew in each epoch and encode the clips again; not set means so where crop is true."
    )
    vae_cache_ondemand: bool | None = option(None, "Encode clips when they are first needed.")
    vae_cache_disable: bool | None = option(None, "Write no cache of latents.")
    scan_for_errors: bool = option(False, "Read each cache entry whole at the start, not only when it is needed.")
    skip_file_discovery: SkipWords | None = option(
        None, "Which searches to leave out: vae, aspect, metadata, text; several with commas between."
    )
    preserve_data_backend_cache: bool = option(False, "Keep lists of files between runs.")
    delete_problematic_images: bool | None = option(None, "Put unreadable clips on a list; nothing is deleted.")
    delete_unwanted_images: bool = option(False, "Put clips that do not fit on a list; nothing is deleted.")
    delete_nsfw_images: bool = option(False, "Put unsafe pictures on a list; nothing is deleted.")
    cache_file_suffix: str | None = option(None, "The end of the guides' file names of facts.")
    hash_filenames: bool = option(True, "Names of cache entries are digests, always.")
    parquet: TableSettings | None = option(None, "A table of clips and captions.")
    jsonl: TableSettings | None = option(None, "The same as lines of JSON: a file, or a table of the same keys.")
    huggingface: HubSettings | None = option(None, "A data set on the Hub.")
    csv_file: LocalPath | None = option(None, "A table of clips and captions.")
    csv_caption_column: str | None = option(None, "The column of captions.")
    csv_cache_dir: str | None = option(None, "Where downloads of the table are kept.")
    webshart: dict[str, Any] | None = option(None, "A data set of archives.")
    audio: dict[str, Any] | None = option(None, "Sound; for LTX-2.")
    grounding: dict[str, Any] | None = option(None, "Regions in captions.")
