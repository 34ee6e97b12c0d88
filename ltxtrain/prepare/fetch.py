"""Fetch a data set of the Hub into a folder. What was begun goes on where it stopped; what is right is left alone.

huggingface_hub knows the Hub: addresses, tokens, proxies, what an answer means. The files themselves are read here,
because that library throws a part of a file away when its process ends, and compares no digest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ltxtrain.errors import ConfigError, DataError, Fault, MachineError
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.facts.access import may_write, nearest, owner_text
from ltxtrain.facts.hub_login import hub_endpoint
from ltxtrain.files import make_folder, room_at, sync_folder
from ltxtrain.prepare.fetch_ask import check_status
from ltxtrain.prepare.fetch_list import HubFile, HubSet, full_name, hub_host, look_up, told_by_hub
from ltxtrain.prepare.fetch_part import PARTS, Part, bytes_there, open_part, part_path, parts_folder
from ltxtrain.prepare.fetch_record import Record, Sorted, compare, read_record
from ltxtrain.prepare.places import inside
from ltxtrain.prepare.waits import asked_wait
from ltxtrain.units import counted, format_bytes

STAGE = "fetch"
MIB = 1 << 20
AT_ONCE = 4
TRIES = 5
FIRST_WAIT_S = 0.5
LOOK_S = 0.2
SLOW_SECONDS, LEAST_BYTES = 60.0, 64 << 10  # so many at least in such a time: else a connection is given up
SHOWN = 5  # names in a line
ROOM_LEFT = 64 * MIB


@dataclass(frozen=True)
class Fetched:
    """``files`` were fetched now, ``there`` were right already; ``changed`` are the user's own now, and were kept."""

    root: Path
    commit: str
    files: int
    there: int
    changed: tuple[str, ...]


def iter_fetch(asked: str, to: Path, revision: str | None = None) -> Generator[Event, None, Fetched]:
    """Fetch the set ``asked`` (OWNER/NAME or a short name) into ``to``.

    Raises ``ConfigError`` for a name that is none, ``DataError`` for what the Hub refuses or gives wrong,
    ``MachineError`` for the network and the disk. After each of them a second call goes on.
    """
    name = full_name(asked)
    record = read_record(to)
    if record.dataset not in ("", name):
        raise ConfigError([Fault("--to", f"{to} holds the data set {record.dataset}")], hint="name another folder")
    found = look_up(name, revision)
    yield Notice(_words(found))
    if not found.files:
        raise DataError(f"{name} holds no videos, pictures or tables", hint="check the name on the Hub's page")
    if found.left_out:
        yield Notice(f"left out, as no file that a training reads: {_listed(found.left_out)}")
    root = _writable(to)
    with _alone(root):
        sorted_ = compare(root, found.files, record)
        yield from _notices(sorted_)
        _check_room(root, sorted_)
        try:
            yield from _fetch_all(root, found, sorted_, record)
        finally:
            record.write(root, found, revision, hub_host())
        shutil.rmtree(root / PARTS, ignore_errors=True)
    return Fetched(root, found.commit, len(sorted_.fetch), len(sorted_.there), sorted_.changed)


def _words(found: HubSet) -> str:
    licence = found.licence or "not told: look at the set's page before you publish anything"
    size = f"{counted(len(found.files), 'file')}, {format_bytes(found.bytes)}"
    return f"{found.name}, commit {found.commit[:12]}: {size}; licence: {licence}"


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _notices(sorted_: Sorted) -> Iterator[Notice]:
    if sorted_.changed:
        told = f"changed here, and kept as they are: {_listed(sorted_.changed)}; delete one to fetch it again"
        yield Notice(told, "warning")
    if sorted_.gone:
        yield Notice(f"no longer in the set, and kept: {_listed(sorted_.gone)}")


def _writable(to: Path) -> Path:
    place = nearest(to)
    if not place.is_dir() or not may_write(place):
        why = owner_text(place) if place.is_dir() else "is no folder"
        raise MachineError(f"nothing can be written to {to}: {place} {why}", hint="name a folder of your own with --to")
    make_folder(to)
    return to.resolve()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One at a time fetches into a folder. The system lets go of the lock however the process ends."""
    make_folder(parts_folder(root))
    descriptor = os.open(root / PARTS / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError(f"another process fetches into {root}", hint="wait for it to end") from None
        yield
    finally:
        os.close(descriptor)


def _check_room(root: Path, sorted_: Sorted) -> None:
    need = sum(file.bytes - bytes_there(root, file) for file in sorted_.fetch)
    free = shutil.disk_usage(root).free
    if sorted_.fetch and free < need + ROOM_LEFT:
        raise MachineError(
            f"{format_bytes(need)} are to be fetched, and {format_bytes(free)} are free at {root}",
            hint="make room there, or name a folder on another disk with --to",
        )


class _Meter:
    """Bytes so far, from several threads; ``stop`` ends them at their next piece."""

    def __init__(self, done: int) -> None:
        self._lock = threading.Lock()
        self.done = done
        self.stop = threading.Event()

    def add(self, count: int) -> None:
        if self.stop.is_set():
            raise InterruptedError
        with self._lock:
            self.done += count


def _fetch_all(root: Path, found: HubSet, sorted_: Sorted, record: Record) -> Iterator[Event]:
    if not sorted_.fetch:
        yield Notice(f"nothing to fetch: {counted(len(sorted_.there), 'file')} as the Hub has them")
        return
    started = time.monotonic()
    before = sum(file.bytes for file in sorted_.there)
    total = before + sum(file.bytes for file in sorted_.fetch)
    meter = _Meter(before + sum(bytes_there(root, file) for file in sorted_.fetch))
    yield StageStarted(STAGE, -(-total // MIB), meter.done // MIB, "MiB")
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=STAGE)
    try:
        under_way = {pool.submit(_fetch_one, root, found, file, meter): file for file in sorted_.fetch}
        pending: set[Future[None]] = set(under_way)
        while pending:
            finished, pending = wait(pending, LOOK_S, FIRST_EXCEPTION)
            for future in finished:
                future.result()
                record.keep(root, under_way[future])
            files = f"{len(under_way) - len(pending)}/{len(under_way)} files"
            yield StageProgress(STAGE, -(-meter.done // MIB) if not pending else meter.done // MIB, files)
    finally:
        meter.stop.set()
        pool.shutdown(cancel_futures=True)
    sync_folder(root)
    got = sum(file.bytes for file in sorted_.fetch)
    yield StageDone(STAGE, time.monotonic() - started, f"{counted(len(sorted_.fetch), 'file')}, {format_bytes(got)}")


def _fetch_one(root: Path, found: HubSet, file: HubFile, meter: _Meter) -> None:
    """Fetch, compare the digest, and only then put the file in its place."""
    inside(root, file.name)
    with open_part(root, file) as part:
        for fresh in (False, True):
            if fresh:
                meter.add(-min(part.size, file.bytes))
                part.clear()
            with room_at(root, file.bytes, file.name):
                _read_into(part, found, file, meter)
            if part.is_right():
                return part.put(root)
    part_path(root, file).unlink(missing_ok=True)
    raise DataError(
        f"{file.name} came twice with another content than {hub_host()} says it has",
        hint="run again later, or set HF_ENDPOINT to another mirror",
    )


def _read_into(part: Part, found: HubSet, file: HubFile, meter: _Meter) -> None:
    """Read the rest of a file, several times over when the connection is cut, each time from where it was."""
    from huggingface_hub.errors import HTTPError

    failures = 0
    while True:
        if part.size > file.bytes:
            part.clear()
        there = part.size
        if there == file.bytes:
            return
        try:
            with told_by_hub(found.name, found.commit):
                _read_rest(part, found, file, meter)
        except MachineError as error:
            failures = 1 if part.size - there >= LEAST_BYTES else failures + 1
            if not isinstance(error.__cause__ or error, (HTTPError, TooSlow)) or failures >= TRIES:
                raise
            response = getattr(error.__cause__, "response", None)
            asked_s = 0.0 if response is None else asked_wait(response.headers)
            if meter.stop.wait(max(FIRST_WAIT_S * 2 ** (failures - 1), asked_s)):
                raise
            continue
        if part.size < file.bytes:
            failures += 1
            if failures >= TRIES:
                raise MachineError(f"{file.name} ends early again and again", hint="run again later: it goes on")


def _read_rest(part: Part, found: HubSet, file: HubFile, meter: _Meter) -> None:
    """One request. A server that ignores the range begins anew, and so does the part."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    there = part.size
    url = hf_hub_url(found.name, file.name, repo_type="dataset", revision=found.commit, endpoint=hub_endpoint())
    headers: dict[str, Any] = build_hf_headers(library_name="ltxtrain") | {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        past_its_end = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if not past_its_end:
            check_status(response)
        goes_on = there > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        if not goes_on:
            meter.add(-there)
            part.clear()
        if not past_its_end:
            _keep(response.iter_bytes(), part, file, meter)


class TooSlow(MachineError):
    """Bytes come, so that no other limit of time ends it, but next to none."""


def _keep(pieces: Iterable[bytes], part: Part, file: HubFile, meter: _Meter) -> None:
    size = marked = part.size
    began = time.monotonic()
    try:
        for piece in pieces:
            size += len(piece)
            if size > file.bytes:
                break  # more than it has: the digest tells
            part.stream.write(piece)
            meter.add(len(piece))
            if size - marked >= LEAST_BYTES:
                began, marked = time.monotonic(), size
            elif time.monotonic() - began > SLOW_SECONDS:
                told = f"{file.name} comes with less than {format_bytes(LEAST_BYTES / SLOW_SECONDS)} a second"
                raise TooSlow(told, hint="run again later: it goes on; or set HF_ENDPOINT to a mirror")
    finally:
        part.stream.flush()
    os.fsync(part.stream.fileno())
