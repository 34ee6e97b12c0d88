"""Find the clips of a data set and the captions of each. Reads only; nothing in the user's folder is ever changed.

Every file with an extension of the set's kind, every row of its table and every item of its ``datasets`` set is either
a clip with captions or stands in ``rejected`` with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.config import Dataset
from ltxtrain.facts.captions import FROM_TABLE, CaptionFault, Captions
from ltxtrain.facts.hub_sets import HubItem, HubSet, read_hub_set
from ltxtrain.facts.hub_sets_files import inside
from ltxtrain.facts.index_rows import match_rows
from ltxtrain.facts.index_walk import Rejected, Walk, stem_of, walk_folder
from ltxtrain.facts.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from ltxtrain.facts.tables import Row

__all__ = ["FolderIndex", "FoundClip", "Rejected", "index_clips"]


@dataclass(frozen=True)
class FoundClip:
    """``name`` is the path inside the dataset, with forward slashes on every system; ``path`` is without any link.
    ``captions`` are alternatives.

    ``stated_size`` is (width, height) in pixels as a table states it; the file's own is what counts.
    """

    path: Path
    name: str
    captions: tuple[str, ...]
    stated_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class FolderIndex:
    """Both sorted by name. ``others`` counts files of the other kind that lie there too (images in a set of videos);
    ``filtered`` counts items that the set's own filter leaves out. Neither of them are clips of this set."""

    clips: tuple[FoundClip, ...]
    rejected: tuple[Rejected, ...]
    others: int = 0
    filtered: int = 0


def index_clips(dataset: Dataset, *, cache_dir: Path | None = None, seed: int = 0) -> FolderIndex:
    """All clips of ``dataset``, sorted by name.

    ``seed`` is the run's, for captions that are shuffled. Items of a ``datasets`` set that hold their media's bytes are
    written below ``cache_dir``. Raises ``DataError`` when the folder, the table or the set cannot be read.
    """
    captions = Captions(dataset.captions, seed)
    if dataset.hub is not None:
        if cache_dir is None:
            raise ValueError("a set of the datasets library needs a cache_dir")
        return _index_hub(read_hub_set(dataset, dataset.hub, cache_dir), captions)
    kinds = (VIDEO_EXTENSIONS, IMAGE_EXTENSIONS)
    walk = walk_folder(dataset.root, *(kinds if dataset.kind == "video" else reversed(kinds)))
    return _index_walk(walk, captions)


def _index_walk(walk: Walk, captions: Captions) -> FolderIndex:
    table = captions.rule.table
    from_table = captions.rule.strategy in FROM_TABLE
    if from_table and table is None:
        raise ValueError(f"caption_strategy {captions.rule.strategy!r} without a table")
    matched = match_rows(walk, table) if table is not None else None
    rows = matched.rows if matched else {}
    rejected = dict(walk.rejected)
    if matched and from_table:  # of a table that tells sizes alone, nobody expects a row for each file
        rejected |= matched.rejected
    clips = []
    for name, path in walk.files.items():
        own = rows.get(name, [])
        try:
            alternatives = _row_captions(own, captions, name) if from_table else _captions(walk, name, path, captions)
        except CaptionFault as fault:
            walk.refuse(name, fault.reason, fault.detail)
            rejected[name] = walk.rejected[name]
        else:
            size = next((row.size for row in own if row.size), None)
            clips.append(FoundClip(_real(path), name, alternatives, size))
    return FolderIndex(tuple(clips), tuple(sorted(rejected.values(), key=lambda entry: entry.name)), walk.others)


def _real(path: str) -> Path:
    """Where a link inside of the folder leads to: later on, a link in a clip's place is a stranger's."""
    place = Path(path)
    return place.resolve() if place.is_symlink() else place


def _row_captions(rows: list[Row], captions: Captions, name: str) -> tuple[str, ...]:
    """Several rows for one file are alternatives."""
    if not rows:
        raise CaptionFault("no-row", "the table has no row for it")
    if captions.fixed:
        return captions.of_instance()
    for row in rows:
        if row.fault:
            raise CaptionFault("bad-caption", f"{row.place} of the table: {row.fault}")
    texts = [caption for row in rows for caption in row.captions]
    return captions.finished(texts, name, f"{rows[0].place} of the table has no caption")


def _captions(walk: Walk, name: str, path: str, captions: Captions) -> tuple[str, ...]:
    if f"{stem_of(name)}.txt" in walk.texts:
        return _own_captions(name, path, captions, None)
    return _own_captions(name, path, captions, walk.holds)


def _own_captions(name: str, path: str, captions: Captions, holds: Callable[[str], bool] | None) -> tuple[str, ...]:
    """From the rule, the file's name or the file beside it. With ``holds``, that one is first looked at."""
    if captions.fixed:
        return captions.of_instance()
    if captions.rule.strategy == "filename":
        return captions.of_filename(stem_of(path).rpartition("/")[2], name)
    if captions.rule.strategy != "textfile":
        raise ValueError(f"caption_strategy {captions.rule.strategy!r}")
    beside = f"{stem_of(path)}.txt"
    if holds is not None:
        _check_text(beside, holds)
    return captions.of_textfile(beside, name)


def _check_text(path: str, holds: Callable[[str], bool]) -> None:
    if not Path(path).is_file():
        raise CaptionFault("no-caption", f"no {Path(path).name} beside it")
    if not holds(os.path.realpath(path)):
        raise CaptionFault("outside-folder", f"its caption {Path(path).name} is a link out of the folder")


def _index_hub(found: HubSet, captions: Captions) -> FolderIndex:
    clips, rejected = [], []
    for item in found.items:
        if item.reason is not None:
            rejected.append(Rejected(item.name, item.reason, item.detail))
            continue
        try:
            alternatives = _item_captions(item, captions, found.roots)
        except CaptionFault as fault:
            rejected.append(Rejected(item.name, fault.reason, fault.detail))
        else:
            clips.append(FoundClip(Path(os.path.realpath(item.path)), item.name, alternatives, item.size))
    clips.sort(key=lambda clip: clip.name)
    rejected.sort(key=lambda entry: entry.name)
    return FolderIndex(tuple(clips), tuple(rejected), filtered=found.filtered)


def _item_captions(item: HubItem, captions: Captions, roots: tuple[str, ...]) -> tuple[str, ...]:
    if captions.rule.strategy not in FROM_TABLE or captions.fixed:
        return _own_captions(item.name, str(item.path), captions, lambda path: inside(path, roots))
    if item.fault:
        raise CaptionFault("bad-caption", item.fault)
    return captions.finished(item.captions, item.name, "it has no caption")
