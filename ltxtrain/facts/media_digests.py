"""Digests of the media files of data sets, remembered in one file for each root: a hundred thousand clips are hashed
once, in a few threads, and known again in a second."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ltxtrain.facts.digests import SETTLED_AFTER_S, sha256_of
from ltxtrain.facts.media_facts import MediaError
from ltxtrain.facts.media_memo import MOST_OTHERS, Stamp, stamp_of
from ltxtrain.facts.media_open import open_regular_file
from ltxtrain.facts.memo_file import read_memo, write_memo

if TYPE_CHECKING:
    from io import BufferedReader

HEAD = "media-digests-1"
THREADS = 4
AT_ONCE = 64
KEPT_EVERY_S = 30.0

Digest = str | MediaError


def iter_digests(paths: Iterable[str], root_of: dict[str, str], folder: Path | None) -> Iterator[tuple[str, Digest]]:
    """Each of ``paths`` once, with the SHA-256 of its bytes or why it cannot be read, in their order.

    ``folder`` is where digests are remembered, a file for each root; ``root_of`` tells the root of a path. What is
    known is kept whenever the caller stops.
    """
    roots: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        roots.setdefault(root_of[path], []).append(path)
    for root, members in roots.items():
        memo = _Memo(folder, root)
        try:
            yield from _of_root(members, Path(root), memo)
        finally:
            memo.keep(len(members))


def _of_root(members: list[str], root: Path, memo: _Memo) -> Iterator[tuple[str, Digest]]:
    left = iter(members)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="digests") as threads:
        while some := list(islice(left, AT_ONCE)):
            stamps = [stamp_of(Path(path)) for path in some]
            known = [memo.answer(path, stamp) for path, stamp in zip(some, stamps, strict=True)]
            unknown = [path for path, digest in zip(some, known, strict=True) if digest is None]
            found = threads.map(_sha256, unknown, repeat(root))
            for path, stamp, digest in zip(some, stamps, known, strict=True):
                if digest is not None:
                    yield path, digest
                    continue
                fresh = next(found)
                if isinstance(fresh, str):
                    memo.remember(path, stamp, fresh)
                yield path, fresh


def _sha256(path: str, root: Path) -> Digest:
    try:
        with open_regular_file(Path(path), root) as stream:
            return hashlib.file_digest(cast("BufferedReader", stream), "sha256").hexdigest()
    except MediaError as error:
        return error
    except OSError as error:
        return MediaError("unreadable", error.strerror or str(error))


class _Memo:
    def __init__(self, folder: Path | None, root: str) -> None:
        self._path = folder / f"media-{sha256_of(root)[:32]}.json" if folder else None
        self._head = json.dumps([HEAD, root])
        self._entries = read_memo(self._path, self._head) if self._path else {}
        self._kept, self._changed = time.monotonic(), False

    def answer(self, path: str, stamp: Stamp | None) -> str | None:
        entry = self._entries.get(path)
        if stamp is None or not isinstance(entry, list) or len(entry) != 4 or tuple(entry[:3]) != stamp:
            return None
        return entry[3] if isinstance(entry[3], str) else None

    def remember(self, path: str, stamp: Stamp | None, digest: str) -> None:
        """``stamp`` is from before the file was read. A file that changed just now may change again unseen."""
        if stamp is None or stamp != stamp_of(Path(path)) or time.time() - stamp[2] / 1e9 < SETTLED_AFTER_S:
            return
        self._entries[path] = [*stamp, digest]
        self._changed = True
        if time.monotonic() - self._kept >= KEPT_EVERY_S:
            self.keep(len(self._entries))

    def keep(self, asked: int) -> None:
        """Write what is new. A place that cannot be written costs time on the next start, no more."""
        if not self._changed or self._path is None:
            return
        if len(self._entries) > asked + MOST_OTHERS:
            self._entries = dict(list(self._entries.items())[-asked - MOST_OTHERS :])
        with suppress(OSError):
            write_memo(self._path, self._head, self._entries)
        self._kept, self._changed = time.monotonic(), False
