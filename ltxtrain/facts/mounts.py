"""Which mount a folder lies on. In a container, what lies on ``/`` goes when the container goes."""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


def mount_below(folder: Path, mounts: Path = MOUNTS) -> tuple[str, str] | None:
    """Mount point and type of the file system that ``folder`` lies on, or would; None where the system tells none."""
    try:
        return mount_of(folder.resolve(), mounts.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, RuntimeError):  # links that lead to themselves, told by whoever writes there
        return None


def mount_of(folder: Path, mountinfo: str) -> tuple[str, str]:
    """Mount point and type of the file system that ``folder`` lies on, from the text of /proc/self/mountinfo."""
    best = ("/", "unknown")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if folder.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, after.split()[0])
    return best
