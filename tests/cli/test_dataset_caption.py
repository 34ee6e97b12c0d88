"""``ltxtrain dataset caption`` as it is typed: lines, exit codes, and no key in any of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from tests.doctor.fake_hub import Reply
from tests.prepare.captioner_server import CaptionServer, serving
from tests.prepare.test_scenes import write_video

KEY = "sk-" + "aBcDeFgH" * 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CaptionServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as found:
        yield found


@pytest.fixture
def words(tmp_path: Path, server: CaptionServer) -> list[str]:
    write_video(tmp_path / "clips/a.mp4", [20])
    return ["dataset", "caption", str(tmp_path / "clips"), "--endpoint", server.address, "--model", "seer"]


def test_captions_are_written_and_counted(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--trigger", "ohwx", "--frames", "2"]) == 0
    told = capsys.readouterr()
    assert (tmp_path / "clips/a.txt").read_text() == "ohwx A cat walks across a red carpet.\n"
    assert "1 caption written, 0 kept, 0 failed" in told.err and "next: ltxtrain dataset inspect" in told.err
    assert told.out == f"{tmp_path / 'clips'}\n" and KEY not in told.err


def test_a_table_says_how_it_is_read(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "captions.jsonl"
    assert run([*words, "--output", str(table)]) == 0
    assert f'"caption_strategy": "jsonl", "jsonl": {{"path": "{table}"}}' in capsys.readouterr().err


def test_a_clip_that_failed_is_the_datas_fault_and_a_server_that_refuses_the_machines(
    words: list[str], server: CaptionServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = [Reply(400, {"error": {"message": "no pictures"}})]
    assert run(words) == 3
    server.usual = Reply(401, {"error": {"message": f"unknown key {KEY}"}})
    assert run(words) == 4
    told = capsys.readouterr()
    assert "error: 1 clip without a caption" in told.err and "refuses the key" in told.err
    assert KEY not in told.out + told.err


def test_a_key_in_the_address_is_refused_unseen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[4] = f"http://user:{KEY}@127.0.0.1/v1"
    assert run(words) == 2
    told = capsys.readouterr().err
    assert "addresses stand in logs" in told and KEY not in told
