from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ltxtrain.facts.quarantine import NAME, Quarantined, add_quarantine, quarantined, read_quarantine


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "data" / f"{name}.mp4" for name in ("a", "b")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"faulty")
    return paths


def test_listed_file_is_on_the_list_until_it_changes(clips: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert read_quarantine(cache) == {}
    add_quarantine(cache, [quarantined(path, "damaged", "ends early") for path in clips])
    listed = read_quarantine(cache)
    assert list(listed) == [str(path) for path in clips]
    assert (listed[str(clips[0])].reason, listed[str(clips[0])].bytes) == ("damaged", 6)
    clips[0].write_bytes(b"mended now")
    os.utime(clips[1], ns=(0, 5))
    assert read_quarantine(cache) == {}


def test_list_grows_and_each_file_stands_on_it_once(clips: list[Path], tmp_path: Path) -> None:
    add_quarantine(tmp_path, [quarantined(clips[0], "damaged", "one")])
    add_quarantine(tmp_path, [quarantined(clips[1], "crashed", "two")])
    add_quarantine(tmp_path, [quarantined(clips[0], "too-slow", "three\nlines \x1b[31m")])
    assert {entry.reason for entry in read_quarantine(tmp_path).values()} == {"too-slow", "crashed"}
    lines = (tmp_path / NAME).read_text().splitlines()
    assert len(lines) == 2
    assert {tuple(json.loads(line)) for line in lines} == {("path", "reason", "detail", "bytes", "mtime_ns")}
    assert read_quarantine(tmp_path)[str(clips[0])].detail.isprintable()
    clips[0].unlink()
    add_quarantine(tmp_path, [])
    assert len((tmp_path / NAME).read_text().splitlines()) == 1


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"path": 1}', "null", "[" * 100_000, "\x00"])
def test_damaged_line_is_left_out(line: str, clips: list[Path], tmp_path: Path) -> None:
    add_quarantine(tmp_path, [quarantined(clips[0], "damaged", "one")])
    whole = (tmp_path / NAME).read_text()
    wrong = whole.replace('"bytes": 6', '"bytes": "6"')
    (tmp_path / NAME).write_text(f"{line}\n{wrong}{whole}")
    assert [type(entry) for entry in read_quarantine(tmp_path).values()] == [Quarantined]


def test_users_files_stay_as_they_are(clips: list[Path], tmp_path: Path) -> None:
    before = [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in clips]
    add_quarantine(tmp_path / "cache", [quarantined(path, "damaged", "") for path in clips])
    assert [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in clips[0].parent.iterdir()] != []
    assert sorted((path, path.read_bytes(), path.stat().st_mtime_ns) for path in clips[0].parent.iterdir()) == before
