"""The other end of ``children.Children``: a process under limits that answers one task after the other."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeAlias

# From a task, and room for the raw part of its answer, to the answer and how many bytes of the room it fills.
Answerer: TypeAlias = "Callable[[dict[str, Any], memoryview], tuple[dict[str, Any], int]]"
PIPE_BYTES = 1 << 20
OPEN_FILES = 64
KEPT_ROOMS = 4  # those of the answers under way, and of one that somebody looks at
GRACE_SECONDS = 5
_PR_SET_PDEATHSIG = 1


def serve(answer: Answerer) -> None:
    """Answer tasks until the parent goes. ``sys.argv`` holds the memory that may be used and the parent's number."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    end_with_parent(int(sys.argv[2]))
    limit_process(int(sys.argv[1]))
    sys.excepthook = _teller_of_defects(output)
    send(output, {"ready": True})
    own = bytearray()
    shared = _SharedRooms()
    with socket.socket(fileno=os.dup(0)) as input:
        for asked, descriptor in _tasks(input):
            # The clock of the system ends this process even where a decoder never comes back, and without a parent.
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"] + GRACE_SECONDS)
            most = asked["most"]
            if descriptor is None and len(own) < most:
                own = bytearray(most)
            room = memoryview(own if descriptor is None else shared.open(descriptor, asked["rooms"]))
            said, size = answer(asked["task"], room[:most])
            send(output, {"mark": asked["mark"], "answer": said, "bytes": size})
            if descriptor is None:
                send_bytes(output, room[:size])
            signal.setitimer(signal.ITIMER_REAL, 0)


def _teller_of_defects(output: int) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """What nobody expected ends this process, and the parent is told why."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with suppress(OSError):
            send(output, {"defect": f"{kind.__name__}: {error}"})
        sys.__excepthook__(kind, error, trace)

    return tell


def _tasks(input: socket.socket) -> Iterator[tuple[dict[str, Any], int | None]]:
    """One line each, with the shared memory for the answer where there is one."""
    line, descriptors = b"", []
    while True:
        more, passed, _, _ = socket.recv_fds(input, 1 << 16, 1)
        if not more:
            return
        line += more
        descriptors += passed
        if line.endswith(b"\n"):  # the next task comes when this one is answered
            yield json.loads(line), descriptors[0] if descriptors else None
            line, descriptors = b"", []


class _SharedRooms:
    """Memory that the parent passed, mapped once: it comes again and again. The oldest is let go."""

    def __init__(self) -> None:
        self._mapped: dict[int, mmap.mmap] = {}

    def open(self, descriptor: int, rooms: int) -> mmap.mmap:
        """All pages at once: asking the system for each as it is touched takes longer than decoding.

        ``rooms`` is how many the parent has now: what it let go must not stay mapped here."""
        status = os.fstat(descriptor)
        mapped = self._mapped.pop(status.st_ino, None)
        if mapped is None:
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            mapped = mmap.mmap(descriptor, status.st_size, flags=flags)
        os.close(descriptor)
        while len(self._mapped) >= max(1, min(rooms, KEPT_ROOMS)):
            del self._mapped[next(iter(self._mapped))]  # unmapped as soon as nothing looks at it
        self._mapped[status.st_ino] = mapped
        return mapped


def send(output: int, said: Mapping[str, Any]) -> None:
    send_bytes(output, json.dumps(said, separators=(",", ":")).encode() + b"\n")


def send_bytes(output: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.write(output, view[done : done + PIPE_BYTES])


def end_with_parent(parent: int) -> None:
    """A Ctrl-C at the terminal reaches us too: the parent decides. When it is killed, Linux ends us with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def limit_process(memory_bytes: int) -> None:
    """Memory, open files, no file longer than it is, no core dump. What a system does not know is left out."""
    import resource

    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        _, highest = resource.getrlimit(kind)
        least = most if highest == resource.RLIM_INFINITY else min(most, highest)
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (least, least))
