"""What was fetched into a folder, and which files are fetched now: those that are missing or that the Hub has changed.

A file that somebody changed after it was fetched (a better caption, say) is kept. Without the record everything still
works: what is there is compared by its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ltxtrain.files import write_atomically
from ltxtrain.prepare.fetch_list import REPOSITORY, HubFile, HubSet, leads_out
from ltxtrain.prepare.places import inside

RECORD = ".ltxtrain-fetched.json"
CHUNK = 1 << 20
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Kept:
    """One file as it lay there after it was fetched and checked."""

    bytes: int
    mtime_ns: int
    blob: str
    sha256: str

    def describes(self, path: Path) -> bool:
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns)


@dataclass
class Record:
    """``files`` by name. What it says of a file counts only while the file's size and time are the same."""

    dataset: str = ""
    files: dict[str, Kept] = field(default_factory=dict)

    def keep(self, root: Path, file: HubFile) -> None:
        status = (root / file.name).stat()
        self.files[file.name] = Kept(status.st_size, status.st_mtime_ns, file.blob, file.sha256)

    def write(self, root: Path, found: HubSet, revision: str | None, endpoint: str) -> None:
        content = {
            "schema": 1,
            "dataset": found.name,
            "revision_asked": revision,
            "commit": found.commit,
            "from": endpoint,
            "licence": found.licence,
            "left_out": list(found.left_out),
            "files": {name: vars(kept) for name, kept in sorted(self.files.items())},
        }
        write_atomically(root / RECORD, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_record(root: Path) -> Record:
    """An unreadable record is none: the files themselves are looked at."""
    path = root / RECORD
    try:
        if path.is_symlink() or path.stat().st_size > MOST_BYTES:
            return Record()
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {
            str(name): Kept(int(kept["bytes"]), int(kept["mtime_ns"]), str(kept["blob"]), str(kept["sha256"]))
            for name, kept in content["files"].items()
            if not leads_out(name)
        }
        dataset = str(content["dataset"])
        return Record(dataset, files) if REPOSITORY.fullmatch(dataset) else Record()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Record()


@dataclass(frozen=True)
class Sorted:
    """``changed`` were changed here after they were fetched, and are kept. ``gone`` are no longer in the set."""

    fetch: tuple[HubFile, ...]
    there: tuple[HubFile, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]


def compare(root: Path, files: Iterable[HubFile], record: Record) -> Sorted:
    """Which of ``files`` are to be fetched. Records those that are right. Raises ``DataError`` where a link lies."""
    fetch, there, changed = [], [], []
    names = set()
    for file in files:
        names.add(file.name)
        path = inside(root, file.name)
        if not path.exists():
            fetch.append(file)
            continue
        kept = record.files.get(file.name)
        untouched = kept is not None and kept.describes(path)
        if (untouched and kept is not None and kept.blob == file.blob) or right(path, file):
            record.keep(root, file)
            there.append(file)
        elif untouched:
            fetch.append(file)
        else:
            changed.append(file.name)
    gone = sorted(name for name in record.files if name not in names)
    return Sorted(tuple(fetch), tuple(there), tuple(changed), tuple(gone))


def right(path: Path, file: HubFile) -> bool:
    """Whether the file's content is what the Hub says."""
    if path.stat().st_size != file.bytes:
        return False
    with path.open("rb") as stream:
        return right_content(stream, file)


def right_content(stream: BinaryIO, file: HubFile) -> bool:
    """By its SHA-256, or by Git's digest where there is no other."""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.blob)
