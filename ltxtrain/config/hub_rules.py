"""A data set of the ``datasets`` library, from keys that stand in the entry or in its ``huggingface`` table."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from ltxtrain.config.caption_rules import columns
from ltxtrain.config.datasets import HubRule, Kind
from ltxtrain.config.entries import DatasetEntry, HubSettings
from ltxtrain.config.entry_faults import EntryFaults

FLAT_KEYS = tuple(HubSettings.model_fields)


def hub_rule(entry: DatasetEntry, kind: Kind, found: EntryFaults) -> HubRule | None:
    """What ``type: huggingface`` reads; None for another type, and for a set without a name, which is a fault."""
    if entry.type != "huggingface":
        return None
    values = _values(entry, found)
    name = values["dataset_name"]
    if name is None:
        found.add("dataset_name", "is missing for type huggingface", "name the set on the Hub, or its folder")
        return None
    rows = values["filter_func"]
    return HubRule(
        name=name,
        split=values["split"] or "train",
        revision=values["revision"],
        media_column=values["image_column" if kind == "image" else "video_column"],
        caption_columns=columns(values["caption_column"]),
        fallback_caption_column=values["fallback_caption_column"],
        width_column=values["width_column"],
        height_column=values["height_column"],
        filters=rows.model_dump(exclude_none=True) if rows is not None else {},
    )


def _values(entry: DatasetEntry, found: EntryFaults) -> dict[str, Any]:
    """Flat keys and those of the table as one; a key with two values is a fault."""
    values = {}
    for key in FLAT_KEYS:
        flat = getattr(entry, key)
        inner = getattr(entry.huggingface, key) if entry.huggingface is not None else None
        if flat not in (None, False) and inner not in (None, False) and flat != inner:
            found.add(key, f"is given twice, also as huggingface.{key}", "keep one")
        values[key] = inner if flat in (None, False) else flat
    return values


def fetched_folder(entry: DatasetEntry, cache_dir: Path) -> Path:
    """Where the files of a set lie that names no folder of its own: below the cache, by its id."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", entry.id).strip(".")
    if plain != entry.id or len(plain) > 64:
        plain = f"{plain[:48]}-{hashlib.sha256(entry.id.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"
    return cache_dir / "datasets" / plain
