"""Keys of the list of data sets that are accepted and do nothing there, each told with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import BaseModel

from ltxtrain.config.caption_rules import TABLES, strategy_of
from ltxtrain.config.data import DataConfig
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.hub_rules import FLAT_KEYS
from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.config.option import search_words
from ltxtrain.config.settle import is_redrawn

_OWN_CACHE = "caches are keyed by content and lie under cache_dir"
_NO_FACTS = "facts about clips are not written beside them"
_READ_ANEW = "folders are always read anew"
_IN_TURN = "clips are read and prepared ahead of their use, as far as memory allows"
_LOCAL = "the clips are files of this machine"
_LISTED = "clips that are left out are listed in dataset.jsonl, and no file is ever deleted"

ENTRY_NO_EFFECT: Final[Mapping[str, str]] = {
    "default": "it belongs to a text_embeds entry",
    "cache_dir_vae": _OWN_CACHE,
    "cache_dir": _OWN_CACHE,
    "write_batch_size": "it is a global option",
    "read_batch_size": _IN_TURN,
    "image_processing_batch_size": _IN_TURN,
    "cache_file_suffix": _NO_FACTS,
    "metadata_update_interval": _NO_FACTS,
    "preserve_data_backend_cache": _READ_ANEW,
    "hash_filenames": "caches are keyed by content",
    "delete_unwanted_images": _LISTED,
    "caption_dropout_probability": "it is a global option",
    "aws_bucket_name": _LOCAL,
    "aws_region_name": _LOCAL,
    "aws_endpoint_url": _LOCAL,
    "aws_data_prefix": _LOCAL,
    "csv_cache_dir": "nothing is downloaded for a table",
    "num_proc": "rows are read one after the other",
}
"""Keys that do nothing in any entry, each with the reason."""

TEXT_STORE: Final = frozenset(
    {
        "id",
        "disabled",
        "disable",
        "dataset_type",
        "default",
        "type",
        "text_encoder_batch_size",
        "text_cache_ondemand",
        "text_cache_disable",
        "caption_filter_list",
        "skip_file_discovery",
    }
)
"""Keys that do something in a ``text_embeds`` entry."""

_NOT_FOR_EVAL: Final = (
    "repeats",
    "probability",
    "start_epoch",
    "start_step",
    "end_epoch",
    "end_step",
    "disable_after_epoch_step",
    "is_regularisation_data",
    "timestep_sampling_offset",
    "vae_cache_clear_each_epoch",
)

TRUSTED_SEARCHES: Final = {
    "metadata": "facts of clips are remembered by size and time, which are always looked at",
    "aspect": "buckets are worked out from those facts, which is quick",
}
"""Words of ``skip_file_discovery`` that do nothing here."""


def entry_notices(entry: DatasetEntry, data: DataConfig, objective: ObjectiveConfig) -> list[str]:
    """One notice for each reason why keys of ``entry`` do nothing. Keys that say what holds anyway are passed over."""
    grouped: dict[str, list[str]] = {}
    for key, reason in idle_keys(entry, data, objective).items():
        grouped.setdefault(reason, []).append(key)
    notices = [
        f"data set {entry.id}: {', '.join(keys)} {'has' if len(keys) == 1 else 'have'} no effect: {reason}"
        for reason, keys in grouped.items()
    ]
    if entry.dataset_type in ("video", "image") and entry.probability == 0:
        notices.append(f"data set {entry.id} is never drawn from: its probability is 0")
    if is_redrawn(entry) and entry.vae_cache_clear_each_epoch is None:
        notices.append(
            f"data set {entry.id}: its random cuts are drawn anew in each epoch, so its clips are encoded anew too; "
            "vae_cache_clear_each_epoch false keeps them"
        )
    return notices


def idle_keys(entry: DatasetEntry, data: DataConfig, objective: ObjectiveConfig) -> dict[str, str]:
    """The keys of ``entry`` that are set and do nothing, each with the reason."""
    given = _given(entry, "") | _given(entry.video, "video.")
    if entry.huggingface is not None:
        given |= _given(entry.huggingface, "huggingface.")
    if entry.dataset_type == "text_embeds":
        reasons = {key: "a text_embeds entry holds no clips" for key in type(entry).model_fields} | dict(
            ENTRY_NO_EFFECT
        )
        reasons = {key: reason for key, reason in reasons.items() if key not in TEXT_STORE}
    else:
        reasons = dict(ENTRY_NO_EFFECT) | _by_source(entry, data) | _by_crop(entry)
        reasons |= _by_objective(objective) | _by_type(entry, data)
    idle = {key: reason for key, reason in reasons.items() if key in given}
    return idle | _idle_words(entry)


def _given(table: BaseModel, prefix: str) -> set[str]:
    fields = type(table).model_fields
    return {f"{prefix}{key}" for key in fields if getattr(table, key) != fields[key].default}


def _by_source(entry: DatasetEntry, data: DataConfig) -> dict[str, str]:
    """Keys of tables and fetched sets that are not where the clips and captions come from."""
    strategy = strategy_of(entry, data)
    reasons = {key: f"captions are taken by {strategy}" for other, key in TABLES.items() if other != strategy}
    if strategy != "csv":
        reasons["csv_caption_column"] = f"captions are taken by {strategy}"
    if entry.type != "huggingface":
        reasons |= dict.fromkeys(("huggingface", *FLAT_KEYS), f"type is {entry.type}")
    else:
        reasons |= _by_column(entry)
    if entry.metadata_backend not in (strategy, entry.type):
        reasons["metadata_backend"] = "sizes are read from the clips themselves"
    alone = data.only_instance_prompt if entry.only_instance_prompt is None else entry.only_instance_prompt
    if alone or strategy == "instanceprompt":
        reasons |= dict.fromkeys(("caption_shuffle", "caption_filter_list"), "every caption is instance_prompt alone")
    elif entry.caption_shuffle is not None and not entry.caption_shuffle.enable:
        reasons["caption_shuffle"] = "its enable is false"
    return reasons


def _by_column(entry: DatasetEntry) -> dict[str, str]:
    """The column of the other kind of clips, in the entry or in its ``huggingface`` table."""
    reasons = {"huggingface.num_proc": ENTRY_NO_EFFECT["num_proc"]}
    others = {"video": ("image_column", "videos"), "image": ("video_column", "pictures")}
    if entry.dataset_type in others:
        column, kind = others[entry.dataset_type]
        reasons |= dict.fromkeys((column, f"huggingface.{column}"), f"the set holds {kind}")
    return reasons


def _by_crop(entry: DatasetEntry) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if not entry.crop:
        reasons |= dict.fromkeys(("crop_aspect", "crop_aspect_buckets", "max_upscale_threshold"), "crop is false")
    elif entry.crop_aspect not in ("closest", "random"):
        keys = ("crop_aspect_buckets", "max_upscale_threshold")
        reasons |= dict.fromkeys(keys, f"crop_aspect is {entry.crop_aspect}")
    if entry.vae_cache_clear_each_epoch and entry.crop_style != "random":
        reasons["vae_cache_clear_each_epoch"] = f"cuts are not random: crop_style is {entry.crop_style}"
    return reasons


def _by_objective(objective: ObjectiveConfig) -> dict[str, str]:
    """Keys that change draws which the objective does not make."""
    reasons: dict[str, str] = {}
    for schedule in ("flow_use_uniform_schedule", "flow_use_beta_schedule"):
        if getattr(objective, schedule):
            reasons["timestep_sampling_offset"] = f"{schedule} is true, and the offset is that of the normal draw"
    first_frames = ("conditioning", "video.is_i2v")
    if objective.ltx_train_mode == "t2v":
        reasons |= dict.fromkeys(first_frames, "ltx_train_mode is t2v: no first frame is given")
    elif objective.ltx_i2v_prob == 0:
        reasons |= dict.fromkeys(first_frames, "ltx_i2v_prob is 0: no first frame is given")
    return reasons


def _by_type(entry: DatasetEntry, data: DataConfig) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if entry.dataset_type == "eval":
        reasons |= dict.fromkeys(("conditioning", "video.is_i2v"), "no first frame is given while measuring")
        reasons |= dict.fromkeys(_NOT_FOR_EVAL, "an eval set is measured, not trained on")
    elif data.data_backend_sampling == "uniform":
        reasons["disable_after_epoch_step"] = "data_backend_sampling is uniform"
    if entry.dataset_type == "image":
        reasons |= dict.fromkeys(("video", "conditioning"), "a picture is one frame")
    if entry.maximum_image_size is None and data.maximum_image_size is None:
        reasons["target_downsample_size"] = "maximum_image_size is not set"
    return reasons


def _idle_words(entry: DatasetEntry) -> dict[str, str]:
    """Words of ``skip_file_discovery`` without an effect."""
    return {
        f"skip_file_discovery {word}": reason for word, reason in idle_words(search_words(entry.skip_file_discovery))
    }


def idle_words(words: Iterable[str]) -> list[tuple[str, str]]:
    return [(word, TRUSTED_SEARCHES[word]) for word in words if word in TRUSTED_SEARCHES]
