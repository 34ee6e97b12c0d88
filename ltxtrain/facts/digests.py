"""SHA-256 of files, remembered by size, time and inode so that gigabytes of weights are read once, not on each start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ltxtrain.files import write_atomically


def sha256_of(*parts: object) -> str:
    """A digest of plain values (anything JSON can say), the same on every machine and in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path, memo: Path | None = None) -> str:
    """Digest of a file's bytes. ``memo`` is a folder of remembered digests; a changed file is never answered from it."""
    real = path.resolve()
    stat = real.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    note = memo / f"{sha256_of(str(real))[:32]}.json" if memo else None
    if note is not None and note.exists():
        try:
            known = json.loads(note.read_text())
        except (OSError, ValueError):
            known = {}
        if known.get("stamp") == stamp:
            return str(known["sha256"])
    with real.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if note is not None:
        write_atomically(note, json.dumps({"path": str(real), "stamp": stamp, "sha256": digest}))
    return digest


def files_sha256(files: Iterable[Path], memo: Path | None = None) -> str:
    """One digest over several files: their names and bytes, in the order of their names."""
    return sha256_of([[file.name, file_sha256(file, memo)] for file in sorted(files)])
