"""Processes that open media for us. A file can be made to crash, stall or take over whatever decodes it: not us.

Each child runs a module that ends in ``children_serve.serve``. A task goes to it as a line of JSON, and its answer
comes back as a line of JSON; pictures come as raw bytes, in shared memory or after that line. Nothing that a child says
is executed or unpickled, and none of it is believed without a look at its size and shape.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal

from ltxtrain.errors import MachineError
from ltxtrain.facts.children_memory import SharedMemory
from ltxtrain.facts.children_serve import PIPE_BYTES
from ltxtrain.facts.machine import usable_cores

MOST_CHILDREN = 8
START_SECONDS = 60.0  # a process on a cold network disk, on a busy machine
START_ATTEMPTS = 2
START_PAUSE_SECONDS = 0.2
TASKS_OF_A_CHILD = 500  # then a fresh one: what a decoder leaks on damaged files must not add up
MOST_LINE_BYTES = 1 << 20
READ_BYTES = 1 << 20
AHEAD_BYTES = 1 << 30  # of answers that nobody has taken yet; one task may be larger
_F_SETPIPE_SZ = 1031  # Linux

# What a child may know of our environment: tokens are none of its business.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV")
# The C library of Linux would give the memory of each picture back to the system, and ask for it again for the next.
KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(256 << 20), "MALLOC_MMAP_THRESHOLD_": str(256 << 20)}
KEPT_PREFIXES = ("PYTHON", "LC_", "DYLD_", "COVERAGE")

Failure = Literal["", "too-slow", "crashed"]


@dataclass(frozen=True)
class Task:
    """``payload`` is plain JSON. ``seconds`` is the wall time it may take, ``most_bytes`` what the answer's raw part
    may hold at most."""

    payload: dict[str, Any]
    seconds: float
    most_bytes: int = 0


@dataclass(frozen=True)
class Reply:
    """``answer`` is None exactly where ``failure`` is set; ``detail`` then says how the child ended."""

    answer: dict[str, Any] | None
    data: bytearray | memoryview = field(default_factory=bytearray)
    failure: Failure = ""
    detail: str = ""


class Children:
    """Up to ``count`` processes of ``python -m module``, each with at most ``memory_bytes`` of address space.

    They start when first needed; one that died or was too slow is replaced. A task whose child died is tried once more
    in a fresh one: the system may have killed it for the memory of others. Nothing is ever opened in this process:
    ``run`` raises ``MachineError`` where not one child can be started.
    """

    def __init__(self, module: str, count: int, memory_bytes: int) -> None:
        self._count = max(1, count)
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        self._first = _First()
        self._all = [_Slot(module, memory_bytes, AHEAD_BYTES // self._count, self._first) for _ in range(self._count)]
        for slot in self._all:
            self._slots.put(slot)
        # A thread for each child, kept to the end: Linux ends a child when the thread that started it ends.
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="children")

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all children at once, whatever they are at."""
        for slot in self._all:
            slot.end()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for slot in self._all:
            slot.stop()  # one may have started in between

    def run(self, tasks: Iterable[Task]) -> Iterator[Reply]:
        """Replies in the order of ``tasks``. At most ``2 * count`` tasks and ``AHEAD_BYTES`` of data are under way."""
        waiting: deque[tuple[Future[Reply], int]] = deque()
        try:
            for task in tasks:
                while waiting and (
                    len(waiting) >= 2 * self._count or sum(size for _, size in waiting) + task.most_bytes > AHEAD_BYTES
                ):
                    yield waiting.popleft()[0].result()
                self._tidy()
                waiting.append((self._threads.submit(self._answer, task), task.most_bytes))
            while waiting:
                yield waiting.popleft()[0].result()
                self._tidy()
        finally:
            for future, _ in waiting:
                future.cancel()
            for slot in self._all:
                slot.memory.empty()

    def _tidy(self) -> None:
        """Memory of answers that nobody looks at any more goes, but for what the next answers are written into."""
        for slot in self._all:
            slot.memory.tidy()

    def _answer(self, task: Task) -> Reply:
        """A child that cannot be replaced just now leaves its tasks to the others."""
        why = ""
        for _ in self._all:
            slot = self._slots.get()
            try:
                return _asked_twice(slot, task)
            except _NoStart as error:
                why = str(error)
            finally:
                self._slots.put(slot)
        return Reply(None, failure="crashed", detail=f"no process to open it can be started now: {why}")


def _asked_twice(slot: _Slot, task: Task) -> Reply:
    """What has just ended a child is given to no other than a fresh one. Raises ``_NoStart``."""
    reply = slot.ask(task)
    if reply.failure == "crashed":
        with suppress(_NoStart):
            return slot.ask(task)
    return reply


@dataclass
class _First:
    """The first child starts alone: whether it can be is known before another is tried."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    started: bool = False


class _NoStart(Exception):
    """No child could be started in this slot, though others have been."""


class _Ended(Exception):
    """The child is gone, or says what it must not."""


class _TooSlow(Exception):
    pass


class _Slot:
    """The place of one child: starts it, speaks with it, ends it."""

    def __init__(self, module: str, memory_bytes: int, keep_bytes: int, first: _First) -> None:
        self._module, self._memory_bytes, self._first = module, memory_bytes, first
        self._process: subprocess.Popen[bytes] | None = None
        self._input: socket.socket | None = None
        self.memory = SharedMemory(keep_bytes)
        self._rest = b""  # read already, beyond the last line
        self._answered = 0
        self._closed = False

    def ask(self, task: Task) -> Reply:
        """Raises ``_NoStart`` when there is no child and none can be started, ``MachineError`` when none ever could."""
        if self._process is None or self._answered >= TASKS_OF_A_CHILD:
            self._start()
        if self._closed:
            return Reply(None, failure="crashed", detail="it was stopped")
        try:
            answer, data = self._exchange(task)
        except _TooSlow:
            self.stop()
            return Reply(None, failure="too-slow", detail=f"it took longer than {task.seconds:.0f} s")
        except _Ended as error:
            ended = self.stop()
            return Reply(None, failure="crashed", detail=str(error) or ended)
        except OSError:  # it was gone before the task reached it
            return Reply(None, failure="crashed", detail=self.stop())
        self._answered += 1
        return Reply(answer, data)

    def end(self) -> None:
        """Called by another thread: the one that waits for this child's answer sees it end."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def _start(self) -> None:
        with self._first.lock if not self._first.started else nullcontext():
            why = self._start_now()
            self._first.started |= not why
        if not why or self._closed:
            return
        if self._first.started:
            raise _NoStart(why)
        raise MachineError(
            f"no process can be started to open media in ({why})",
            hint="see how many processes and how much memory this container or user may have (ulimit -u, ulimit -v)",
        )

    def _start_now(self) -> str:
        """Start a child and hear that it is ready. Returns why there is none, or nothing."""
        self.stop()
        why = ""
        for attempt in range(START_ATTEMPTS):
            if self._closed:
                return "it was stopped"
            if attempt:
                time.sleep(START_PAUSE_SECONDS)
            try:
                self._process, self._input = start_process(self._module, self._memory_bytes)
                if self._read_line(time.monotonic() + START_SECONDS) == {"ready": True}:
                    self._answered = 0
                    return ""
                why = "it says what it must not"
            except (_Ended, _TooSlow, OSError) as error:
                why = str(error) or self.stop() or "it does not get ready"
            self.stop()
        return why

    def stop(self) -> str:
        """End the child, if there is one. Returns how it ended, in words."""
        process, self._process, self._rest = self._process, None, b""
        self.memory.close()  # the next child is not to find what this one can still write to
        if process is None:
            return ""
        for stream in (self._input, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(subprocess.TimeoutExpired):
            return _told_end(process.wait(0.2))  # it ended by itself
        process.kill()
        process.wait()
        return "the process that opened it was stopped"

    def _exchange(self, task: Task) -> tuple[dict[str, Any], bytearray | memoryview]:
        assert self._input is not None
        until = time.monotonic() + task.seconds
        mark = secrets.token_hex(8)  # an answer to another question is none
        asked = {"mark": mark, "seconds": task.seconds, "most": task.most_bytes, "task": task.payload}
        room = self.memory.room(task.most_bytes)
        asked["rooms"] = self.memory.count
        line = json.dumps(asked, separators=(",", ":")).encode() + b"\n"
        sent = socket.send_fds(self._input, [line], [room.descriptor]) if room is not None else 0
        self._input.sendall(line[sent:])
        said = self._read_line(until)
        answer, size = said.get("answer"), said.get("bytes")
        if isinstance(said.get("defect"), str):
            raise _Ended(f"a defect of this program: {said['defect'][:500]}")
        if said.get("mark") != mark or not isinstance(answer, dict) or not isinstance(size, int):
            raise _Ended("the process that opened it says what it must not")
        if not 0 <= size <= task.most_bytes:
            raise _Ended(f"the process that opened it gives {size} bytes; at most {task.most_bytes} are asked for")
        return answer, self._read_data(size, until) if room is None else self.memory.look(room, size)

    def _read_line(self, until: float) -> dict[str, Any]:
        line = bytearray(self._rest)
        searched = 0
        while (end := line.find(b"\n", searched)) < 0:
            searched = len(line)
            if searched > MOST_LINE_BYTES:
                raise _Ended("the process that opened it says what it must not")
            self._wait(until)
            more = os.read(self._output(), 1 << 16)
            if not more:
                raise _Ended
            line += more
        self._rest = bytes(line[end + 1 :])
        try:
            said = json.loads(line[:end])
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise _Ended("the process that opened it says what it must not")
        return said

    def _read_data(self, size: int, until: float) -> bytearray:
        """Straight from the pipe into the buffer that is handed out: a window of frames can have 200 MB."""
        data = bytearray(size)
        have = min(size, len(self._rest))
        data[:have], self._rest = self._rest[:have], self._rest[have:]
        view = memoryview(data)
        while have < size:
            self._wait(until)
            got = os.readv(self._output(), [view[have : have + READ_BYTES]])
            if not got:
                raise _Ended
            have += got
        return data

    def _wait(self, until: float) -> None:
        watch = select.poll()
        watch.register(self._output(), select.POLLIN)
        if not watch.poll(max(0.0, until - time.monotonic()) * 1000):
            raise _TooSlow

    def _output(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.fileno()


def start_process(module: str, memory_bytes: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """``python -m module MEMORY``, as a new program: a copy of a process with threads and a GPU would not survive."""
    if not sys.executable:
        raise OSError("the program of this Python is not known")
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(memory_bytes), str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(os.environ),
                bufsize=0,
            )
        except OSError:
            ours.close()
            raise
    if sys.platform == "linux" and process.stdout is not None:
        import fcntl

        with suppress(OSError):  # a user may have used up the room for pipes
            fcntl.fcntl(process.stdout.fileno(), _F_SETPIPE_SZ, PIPE_BYTES)
    return process, ours


def child_environment(environment: Any) -> dict[str, str]:
    """Where programs and libraries are, and our own package; no tokens. One thread each: there are many children."""
    kept = {
        name: value for name, value in environment.items() if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
    ours = str(Path(__file__).resolve().parents[2])
    places = [ours, *(place for place in kept.get("PYTHONPATH", "").split(os.pathsep) if place)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return kept | threads | KEPT_MEMORY | {"PYTHONPATH": os.pathsep.join(places)}


def usable_workers(group: Path = Path("/sys/fs/cgroup")) -> int:
    """How many children pay: the cores that this process may use, as its container limits them; at most 8."""
    cores = usable_cores()
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return max(1, min(MOST_CHILDREN, cores))


def _told_end(code: int) -> str:
    if code < 0:
        return f"the process that opened it was ended by a signal: {signal.strsignal(-code)}"
    return f"the process that opened it left with code {code}"
