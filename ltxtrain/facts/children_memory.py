"""Memory that a child writes pictures into and we read, where the system has it (Linux's memfd).

A pipe would copy each window of frames twice, which costs as much as decoding it. This memory is a file without a name:
it needs no /dev/shm, and it is sealed, so that a child cannot make it shorter under our hands.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from dataclasses import dataclass

from ltxtrain.facts.children_serve import KEPT_ROOMS

LEAST_BYTES = 1 << 20  # less goes through the pipe


@dataclass
class _Room:
    descriptor: int
    size: int
    seen: mmap.mmap | None = None  # by whoever has the answer that lies in it
    asked: bool = False  # a child may be writing into it


class SharedMemory:
    """Rooms of one child. One is given out again when nobody looks at the answer in it any more.

    Of those that nobody looks at, one stays, and up to ``KEPT_ROOMS`` where they hold ``keep_bytes`` at most: to fill
    new ones with zeros and to map them takes a third of the time of decoding. ``tidy`` may be called by another thread.
    """

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._rooms: list[_Room] = []
        self._lock = threading.Lock()

    def room(self, size: int) -> _Room | None:
        """A room of at least ``size`` bytes; None where there is no such memory, or where a pipe will do."""
        if size < LEAST_BYTES:
            return None
        with self._lock:
            free = self._free()
            room = next((room for room in free if room.size >= size), None)
            self._forget_beyond(self._keep_bytes, [other for other in free if other is not room])
            if room is None:
                try:
                    room = _Room(_sealed_memory(size), size)
                except (OSError, AttributeError):
                    return None
                self._rooms.append(room)
            room.asked = True
            return room

    def look(self, room: _Room, size: int) -> memoryview:
        """The first ``size`` bytes of what the child wrote, for as long as the caller keeps them."""
        with self._lock:
            room.seen = mmap.mmap(room.descriptor, room.size)
            room.asked = False
            return memoryview(room.seen)[:size]

    def tidy(self) -> None:
        """Let go of rooms that nobody looks at, but for those that stay."""
        with self._lock:
            free = self._free()
            if free:
                self._forget_beyond(self._keep_bytes - free[0].size, free[1:])

    def empty(self) -> None:
        """Let go of all rooms that nobody looks at."""
        with self._lock:
            self._forget_beyond(0, self._free())

    @property
    def count(self) -> int:
        return len(self._rooms)

    def close(self) -> None:
        """Answers that somebody still looks at stay readable: the system keeps them until then."""
        with self._lock:
            for room in list(self._rooms):
                self._forget(room)

    def _free(self) -> list[_Room]:
        return [room for room in self._rooms if not room.asked and _is_free(room)]

    def _forget_beyond(self, keep_bytes: int, rooms: list[_Room]) -> None:
        kept = 0
        for number, room in enumerate(rooms, 1):
            kept += room.size
            if kept > keep_bytes or number >= KEPT_ROOMS:
                self._forget(room)

    def _forget(self, room: _Room) -> None:
        self._rooms.remove(room)
        os.close(room.descriptor)


def _is_free(room: _Room) -> bool:
    """Python refuses to close a mapping that an array or a view still looks at: that is how we know."""
    if room.seen is not None:
        try:
            room.seen.close()
        except BufferError:
            return False
        room.seen = None
    return True


def _sealed_memory(size: int) -> int:
    if sys.platform != "linux":
        raise OSError("no such memory here")
    import fcntl

    descriptor = os.memfd_create("ltxtrain", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
