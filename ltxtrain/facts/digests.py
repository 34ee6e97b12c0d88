"""SHA-256 of files, remembered by size and times: gigabytes of weights are read once, not on each start."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from ltxtrain.files import write_atomically

# A file that changed so recently could change again without its time moving on: its digest is not remembered.
SETTLED_AFTER_S = 2.0


def sha256_of(*parts: object) -> str:
    """A digest of plain values (anything JSON can say), the same on every machine and in every process."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))  # in ASCII: file names need not be valid Unicode
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path, memo: Path | None = None) -> str:
    """Digest of a file's bytes. ``memo`` is a folder of remembered digests; a changed file is not answered from it."""
    real = path.resolve()
    stat = real.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    note = memo / f"{sha256_of(str(real))[:32]}.json" if memo else None
    known = _noted(note, stamp) if note else None
    if known is not None:
        return known
    with real.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if note is not None and time.time() - stat.st_ctime > SETTLED_AFTER_S:
        write_atomically(note, json.dumps({"path": str(real), "stamp": stamp, "sha256": digest}))
    return digest


def _noted(note: Path, stamp: list[int]) -> str | None:
    """The remembered digest, if there is one and it is of the file as it stands."""
    try:
        known = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("stamp") != stamp or not isinstance(known.get("sha256"), str):
        return None
    return str(known["sha256"])


def files_sha256(files: Iterable[Path], memo: Path | None = None) -> str:
    """One digest over several files: their names and bytes, in the order of their names."""
    return sha256_of([[file.name, file_sha256(file, memo)] for file in sorted(files)])
