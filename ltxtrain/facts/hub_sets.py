"""Data sets behind the ``datasets`` library: a folder on this disk, or a name on the Hub, fetched once and kept.

Nothing is decoded here and no code of a data set is run. Items that hold their media's bytes are written once, below
the cache; items that name a file are used where it lies, if that is in the set's own folder or the library's caches.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.config import Dataset
from ltxtrain.config.datasets import HubRule
from ltxtrain.config.secrets import first_line
from ltxtrain.errors import DataError
from ltxtrain.facts.hub_login import hub_endpoint
from ltxtrain.facts.hub_sets_files import MediaFiles, Stored
from ltxtrain.facts.hub_sets_local import HINT, is_saved, open_files, open_saved
from ltxtrain.facts.index_walk import shown_name
from ltxtrain.facts.reasons import Reason
from ltxtrain.facts.tables import (
    CAPTION_COLUMNS,
    FILE_COLUMNS,
    Record,
    captions_in,
    check_column,
    dig,
    first_of,
    listed,
    outermost,
    size_in,
)

if TYPE_CHECKING:
    import datasets

# What the library reads without running or unpickling anything: all else is refused by name.
READERS = ("parquet", "arrow", "json", "csv", "imagefolder", "videofolder", "cache")
ITEMS_AT_ONCE = 256
# What the library raises for a set that is not as it should be, down to a package that it would need for an address.
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)


@dataclass(frozen=True)
class HubItem:
    """One item. With a ``reason`` there is no file to use; ``fault`` is what is wrong with its captions."""

    name: str
    path: Path
    captions: tuple[str, ...]
    size: tuple[int, int] | None
    fault: str = ""
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True)
class HubSet:
    """``filtered`` counts what ``filter_func`` leaves out. All files lie below one of ``roots``."""

    items: tuple[HubItem, ...]
    filtered: int
    roots: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A set as the library gives it. ``base`` is its folder, None for one of the Hub."""

    data: datasets.Dataset
    base: Path | None
    roots: tuple[str, ...]


@dataclass(frozen=True)
class _Columns:
    media: str
    captions: tuple[str, ...]
    fallback: str | None
    width: str | None
    height: str | None
    filtered: tuple[str, ...]

    @property
    def besides_media(self) -> tuple[str, ...]:
        asked = (*self.captions, self.fallback, self.width, self.height, *self.filtered)
        return tuple(column for column in asked if column)


def read_hub_set(dataset: Dataset, rule: HubRule, cache_dir: Path) -> HubSet:
    """All items in the set's order. Raises ``DataError`` when the set cannot be had or has no such column."""
    with _told(rule):
        source = _opened(rule, cache_dir)
    roots = tuple(dict.fromkeys((*source.roots, os.path.realpath(dataset.root))))
    columns = _chosen(dataset, rule, source.data)
    files = MediaFiles(cache_dir / "datasets" / _digest(source.data, columns.media, dataset.kind), dataset.kind, roots)
    items: list[HubItem] = []
    filtered = 0
    for index, (media, record) in enumerate(_records(source.data, columns)):
        if not _passes(rule.filters, record, columns):
            filtered += 1
            continue
        stored = _stored(files, index, media, source.base)
        captions, fault = captions_in(record, columns.captions, columns.fallback)
        size = size_in(record, columns.width, columns.height, f"{rule.name}: item {index}")
        items.append(HubItem(stored.name, stored.path, captions, size, fault, stored.reason, stored.detail))
    files.finish()
    return HubSet(tuple(items), filtered, roots)


# ------------------------------------------------------------- opening


def _opened(rule: HubRule, cache_dir: Path) -> _Source:
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    folder = Path(rule.name).expanduser()
    if folder.is_dir():
        base = folder.resolve()
        kept = cache_dir / "datasets" / "tables"
        data = open_saved(base, rule.split) if is_saved(base) else _made(rule, open_files(base, str(kept)))
        return _Source(data, base, (str(base), os.path.realpath(kept)))
    if rule.name.count("/") > 1 or rule.name.startswith((".", "/", "~")):
        raise DataError(f"the data set {rule.name} does not exist", hint="check dataset_name")
    hub_endpoint()
    from huggingface_hub.constants import HF_HUB_CACHE

    caches = (HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
    builder = datasets.load_dataset_builder(rule.name, revision=rule.revision)
    refuse_files_elsewhere(rule, builder)
    return _Source(_made(rule, builder), None, tuple(os.path.realpath(cache) for cache in caches))


def _made(rule: HubRule, builder: datasets.DatasetBuilder) -> datasets.Dataset:
    import datasets

    reader = type(builder).__module__.split(".")
    if reader[:2] != ["datasets", "packaged_modules"] or reader[2] not in READERS:
        raise DataError(
            f"the data set {rule.name} is made of files of a kind that is not read here: {reader[-1]}", hint=HINT
        )
    builder.download_and_prepare()
    data = builder.as_dataset(split=rule.split)
    if not isinstance(data, datasets.Dataset):
        raise DataError(f"the data set {rule.name}: {rule.split!r} is no split", hint="say for example train")
    return data


def refuse_files_elsewhere(rule: HubRule, builder: datasets.DatasetBuilder) -> None:
    """The page of a set can name any path or address as its files. Only those of the set itself are read."""
    own = f"hf://datasets/{rule.name}@".casefold()
    for files in (builder.config.data_files or {}).values():
        for file in files:
            if not str(file).casefold().startswith(own) or ".." in str(file).split("/"):
                raise DataError(
                    f"the data set {rule.name} names {shown_name(str(file))} as one of its files, which is not its own",
                    hint="fetch the set with ltxtrain dataset fetch, and name the folder",
                )


@contextmanager
def _told(rule: HubRule) -> Iterator[None]:
    """Whatever the libraries raise for a set that cannot be had, as one line."""
    import pyarrow
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import is_offline_mode
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except DatasetNotFoundError as error:
        raise DataError(
            f"{rule.name} is neither a folder nor a data set that this machine may read",
            hint="check dataset_name; private and gated data sets need HF_TOKEN",
        ) from error
    except ConnectionError as error:
        hint = "check the network, set HF_ENDPOINT to a mirror, or name a local folder"
        if is_offline_mode():
            hint = "unset HF_HUB_OFFLINE, or fetch it first where there is a network"
        raise DataError(
            f"the data set {rule.name} is not on this disk and cannot be fetched ({first_line(error)})", hint=hint
        ) from error
    except (*BROKEN, DatasetsError, HTTPError, pyarrow.ArrowException) as error:
        raise DataError(
            f"the data set {rule.name} cannot be read: {first_line(error.__cause__ or error)}",
            hint="check its files, dataset_name and split",
        ) from error


# ------------------------------------------------------------- columns


def _chosen(dataset: Dataset, rule: HubRule, data: datasets.Dataset) -> _Columns:
    there = data.column_names
    media = rule.media_column or _media_column(data, dataset.kind)
    if media is None:
        raise DataError(
            f"the data set {rule.name} has no column of videos, images or names of files; it has {listed(there)}",
            hint=f"say which one it is: {dataset.kind}_column",
        )
    check_column(media, there, f"the data set {rule.name}")
    if media not in there:
        raise DataError(f"the data set {rule.name}: {media!r} is inside of a column", hint="name a whole column")
    captions = rule.caption_columns
    if not captions and dataset.captions.strategy == "huggingface" and not dataset.captions.only_instance_prompt:
        usual = first_of(CAPTION_COLUMNS, there)
        if usual is None and rule.fallback_caption_column is None:
            raise DataError(
                f"the data set {rule.name} has no column of captions; it has {listed(there)}",
                hint="say which one it is: caption_column",
            )
        captions = (usual,) if usual else ()
    found = _Columns(
        media, captions, rule.fallback_caption_column, rule.width_column, rule.height_column, _filter_columns(rule)
    )
    for column in found.besides_media:
        check_column(column, there, f"the data set {rule.name}")
    return found


def _media_column(data: datasets.Dataset, kind: str) -> str | None:
    """The first column of this kind, then of the other, then one that by its name holds names of files."""
    import datasets

    for wanted in sorted((datasets.Video, datasets.Image), key=lambda feature: feature.__name__.lower() != kind):
        for name, feature in data.features.items():
            if isinstance(feature, wanted):
                return str(name)
    return first_of(FILE_COLUMNS, data.column_names)


def _digest(data: datasets.Dataset, media: str, kind: str) -> str:
    """The library's fingerprint stands in a file of the set: as part of a path it must not be taken as it is."""
    return sha256(f"{data._fingerprint}:{len(data)}:{media}:{kind}".encode()).hexdigest()[:24]


# ------------------------------------------------------------- items


def _records(data: datasets.Dataset, columns: _Columns) -> Iterator[tuple[Any, Record]]:
    """For each item, its media as an Arrow scalar, whose bytes are not copied yet, and its other columns."""
    import pyarrow as pa

    there = data.column_names
    others = list(dict.fromkeys(outermost(column, there) or column for column in columns.besides_media))
    asked = list(dict.fromkeys([columns.media, *others]))
    try:
        for table in data.select_columns(asked).with_format("arrow").iter(ITEMS_AT_ONCE):
            media = table.column(columns.media)
            records = table.select(others).to_pylist() if others else [{}] * len(media)
            yield from zip(media, records, strict=True)
    except pa.ArrowException as error:
        raise DataError(f"a table of the data set is damaged: {first_line(error)}", hint="fetch it again") from error


def _stored(files: MediaFiles, index: int, media: Any, base: Path | None) -> Stored:
    import pyarrow as pa

    path = None
    if isinstance(media, pa.StructScalar):
        names = {field.name for field in media.type}
        path = media["path"].as_py() if "path" in names else None
        media = media["bytes"] if "bytes" in names else None
    elif isinstance(media, (pa.StringScalar, pa.LargeStringScalar)):
        path, media = media.as_py(), None
    if media is not None and media.is_valid:
        if not isinstance(media, (pa.BinaryScalar, pa.LargeBinaryScalar)):
            raise DataError(
                f"the column of media holds {media.type}, neither files nor their names",
                hint="name another one: video_column or image_column",
            )
        return files.of_bytes(index, media.as_buffer())
    if isinstance(path, str) and path:
        return files.of_path(index, path, base)
    return Stored(f"{index:06d}", files.folder, "missing-file", "it holds neither a file nor the name of one")


# ------------------------------------------------------------- filter_func


def _filter_columns(rule: HubRule) -> tuple[str, ...]:
    filters = rule.filters
    asked = []
    if filters.get("collection"):
        asked.append("collection")
    if filters.get("quality_thresholds"):
        asked.append(_quality_column(filters))
    if filters.get("min_width"):
        asked.append(rule.width_column or "width")
    if filters.get("min_height"):
        asked.append(rule.height_column or "height")
    return tuple(asked)


def _quality_column(filters: Mapping[str, object]) -> str:
    return str(filters.get("quality_column") or "quality_assessment")


def _passes(filters: Mapping[str, object], record: Record, columns: _Columns) -> bool:
    """Whether ``filter_func`` keeps an item. What has no value does not reach a threshold."""
    collections = filters.get("collection")
    if collections:
        wanted = [collections] if isinstance(collections, str) else collections
        if not isinstance(wanted, (list, tuple)) or dig(record, "collection") not in wanted:
            return False
    for name, column in (("min_width", columns.width or "width"), ("min_height", columns.height or "height")):
        if filters.get(name) and not _reaches(dig(record, column), filters[name]):
            return False
    thresholds = filters.get("quality_thresholds")
    if not thresholds:
        return True
    quality = dig(record, _quality_column(filters))
    if not isinstance(thresholds, Mapping):
        return _reaches(quality, thresholds)
    return isinstance(quality, Mapping) and all(
        _reaches(quality.get(name), least) for name, least in thresholds.items()
    )


def _reaches(value: object, least: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isinstance(least, (int, float)):
        return False
    return value >= least
