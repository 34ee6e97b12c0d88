"""Digests of media: one file for each root, nothing read twice, and nothing kept of a file that changed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from ltxtrain.facts import media_digests
from ltxtrain.facts.media_digests import iter_digests
from ltxtrain.facts.media_facts import MediaError


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "data").mkdir()
    paths = [tmp_path / "data" / f"{index:03}.mp4" for index in range(150)]
    for index, path in enumerate(paths):
        path.write_bytes(b"clip %d" % index)
        os.utime(path, ns=(index, index))
    return [str(path) for path in paths]


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_digests, "SETTLED_AFTER_S", 0.0)
    time.sleep(0.02)


def read(files: list[str], memo: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], list[str]]:
    """All digests, and which files were opened for them."""
    opened: list[str] = []
    plain = media_digests.open_regular_file
    monkeypatch.setattr(
        media_digests, "open_regular_file", lambda path, root: opened.append(str(path)) or plain(path, root)
    )
    found = dict(iter_digests(files, dict.fromkeys(files, "root"), memo))
    monkeypatch.setattr(media_digests, "open_regular_file", plain)
    return found, sorted(opened)


def test_each_file_is_read_once_and_again_when_it_changed(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    memo = tmp_path / "memo"
    expected = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}
    assert read(files + files[:9], memo, monkeypatch) == (expected, files)
    assert len(list(memo.iterdir())) == 1
    assert read(files, memo, monkeypatch) == (expected, [])
    Path(files[7]).write_bytes(b"clip x")
    found, opened = read(files, memo, monkeypatch)
    assert opened == [files[7]] and found[files[7]] == hashlib.sha256(b"clip x").hexdigest()


def test_what_is_known_is_kept_when_the_caller_stops(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    steps = iter_digests(files, dict.fromkeys(files, "root"), tmp_path / "memo")
    for _ in range(100):
        next(steps)
    steps.close()
    _, opened = read(files, tmp_path / "memo", monkeypatch)
    assert opened == files[100:]


def test_file_that_cannot_be_read_is_told_and_the_others_go_on(tmp_path: Path, files: list[str]) -> None:
    Path(files[3]).unlink()
    Path(files[4]).unlink()
    os.mkfifo(files[4])
    Path(files[5]).unlink()
    Path(files[5]).symlink_to("/etc/hostname")
    found = dict(iter_digests(files, dict.fromkeys(files, "root"), None))
    wrong = {path: digest.reason for path, digest in found.items() if isinstance(digest, MediaError)}
    assert wrong == {files[3]: "unreadable", files[4]: "unreadable", files[5]: "outside-folder"} and len(found) == 150


def test_place_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    (tmp_path / "memo").write_text("a file")
    assert len(read(files, tmp_path / "memo", monkeypatch)[1]) == 150


def test_several_files_are_hashed_at_once(tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=20)
    plain = media_digests.open_regular_file

    def meet(path: Path, root: Path) -> object:
        if str(path) in files[:2]:
            meeting.wait()
        return plain(path, root)

    monkeypatch.setattr(media_digests, "open_regular_file", meet)
    assert len(dict(iter_digests(files, dict.fromkeys(files, "root"), None))) == 150
