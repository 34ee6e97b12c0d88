"""Who runs it, under which limits and with what clock: each fault by its code, with what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltxtrain.doctor.process import check_clock, check_limits, check_user
from ltxtrain.facts.access import nearest
from ltxtrain.facts.container import in_container
from tests.doctor.children import ROOT, STRANGER, folder_for_all, in_child, needs_root, wrong

PLANTED = (
    "user-cannot-write",
    "root-owns-results",
    "home-not-writable",
    "umask-hides-results",
    "umask-locks-out",
    "few-open-files",
    "file-size-limited",
    "address-space-limited",
    "too-many-threads",
    "clock-wrong",
    "clock-off",
    "clock-before-build",
)
IMAGE = {"LTX_IMAGE": "/opt/ltxtrain/image.json"}
USER = "check_user([folder])"
HOUR = 3600


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


def test_a_user_in_a_folder_of_its_own_has_nothing_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    findings = check_user([tmp_path, tmp_path / "to" / "be" / "made"])
    assert wrong(findings) == []
    assert [finding.check for finding in findings] == ["user", "home", "umask"]
    assert f"uid {os.geteuid()}, gid {os.getegid()}" in findings[0].says


@needs_root
@pytest.mark.parametrize(
    ("owner", "environment", "fix"),
    [
        (1000, IMAGE, "start the container with -e PUID=1000 -e PGID=1000, or with --user 1000:1000"),
        (0, IMAGE, f"chown {STRANGER}:{STRANGER} what is mounted at"),
        (STRANGER, IMAGE, "chmod u+rwx what is mounted at"),
    ],
)
def test_a_user_who_may_not_write_is_told_whom_to_start_as(
    open_folder: Path, owner: int, environment: dict[str, str], fix: str
) -> None:
    folder = open_folder / "output"
    folder.mkdir(mode=0o555)
    os.chown(folder, owner, owner)
    mounted = f"mount --bind {folder} {folder}"
    environment = {**environment, "HOME": "/dev/shm"}
    findings = in_child(USER, folder, uid=STRANGER, mounts=mounted, environment=environment)
    assert wrong(findings[0]) == ["user-cannot-write"]
    assert f"uid {STRANGER}" in findings[0].says and f"{owner}:{owner}, mode 555" in findings[0].says
    assert findings[0].fix.startswith(fix)


def test_a_read_only_mount_is_not_the_users_matter(tmp_path: Path) -> None:
    read_only = f"mount --bind {tmp_path} {tmp_path}; mount -o remount,bind,ro {tmp_path}"
    assert wrong(in_child(USER, tmp_path, mounts=read_only)[0]) == []


@needs_root
def test_root_over_folders_of_others_is_told_unless_it_is_wanted(open_folder: Path) -> None:
    os.chown(open_folder, 1000, 1001)
    (finding, *_) = in_child(USER, open_folder, environment=IMAGE)
    assert wrong(finding) == ["root-owns-results"] and finding.state == "warning"
    assert "-e PUID=1000 -e PGID=1001" in finding.fix
    assert wrong(in_child(USER, open_folder, environment={**IMAGE, "LTX_RUN_AS_ROOT": "1"})[0]) == []


ROOTLESS = f"""
libc = ctypes.CDLL(None)
libc.prctl(4, 1, 0, 0, 0)  # or else /proc/self belongs to root, after the change of user
assert libc.unshare(0x10000000) == 0, "no user namespace"
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text("0 {STRANGER} 1")
Path("/proc/self/gid_map").write_text("0 {STRANGER} 1")
assert os.geteuid() == 0
"""


@needs_root
def test_root_of_a_rootless_container_is_the_user_outside(open_folder: Path) -> None:
    """What it writes belongs to the user who started it, so there is nothing to warn of."""
    ordinary = ["setpriv", f"--reuid={STRANGER}", "--clear-groups", "unshare", "--user", "true"]
    if not shutil.which("setpriv") or subprocess.run(ordinary, capture_output=True, check=False).returncode:
        pytest.skip("ordinary users make no user namespaces here")
    os.chown(open_folder, 1000, 1000)
    open_folder.chmod(0o777)
    assert wrong(in_child(USER, open_folder, uid=STRANGER, first=ROOTLESS)[0]) == []
    assert wrong(in_child(USER, open_folder)[0]) == ["root-owns-results"]


@pytest.mark.parametrize(
    ("home", "words"), [("/nonexistent", "no such folder"), ("/", "cannot be written"), ("", "not set")]
)
def test_a_home_that_cannot_be_written(tmp_path: Path, home: str, words: str) -> None:
    if not home and not ROOT:
        pytest.skip("only root can become a user without an entry")
    without = {"HF_HOME": "", "XDG_CACHE_HOME": "", "TRITON_CACHE_DIR": ""}
    first = "os.environ['HOME'] or os.environ.pop('HOME')"
    if ROOT:
        first += "; os.setuid(54321)"  # as docker run --user gives it: no entry, and / for a home
    finding = in_child(USER, tmp_path, first=first, environment={**without, "HOME": home})[1]
    assert wrong(finding) == ["home-not-writable"] and words in finding.says and "HOME=/tmp" in finding.fix
    elsewhere = dict.fromkeys(without, "/tmp")
    assert wrong(in_child(USER, tmp_path, first=first, environment={**elsewhere, "HOME": home})[1]) == []


@pytest.mark.parametrize(
    ("mask", "environment", "expected"),
    [
        (0o077, IMAGE, ["umask-hides-results"]),
        (0o027, IMAGE, []),
        (0o040, IMAGE, []),
        (0o777, {}, ["umask-locks-out"]),
        (0o022, IMAGE, []),
    ],
)
def test_umasks(tmp_path: Path, mask: int, environment: dict[str, str], expected: list[str]) -> None:
    findings = in_child(
        f"{USER} + [ok('mask', str(os.umask(0)))]", tmp_path, first=f"os.umask({mask})", environment=environment
    )
    assert wrong(findings[2]) == expected and f"{mask:03o}" in findings[2].says
    assert findings[3].says == str(mask), "looking at the umask has changed it"


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [
        ("NOFILE", 4096, []),
        ("NOFILE", 256, ["few-open-files"]),
        ("FSIZE", 2 * 1024**3, ["file-size-limited"]),
        ("AS", 8 * 1024**3, ["address-space-limited"]),
    ],
)
def test_limits(tmp_path: Path, limit: str, value: int, expected: list[str]) -> None:
    lower = f"resource.setrlimit(resource.RLIMIT_{limit}, ({value}, resource.getrlimit(resource.RLIMIT_{limit})[1]))"
    (finding,) = in_child("check_limits(folder)", tmp_path, first=lower)
    assert wrong(finding) == expected
    assert not expected or finding.fix.startswith("ulimit -")


@pytest.mark.parametrize(
    ("files", "threads", "expected"),
    [
        ({"cpu.max": "100000 100000"}, "64", "set OMP_NUM_THREADS=1"),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, "64", "set OMP_NUM_THREADS=1"),
        ({"cpu.max": "max 100000"}, "1", ""),
        ({"cpu.max": "100000 100000"}, "2", ""),
        ({"cpu.max": "broken"}, "1", ""),
        ({}, "", ""),
    ],
)
def test_threads_against_the_cores_and_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], threads: str, expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    finding = check_limits(tmp_path)
    assert wrong(finding) == (["too-many-threads"] if expected else [])
    assert finding.fix == expected


@pytest.mark.parametrize(
    ("off", "expected", "words"),
    [
        (0, [], "server's clock"),
        (4 * 60, [], "4 min 00 s ahead"),
        (HOUR, ["clock-off"], "1 h 00 min ahead"),
        (-HOUR, ["clock-off"], "1 h 00 min behind"),
        (-40 * 24 * HOUR, ["clock-wrong"], "40 d 0 h behind"),
    ],
)
def test_the_clock_against_a_server(off: float, expected: list[str], words: str) -> None:
    finding = check_clock(time.time() - off)
    assert wrong(finding) == expected and words in finding.says
    assert (finding.state == "fault") == (expected == ["clock-wrong"])


def test_the_clock_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_clock(None).state == "skipped"
    image = tmp_path / "image.json"
    monkeypatch.setenv("LTX_IMAGE", str(image))
    for text, expected in (
        (json.dumps({"created": "2099-01-01T00:00:00Z"}), ["clock-before-build"]),
        (json.dumps({"created": "2026-01-01T00:00:00"}), []),
        (json.dumps({"created": None}), []),
        ("[]", []),
        ("no json", []),
    ):
        image.write_text(text)
        assert wrong(check_clock(None)) == expected, text


def test_containers_are_known_by_their_marks(tmp_path: Path) -> None:
    assert not in_container({}, tmp_path)
    assert in_container(IMAGE, tmp_path)
    assert in_container({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".containerenv").touch()
    assert in_container({}, tmp_path)


def test_the_nearest_folder_is_where_one_would_be_made(tmp_path: Path) -> None:
    assert nearest(tmp_path / "a" / "b") == tmp_path
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert nearest(tmp_path / "loop" / "x") == tmp_path / "loop"
