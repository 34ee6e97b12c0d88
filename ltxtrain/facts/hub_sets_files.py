"""The media files of a ``datasets`` set: bytes are written below the cache once, named files used where they lie."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxtrain.errors import MachineError
from ltxtrain.facts.index_walk import ADDRESS, below, shown_name
from ltxtrain.facts.media import sniff_format
from ltxtrain.facts.reasons import Reason
from ltxtrain.files import room_at, write_atomically

COMPLETE = "complete.json"
HEAD = 512  # bytes that tell what a file is

_VIDEO_EXTENSIONS = {
    "mov": ".mp4",
    "avi": ".avi",
    "matroska": ".mkv",
    "flv": ".flv",
    "asf": ".wmv",
    "ogg": ".ogv",
    "mpeg": ".mpg",
    "mpegvideo": ".mpg",
    "mpegts": ".mpg",
}
_IMAGE_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tiff"),
    (b"MM\0*", ".tiff"),
)


@dataclass(frozen=True)
class Stored:
    """Where an item's media lie; ``name`` is the item's. With a ``reason`` there is none."""

    name: str
    path: Path
    reason: Reason | None = None
    detail: str = ""


class MediaFiles:
    """``folder`` holds what is written: ``000012.mp4`` for item 12. Only below ``roots`` are files used in place.

    When all have been written, their sizes stand in ``complete.json``: from then on no bytes are read again.
    """

    def __init__(self, folder: Path, kind: str, roots: Sequence[str]) -> None:
        self.folder = folder
        self._kind = kind
        self._roots = roots
        self._known = _read_sizes(folder / COMPLETE)
        self._sizes: dict[str, int] = {}
        self._by_index = {name.split(".")[0]: name for name in self._known}
        self._names: set[str] = set()

    def of_bytes(self, index: int, content: Any) -> Stored:
        """``content`` is a buffer of pyarrow; it is read only when the file is not there yet."""
        stem = f"{index:06d}"
        known = self._by_index.get(stem)
        if known and _size(self.folder / known) == self._known[known]:
            return self._kept(known, self._known[known])
        if content.size == 0:
            return Stored(stem, self.folder, "empty", "it holds 0 bytes")
        extension = extension_of(content[:HEAD].to_pybytes(), self._kind)
        if extension is None:
            reason: Reason = "not-image" if self._kind == "image" else "not-video"
            return Stored(stem, self.folder, reason, f"its first bytes are of no {self._kind} that is known here")
        name = stem + extension
        if _size(self.folder / name) != content.size:
            self._write(name, content.to_pybytes())
        return self._kept(name, content.size)

    def of_path(self, index: int, text: str, base: Path | None) -> Stored:
        """``text`` as the set names a file; a relative name is inside ``base``, the set's own folder."""
        stem = f"{index:06d}"
        if ADDRESS.match(text):
            return Stored(
                stem, self.folder, "missing-file", f"{_short(text)} is an address; fetch it into a folder first"
            )
        if "\0" in text or (base is None and not Path(text).is_absolute()):
            return Stored(stem, self.folder, "missing-file", f"it names {_short(text)}, and no folder is known for it")
        target = os.path.realpath(Path(base or "", text))
        if not inside(target, self._roots):
            return Stored(stem, self.folder, "outside-folder", f"it names {_short(text)}, outside of the set's folder")
        if not Path(target).is_file():
            return Stored(stem, self.folder, "missing-file", f"it names {_short(text)}, which is not there")
        return Stored(self._name(index, target, base), Path(target))

    def finish(self) -> None:
        """All items have been asked for."""
        if self._sizes and self._sizes != self._known:
            self._write(COMPLETE, json.dumps(self._sizes).encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            with room_at(self.folder, len(content), "one item of the data set"):
                write_atomically(self.folder / name, content)
        except OSError as error:
            raise MachineError(
                f"the data set's files cannot be written to {self.folder}: {error.strerror}",
                hint="let cache_dir name a folder that may be written",
            ) from error

    def _kept(self, name: str, size: int) -> Stored:
        self._sizes[name] = size
        return Stored(name, self.folder / name)

    def _name(self, index: int, target: str, base: Path | None) -> str:
        """The path inside the set's folder; for a file elsewhere, or one that comes twice, its place in the set."""
        name = os.path.relpath(target, os.path.realpath(base)) if base else ""
        if not name or name.startswith("..") or name in self._names or shown_name(name) != name:
            name = f"{index:06d}{Path(target).suffix.lower()}"
        self._names.add(name)
        return name


def extension_of(head: bytes, kind: str) -> str | None:
    """What a file of this kind that begins with ``head`` is called; None for a file of another kind."""
    if kind == "video":
        return _VIDEO_EXTENSIONS.get(sniff_format(head) or "") if head[8:12] not in (b"avif", b"avis") else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return ".avif"
    return next((extension for magic, extension in _IMAGE_MAGIC if head.startswith(magic)), None)


def inside(path: str, roots: Sequence[str]) -> bool:
    """Whether the resolved ``path`` lies below one of the resolved ``roots``."""
    return any(below(path, root) for root in roots)


def _read_sizes(path: Path) -> dict[str, int]:
    """Nothing where it is absent or not as it was written: then the files are looked at one by one."""
    try:
        sizes = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(sizes, dict):
        return {}
    return {name: size for name, size in sizes.items() if isinstance(size, int) and re.fullmatch(r"\d+\.\w+", name)}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _short(text: str) -> str:
    shown = shown_name(text)
    return shown if len(shown) <= 80 else f"...{shown[-77:]}"
