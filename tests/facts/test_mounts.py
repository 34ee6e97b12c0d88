"""Which mount a folder lies on."""

from __future__ import annotations

import os
from pathlib import Path

from ltxtrain.facts.mounts import mount_below, mount_of


def test_the_innermost_mount_counts() -> None:
    text = (
        "22 1 0:21 / / rw,relatime - overlay overlay rw\n"
        "31 30 0:40 / /output/my\\040run rw shared:1 - tmpfs tmpfs rw\n"
        "30 22 8:1 /home /output rw - ext4 /dev/sda1 rw\n"
        "broken line\n"
    )
    assert mount_of(Path("/output/x"), text) == ("/output", "ext4")
    assert mount_of(Path("/output/my run/x"), text) == ("/output/my run", "tmpfs")
    assert mount_of(Path("/outputs"), text) == ("/", "overlay")


def test_this_system_s_own_mounts_are_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    assert mount_below(tmp_path / "link" / "not-there") == ("/proc", "proc")
    point, _ = mount_below(tmp_path / "not" / "there") or ("", "")
    assert os.path.ismount(point) and tmp_path.is_relative_to(point)


def test_what_cannot_be_told_is_none(tmp_path: Path) -> None:
    assert mount_below(tmp_path, mounts=tmp_path / "missing") is None
    (tmp_path / "loop").symlink_to("loop")
    mount_below(tmp_path / "loop")  # no matter what, as long as it is no error
