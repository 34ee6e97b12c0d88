"""Cache entries written several at a time, in a thread, while the next ones are encoded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import torch

from ltxtrain.data.cache import packed, refuse_non_finite
from ltxtrain.data.store import Entry
from ltxtrain.errors import LtxtrainError
from ltxtrain.files import make_folder, room_at, sync_folder

# Whatever the batch size, no more than this waits in memory, and nothing waits longer: it is what a kill may cost.
WAITING_BYTES = 256 * 1024**2
WAITING_SECONDS = 5.0


@dataclass(frozen=True)
class Encoded:
    """One entry's tensors. ``made_of`` names the clip or caption for messages; ``claim`` ends when it is written."""

    entry: Entry
    tensors: dict[str, torch.Tensor]
    made_of: str
    claim: str = ""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Writer:
    """Commits what it is given in batches of ``count``; the rest when the ``with`` block ends, however it ends.

    Errors of a batch are raised by the next call. ``committed`` is called in the thread, with a batch that is on disk.
    """

    def __init__(self, count: int, compress: bool, committed: Callable[[Sequence[Encoded]], None]) -> None:
        self._count, self._compress, self._committed = count, compress, committed
        self._waiting: list[Encoded] = []
        self._guard = threading.RLock()
        self._timer: threading.Timer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._thread:
            if kind is None:
                self.flush()
            else:  # what ends the run already is what is told
                with suppress(LtxtrainError, OSError):
                    self.flush()

    def put(self, encoded: Encoded) -> None:
        """Raises ``DataError`` when it is not finite, ``MachineError`` when the disk was full for the last batch."""
        refuse_non_finite(encoded.tensors, encoded.made_of)
        with self._guard:
            if not self._waiting:
                self._wait_at_most()
            self._waiting.append(encoded)
            if len(self._waiting) >= self._count or sum(item.nbytes for item in self._waiting) >= WAITING_BYTES:
                self._hand_over()

    def flush(self) -> None:
        """Return when everything is on disk."""
        with self._guard:
            self._hand_over()
            self._settle()

    def _wait_at_most(self) -> None:
        self._timer = threading.Timer(WAITING_SECONDS, self._in_time)
        self._timer.daemon = True
        self._timer.start()

    def _in_time(self) -> None:
        """In the timer's thread: what waits goes to the disk, however long the next one takes to be encoded. What went
        wrong with the batch before stays for the next call."""
        with self._guard:
            if self._timer is not threading.current_thread():
                return  # handed over while this waited for the guard
            if self._under_way is not None and not self._under_way.done():
                self._wait_at_most()
            elif self._under_way is None or self._under_way.exception() is None:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._settle()
        batch, self._waiting = self._waiting, []
        if batch:
            self._under_way = self._thread.submit(self._commit, batch)

    def _settle(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _commit(self, batch: Sequence[Encoded]) -> None:
        write_together(batch, compress=self._compress)
        self._committed(batch)


def write_together(batch: Sequence[Encoded], *, compress: bool) -> None:
    """Write all entries, then sync all, then rename all: the disk works on many at once. The folders are synced last.

    Raises ``MachineError`` when the disk is full; the entries before that are kept.
    """
    ready: list[tuple[Path, Path]] = []
    try:
        for encoded in batch:
            path = encoded.entry.path
            content = packed(encoded.entry.key, encoded.tensors, compress=compress)
            temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
            with room_at(path.parent.parent.parent, len(content), f"each entry of the size of {encoded.made_of}"):
                _write(temporary, content)
            ready.append((temporary, path))
    finally:
        _commit_all(ready, batch)


def _write(temporary: Path, content: bytes) -> None:
    make_folder(temporary.parent)
    try:
        temporary.write_bytes(content)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _commit_all(ready: Sequence[tuple[Path, Path]], batch: Sequence[Encoded]) -> None:
    try:
        for (temporary, path), encoded in zip(ready, batch, strict=False):
            size = temporary.stat().st_size
            with room_at(path.parent.parent.parent, size, f"each entry of the size of {encoded.made_of}"):
                _sync(temporary)
            temporary.replace(path)
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)  # gone already, unless something went wrong
    for folder in sorted({path.parent for _, path in ready}):
        sync_folder(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
