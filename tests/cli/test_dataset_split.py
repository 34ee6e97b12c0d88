"""``ltxtrain dataset split`` as it is typed: lines and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from tests.prepare.test_scenes import write_video


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_video(tmp_path / "films/a.mp4", [30, 40])
    return tmp_path / "films"


def test_scenes_are_listed_and_then_written(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset", "split", str(films), "--min-seconds", "1.5"]
    assert run([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.mp4  0.000-1.200 s  30 frames  too short",
        "a.mp4  1.200-2.800 s  40 frames",
    ]
    assert run([*words, "--to", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'out'}\n"
    assert "2 scenes, 1 of them too short to be written" in told.err
    assert f"next: ltxtrain dataset inspect {tmp_path / 'out'}" in told.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-002.mp4", "scenes.jsonl"]


def test_a_bad_video_is_the_datas_fault_after_the_others(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (films / "bad.mp4").write_bytes(b"")
    assert run(["dataset", "split", str(films), "--to", str(tmp_path / "out")]) == 3
    assert "error: 1 video could not be cut: bad.mp4" in capsys.readouterr().err
    assert (tmp_path / "out/a-002.mp4").exists()


def test_a_folder_for_the_scenes_is_asked_for(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dataset", "split", str(films)]) == 2
    assert run(["dataset", "split", str(films), "--to", str(films / "x")]) == 2
    assert "error: --to: is missing" in capsys.readouterr().err
