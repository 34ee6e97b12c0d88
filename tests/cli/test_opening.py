"""Whoever waits for clips to be opened sees how far it is; whoever need not wait sees nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltxtrain.cli import opening
from ltxtrain.cli.opening import OpeningTold
from ltxtrain.cli.plan import plan_of
from ltxtrain.config import load_config
from tests.facts.zoo_files import encoded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_short_opening_says_nothing_and_a_long_one_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with OpeningTold(clock) as told:
        told(1, 2)
        clock.now = 1.9
        told(2, 2)
    assert capsys.readouterr() == ("", "")
    with OpeningTold(clock) as told:
        for number in range(1, 51):
            clock.now += 1
            told(number, 50)
        told(1, 9)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line.split(",")[0] for line in printed.err.splitlines()]
    assert lines == ["opening clips: 50 clips", "opening clips: done in 49 s", "opening clips: 9 clips"]


def test_planning_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(opening, "SILENT_SECONDS", -1.0)
    (tmp_path / "set").mkdir()
    for number in range(3):
        encoded(tmp_path / f"set/{number}.mp4")
        (tmp_path / f"set/{number}.txt").write_text("a dog")
    places = {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")}
    loaded = load_config(("smoke",), env={}, flags={"instance_data_dir": str(tmp_path / "set"), **places})
    plan_of(loaded)
    assert "opening clips" in capsys.readouterr().err
