"""Who encodes what, when several processes fill one cache: each entry is claimed by a lock on a file.

The kernel lets go of a lock when its process ends, however it ends, so nothing has to be cleaned up after a kill. On
file systems that know no locks (some network volumes) nothing is ever held: then everybody encodes, and the last
rename wins. What it writes is the same, or differs in its last bits where the processes encode other batches.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ltxtrain.files import make_folder

FOLDER = "claims"
IN_USE = "in-use"
SUFFIX = ".lock"
HELD_ELSEWHERE = (errno.EWOULDBLOCK, errno.EACCES)
# Here nothing can be locked, by anybody. Whatever else goes wrong is told, for it may be so for this process alone.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
POLL_SECONDS = 0.1
# An entry that another process does not finish in this time is encoded here as well: it may hang, or be stopped.
PATIENCE_SECONDS = 120.0


class Claims:
    """The claims of this process on the cache in ``cache_dir``. Any thread may take and release them.

    ``told`` collects what somebody should know. While ``hurry`` says so, nothing is waited for.
    """

    def __init__(self, cache_dir: Path, hurry: Callable[[], bool] = lambda: False) -> None:
        self.told: list[str] = []
        self._hurry = hurry
        self._told_once = False
        self._folder = cache_dir / FOLDER
        self._held: dict[str, int | None] = {}  # None: nothing can be locked there
        self._guard = threading.Lock()
        self._in_use: weakref.finalize[[int], Claims] | None = None

    def take(self, *keys: str) -> bool:
        """Claim all of ``keys``, or none: False when another process holds one of them."""
        taken = []
        for key in sorted(keys):
            with self._guard:
                if key in self._held:
                    continue
                found, descriptor = self._lock(self._folder / f"{key[:40]}{SUFFIX}", fcntl.LOCK_EX)
                if found:
                    self._held[key] = descriptor
                    taken.append(key)
            if not found:
                self.release(*taken)
                return False
        return True

    def _lock(self, path: Path, how: int) -> tuple[bool, int | None]:
        try:
            return _locked(path, how)
        except OSError as error:
            if not self._told_once:
                self._told_once = True
                self.told.append(
                    f"{path.parent} cannot be used to share the work with other processes "
                    f"({error.strerror or error}): this one encodes everything itself"
                )
            return True, None

    def release(self, *keys: str) -> None:
        for key in keys:
            with self._guard:
                descriptor = self._held.pop(key, None)
                if descriptor is not None:
                    # Removed while it is still locked: whoever opened it in the meantime sees that it has gone.
                    (self._folder / f"{key[:40]}{SUFFIX}").unlink(missing_ok=True)
                    os.close(descriptor)

    def release_all(self) -> None:
        self.release(*list(self._held))

    @contextmanager
    def waiting(self, keys: Sequence[str], what: str) -> Iterator[None]:
        """Inside, ``keys`` are held, after whoever has them now; or nobody is waited for any more."""
        began = time.monotonic()
        while not (held := self.take(*keys)):
            if self._hurry() or time.monotonic() - began > PATIENCE_SECONDS:
                self.told.append(f"another process has not finished {what}: it is encoded here as well")
                break
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            if held:
                self.release(*keys)

    def enter_cache(self) -> bool:
        """Say that entries are read and written as long as this object lives. False while the cache is being pruned."""
        if self._in_use is None:
            found, descriptor = self._lock(self._folder / IN_USE, fcntl.LOCK_SH)
            if descriptor is not None:
                self._in_use = weakref.finalize(self, os.close, descriptor)
            return found
        return True


@contextmanager
def nobody_else(cache_dir: Path) -> Iterator[bool]:
    """Inside, no other process enters the cache. False when one is in it already. Raises ``OSError`` where that
    cannot be told."""
    found, descriptor = _locked(cache_dir / FOLDER / IN_USE, fcntl.LOCK_EX)
    try:
        yield found
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(path: Path, how: int) -> tuple[bool, int | None]:
    """Whether ``path`` may be taken, and the descriptor that holds its lock; None where nobody can lock anything.

    Raises ``OSError`` where this process alone may not be able to.
    """
    while True:
        try:
            make_folder(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return True, None
            raise
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in HELD_ELSEWHERE or error.errno in NO_LOCKS:
                return error.errno in NO_LOCKS, None
            raise
        if _is_still(path, descriptor):
            return True, descriptor
        os.close(descriptor)  # its last holder removed it just before we locked it


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
