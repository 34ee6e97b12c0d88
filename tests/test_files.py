"""A file is there in its old form or in its new one, with the mode that the user's umask gives."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from ltxtrain.files import make_folder, replaced, sync_folder, with_sorted_metadata, write_atomically

KILLED_AT = """
import os, sys
from pathlib import Path
from ltxtrain.files import write_atomically

path, limit = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def counted(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls > limit:
            os._exit(9)
        return real(*arguments, **options)
    return call

os.fsync, os.open, os.mkdir = counted(os.fsync), counted(os.open), counted(os.mkdir)
os.rename, os.replace, os.unlink = counted(os.rename), counted(os.replace), counted(os.unlink)
write_atomically(path, "new " * 50_000)
"""


def test_kill_at_any_point_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    seen = set()
    for limit in range(20):
        path.write_text("old")
        done = subprocess.run([sys.executable, "-c", KILLED_AT, str(path), str(limit)], check=False)
        content = path.read_text()
        assert content in ("old", "new " * 50_000)
        seen.add((content[:3], done.returncode))
        if done.returncode == 0:
            break
    assert seen == {("old", 9), ("new", 9), ("new", 0)}


def test_new_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.bin", b"\0\1")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["a", "a/b", "a/b/c.bin"]
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\0\1"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_mode_follows_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_failed_write_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_every_new_name_is_synced_in_the_folder_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), real(descriptor)))
    write_atomically(tmp_path / "a" / "b" / "file", "text")
    for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "file"):
        assert path.stat().st_ino in synced, path
    assert synced.index((tmp_path / "a" / "b" / "file").stat().st_ino) < len(synced) - 1, "the folder is synced last"


def test_file_system_that_cannot_sync_a_folder_is_used_all_the_same_but_a_broken_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, tolerated in ((errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)):

        def refuse(_: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", refuse)
        if tolerated:
            sync_folder(tmp_path)
        else:
            with pytest.raises(OSError, match=os.strerror(code)):
                sync_folder(tmp_path)


def test_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "below")


def test_metadata_is_sorted_and_nothing_else_changes() -> None:
    tensors = {"b": torch.arange(5, dtype=torch.float32), "a": torch.ones(2, 3, dtype=torch.bfloat16)}
    metadata = {name: name * 3 for name in "zyxwvutsrqponmlkjihgfedcba"}
    written = {with_sorted_metadata(save(tensors, metadata)) for _ in range(20)}
    assert len(written) == 1
    content = written.pop()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    found = load(content)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert found["a"].dtype == torch.bfloat16


def test_sorted_metadata_is_read_by_the_library(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(with_sorted_metadata(save({"a": torch.ones(3)}, {"k": "é", "a": "b"})))
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"k": "é", "a": "b"}


def test_an_error_in_the_middle_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="half"), replaced(target) as stream:
        stream.write(b"new")
        raise ValueError("half of it")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with replaced(target) as stream:
        stream.write(b"new")
        assert target.read_bytes() == b"old"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]
