"""The keys of a data set and of its tables as a flat list, for the options list, and what each falls back on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydantic import BaseModel

from ltxtrain.config.catalogue import Option, fields_of, tables_of
from ltxtrain.config.entries import DatasetEntry, HubSettings
from ltxtrain.config.idle_entries import ENTRY_NO_EFFECT, TEXT_STORE
from ltxtrain.config.refusals import CONDITIONING_TYPES, DATASET_TYPES, KEYS, STORES

ENTRY: Final = "datasets"

GENERAL: Final[Mapping[str, str]] = {
    **{
        key: key
        for key in (
            "train_batch_size",
            "text_encoder_batch_size",
            "text_cache_ondemand",
            "text_cache_disable",
            "vae_batch_size",
            "resolution",
            "resolution_type",
            "minimum_image_size",
            "maximum_image_size",
            "target_downsample_size",
            "caption_strategy",
            "instance_prompt",
            "prepend_instance_prompt",
            "only_instance_prompt",
            "disable_multiline_split",
            "vae_cache_ondemand",
            "vae_cache_disable",
            "delete_problematic_images",
        )
    },
    "video.num_frames": "num_frames",
    "video.window": "video_window",
    "video.windows_per_clip": "video_windows_per_clip",
    "video.window_stride": "video_window_stride",
    "video.fps_policy": "video_fps_policy",
}
"""Keys of a data set, each with the general option that holds where the key is not set."""


@dataclass(frozen=True)
class EntryTable:
    """A table of keys: the data set itself, or one in it. ``names`` are those that it may have: ``datasets.video``."""

    names: tuple[str, ...]
    keys: Mapping[str, Option]

    @property
    def title(self) -> str:
        """``[[datasets]]``, or ``[datasets.parquet] or [datasets.jsonl]``, as TOML writes it."""
        return " or ".join(f"[[{name}]]" if name == ENTRY else f"[{name}]" for name in self.names)


@cache
def entry_tables() -> tuple[EntryTable, ...]:
    """The data set and every table in it, each once. Keys that may stand in it or in ``huggingface`` are told there."""
    names: dict[type[BaseModel], list[str]] = {}
    _walk(DatasetEntry, ENTRY, names)
    tables = []
    for model, found in names.items():
        keys = fields_of(model, found[0])
        if model is DatasetEntry:
            keys = {key: option for key, option in keys.items() if key not in HubSettings.model_fields}
        tables.append(EntryTable(tuple(found), keys))
    return tuple(tables)


def _walk(model: type[BaseModel], name: str, names: dict[type[BaseModel], list[str]]) -> None:
    names.setdefault(model, []).append(name)
    for key, table in tables_of(model).items():
        if model is not DatasetEntry or key not in HubSettings.model_fields:
            _walk(table, f"{name}.{key}", names)


def dotted(option: Option) -> str:
    """``video.num_frames``: a key as it is named within its data set."""
    return f"{option.section}.{option.name}".removeprefix(f"{ENTRY}.")


def default_words(option: Option) -> str:
    """What holds where a key is not set: its default, the general option of its kind, or that it must be set."""
    general = GENERAL.get(dotted(option))
    if general is not None:
        return f"as {general}"
    if option.default is None:
        return "not set" if option.optional else "must be set"
    if isinstance(option.default, BaseModel):
        return "its own defaults"
    return str(option.default).lower() if isinstance(option.default, bool) else str(option.default)


def state_of(option: Option) -> str:
    """Whether a key does nothing or is refused, wherever it stands; empty when it is used."""
    if option.name in ENTRY_NO_EFFECT and option.name not in TEXT_STORE:
        return "no effect here"
    built = built_of(option)
    if option.name in (*KEYS, "bbox_column") or (option.choices and built == ()):
        return "refused"
    return "built in part" if built else ""


def built_of(option: Option) -> tuple[str, ...] | None:
    """Of a key whose values are built in part, those that are; None where all are."""
    refused = _REFUSED_VALUES.get(option.name, ())
    known = tuple(str(choice) for choice in option.choices)
    built = tuple(choice for choice in known if choice not in refused)
    return None if built == known else built


_REFUSED_VALUES: Final[Mapping[str, Collection[str]]] = {
    "dataset_type": DATASET_TYPES.keys(),
    "type": STORES.keys() - {"memory"},
    "conditioning_type": CONDITIONING_TYPES.keys(),
    "caption_strategy": {"webshart"},
    "metadata_backend": {"webshart"},
}
