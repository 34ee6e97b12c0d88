"""The documented list of data sets, from its JSON file or from ``[[datasets]]``: read, checked, with every fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import ValidationError

from ltxtrain.config.catalogue import Option, fields_of
from ltxtrain.config.coerce import Refused, coerce, is_unset
from ltxtrain.config.entries import DatasetEntry, VideoSettings
from ltxtrain.config.explain import problem_of
from ltxtrain.config.renames import RENAMED_ENTRY_KEYS, RENAMED_VALUES
from ltxtrain.config.secrets import holds_token, is_secret_key, shown, shown_key
from ltxtrain.config.suggest import nearest
from ltxtrain.config.text import Document, KeyPath
from ltxtrain.errors import Fault


@dataclass
class Entries:
    """What a list of data sets holds: the good entries, where each stands, and what is wrong."""

    entries: list[DatasetEntry] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_entries(raw: object, document: Document, path: KeyPath = ()) -> Entries:
    """Read the list that stands at ``path`` of ``document``."""
    found = Entries()
    if not isinstance(raw, (list, tuple)):
        found.faults.append(Fault("", "holds no list of data sets", document.source(path), "write [ {...}, {...} ]"))
        return found
    if not raw:
        found.faults.append(Fault("", "the list of data sets is empty", document.source(path), "add one entry"))
    seen: dict[str, str] = {}
    for index, item in enumerate(raw):
        here = (*path, index)
        place = document.source(here)
        if not isinstance(item, dict):
            found.faults.append(Fault(f"entry {index + 1}", "is not a table of keys", place, "write {...}"))
            continue
        entry = _read_entry(item, document, here, found.faults)
        if entry is None:
            continue
        if entry.id in seen:
            found.faults.append(
                Fault("id", f"{shown('id', entry.id)} is given twice, first at {seen[entry.id]}", place, "rename one")
            )
        seen.setdefault(entry.id, place)
        found.entries.append(entry)
        found.places.append(place)
    return found


@cache
def entry_options() -> Mapping[str, Option]:
    return fields_of(DatasetEntry, "datasets")


@cache
def video_options() -> Mapping[str, Option]:
    return fields_of(VideoSettings, "video")


def _read_entry(item: dict[str, Any], document: Document, path: KeyPath, faults: list[Fault]) -> DatasetEntry | None:
    name = item.get("id")
    label = shown_key(name) if isinstance(name, str) and name.strip() else f"entry {int(path[-1]) + 1}"
    before = len(faults)
    values = _coerced(item, entry_options(), label, document, path, faults)
    video = item.get("video")
    if isinstance(video, dict):
        values["video"] = _coerced(video, video_options(), f"{label}.video", document, (*path, "video"), faults)
    bad = {fault.key for fault in faults[before:]}
    try:
        entry = DatasetEntry.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = ".".join(str(part) for part in detail["loc"] if part in entry_options() or part in video_options())
            if f"{label}.{key}" in bad:
                continue
            place = document.source((*path, *detail["loc"]))
            problem = problem_of(detail, shown(key, detail["input"]))
            faults.append(Fault(f"{label}.{key}", problem, place, "give each entry an id" if key == "id" else ""))
        return None
    return entry if len(faults) == before else None


def _coerced(
    item: dict[str, Any],
    known: Mapping[str, Option],
    label: str,
    document: Document,
    path: KeyPath,
    faults: list[Fault],
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for written, raw in item.items():
        key = written.strip().removeprefix("--").replace("-", "_")
        key = RENAMED_ENTRY_KEYS.get(key, key)
        place = document.source((*path, written))
        if raw is not None and (fault := _key_fault(key, raw, known, f"{label}.{shown_key(written)}", place)):
            faults.append(fault)
            continue
        option = known.get(key)
        if option is None or is_unset(option, raw):
            continue
        if key == "video" and isinstance(raw, dict):
            continue
        if isinstance(raw, str):
            raw = RENAMED_VALUES.get((key, raw.strip()), raw)
        if key in values:
            faults.append(Fault(f"{label}.{key}", "is given twice", place, "keep one"))
            continue
        try:
            values[key] = coerce(option, raw)
        except Refused as error:
            faults.append(Fault(f"{label}.{key}", error.problem, place, error.suggestion))
    return values


def _key_fault(key: str, raw: object, known: Mapping[str, Option], label: str, place: str) -> Fault | None:
    if key not in known:
        if is_secret_key(key):
            return Fault(label, "a secret does not belong in a configuration", place, "set it in the environment")
        elsewhere = " in the video table" if known is entry_options() and key in video_options() else ""
        near = key if elsewhere else nearest(key, known)
        return Fault(label, "is not a key of a data set", place, f"did you mean {near}{elsewhere}?" if near else "")
    if holds_token(raw, key):
        return Fault(label, "holds what looks like a secret", place, "remove it; tokens come from the environment")
    return None
