"""Digests of files: remembered, and never of another content."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from ltxtrain.facts import digests
from ltxtrain.facts.digests import file_sha256, files_sha256, sha256_of


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files written a moment ago count as settled."""
    monkeypatch.setattr(digests, "SETTLED_AFTER_S", -1.0)


def plain(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"abc", bytes(3_000_000)):
        path.write_bytes(content)
        assert file_sha256(path) == plain(path)
    assert not (tmp_path / "memo").exists()


def test_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    path, memo = tmp_path / "file", tmp_path / "memo"
    path.write_bytes(b"abc")
    (before,) = {file_sha256(path, memo) for _ in range(2)}
    note = next(memo.iterdir())
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "from the note"}))
    assert file_sha256(path, memo) == "from the note"
    assert file_sha256(path) == before


def test_changed_file_is_never_answered_from_the_memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    path, memo = tmp_path / "file", tmp_path / "memo"

    def rewrite_in_place(content: bytes) -> None:
        stat = path.stat()
        time.sleep(0.02)
        with path.open("r+b") as stream:
            stream.write(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same inode, same modification time

    def replace_it(content: bytes) -> None:
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(path)

    path.write_bytes(b"abc")
    file_sha256(path, memo)
    for change, content in ((rewrite_in_place, b"abd"), (replace_it, b"abe"), (Path.write_bytes, b"abcdef")):
        change(path, content) if change is Path.write_bytes else change(content)
        assert file_sha256(path, memo) == plain(path), change


def test_file_that_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """Its time could stay the same through another change."""
    path, memo = tmp_path / "file", tmp_path / "memo"
    path.write_bytes(b"abc")
    assert file_sha256(path, memo) == plain(path)
    assert not memo.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"stamp": 1}', b"\xff\xfe", b'"text"'])
def test_damaged_note_is_made_anew(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    path, memo = tmp_path / "file", tmp_path / "memo"
    path.write_bytes(b"abc")
    file_sha256(path, memo)
    note = next(memo.iterdir())
    good = note.read_bytes()
    note.write_bytes(damage)
    assert file_sha256(path, memo) == plain(path)
    assert note.read_bytes() == good
    stamp = json.loads(good)["stamp"]
    note.write_text(json.dumps({"stamp": stamp}))
    assert file_sha256(path, memo) == plain(path)


def test_digest_of_several_files_depends_on_names_and_bytes_only(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(b"1")
        (tmp_path / folder / "b").write_bytes(b"2")
    one, two = ([tmp_path / folder / name for name in "ab"] for folder in ("one", "two"))
    assert files_sha256(one) == files_sha256(reversed(two))
    two[0].write_bytes(b"2")
    assert files_sha256(one) != files_sha256(two)
    two[0].write_bytes(b"1")
    two[1].rename(tmp_path / "two" / "c")
    assert files_sha256(one) != files_sha256([two[0], tmp_path / "two" / "c"])


def test_digest_of_values_tells_apart_what_differs() -> None:
    different = [(1,), ("1",), (1.0,), (True,), (None,), ("",), (), ("a", "b"), ("ab",), (["a", "b"],), ({"a": "b"},)]
    assert len({sha256_of(*parts) for parts in different}) == len(different)
    assert sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
    assert sha256_of((1, 2)) == sha256_of([1, 2])


def test_digest_of_values_is_the_same_on_every_machine() -> None:
    assert sha256_of("batch", 1, 0.5) == hashlib.sha256(b'["batch",1,0.5]').hexdigest()


def test_name_that_is_not_valid_unicode_has_a_digest(tmp_path: Path) -> None:
    name = os.fsdecode(b"clip-\xff.mp4")
    assert sha256_of(name) != sha256_of(os.fsdecode(b"clip-\xfe.mp4"))
    (tmp_path / name).write_bytes(b"abc")
    assert file_sha256(tmp_path / name, tmp_path / "memo") == hashlib.sha256(b"abc").hexdigest()
