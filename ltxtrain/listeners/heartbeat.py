"""A file for health checks: replaced while a run goes on, left to grow old when it hangs, removed when it ends.

Events are the first sign of progress. Long work without events (weights being fetched, hashed or loaded, one video
being rendered) is seen in another way: the thread that works is at another place of the code than a moment ago, or
much was read or written. A call to the device, the network or a lock that never returns shows neither.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ltxtrain.events import TRAINING, Event, StageProgress, StageStarted, StepDone

VARIABLE = "LTX_HEARTBEAT"
WRITE_SECONDS = 1.0  # no more often than this
LOOK_SECONDS = 1.0  # how often signs of progress are looked for
MUCH_BYTES = 128 * 1024  # in that time; what we write ourselves, and a progress bar, stay far below


def heartbeat_listener(env: Mapping[str, str] | None = None) -> Heartbeat:
    """The listener for the file that LTX_HEARTBEAT names; without the variable, one that does nothing."""
    named = (os.environ if env is None else env).get(VARIABLE, "")
    return Heartbeat(Path(named) if named else None)


class Heartbeat:
    """Use it as a context manager in the thread that does the work. Its file holds one line of JSON:

    {"time": "2026-01-31T12:00:00+00:00", "pid": 17, "stage": "latents", "done": 3, "total": 12}
    """

    def __init__(self, path: Path | None, look_seconds: float = LOOK_SECONDS) -> None:
        self._path = path
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None
        self._stage, self._done = "starting", 0
        self._totals: dict[str, int | None] = {}
        self._due = False
        self._written = -WRITE_SECONDS
        self._told = False

    def __enter__(self) -> Self:
        if self._path is not None:
            self._beat()
            self._watcher = threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        if self._path is None:
            return
        match event:
            case StageStarted():
                self._totals[event.stage] = event.total
                self._stage, self._done = event.stage, event.done
            case StageProgress():
                self._stage, self._done = event.stage, event.done
            case StepDone():
                self._totals[TRAINING] = event.total
                self._stage, self._done = TRAINING, event.step
            case _:
                pass
        self._beat()

    def close(self) -> None:
        """Remove the file, unless another process has made it its own. May be called twice."""
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join(timeout=5)
            self._watcher = None
        with self._lock:
            path, self._path = self._path, None
        if path is not None and _writer_of(path) == os.getpid():
            path.unlink(missing_ok=True)

    def _watch(self, worker: int) -> None:
        place, moved = _place_in_code(worker), _bytes_moved()
        while not self._ended.wait(self._look_seconds):
            before, place = (place, moved), _place_in_code(worker)
            moved = _bytes_moved()
            if self._due or place != before[0] or moved - before[1] >= MUCH_BYTES:
                self._beat()

    def _beat(self) -> None:
        """Write the file, or leave that to the watcher where it was written a moment ago."""
        with self._lock:
            self._due = time.monotonic() - self._written < WRITE_SECONDS
            if self._due or self._path is None:
                return
            try:
                self._write(self._path)
            except OSError as error:
                self._tell(error)
            self._written = time.monotonic()

    def _tell(self, error: OSError) -> None:
        """Once: the run goes on, and so does trying, since a full disk may get free again."""
        if not self._told:
            reason = error.strerror or error
            print(f"warning: no heartbeat can be written to {self._path} ({reason}, from {VARIABLE})", file=sys.stderr)
        self._told = True

    def _write(self, path: Path) -> None:
        """Replace the file whole. Nothing is synced: after a power loss nobody asks for it."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "pid": os.getpid(),
            "stage": self._stage,
            "done": self._done,
            "total": self._totals.get(self._stage),
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)  # of a process with our number that was killed
        try:
            with temporary.open("x") as stream:  # never through a link that somebody put there
                stream.write(json.dumps(line) + "\n")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _writer_of(path: Path) -> int | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    pid = found.get("pid") if isinstance(found, dict) else None
    return pid if isinstance(pid, int) else None


def _place_in_code(worker: int) -> list[tuple[int, int]]:
    """Where the thread is: each frame of its stack, with its next instruction. No frame is kept, nor what it holds."""
    places = []
    frame = sys._current_frames().get(worker)
    while frame is not None:
        places.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return places


def _bytes_moved() -> int:
    """What this process has read and written so far, mapped files included; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counted = dict(line.split(": ", 1) for line in lines if ": " in line)
    return sum(int(counted.get(name, 0)) for name in ("rchar", "wchar", "read_bytes"))
