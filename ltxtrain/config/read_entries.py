"""The documented list of data sets, from its JSON file or from ``[[datasets]]``: read, checked, with every fault."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from ltxtrain.config.catalogue import Option, fields_of, options, tables_of
from ltxtrain.config.coerce import Refused, coerce, is_unset
from ltxtrain.config.entries import DatasetEntry, RowFilter, VideoSettings
from ltxtrain.config.explain import problem_of
from ltxtrain.config.renames import RENAMED_ENTRY_KEYS, RENAMED_VALUES
from ltxtrain.config.secrets import holds_token, is_secret_key, shown, shown_key
from ltxtrain.config.suggest import nearest
from ltxtrain.config.text import Document, KeyPath
from ltxtrain.errors import Fault

_FIRST_KEYS = {
    "video": "num_frames",
    "caption_shuffle": "enable",
    "parquet": "path",
    "jsonl": "path",
    "huggingface": "dataset_name",
    "filter_func": "min_width",
}
"""The key of each table that a single value in its place most likely means."""


@dataclass(frozen=True)
class Place:
    """Where an entry stands: at ``path`` of a file, or, when it came with the configuration, only in words."""

    document: Document
    path: KeyPath = ()

    def at(self, key: str = "") -> str:
        """The place of ``video.num_frames`` in the entry, or of the nearest thing around it."""
        return self.document.source((*self.path, *key.split(".")) if key else self.path)


@dataclass
class Entries:
    """What a list of data sets holds: the good entries, where each stands, and what is wrong."""

    entries: list[DatasetEntry] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
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
        found.places.append(Place(document, here))
    return found


@cache
def entry_options() -> Mapping[str, Option]:
    return fields_of(DatasetEntry, "datasets")


@cache
def video_options() -> Mapping[str, Option]:
    return fields_of(VideoSettings, "video")


@dataclass(frozen=True)
class _Reading:
    """One entry while it is read, for its faults: how it is called, where it stands, and what was found so far."""

    label: str
    document: Document
    path: KeyPath
    faults: list[Fault]

    def inner(self, key: str) -> _Reading:
        return replace(self, label=f"{self.label}.{key}", path=(*self.path, key))


def _read_entry(item: dict[str, Any], document: Document, path: KeyPath, faults: list[Fault]) -> DatasetEntry | None:
    name = item.get("id")
    label = shown_key(name) if isinstance(name, str) and name.strip() else f"entry {int(path[-1]) + 1}"
    before = len(faults)
    values = _coerced(item, DatasetEntry, _Reading(label, document, path, faults))
    bad = {fault.key for fault in faults[before:]}
    try:
        entry = DatasetEntry.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = _key_at(detail["loc"])
            if f"{label}.{key}" in bad:
                continue
            bad.add(f"{label}.{key}")
            place = document.source((*path, *detail["loc"]))
            problem = problem_of(detail, shown(key.rpartition(".")[2], detail["input"]))
            missing = key == "id" and detail["type"] in ("missing", "string_too_short")
            faults.append(Fault(f"{label}.{key}", problem, place, "give each entry an id" if missing else ""))
        return None
    return entry if len(faults) == before else None


def _key_at(location: tuple[int | str, ...]) -> str:
    """``("parquet", "path")`` -> ``parquet.path``: what is inside of a value is not named."""
    keys: list[str] = []
    model: type[BaseModel] | None = DatasetEntry
    for part in location:
        if model is None or part not in model.model_fields:
            break
        keys.append(str(part))
        model = tables_of(model).get(str(part))
    return ".".join(keys)


def _coerced(item: dict[str, Any], model: type[BaseModel], reading: _Reading) -> dict[str, Any]:
    """The values of a table in the types of ``model``, with those of the tables in it. Faults go to ``reading``."""
    known = _options_of(model)
    values: dict[str, Any] = {}
    for written, raw in item.items():
        key = written.strip().removeprefix("--").replace("-", "_")
        key = RENAMED_ENTRY_KEYS.get(key, key)
        place = reading.document.source((*reading.path, written))
        if raw is not None and (fault := _key_fault(key, raw, model, f"{reading.label}.{shown_key(written)}", place)):
            reading.faults.append(fault)
            continue
        option = known.get(key)
        if option is None or is_unset(option, raw):
            continue
        if isinstance(raw, str):
            raw = RENAMED_VALUES.get((key, raw.strip()), raw)
        if key == "jsonl" and isinstance(raw, str) and not raw.lstrip().startswith("{"):
            raw = {"path": raw}
        if key in values:
            reading.faults.append(Fault(f"{reading.label}.{key}", "is given twice", place, "keep one"))
            continue
        try:
            values[key] = coerce(option, raw)
        except Refused as error:
            hint = _as_table(key, raw, reading.document) or error.suggestion
            reading.faults.append(Fault(f"{reading.label}.{key}", error.problem, place, hint))
            continue
        if key in tables_of(model) and isinstance(values[key], dict):
            values[key] = _coerced(values[key], tables_of(model)[key], reading.inner(key))
    return values


@cache
def _options_of(model: type[BaseModel]) -> Mapping[str, Option]:
    return fields_of(model, model.__name__)


def _meant(key: str, model: type[BaseModel]) -> str:
    """What an unknown key of ``model`` most likely means: a key of a table in it, its own, or one of elsewhere."""
    for name, table in tables_of(model).items():
        inner = key if key in table.model_fields else key.removeprefix(f"{name}_")
        if inner in table.model_fields:
            return f"did you mean {inner} in the {name} table?"
    near = nearest(key, model.model_fields)
    if near is not None:
        return f"did you mean {near}?"
    if key in DatasetEntry.model_fields:
        return "move it out of this table, into the data set itself"
    if key in options():
        return "it is a general option: write it outside of the list of data sets"
    for name, table in tables_of(model).items():
        near = nearest(key, table.model_fields)
        if near is not None:
            return f"did you mean {near} in the {name} table?"
    return ""


def _as_table(key: str, raw: object, document: Document) -> str:
    """How to write a table that was given as a single value, in the words of its file: ``video = {num_frames = 1}``."""
    inner = _FIRST_KEYS.get(key)
    if inner is None or isinstance(raw, (dict, list, tuple)):
        return ""
    table = _options_of(tables_of(DatasetEntry).get(key) or RowFilter)
    try:
        coerce(table[inner], raw)
        value = json.dumps(raw)
    except Refused:
        value = "..."
    if holds_token(raw, key) or len(value) > 60:
        value = "..."
    if document.name.endswith(".toml"):
        return f"write {key} = {{{inner} = {value}}}"
    return f'write "{key}": {{"{inner}": {value}}}'


def _key_fault(key: str, raw: object, model: type[BaseModel], label: str, place: str) -> Fault | None:
    if key not in model.model_fields:
        if is_secret_key(key):
            return Fault(label, "a secret does not belong in a configuration", place, "set it in the environment")
        return Fault(label, "is not a key of a data set", place, _meant(key, model))
    if holds_token(raw, key):
        return Fault(label, "holds what looks like a secret", place, "remove it; tokens come from the environment")
    return None
