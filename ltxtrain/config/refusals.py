"""Documented keys of a data set that are refused: each by name, with the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.entry_faults import EntryFaults
from ltxtrain.config.secrets import shown
from ltxtrain.config.suggest import nearest

Reason = tuple[str, str]  # what is wrong, what to do

_NO_INPUT = "LTX-Video has no such input"
_FIRST_FRAME = "leave it out; first frames are taught by video.is_i2v"
_EMBEDS = ("LTX-Video takes no embeddings of pictures", "leave it out")
_SHARDS: Final = ("archives of webshart are not read", "unpack them into a folder, and set type to local")

DATASET_TYPES: Final[Mapping[str, Reason]] = {
    "audio": ("LTX-Video has no sound", "leave this entry out, or set disabled"),
    "image_embeds": _EMBEDS,
    "conditioning_image_embeds": _EMBEDS,
    "conditioning": (f"{_NO_INPUT}: no data set can condition another", _FIRST_FRAME),
    "caption": ("captions alone are nothing to train on", "put them beside clips, or into a table that names clips"),
}

CONDITIONING_TYPES: Final[Mapping[str, Reason]] = {
    "mask": ("LTX-Video cannot train with a masked loss", "leave it out"),
    "segmentation": ("LTX-Video cannot train with a masked loss", "leave it out"),
    "controlnet": ("there is no ControlNet for LTX-Video", "leave this entry out, or set disabled"),
    "reference_strict": ("LTX-Video takes no reference videos", "leave this entry out, or set disabled"),
    "reference_loose": ("LTX-Video takes no reference videos", "leave this entry out, or set disabled"),
}

STORES: Final[Mapping[str, Reason]] = {
    "aws": (
        "files in a bucket are not read",
        "mount it as a folder, by rclone or s3fs, or copy it; then set type to local",
    ),
    "webshart": _SHARDS,
    "memory": ("clips cannot lie in memory", "set type to local; memory is for text_embeds"),
}

TEXT_STORES: Final[Mapping[str, Reason]] = {
    kind: (f"a store of prompt embeddings cannot be {kind}", "set type to local or memory")
    for kind in ("aws", "csv", "huggingface", "webshart")
}

KEYS: Final[Mapping[str, Reason]] = {
    "image_embeds": _EMBEDS,
    "conditioning_image_embeds": _EMBEDS,
    "conditioning_data": (f"{_NO_INPUT}: no data set can condition another", _FIRST_FRAME),
    "source_dataset_id": (f"{_NO_INPUT}: no data set can condition another", _FIRST_FRAME),
    "webshart": _SHARDS,
    "audio": ("LTX-Video has no sound", "leave it out"),
    "grounding": ("LTX-Video knows no regions in captions", "leave it out"),
    "delete_nsfw_images": ("nothing here can tell which clips are unsafe", "leave it out"),
    "slider_strength": ("sliders are not built yet", "leave it out"),
    "streaming": ("rows are not read from the network while training", "leave it out: the set is fetched once"),
}
"""Refused when they are set to anything."""

GENERATORS: Final = (
    "superresolution",
    "jpeg_artifacts",
    "depth",
    "depth_midas",
    "random_masks",
    "inpainting",
    "canny",
    "edges",
    "sdr",
    "logc3_sdr",
)
FIRST_FRAME: Final = "i2v_first_frame"


def refuse(entry: DatasetEntry, found: EntryFaults) -> bool:
    """Add the faults of ``entry``. True: the entry as a whole is refused, and there is no point in reading on."""
    if entry.conditioning_type is not None:
        problem, suggestion = CONDITIONING_TYPES[entry.conditioning_type]
        found.add("conditioning_type", problem, suggestion)
        return True
    if entry.dataset_type in DATASET_TYPES:
        problem, suggestion = DATASET_TYPES[entry.dataset_type]
        found.add("dataset_type", f"{entry.dataset_type}: {problem}", suggestion)
        return True
    stores = TEXT_STORES if entry.dataset_type == "text_embeds" else STORES
    if entry.type in stores:
        problem, suggestion = stores[entry.type]
        found.add("type", f"{entry.type}: {problem}", suggestion)
    if entry.dataset_type == "text_embeds":
        return False
    for key, (problem, suggestion) in KEYS.items():
        if getattr(entry, key) != type(entry).model_fields[key].default:
            found.add(key, problem, suggestion)
    for key in ("caption_strategy", "metadata_backend"):
        if getattr(entry, key) == "webshart":
            found.add(key, *_SHARDS)
    for name in ("parquet", "jsonl"):
        if getattr(entry, name) is not None and getattr(entry, name).bbox_column is not None:
            found.add(f"{name}.bbox_column", *KEYS["grounding"])
    if entry.huggingface is not None and entry.huggingface.streaming:
        found.add("huggingface.streaming", *KEYS["streaming"])
    return False


def check_generators(entry: DatasetEntry, found: EntryFaults) -> None:
    """``conditioning`` may ask for first frames, as ``video.is_i2v`` does. Other generators are refused by name."""
    asked = False
    for generator in _generators(entry):
        kind = generator.get("type")
        if kind == FIRST_FRAME:
            asked = True
        elif kind in GENERATORS:
            found.add("conditioning", f"{kind}: {_NO_INPUT}", f"leave it out; built: {FIRST_FRAME}")
        elif kind is None:
            found.add("conditioning", "has no type", f"write type {FIRST_FRAME}")
        else:
            near = nearest(str(kind), (*GENERATORS, FIRST_FRAME))
            meant = f"did you mean {near}?" if near else f"built: {FIRST_FRAME}"
            found.add("conditioning", f"{shown('type', kind)} is no generator", meant)
    if asked and not entry.video.is_i2v:
        found.add("video.is_i2v", f"is false, but conditioning asks for {FIRST_FRAME}", "leave one of them out")


def _generators(entry: DatasetEntry) -> Iterator[Mapping[str, Any]]:
    if isinstance(entry.conditioning, tuple):
        yield from entry.conditioning
    elif entry.conditioning is not None:
        yield entry.conditioning
