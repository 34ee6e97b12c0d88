"""What was found out about files, remembered by path, size and times: 10,000 clips are read once, not on each start.

One file for each folder of a data set and kind.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ltxtrain.facts.digests import SETTLED_AFTER_S, sha256_of
from ltxtrain.facts.media_facts import ClipFacts, Kind, MediaError, from_plain, plain
from ltxtrain.facts.memo_file import read_memo, write_memo
from ltxtrain.facts.reasons import Reason

# A change of what probing finds needs a new number here.
VERSION = "facts-2"
# Such a file may be all right the next time, when the machine is.
NOT_REMEMBERED: tuple[Reason, ...] = ("unreadable", "too-slow", "crashed")
# Files of the same folder that were not asked for now: another data set may ask.
MOST_OTHERS = 100_000
KEEP_EVERY_S = 30.0  # so much is lost at most when the power goes

Stamp = tuple[int, int, int]
Found = ClipFacts | MediaError


def stamp_of(path: Path) -> Stamp | None:
    """Size and times of the file that ``path`` leads to; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Memo:
    """``folder`` None remembers nothing. ``program`` tells which versions of the libraries found what is in it."""

    def __init__(self, folder: Path | None, root: Path, kind: Kind, program: str) -> None:
        name = f"{sha256_of(str(root), kind)[:32]}.json"
        self._path = folder / name if folder is not None else None
        self._head = json.dumps([VERSION, kind, program, str(root)])
        self._entries: dict[str, Any] = read_memo(self._path, self._head) if self._path is not None else {}
        self._changed = False
        self._kept_at = time.monotonic()

    def answer(self, path: Path, stamp: Stamp | None) -> Found | None:
        entry = self._entries.get(str(path))
        if stamp is None or not isinstance(entry, list) or len(entry) != 4 or tuple(entry[:3]) != stamp:
            return None
        return from_plain(path, entry[3])

    def remember(self, path: Path, stamp: Stamp | None, found: Found) -> None:
        """``stamp`` is from before the file was opened. A file that changed just now may change again unseen."""
        if stamp is None or stamp != stamp_of(path) or time.time() - stamp[2] / 1e9 < SETTLED_AFTER_S:
            return
        if isinstance(found, MediaError) and found.reason in NOT_REMEMBERED:
            return
        self._entries[str(path)] = [*stamp, plain(found)]
        self._changed = True

    def keep_now_and_then(self, paths: Sequence[Path]) -> None:
        if time.monotonic() - self._kept_at > KEEP_EVERY_S:
            self.keep(paths)

    def keep(self, paths: Sequence[Path]) -> None:
        """Write it, if there is anything new. A place that cannot be written costs time on the next start, no more."""
        self._kept_at = time.monotonic()
        if not self._changed or self._path is None:
            return
        self._changed = False
        if len(self._entries) > len(paths) + MOST_OTHERS:
            asked = {str(path) for path in paths}
            self._entries = {path: entry for path, entry in self._entries.items() if path in asked}
        with suppress(OSError):
            write_memo(self._path, self._head, self._entries)


def common_root(paths: Sequence[Path]) -> Path:
    """Where all of ``paths`` lie. Adding a file elsewhere changes it, so a data set's own root is better."""
    return Path(os.path.commonpath([path.parent.absolute() for path in paths]))
