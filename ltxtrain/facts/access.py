"""Who may write where, and what to do so that this user may."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.facts.container import cloud_machine, in_container, workspace
from ltxtrain.facts.mounts import MOUNTS, mount_below

# What the system keeps its own in: nobody is told to give such a folder to another user.
SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr", "var")
OUTSIDE = {"cache": "./cache", "output": "./out", "downloads": "./huggingface"}
FLAGS = {"cache": "--cache", "output": "--output", "offload": "--group-offload-to-disk-path"}


@dataclass(frozen=True)
class Wanted:
    """A folder that a run writes to: ``name`` is cache, output or offload, ``folder`` may not exist yet."""

    name: str
    folder: Path

    @property
    def flag(self) -> str:
        return FLAGS.get(self.name, "HF_HOME")


def nearest(folder: Path) -> Path:
    """``folder``, or the folder above it that exists: there it would be made."""
    path = folder.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def may_write(folder: Path) -> bool:
    """Whether this user may make files in ``folder``. A read-only file system says no as well."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def may_change(path: Path) -> bool:
    """Whether this user may make files in a folder, or write to a file."""
    if path.is_dir():
        return may_write(path)
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def read_only(place: Path) -> bool:
    """A read-only mount is no matter of rights."""
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def first_closed(paths: Iterable[Path]) -> Path | None:
    """The first of ``paths`` that is there and that this user may not write to."""
    for path in paths:
        try:
            closed = path.exists() and not may_change(path) and not read_only(path)
        except OSError:
            closed = True
        if closed:
            return path
    return None


def owner_text(folder: Path) -> str:
    """``belongs to 1000:1000, mode 755``, or why that cannot be told."""
    try:
        status = folder.stat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    return f"belongs to {status.st_uid}:{status.st_gid}, mode {stat.S_IMODE(status.st_mode):o}"


def start_as(owner: int, group: int) -> str:
    return f"start the container with -e PUID={owner} -e PGID={group}, or with --user {owner}:{group}"


def mount_words(wanted: Wanted, env: Mapping[str, str]) -> str:
    """How ``wanted`` comes to lie outside of the container. Docker takes absolute paths only."""
    if cloud_machine(env):
        return (
            f"name a folder in {workspace(env)}, where the volume of this {cloud_machine(env)} is, with {wanted.flag}"
        )
    outside = OUTSIDE.get(wanted.name, f"./{wanted.name}")
    return f"mount a folder there: -v {outside}:{wanted.folder.absolute()}"


def allow_writing(place: Path, wanted: Wanted, env: Mapping[str, str], mounts: Path = MOUNTS) -> str:
    """What to do so that this user, or whoever owns it, writes to ``place``: ``wanted``, or what of it exists."""
    inside = in_container(env)
    if inside and (mount_below(place, mounts) or ("/",))[0] == "/":
        return mount_words(wanted, env)
    if _of_the_system(place, inside):
        return mount_words(wanted, env) if inside else f"name a folder of your own with {wanted.flag}"
    uid, gid = os.geteuid(), os.getegid()
    try:
        owner, group = place.stat().st_uid, place.stat().st_gid
    except OSError:
        owner, group = 0, 0
    if inside and owner not in (0, uid):
        return start_as(owner, group)
    where = f"what is mounted at {place}, on the host" if inside else str(place)
    return f"chmod u+rwx {where}" if owner == uid else f"chown {uid}:{gid} {where}"


def give_over(path: Path, root: Path, env: Mapping[str, str]) -> str:
    """What to do about ``path`` inside of ``root``, which is fine itself: an earlier run was another user's."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        owner, group = path.lstat().st_uid, path.lstat().st_gid
    except OSError:
        owner, group = 0, 0
    inside = in_container(env)
    change = "chmod -R u+rwX" if owner == uid else f"chown -R {uid}:{gid}"
    if not inside or (mount_below(path) or ("/",))[0] == "/":
        return f"{'' if inside or owner == uid else 'sudo '}{change} {path}"
    named = path.relative_to(root) if path.is_relative_to(root) and path != root else path
    fix = f"on the host, in what is mounted at {root}: {change} {named}"
    return f"{fix}; or {start_as(owner, group)}" if owner not in (0, uid) else fix


def _of_the_system(place: Path, inside: bool) -> bool:
    """``/`` and what the system's own folders hold; outside of containers also what lies in ``/`` itself."""
    parts = place.absolute().parts
    return len(parts) == 1 or parts[1] in SYSTEM or (not inside and len(parts) == 2)
