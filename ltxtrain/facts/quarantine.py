"""Clips that earlier runs found to be faulty: a list in the cache. The user's files stay as and where they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ltxtrain.facts.media_facts import printable
from ltxtrain.files import write_atomically

NAME = "quarantine.jsonl"


@dataclass(frozen=True)
class Quarantined:
    """``path`` is absolute; ``bytes`` and ``mtime_ns`` are the file's when it was put on the list."""

    path: str
    reason: str
    detail: str
    bytes: int
    mtime_ns: int

    def holds(self) -> bool:
        """Whether the file is still the one that was put on the list: a mended one is looked at again."""
        return _stamp(Path(self.path)) == (self.bytes, self.mtime_ns)


def quarantined(path: Path, reason: str, detail: str) -> Quarantined:
    """The entry for ``path`` as it stands now. Raises ``OSError`` when it is not there."""
    status = path.stat()
    return Quarantined(str(path), reason, printable(detail), status.st_size, status.st_mtime_ns)


def read_quarantine(cache_dir: Path) -> dict[str, Quarantined]:
    """The list by path, without entries whose file has changed or gone. A line that is damaged is left out."""
    try:
        lines = (cache_dir / NAME).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return {}
    entries = [entry for line in lines if (entry := _entry(line)) is not None]
    return {entry.path: entry for entry in entries if entry.holds()}


def add_quarantine(cache_dir: Path, items: Iterable[Quarantined]) -> None:
    """Put ``items`` on the list, in place of what it said of the same files; what no longer holds goes."""
    entries = read_quarantine(cache_dir) | {item.path: item for item in items}
    lines = [json.dumps(asdict(entries[path])) for path in sorted(entries)]
    write_atomically(cache_dir / NAME, "".join(f"{line}\n" for line in lines))


def _entry(line: str) -> Quarantined | None:
    try:
        said = json.loads(line)
        entry = Quarantined(**said)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (entry.path, entry.reason, entry.detail)
    numbers = (entry.bytes, entry.mtime_ns)
    fits = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
    return entry if fits else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns
