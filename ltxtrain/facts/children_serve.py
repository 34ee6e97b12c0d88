"""The other end of ``children.Children``: a process under limits that answers one task after the other."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

Answer: TypeAlias = "tuple[dict[str, Any], bytes | bytearray | memoryview]"
PIPE_BYTES = 1 << 20
OPEN_FILES = 64
GRACE_SECONDS = 5
_PR_SET_PDEATHSIG = 1


def serve(answer: Callable[[dict[str, Any]], Answer]) -> None:
    """Answer tasks until the parent goes. ``sys.argv`` holds the memory that may be used and the parent's number."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    end_with_parent(int(sys.argv[2]))
    limit_process(int(sys.argv[1]))
    send(output, {"ready": True})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        # The clock of the system ends this process even where a decoder never comes back, and without a parent.
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"] + GRACE_SECONDS)
        try:
            said, data = answer(asked["task"])
        except BaseException as error:
            send(output, {"defect": f"{type(error).__name__}: {error}"})
            raise
        send(output, {"mark": asked["mark"], "answer": said, "bytes": len(data)})
        send_bytes(output, data)
        signal.setitimer(signal.ITIMER_REAL, 0)


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
