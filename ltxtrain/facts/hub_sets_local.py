"""Sets of the ``datasets`` library in a folder on this disk, opened so that nothing outside of the folder is read.

The library itself would follow what a set says of itself: a README that names any path or address as its files, a saved
set whose state names files elsewhere. Here the files are found by their names alone, and each one's real path counts.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.errors import DataError
from ltxtrain.facts.hub_sets_files import inside
from ltxtrain.facts.index_walk import shown_name
from ltxtrain.facts.tables import listed

if TYPE_CHECKING:
    import datasets

TABLES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
METADATA = ("metadata.parquet", "metadata.jsonl", "metadata.csv")
OF_NO_SET = ("dataset_infos.json", "state.json", "dataset_info.json", "dataset_dict.json")
PACKED = (".gz",)
LIKED = tuple(TABLES.values())  # where two kinds are as many, the first of these counts
HINT = "give one of parquet, arrow, json or csv files, or of folders of images or videos"


def is_saved(base: Path) -> bool:
    """Whether ``save_to_disk`` wrote it."""
    return (base / "state.json").is_file() or (base / "dataset_dict.json").is_file()


def open_saved(base: Path, split: str) -> datasets.Dataset:
    """The set, or its ``split`` where it has several. ``base`` is resolved."""
    import datasets

    folder = base
    if (base / "dataset_dict.json").is_file():
        there = _json_of(base / "dataset_dict.json", base).get("splits")
        splits = [name for name in there if isinstance(name, str)] if isinstance(there, list) else []
        if split not in splits:
            raise DataError(
                f"the data set {base} has no split {split!r}; it has {listed(splits)}",
                hint="name one of them: split",
            )
        folder = base / split
    state = _json_of(folder / "state.json", base)
    _json_of(folder / "dataset_info.json", base)
    for file in state["_data_files"]:
        _refuse_outside(folder / str(file["filename"]), base)
    return datasets.Dataset.load_from_disk(str(folder), keep_in_memory=False)


def open_files(base: Path, kept: str) -> datasets.DatasetBuilder:
    """What reads the tables or media files below ``base``; what it makes of them goes to ``kept``."""
    from datasets.data_files import DataFilesDict, DataFilesList, get_data_patterns
    from datasets.load import import_main_class
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    _refuse_linked_folders(base)
    readers = _readers()
    found = DataFilesDict.from_patterns(
        get_data_patterns(str(base)), base_path=str(base), allowed_extensions=[*readers, *_uppercase(readers)]
    )
    counted = Counter(reader for files in found.values() for path in files if (reader := _reader_of(path, readers)))
    if not counted:
        raise DataError(f"the data set {base} holds no files of a kind that is read here", hint=HINT)
    reader = max(counted, key=lambda name: (counted[name], name in LIKED, -LIKED.index(name) if name in LIKED else 0))
    chosen = DataFilesDict()
    for split, files in found.items():
        pairs = zip(files, files.origin_metadata, strict=True)
        ours = [(path, origin) for path, origin in pairs if _is_for(path, reader, readers)]
        for path, _ in ours:
            if reader in LIKED or Path(path).name in METADATA:  # of media files, each item is looked at by itself
                _refuse_outside(Path(path), base)
        if ours:
            chosen[split] = DataFilesList([path for path, _ in ours], [origin for _, origin in ours])
    module, version = _PACKAGED_DATASETS_MODULES[reader]
    tabs = reader == "csv" and all(".tsv" in Path(path).suffixes for files in chosen.values() for path in files)
    said: dict[str, Any] = {"sep": "\t"} if tabs else {}
    builder = import_main_class(module)
    return builder(cache_dir=kept, dataset_name=reader, hash=version, base_path=str(base), data_files=chosen, **said)


def _readers() -> dict[str, str]:
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
    from datasets.packaged_modules.videofolder.videofolder import VideoFolder

    return (
        TABLES
        | dict.fromkeys((extension.lower() for extension in ImageFolder.EXTENSIONS), "imagefolder")
        | dict.fromkeys((extension.lower() for extension in VideoFolder.EXTENSIONS), "videofolder")
    )


def _uppercase(extensions: Iterable[str]) -> list[str]:
    return [extension.upper() for extension in extensions]


def _reader_of(path: str, readers: dict[str, str]) -> str | None:
    file = Path(path)
    if file.name in (*METADATA, *OF_NO_SET):
        return None
    extension = Path(file.stem).suffix if file.suffix.lower() in PACKED else file.suffix
    return readers.get(extension.lower())


def _is_for(path: str, reader: str, readers: dict[str, str]) -> bool:
    return _reader_of(path, readers) == reader or (reader.endswith("folder") and Path(path).name in METADATA)


def _refuse_linked_folders(base: Path) -> None:
    """The library would go into them, for ever where one leads to a folder above it."""
    for folder, names, _ in os.walk(base):
        for name in names:
            place = Path(folder, name)
            if place.is_symlink():
                raise DataError(
                    f"the data set {base} holds a linked folder: {shown_name(str(place.relative_to(base)))}",
                    hint="put the folder itself there, or name it as a data set of its own",
                )


def _refuse_outside(path: Path, base: Path) -> None:
    if not inside(os.path.realpath(path), (str(base),)):
        shown = shown_name(os.path.normpath(path))
        raise DataError(
            f"the data set {base} names {shown} as one of its files, outside of its own folder",
            hint="put the file itself there; nothing outside of a data set is read",
        )


def _json_of(path: Path, base: Path) -> dict[str, Any]:
    _refuse_outside(path, base)
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return found
