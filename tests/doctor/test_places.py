"""Folders that would stop a run are named with their reason, and no trace of the look at them stays."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ltxtrain.doctor.clips import check_data
from ltxtrain.doctor.findings import Finding
from ltxtrain.doctor.places import check_shared_memory, check_temporary, check_volume
from ltxtrain.facts.mounts import mount_below
from tests.doctor.children import STRANGER, folder_for_all, in_child, needs_root, wrong

PLANTED = (
    "data-missing",
    "data-not-a-folder",
    "data-unreadable",
    "data-empty",
    "data-no-clips",
    "data-no-captions",
    "data-is-output",
    "data-is-cache",
    "volume-full",
    "volume-space",
    "volume-inodes",
    "volume-read-only",
    "volume-permission",
    "volume-link-loop",
    "volume-dangling-link",
    "volume-not-a-folder",
    "volume-no-sync",
    "volume-no-replace",
    "volume-no-locks",
    "volume-broken",
    "volume-case",
    "volume-not-mounted",
    "volume-in-memory",
    "shm-small",
    "shm-full",
    "shm-missing",
    "shm-not-writable",
    "tmp-elsewhere",
    "tmp-small",
    "tmp-not-writable",
)
VOLUME = "check_volume('output', folder, 1000)"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


def tree(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def clip(folder: Path, name: str, caption: bool = True) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not decoded")
    if caption:
        path.with_suffix(".txt").write_text("a caption")
    return path


# ---------------------------------------------------------------- data


def test_clips_with_captions_are_found_below_folders_and_nothing_is_touched(tmp_path: Path) -> None:
    clip(tmp_path, "a.mp4")
    clip(tmp_path, "sub/b.MOV")
    clip(tmp_path, ".hidden.mp4", caption=False)
    clip(tmp_path, ".trash/c.mp4")
    before = tree(tmp_path)
    finding = check_data(tmp_path)
    assert (finding.state, finding.says) == ("ok", f"2 clips with captions in {tmp_path}")
    assert tree(tmp_path) == before


def test_no_folder_of_clips_is_no_fault() -> None:
    assert check_data(None).state == "skipped"


def test_a_missing_folder_of_clips(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("gone", "link", "loop"):
        assert wrong(check_data(tmp_path / name)) == ["data-missing"]


def test_a_file_in_place_of_the_folder_of_clips(tmp_path: Path) -> None:
    assert wrong(check_data(clip(tmp_path, "a.mp4"))) == ["data-not-a-folder"]


def test_an_empty_folder_of_clips_is_what_docker_makes_of_a_wrong_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTX_IMAGE", "/opt/ltxtrain/image.json")
    finding = check_data(tmp_path)
    assert wrong(finding) == ["data-empty"]
    assert "Docker makes an empty folder" in finding.says and f":{tmp_path}" in finding.fix


def test_a_folder_without_videos(tmp_path: Path) -> None:
    (tmp_path / "clips.zip").write_bytes(b"PK")
    (tmp_path / "notes.txt").write_text("no clip")
    finding = check_data(tmp_path)
    assert wrong(finding) == ["data-no-clips"] and finding.says.startswith("2 files in")


def test_clips_without_captions(tmp_path: Path) -> None:
    clip(tmp_path, "a.mp4")
    clip(tmp_path, "b.mp4", caption=False)
    finding = check_data(tmp_path)
    assert wrong(finding) == ["data-no-captions"]
    assert finding.state == "warning" and finding.says.startswith("1 of 2 clips") and "b.txt" in finding.fix


@needs_root
@pytest.mark.parametrize("closed", [".", "sub", "sub/b.mp4"])
def test_what_this_user_may_not_read_is_told_with_both_users(open_folder: Path, closed: str) -> None:
    data = open_folder / "data"
    clip(data, "a.mp4")
    clip(data, "sub/b.mp4")
    (data / closed).chmod(0o600)
    (finding,) = in_child("check_data(folder)", data, uid=STRANGER)
    assert wrong(finding) == ["data-unreadable"]
    assert f"uid {STRANGER}" in finding.says and "belongs to 0:0, mode 600" in finding.says


@pytest.mark.parametrize("inside", ["", "run", "out/run"])
def test_results_in_place_of_clips(tmp_path: Path, inside: str) -> None:
    run = tmp_path / inside
    clip(run, "samples/step-00000500/a.mp4")
    for name in ("run.json", "plan.json"):
        (run / name).write_text("{}")
    assert wrong(check_data(tmp_path)) == ["data-is-output"]


def test_a_cache_in_place_of_clips(tmp_path: Path) -> None:
    clip(tmp_path, "clips/a.mp4")
    entry = tmp_path / "latents" / "ab" / "abcd.safetensors"
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"")
    assert wrong(check_data(tmp_path)) == ["data-is-cache"]
    entry.unlink()
    assert check_data(tmp_path).state == "ok"


# ---------------------------------------------------------------- volumes


def test_a_good_folder_is_told_with_its_free_space_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    before = tree(tmp_path)
    findings = check_volume("cache", tmp_path, 10)
    assert wrong(findings) == []
    assert any("free" in finding.says and "10 B needed" in finding.says for finding in findings)
    assert tree(tmp_path) == before


def test_a_folder_that_is_still_to_be_made_is_not_made(tmp_path: Path) -> None:
    assert wrong(check_volume("cache", tmp_path / "a" / "b", 10)) == []
    assert tree(tmp_path) == []


def test_a_full_disk(tmp_path: Path) -> None:
    fill = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}; head -c 2000000 /dev/zero >{tmp_path}/fill 2>/dev/null || true"
    left = "check_volume('output', folder, 1000) + [ok('left', str(len(os.listdir(folder))))]"
    *findings, count = in_child(left, tmp_path, mounts=fill)
    assert wrong(findings) == ["volume-full"]
    assert count.says == "1"


def test_less_space_than_is_needed(tmp_path: Path) -> None:
    small = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    findings = in_child("check_volume('cache', folder, 5_000_000)", tmp_path, mounts=small)
    assert wrong(findings) == ["volume-space"]
    assert any("1.0 MiB free" in finding.says and "4.8 MiB are needed" in finding.says for finding in findings)


def test_no_room_for_more_files(tmp_path: Path) -> None:
    few = f"mount -t tmpfs -o size=1m,nr_inodes=20 tmpfs {tmp_path}"
    assert wrong(in_child(VOLUME, tmp_path, mounts=few)) == ["volume-inodes"]


def test_a_read_only_mount(tmp_path: Path) -> None:
    read_only = f"mount --bind {tmp_path} {tmp_path}; mount -o remount,bind,ro {tmp_path}"
    (finding,) = in_child(VOLUME, tmp_path, mounts=read_only)
    assert wrong(finding) == ["volume-read-only"]
    assert ":ro" in finding.fix


@needs_root
def test_a_folder_of_another_user_is_told_with_both_users_and_what_to_pass(open_folder: Path) -> None:
    folder = open_folder / "output"
    folder.mkdir(mode=0o755)
    os.chown(folder, 1000, 1001)
    mounted = f"mount --bind {folder} {folder}"
    (finding,) = in_child(VOLUME, folder, uid=STRANGER, mounts=mounted, environment={"LTX_IMAGE": "/image.json"})
    assert wrong(finding) == ["volume-permission"]
    assert f"uid {STRANGER}" in finding.says and "1000:1001, mode 755" in finding.says
    assert "PUID=1000 -e PGID=1001" in finding.fix and "--user 1000:1001" in finding.fix


@pytest.mark.parametrize(
    ("target", "code"),
    [("folder", "volume-link-loop"), ("nowhere", "volume-dangling-link"), (None, "volume-not-a-folder")],
)
def test_a_name_that_is_no_folder(tmp_path: Path, target: str | None, code: str) -> None:
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path / target) if target else folder.write_text("")
    assert wrong(check_volume("output", folder, 1)) == [code]
    assert wrong(check_volume("output", folder / "run", 1)) == [code]


def refuse(code: int) -> Callable[..., None]:
    def call(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


# What network file systems answer cannot be mounted here: the system call's error is planted instead.
@pytest.mark.parametrize(
    ("module", "call", "number", "code"),
    [
        (os, "fsync", errno.ENOTSUP, "volume-no-sync"),
        (os, "fsync", errno.EIO, "volume-broken"),
        (os, "replace", errno.EXDEV, "volume-no-replace"),
        (fcntl, "flock", errno.ENOLCK, "volume-no-locks"),
    ],
)
def test_a_file_system_that_cannot_do_what_runs_rely_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, call: str, number: int, code: str
) -> None:
    monkeypatch.setattr(module, call, refuse(number))
    findings = check_volume("output", tmp_path, 1)
    assert wrong(findings) == [code]
    assert os.strerror(number) in findings[0].says
    assert tree(tmp_path) == []


def test_locks_that_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    assert wrong(check_volume("output", tmp_path, 1)) == ["volume-no-locks"]


def test_a_file_system_that_takes_two_cases_for_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(path: Path) -> bool:
        return path.name.lower() in [other.name.lower() for other in path.parent.iterdir()]

    monkeypatch.setattr(Path, "exists", exists)
    assert wrong(check_volume("output", tmp_path, 1)) == ["volume-case"]
    assert wrong(check_volume("cache", tmp_path, 1)) == []  # the names in it are ours
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert wrong(check_volume("output", tmp_path, 1)) == []


def test_a_folder_on_no_mount_goes_with_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTX_IMAGE", "/opt/ltxtrain/image.json")
    if mount_below(tmp_path) is None or mount_below(tmp_path)[0] != "/":
        pytest.skip("temporary files are on a mount of their own here")
    findings = check_volume("output", tmp_path / "out", 1)
    assert wrong(findings, mounts=True) == ["volume-not-mounted"]
    assert f"-v ./out:{tmp_path}/out" in findings[-1].fix


def test_a_mounted_folder_stays_and_one_in_memory_does_not(tmp_path: Path) -> None:
    image = {"LTX_IMAGE": "/opt/ltxtrain/image.json"}
    for line, expected in (
        (f"mount --bind {tmp_path} {tmp_path}", []),
        (f"mount -t tmpfs tmpfs {tmp_path}", ["volume-in-memory"]),
    ):
        findings = in_child(VOLUME, tmp_path, mounts=line, environment=image)
        assert wrong(findings, mounts=True) == expected
        assert str(tmp_path) in findings[-1].says


# ---------------------------------------------------------------- shared memory, temporary files


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mount -t tmpfs -o size=64m tmpfs {0}", []),
        ("mount -t tmpfs -o size=1m tmpfs {0}", ["shm-small"]),
        ("mount -t tmpfs -o size=1m tmpfs {0}; head -c 2000000 /dev/zero >{0}/x 2>/dev/null || true", ["shm-full"]),
        ("mount -t tmpfs -o ro,size=64m tmpfs {0}", ["shm-not-writable"]),
    ],
)
def test_shared_memory_of_other_sizes(tmp_path: Path, line: str, expected: list[str]) -> None:
    (finding,) = in_child("check_shared_memory(folder)", tmp_path, mounts=line.format(tmp_path))
    assert wrong(finding) == expected
    assert finding.state != "fault" and "ltxtrain itself uses none" in finding.says


def test_no_shared_memory(tmp_path: Path) -> None:
    assert wrong(check_shared_memory(tmp_path / "shm")) == ["shm-missing"]


def test_a_named_folder_for_temporary_files_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert wrong(check_temporary()) == [] and tree(tmp_path) == []
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    finding = check_temporary()
    assert wrong(finding) == ["tmp-elsewhere"] and str(tmp_path / "gone") in finding.says


def test_little_room_for_temporary_files(tmp_path: Path) -> None:
    small = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    findings = in_child("check_temporary()", tmp_path, mounts=small, environment={"TMPDIR": str(tmp_path)})
    assert wrong(findings) == ["tmp-small"]


@pytest.mark.parametrize(
    ("current", "expected", "state"),
    [("/proc", ["tmp-not-writable"], "fault"), ("/dev/shm", ["tmp-elsewhere"], "warning")],
)
def test_no_usual_folder_for_temporary_files(tmp_path: Path, current: str, expected: list[str], state: str) -> None:
    """The mounts come after the imports: this checkout may lie below /tmp itself."""
    hide = "for place in /tmp /var/tmp /usr/tmp; do test ! -d $place || mount -t tmpfs -o ro tmpfs $place; done"
    first = f"assert os.system({hide!r}) == 0; os.chdir({current!r})"
    nowhere = {"TMPDIR": "", "TEMP": "", "TMP": ""}
    (finding,) = in_child("check_temporary()", tmp_path, mounts=":", first=first, environment=nowhere)
    assert (wrong(finding), finding.state) == (expected, state)


def test_every_finding_of_this_file_is_one_line_with_a_fix(tmp_path: Path) -> None:
    findings = [check_data(tmp_path / "gone"), *check_volume("cache", tmp_path, 1), check_temporary()]
    assert all(isinstance(finding, Finding) and len(finding.says) < 200 for finding in findings)
