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
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.doctor.process import allow_writing, in_container, nearest, owner_text
from ltxtrain.facts.media import VIDEO_EXTENSIONS
from ltxtrain.facts.mounts import mount_below
from ltxtrain.files import sync_folder
from ltxtrain.units import counted, format_bytes

PREFIX = ".ltxtrain-doctor-"
PROBE = b"ltxtrain" * 512
MIB = 1024**2
# A look at a data folder ends after so many files and folders: a doctor is quick.
MOST_ENTRIES = 20_000
LEAST_FILES = 1000
LEAST_TEMPORARY = 100 * MIB
DOCKER_SHARED_MEMORY = 64 * MIB
CACHE_KINDS = ("latents", "prompts")
RUN_FILES = {"run.json", "plan.json"}
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


def check_data(folder: Path | None) -> Finding:
    """The folder of the clips, by names alone: nothing is opened or decoded."""
    check = "data"
    if folder is None:
        return skipped(check, "data-not-named", "no folder of clips is named")
    mount = f"mount the clips: -v /path/of/your/clips:{folder}"
    put = mount if in_container(os.environ) else "name the folder that holds the clips with --data"
    try:
        folder.lstat()
    except FileNotFoundError:
        return fault(check, "data-missing", f"{folder} does not exist", put)
    except OSError as error:
        return _unreadable(folder, error)
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return fault(check, "data-not-a-folder", f"{folder} is not a folder", put)
        seen = _Seen(folder)
    except OSError as error:
        return _unreadable(folder, error)
    return _judge_data(folder, seen, put)


def check_volume(name: str, folder: Path, need_bytes: int) -> list[Finding]:
    """Whether files can be written, synced, replaced and locked in ``folder``, and ``need_bytes`` fit there.

    A folder that does not exist is looked at where it would be made. After a fault in writing, nothing more is told.
    """
    check = f"{name} folder"
    place = nearest(folder)
    try:
        if not stat.S_ISDIR(place.stat().st_mode):
            says = f"{place} is a file, not a folder"
            return [fault(check, "volume-not-a-folder", says, f"remove it, or name another folder for the {name}")]
        with _probe_folder(place) as probe:
            findings = [_write(check, place, probe), _names(name, place, probe)]
    except OSError as error:
        return [_write_fault(check, place, error)]
    except _Refused as refused:
        return [refused.finding]
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


class _Seen:
    """What a short walk through a data folder found. Raises ``OSError`` for a folder that cannot be listed."""

    def __init__(self, root: Path) -> None:
        self.files = 0
        self.clips = 0
        self.closed: list[Path] = []
        self.bare: list[Path] = []
        self.made_by_us: tuple[str, Path] | None = None
        self.all = True

        def refuse(error: OSError) -> None:
            raise error

        walk = os.walk(root, onerror=refuse)
        for folder, subfolders, files in islice(walk, MOST_ENTRIES):
            self._look(Path(folder), subfolders, files)
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            if self.files >= MOST_ENTRIES:
                self.all = False
                break

    def _look(self, folder: Path, subfolders: list[str], files: list[str]) -> None:
        if set(files) >= RUN_FILES:
            self.made_by_us = self.made_by_us or ("run", folder)
        if set(subfolders) & set(CACHE_KINDS) and _is_cache(folder):
            self.made_by_us = self.made_by_us or ("cache", folder)
        names = set(files)
        for name in files[: MOST_ENTRIES - self.files]:
            self.files += 1
            path = folder / name
            if name.startswith(".") or path.suffix.lower() not in VIDEO_EXTENSIONS:
                continue
            self.clips += 1
            if not os.access(path, os.R_OK):
                self.closed.append(path)
            if f"{path.stem}.txt" not in names:
                self.bare.append(path)


def _is_cache(folder: Path) -> bool:
    """Entries of our caches lie in ``KIND/ab/abcd....safetensors``."""
    return any(next((folder / kind).glob("??/*.safetensors"), None) for kind in CACHE_KINDS)


def _judge_data(folder: Path, seen: _Seen, put: str) -> Finding:
    check = "data"
    clips = counted(seen.clips, "clip") if seen.all else f"more than {counted(seen.clips, 'clip')}"
    if seen.made_by_us:
        kind, place = seen.made_by_us
        fix = "name the folder that holds the clips, and keep caches and results outside of it"
        if kind == "run":
            return fault(check, "data-is-output", f"{place} is a run's folder: its videos would be trained on", fix)
        return fault(check, "data-is-cache", f"{place} is a cache of ltxtrain", fix)
    if not seen.files:
        hint = ": Docker makes an empty folder where the one to mount is missing" if in_container(os.environ) else ""
        return fault(check, "data-empty", f"{folder} is empty{hint}", put)
    if not seen.clips:
        kinds = "mp4, mov, mkv, webm, avi and others"
        says = f"{counted(seen.files, 'file')} in {folder}, none with a video's name ({kinds})"
        return fault(check, "data-no-clips", says, put)
    if seen.closed:
        says = f"{len(seen.closed)} of {clips} cannot be read by uid {os.geteuid()}: {seen.closed[0]}"
        return fault(check, "data-unreadable", f"{says} {owner_text(seen.closed[0])}", f"chmod -R a+rX {folder}")
    if seen.bare:
        says = f"{len(seen.bare)} of {clips} in {folder} have no caption beside them: {seen.bare[0].name}"
        fix = f"write {seen.bare[0].stem}.txt, or set caption_strategy to filename or instanceprompt"
        return warning(check, "data-no-captions", says, fix)
    return ok(check, f"{clips} with captions in {folder}")


def _unreadable(folder: Path, error: OSError) -> Finding:
    where = Path(error.filename) if error.filename else folder
    if error.errno == errno.ELOOP:
        says, fix = f"{folder} is a link that leads to itself", "remove the link, or name the folder itself"
        return fault("data", "data-missing", says, fix)
    if error.errno == errno.ENOENT:
        return fault("data", "data-missing", f"{where} is a link to nothing", "remove the link, or mount its target")
    says = f"{where} cannot be read by uid {os.geteuid()}: {error.strerror}"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return fault("data", "data-unreadable", says, "mount it again, or copy the clips to another disk")
    return fault("data", "data-unreadable", f"{says}, {owner_text(where)}", f"chmod -R a+rX {folder}")


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


def _write_fault(check: str, place: Path, error: OSError) -> Finding:
    if error.errno in (errno.EACCES, errno.EPERM):
        says = f"uid {os.geteuid()}, gid {os.getegid()} may not write to {place}, which {owner_text(place)}"
        return fault(check, "volume-permission", says, allow_writing(place, os.environ))
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
    fix = f"mount a folder there: -v ./{name}:{folder}"
    if point == "/":
        return warning(check, "volume-not-mounted", f"{folder} is inside the container and goes with it", fix)
    if kind in IN_MEMORY:
        return warning(check, "volume-in-memory", f"{folder} is in memory ({kind}) and goes with the container", fix)
    return ok(check, f"{folder} is on {point}, a mount ({kind})")
