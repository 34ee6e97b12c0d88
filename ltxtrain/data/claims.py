"""Who encodes what, when several processes fill one cache: each group of entries is claimed by a lock on a file.

The kernel lets go of a lock when its process ends, however it ends, so nothing has to be cleaned up after a kill. On
file systems that know no locks (some network volumes) nothing is ever held: then everybody encodes, and the last
rename wins with the same content.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltxtrain.files import make_folder

FOLDER = "claims"
IN_USE = "in-use"
SUFFIX = ".lock"
HELD_ELSEWHERE = (errno.EWOULDBLOCK, errno.EACCES)
POLL_SECONDS = 0.1


class Claims:
    """The claims of this process on the cache in ``cache_dir``. Any thread may take and release them."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / FOLDER
        self._held: dict[str, int | None] = {}  # None: nothing can be locked there
        self._guard = threading.Lock()
        self._in_use: weakref.finalize[[int], Claims] | None = None

    def take(self, key: str) -> bool:
        """Claim ``key``. False when another process holds it."""
        with self._guard:
            if key in self._held:
                return True
            found, descriptor = _locked(self._folder / f"{key[:40]}{SUFFIX}", fcntl.LOCK_EX)
            if found:
                self._held[key] = descriptor
            return found

    def release(self, key: str) -> None:
        with self._guard:
            descriptor = self._held.pop(key, None)
            if descriptor is not None:
                # Removed while it is still locked: whoever opened it in the meantime sees that it has gone.
                (self._folder / f"{key[:40]}{SUFFIX}").unlink(missing_ok=True)
                os.close(descriptor)

    def release_all(self) -> None:
        for key in list(self._held):
            self.release(key)

    @contextmanager
    def waiting(self, key: str) -> Iterator[None]:
        """Hold ``key`` inside, after whoever has it now."""
        while not self.take(key):
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            self.release(key)

    def enter_cache(self) -> bool:
        """Say that entries are read and written as long as this object lives. False while the cache is being pruned."""
        if self._in_use is None:
            found, descriptor = _locked(self._folder / IN_USE, fcntl.LOCK_SH)
            if descriptor is not None:
                self._in_use = weakref.finalize(self, os.close, descriptor)
            return found
        return True


@contextmanager
def nobody_else(cache_dir: Path) -> Iterator[bool]:
    """Inside, no other process enters the cache. False when one is in it already."""
    found, descriptor = _locked(cache_dir / FOLDER / IN_USE, fcntl.LOCK_EX)
    try:
        yield found
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(path: Path, how: int) -> tuple[bool, int | None]:
    """Whether ``path`` may be taken, and the descriptor that holds its lock; None where there are no locks."""
    while True:
        try:
            make_folder(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return True, None  # no file, no lock: a full disk is told where something is written
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            return error.errno not in HELD_ELSEWHERE, None
        if _is_still(path, descriptor):
            return True, descriptor
        os.close(descriptor)  # its last holder removed it just before we locked it


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
