"""This process: whom it runs as, what it may use, and whether its clock is right."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.facts.access import Wanted, allow_writing, may_write, nearest, owner_text, read_only, start_as
from ltxtrain.facts.container import in_container
from ltxtrain.facts.machine import usable_cores
from ltxtrain.units import counted, format_bytes, format_duration

OPEN_FILES = 256 if sys.platform == "darwin" else 1024  # what a shell has where nobody changed it
CLOCK_WARNING_S = 5 * 60
CLOCK_FAULT_S = 24 * 3600
SET_CLOCK = "set the clock of this machine (timedatectl set-ntp true; a container has the clock of its host)"
# Where libraries keep what they would otherwise keep below HOME.
CACHE_VARIABLES = ("HF_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR")


def check_user(folders: Sequence[Path]) -> list[Finding]:
    """Whether this user may write to ``folders`` and their owners can read the results; HOME; the umask."""
    places = [place for place in map(nearest, folders) if place.is_dir()]
    return [_identity(places, os.environ), _home(os.environ), _umask(places, os.environ)]


def check_limits(cgroup: Path = Path("/sys/fs/cgroup")) -> Finding:
    """Limits of this process that runs hit: open files, size of a file, address space, and cores for its threads."""
    checks = (_open_files, _file_size, _address_space, lambda: _threads(cgroup, os.environ))
    findings = [check() for check in checks]
    wrong = next((finding for finding in findings if finding.state != "ok"), None)
    return wrong or ok("limits", "; ".join(finding.says for finding in findings))


def check_clock(server_time: float | None) -> Finding:
    """The clock against a server's (seconds since 1970), or against the day when this copy of ltxtrain was made."""
    now = time.time()
    if server_time is None:
        built = _built(os.environ)
        if now < built - CLOCK_FAULT_S:
            says = f"the clock says {_day(now)}, and this copy of ltxtrain was made on {_day(built)}"
            return fault("clock", "clock-before-build", says, SET_CLOCK)
        return skipped("clock", "clock-unchecked", f"the clock says {_day(now)}; no server was asked for the time")
    off = now - server_time
    says = f"{format_duration(abs(off))} {'ahead of' if off > 0 else 'behind'} the server's clock"
    if abs(off) > CLOCK_FAULT_S:
        return fault("clock", "clock-wrong", f"{says}: certificates and tokens count as expired", SET_CLOCK)
    if abs(off) > CLOCK_WARNING_S:
        return warning("clock", "clock-off", f"{says}: certificates and tokens may be refused", SET_CLOCK)
    return ok("clock", says)


def _identity(places: Sequence[Path], environment: Mapping[str, str]) -> Finding:
    uid, gid = os.geteuid(), os.getegid()
    closed = [place for place in places if not may_write(place) and not read_only(place)]
    if closed:
        first = closed[0]
        more = f", nor to {counted(len(closed) - 1, 'other folder')}" if len(closed) > 1 else ""
        says = f"uid {uid}, gid {gid} may not write to {first} ({owner_text(first)}){more}"
        return fault("user", "user-cannot-write", says, allow_writing(first, Wanted("output", first), environment))
    asked = bool(environment.get("LTX_RUN_AS_ROOT"))
    foreign = next((place for place in places if place.stat().st_uid != uid), None)
    if uid == 0 and foreign and _is_root_outside() and not asked:
        owner, group = foreign.stat().st_uid, foreign.stat().st_gid
        says = f"runs as root, {foreign} belongs to {owner}:{group}: what is written there will belong to root"
        fix = start_as(owner, group) if in_container(environment) else "run it as that user, without sudo"
        return warning("user", "root-owns-results", says, fix)
    return ok("user", f"uid {uid}, gid {gid}{', as LTX_RUN_AS_ROOT asks' if asked and uid == 0 else ''}")


def _is_root_outside() -> bool:
    """In a rootless container root is the user who started it, and what root writes belongs to that user outside."""
    try:
        fields = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return True
    return fields[:2] == ["0", "0"]


def _home(environment: Mapping[str, str]) -> Finding:
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - Path's own raises where none is
    if home.is_dir() and may_write(home):
        return ok("home", f"{home} is writable")
    name = f"HOME is {home}" if environment.get("HOME") else "HOME is not set"
    says = f"{name}, which cannot be written" if home.is_dir() else f"{name}, and there is no such folder"
    if not environment.get("HOME") and not home.is_absolute():
        says = f"{name}, and uid {os.geteuid()} has no home"
    below = [variable for variable in CACHE_VARIABLES if not environment.get(variable)]
    if not below:
        return ok("home", f"{says}; {' and '.join(CACHE_VARIABLES)} name other places")
    fix = "set HOME to a folder that can be written (in a container: -e HOME=/tmp)"
    return warning("home", "home-not-writable", f"{says}: without {', '.join(below)} caches would lie there", fix)


def _umask(places: Sequence[Path], environment: Mapping[str, str]) -> Finding:
    mask = os.umask(0o022)  # the only portable way to read it is to set it
    os.umask(mask)
    if mask & 0o700:
        says = f"umask {mask:03o} takes from new files what this user needs to read them again"
        return fault("umask", "umask-locks-out", says, "umask 022")
    foreign = next((place for place in places if place.stat().st_uid != os.geteuid()), None)
    if mask & 0o044 == 0o044 and (foreign or in_container(environment)):
        whose = f"{foreign} belongs to uid {foreign.stat().st_uid}" if foreign else "this is a container"
        says = f"umask {mask:03o}: results can be read by uid {os.geteuid()} alone, and {whose}"
        return warning("umask", "umask-hides-results", says, "umask 022 before the start")
    return ok("umask", f"{mask:03o}")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        says = f"{soft} files may be open at once, {OPEN_FILES} are usual"
        top = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        fix = f"ulimit -n {top}" if top > soft else "raise the hard limit of open files"
        return warning("limits", "few-open-files", says, f"{fix} (in a container: --ulimit nofile={4 * OPEN_FILES})")
    return ok("limits", f"{'any number of' if soft == resource.RLIM_INFINITY else soft} open files")


def _file_size() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if soft != resource.RLIM_INFINITY:
        says = f"no file may be larger than {format_bytes(soft)}, and a model's file has several GiB"
        return warning("limits", "file-size-limited", says, "ulimit -f unlimited")
    return ok("limits", "files of any size")


def _address_space() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        says = f"address space is limited to {format_bytes(soft)}, and GPU drivers reserve more than all memory"
        return warning("limits", "address-space-limited", says, "ulimit -v unlimited")
    return ok("limits", "address space without limit")


def _threads(cgroup: Path, environment: Mapping[str, str]) -> Finding:
    """A quota of processor time does not lower the number of cores that a process sees, nor its threads."""
    cores = usable_cores()
    quota = _cpu_quota(cgroup)
    named = environment.get("OMP_NUM_THREADS", "")
    threads = int(named) if named.isdigit() and int(named) else cores
    fair = max(1, round(min(cores, quota or cores)))
    if threads > 2 * fair:
        room = f"a quota of {quota:g} cores" if quota and quota < cores else counted(cores, "core")
        says = f"{counted(threads, 'thread')} for {room}: they would wait for each other"
        return warning("limits", "too-many-threads", says, f"set OMP_NUM_THREADS={fair}")
    return ok("limits", f"{counted(threads, 'thread')} on {counted(fair, 'core')}")


def _cpu_quota(cgroup: Path) -> float | None:
    """How many cores' time the control group grants (both versions of its files), None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period)


def _built(environment: Mapping[str, str]) -> float:
    """When the image was built, by its own record; else when this file was put here."""
    try:
        created = json.loads(Path(environment["LTX_IMAGE"]).read_text())["created"]
        made = datetime.fromisoformat(created)
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    except (KeyError, OSError, ValueError, TypeError):
        return Path(__file__).stat().st_mtime


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
