"""Folders and file systems: whether they hold what a run needs and do what its files rely on.

Every trace of a check is removed again: it works in a folder of its own, which it makes and takes away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.facts.access import Wanted, allow_writing, first_closed, give_over, mount_words, nearest, owner_text
from ltxtrain.facts.container import in_container
from ltxtrain.facts.mounts import mount_below
from ltxtrain.files import sync_folder
from ltxtrain.units import counted, format_bytes

PREFIX = ".ltxtrain-doctor-"
PROBE = b"ltxtrain" * 512
MIB = 1024**2
LEAST_FILES = 1000
LEAST_TEMPORARY = 100 * MIB
DOCKER_SHARED_MEMORY = 64 * MIB
IN_MEMORY = ("tmpfs", "ramfs")

# What an error number of the system means here: (code, words, what to do). Permissions are told with their owners.
ERRORS = {
    errno.EROFS: (
        "volume-read-only",
        "is on a read-only file system",
        "mount it without :ro, or name another folder",
    ),
    errno.ENOSPC: ("volume-full", "has no space left", "make room there, or name a folder on another disk"),
    errno.EDQUOT: ("volume-quota", "is over this user's quota", "make room there, or ask for a higher quota"),
    errno.ELOOP: ("volume-link-loop", "is a link that leads to itself", "remove the link, or name the folder itself"),
    errno.ESTALE: ("volume-gone", "was on a server that no longer knows it", "mount it again"),
    errno.ENOTCONN: ("volume-gone", "was mounted by a program that has ended", "mount it again"),
}


class _Refused(Exception):
    """A step of the check failed: ``finding`` tells it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


def check_volume(name: str, folder: Path, need_bytes: int, inside: Sequence[Path] = ()) -> list[Finding]:
    """Whether files can be written, synced, replaced and locked in ``folder``, and ``need_bytes`` fit there.

    ``inside`` are folders and files in it that runs write to, where they are there. A folder that does not exist is
    looked at where it would be made. After a fault in writing, nothing more is told.
    """
    check = f"{name} folder"
    wanted, place = Wanted(name, folder), nearest(folder)
    try:
        if not stat.S_ISDIR(place.stat().st_mode):
            says = f"{place} is a file, not a folder"
            return [fault(check, "volume-not-a-folder", says, f"remove it, or name another folder for the {name}")]
        with _probe_folder(place) as probe:
            findings = [_write(check, place, probe), _names(name, place, probe)]
    except OSError as error:
        return [_write_fault(check, place, wanted, error)]
    except _Refused as refused:
        return [refused.finding]
    if closed := first_closed(inside):
        says = f"uid {os.geteuid()}, gid {os.getegid()} may not write to {closed}, which {owner_text(closed)}"
        findings[0] = fault(check, "volume-inside-permission", says, give_over(closed, folder, os.environ))
    findings += [_space(name, place, need_bytes), _mount(name, folder)]
    return [finding for finding in findings if finding is not None]


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Training reads its data in threads of one process, which need none of it: so nothing here is a fault."""
    check = "shared memory"
    use = "ltxtrain itself uses none; drivers and libraries may"
    fix = "start the container with --shm-size 1g or --ipc=host"
    if platform.system() != "Linux":
        return skipped(check, "shm-not-used", "only Linux keeps it in a folder")
    if not folder.is_dir():
        return warning(check, "shm-missing", f"there is no {folder}; {use}", fix)
    status = os.statvfs(folder)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    figures = f"{format_bytes(size)}, {format_bytes(free)} free"
    try:
        with _probe_folder(folder) as probe:
            (probe / "probe").write_bytes(PROBE)
    except OSError as error:
        words = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            return warning(check, "shm-full", f"{folder} is full ({figures}); {use}", f"remove what fills it, or {fix}")
        return warning(check, "shm-not-writable", f"{folder} cannot be written: {words}; {use}", f"chmod 1777 {folder}")
    if size < DOCKER_SHARED_MEMORY:
        usual = format_bytes(DOCKER_SHARED_MEMORY)
        return warning(check, "shm-small", f"{figures}, less than Docker's usual {usual}; {use}", fix)
    return ok(check, f"{figures}; {use}")


def check_temporary() -> Finding:
    """Where temporary files go: Python takes the first of these that can be written, and says nothing."""
    check = "temporary files"
    named = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    places = [Path(text).absolute() for text in (*named, "/tmp", "/var/tmp", "/usr/tmp", ".")]
    first, why, used = places[0], "", None
    for place in places:
        refusal = _refusal(place)
        if refusal is None:
            used = place
            break
        why = why or f"{place} cannot be used ({refusal})"
    fix = "set TMPDIR to a folder that can be written (in a container: --tmpfs /tmp)"
    if used is None:
        return fault(check, "tmp-not-writable", f"{why}, nor any other folder for temporary files", fix)
    if used != first:
        return warning(check, "tmp-elsewhere", f"{why}, they go to {used}", fix)
    free = shutil.disk_usage(used).free
    if free < LEAST_TEMPORARY:
        says = f"{format_bytes(free)} are free at {used}, {format_bytes(LEAST_TEMPORARY)} should be"
        return warning(check, "tmp-small", says, "make room there, or set TMPDIR to a larger folder")
    return ok(check, f"{used}, {format_bytes(free)} free")


@contextmanager
def _probe_folder(place: Path) -> Iterator[Path]:
    probe = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        yield probe
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _refusal(place: Path) -> str | None:
    """Why no file can be written in ``place``; None when one can."""
    try:
        with _probe_folder(place) as probe:
            (probe / "probe").write_bytes(PROBE)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _write_fault(check: str, place: Path, wanted: Wanted, error: OSError) -> Finding:
    if error.errno in (errno.EACCES, errno.EPERM):
        says = f"uid {os.geteuid()}, gid {os.getegid()} may not write to {place}, which {owner_text(place)}"
        return fault(check, "volume-permission", says, allow_writing(place, wanted, os.environ))
    if error.errno == errno.ENOENT and place.is_symlink():
        says = f"{place} is a link to {place.readlink()}, which does not exist"
        return fault(check, "volume-dangling-link", says, "make what it leads to, or remove the link")
    if error.errno in ERRORS:
        code, words, fix = ERRORS[error.errno]
        return fault(check, code, f"{place} {words}", fix)
    says = f"{place} cannot be written: {error.strerror or error}"
    return fault(check, "volume-broken", says, "look at this disk's health and mount, or name another folder")


def _write(check: str, place: Path, probe: Path) -> Finding:
    """Write, sync, replace and lock as runs do. Raises ``_Refused`` with a fault, ``OSError`` where writing fails."""
    first, second = probe / "first", probe / "second"
    sync: str | None = None
    for path, content in ((first, b"old"), (second, PROBE)):
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                    raise
                sync = error.strerror
    _replace(check, place, first, second)
    sync_folder(probe)
    if sync:
        says = f"{place} does not sync files ({sync}): a power loss may take the last checkpoints"
        return warning(check, "volume-no-sync", says, "name a folder on a local disk")
    if reason := _lock_refusal(first):
        says = f"{place} has no working locks ({reason}): two runs could write to one folder"
        return warning(check, "volume-no-locks", says, "name a folder on a local disk, and start one run at a time")
    return ok(check, f"{place} takes files, syncs, replaces and locks them")


def _replace(check: str, place: Path, old: Path, new: Path) -> None:
    try:
        os.replace(new, old)
        content = old.read_bytes()
    except OSError as error:
        if error.errno in ERRORS:
            raise
        reason = error.strerror or str(error)
    else:
        if content == PROBE and not new.exists():
            return
        reason = "what is read afterwards is something else"
    says = f"in {place} no file can replace another in one step ({reason}), and checkpoints rely on that"
    raise _Refused(fault(check, "volume-no-replace", says, "name a folder on a local disk"))


def _lock_refusal(path: Path) -> str | None:
    """Why a lock does not keep a second one out; None when it does."""
    with path.open("rb+") as holder, path.open("rb+") as other:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
    return "two holders at once"


def _names(name: str, place: Path, probe: Path) -> Finding | None:
    """Only results have names of the user's own; and macOS comes with such a file system."""
    (probe / "Name").touch()
    if name != "output" or platform.system() == "Darwin" or not (probe / "nAME").exists():
        return None
    says = f"{place} takes Name and nAME for one file: results whose names differ in case replace each other"
    return warning(f"{name} names", "volume-case", says, "name a folder on a file system that tells case apart")


def _space(name: str, place: Path, need_bytes: int) -> Finding:
    check = f"{name} space"
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    figures = f"{format_bytes(free)} free at {place}"
    if not status.f_blocks:
        return skipped(check, "space-unknown", f"the file system of {place} does not tell its size")
    if need_bytes > free:
        says = f"{figures}, about {format_bytes(need_bytes)} are needed"
        return fault(check, "volume-space", says, "make room there, or name a folder on another disk")
    if status.f_files and status.f_favail < LEAST_FILES:
        says = f"room for {counted(status.f_favail, 'more file')} at {place}, {LEAST_FILES} should be"
        return fault(check, "volume-inodes", says, "remove small files there, or name a folder on another disk")
    return ok(check, f"{figures}, about {format_bytes(need_bytes)} needed" if need_bytes else figures)


def _mount(name: str, folder: Path) -> Finding | None:
    """Only in containers: a folder that lies on no mount of its own goes when the container goes."""
    if not in_container(os.environ):
        return None
    check = f"{name} mount"
    found = mount_below(folder)
    if found is None:
        return None
    point, kind = found
    fix = mount_words(Wanted(name, folder), os.environ)
    if point == "/":
        return warning(check, "volume-not-mounted", f"{folder} is inside the container and goes with it", fix)
    if kind in IN_MEMORY:
        return warning(check, "volume-in-memory", f"{folder} is in memory ({kind}) and goes with the container", fix)
    return ok(check, f"{folder} is on {point}, a mount ({kind})")
