"""Each clip gets a caption from a model, or is told; what was there is kept, and keys stay where they belong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltxtrain.config.datasets import TableRule
from ltxtrain.errors import ConfigError, DataError, MachineError
from ltxtrain.events import Event, Notice, StageProgress
from ltxtrain.facts.tables import read_table
from ltxtrain.prepare import captioner, captioner_ask
from ltxtrain.prepare.captioner import GIVE_UP, Asked, Captioned, iter_caption
from ltxtrain.prepare.captioner_ask import PROMPT, read_endpoint
from tests.doctor.fake_hub import Reply
from tests.prepare.captioner_server import CaptionServer, said, serving
from tests.prepare.test_scenes import number_of, write_video

KEY = "sk-" + "aBcDeFgH" * 4


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioner_ask, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(
        "ltxtrain.prepare.captioner.usable_workers", lambda: 1
    )  # a second process costs more than it brings
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    with serving() as found:
        yield found


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_video(tmp_path / "clips/a.mp4", [40])
    write_video(tmp_path / "clips/deep/b.mkv", [20])
    Image.fromarray(np.full((900, 1200, 3), 90, np.uint8)).save(tmp_path / "clips/c.png")
    return tmp_path / "clips"


def run(root: Path, server: CaptionServer, key: str = "", timeout_s: float = 20, **settings: object) -> Captioned:
    return run_with_events(root, server, key, timeout_s, **settings)[0]


def run_with_events(
    root: Path, server: CaptionServer, key: str = "", timeout_s: float = 20, **settings: object
) -> tuple[Captioned, list[Event]]:
    endpoint = read_endpoint(server.address, "seer", None, {"OPENAI_API_KEY": key}, timeout_s)
    events = []
    steps = iter_caption(Asked(root, endpoint, PROMPT, **settings))  # type: ignore[arg-type]
    while True:
        try:
            events.append(next(steps))
        except StopIteration as finished:
            return finished.value, events


def captions(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.txt")}


def test_each_clip_gets_a_caption_beside_it(clips: Path, server: CaptionServer) -> None:
    done, events = run_with_events(clips, server, KEY)
    text = "A cat walks across a red carpet.\n"
    assert captions(clips) == {"a.txt": text, "deep/b.txt": text, "c.txt": text}
    assert (done.written, done.kept, done.failed) == (3, 0, ())
    assert [event.done for event in events if isinstance(event, StageProgress)] == [1, 2, 3]
    assert {question.path for question in server.asked} == {"/v1/chat/completions"}
    assert {question.key for question in server.asked} == {f"Bearer {KEY}"}
    assert {question.model for question in server.asked} == {"seer"}


def test_the_model_sees_frames_of_the_whole_clip_in_order(clips: Path, server: CaptionServer) -> None:
    run(clips, server, parallel=1, frames=4)
    a, c, b = server.asked
    assert [number_of(np.asarray(picture)) for picture in a.pictures] == [5, 15, 25, 35]
    assert [number_of(np.asarray(picture)) for picture in b.pictures] == [2, 7, 12, 17]
    assert [picture.size for picture in c.pictures] == [(768, 576)]
    assert "4 frames of one video" in a.text and "movement" in a.text


def test_what_is_there_is_kept_and_an_empty_file_is_not_there(clips: Path, server: CaptionServer) -> None:
    (clips / "a.txt").write_text("by hand\n")
    (clips / "c.txt").write_text(" \n")
    done = run(clips, server)
    assert (done.written, done.kept) == (2, 1) and captions(clips)["a.txt"] == "by hand\n"
    assert (run(clips, server).written, len(server.asked)) == (0, 2)
    assert run(clips, server, overwrite=True).written == 3
    assert captions(clips)["a.txt"] != "by hand\n"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "link", "broken link", "folder"])
def test_what_is_no_plain_caption_file_is_neither_read_nor_written(
    clips: Path, server: CaptionServer, kind: str, overwrite: bool
) -> None:
    place, secret = clips / "a.txt", clips.parent / "secret"
    secret.write_text("")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(secret if kind == "link" else clips.parent / "nowhere")
    done = run(clips, server, overwrite=overwrite)
    assert [(rejected.name, rejected.detail) for rejected in done.failed] == [
        ("a.mp4", "a.txt is a link or no plain file; remove it")
    ]
    assert done.written == 2 and secret.read_text() == "" and not (clips.parent / "nowhere").exists()


def test_a_table_is_written_whatever_lies_beside_the_clips(
    clips: Path, server: CaptionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(clips / "a.txt")
    monkeypatch.setattr(captioner, "has_caption", None)
    assert run(clips, server, output=tmp_path / "captions.jsonl").written == 3
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="is no file"):
        run(clips, server, output=tmp_path / "pipe.jsonl")


def test_a_large_caption_is_somebodys_and_kept(clips: Path, server: CaptionServer) -> None:
    (clips / "a.txt").write_bytes(b" " * 100_000)
    (clips / "c.txt").write_bytes(b"\xff\xfe")
    assert run(clips, server).kept == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(clips: Path, server: CaptionServer, status: int) -> None:
    server.replies = [Reply(status, {"error": {"message": "busy"}})] * 2
    done = run(clips, server, parallel=1)
    assert done.written == 3 and len(server.asked) == 5


def test_the_server_says_how_long_to_wait(clips: Path, server: CaptionServer) -> None:
    server.replies = [Reply(429, {}, headers={"Retry-After": "1"})]
    started = time.monotonic()
    assert run(clips, server, parallel=1).written == 3
    assert 1 <= time.monotonic() - started < 10


def test_a_clip_that_always_fails_is_told_and_the_others_go_on(clips: Path, server: CaptionServer) -> None:
    server.replies = [Reply(500, {"error": {"message": "no memory on the GPU"}})] * captioner_ask.TRIES
    done, events = run_with_events(clips, server, parallel=1)
    assert [(rejected.name, done.written) for rejected in done.failed] == [("a.mp4", 2)]
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("answers 500: no memory on the GPU, 5 times" in message for message in told)
    assert run(clips, server).written == 1, "the next run asks for what failed"


def test_a_server_that_fails_for_ever_is_given_up(tmp_path: Path, server: CaptionServer) -> None:
    write_video(tmp_path / "clips/00.mp4", [9])
    for number in range(1, GIVE_UP + 5):
        (tmp_path / f"clips/{number:02d}.mp4").write_bytes((tmp_path / "clips/00.mp4").read_bytes())
    server.usual = Reply(500, {})
    with pytest.raises(DataError, match="failed one after the other"):
        run(tmp_path / "clips", server, parallel=1)
    assert len(server.asked) <= (GIVE_UP + 1) * captioner_ask.TRIES


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error": ' * 50_000, b"\xff", b"<html>", b"7"])
def test_a_refusal_that_says_nothing_readable_is_told(clips: Path, server: CaptionServer, body: bytes) -> None:
    (clips / "a.mp4").unlink()
    (clips / "deep/b.mkv").unlink()
    server.replies = [Reply(400, body)]
    (failed,) = run(clips, server).failed
    assert failed.detail.endswith(" answers 400")


def test_what_is_no_caption_is_not_written(clips: Path, server: CaptionServer) -> None:
    server.replies = [Reply(body=b"<html>login</html>"), Reply(400, {"error": {"message": "too many images"}})]
    done = run(clips, server, parallel=1)
    assert [(rejected.name, rejected.detail.partition(" answers ")[2]) for rejected in done.failed] == [
        ("a.mp4", ""),
        ("c.png", "400: too many images"),
    ]
    assert set(captions(clips)) == {"deep/b.txt"}


def test_a_slow_server_is_not_waited_for(clips: Path, server: CaptionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioner_ask, "TRIES", 2)
    server.slow_s = 1.0
    done = run(clips, server, timeout_s=0.2)
    assert {rejected.detail for rejected in done.failed} == {"no answer within 0.2 s, 2 times"}
    assert done.written == 0 and captions(clips) == {}


def test_several_questions_are_asked_at_a_time(clips: Path, server: CaptionServer) -> None:
    server.slow_s = 0.3
    run(clips, server, parallel=3)
    assert 2 <= server.most_at_once <= 3


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(401, {"error": {"message": "bad key"}}), "refuses the key.*bad key"),
        (Reply(404, {"error": {"message": "no model seer"}}), "no model seer"),
        (Reply(307, {}, headers={"Location": "http://elsewhere.example/v1"}), r"leads to elsewhere\.example"),
    ],
)
def test_what_concerns_all_clips_stops_at_the_first(clips: Path, server: CaptionServer, reply: Reply, why: str) -> None:
    server.usual = reply
    with pytest.raises(MachineError, match=why):
        run(clips, server, KEY, parallel=1)
    assert len(server.asked) == 1


def test_nobody_there_is_told_once(clips: Path, server: CaptionServer) -> None:
    endpoint = read_endpoint("http://127.0.0.1:9/v1", "seer", None, {}, 5)
    with pytest.raises(MachineError, match=r"nobody answers at 127\.0\.0\.1:9"):
        list(iter_caption(Asked(clips, endpoint, PROMPT)))


def test_a_redirect_is_not_followed_with_the_key(clips: Path, server: CaptionServer) -> None:
    with serving() as thief:
        server.usual = Reply(307, {}, headers={"Location": f"{thief.address}/chat/completions"})
        with pytest.raises(MachineError, match="the pictures are not sent there"):
            run(clips, server, KEY)
        assert thief.asked == []


def test_the_key_of_an_error_is_not_shown(clips: Path, server: CaptionServer) -> None:
    server.usual = Reply(401, {"error": {"message": f"the key {KEY} is not known"}})
    with pytest.raises(MachineError) as refused:
        run(clips, server, KEY)
    assert KEY not in f"{refused.value.message} {refused.value.hint}"
    assert KEY not in repr(read_endpoint(server.address, "seer", None, {"OPENAI_API_KEY": KEY}, 5))


def test_any_script_is_written_as_utf_8(clips: Path, server: CaptionServer) -> None:
    server.usual = said("Eine Katze läuft,\n猫が歩く 👩\u200d🚀.")
    run(clips, server, frames=1)
    assert (clips / "a.txt").read_bytes() == "Eine Katze läuft, 猫が歩く 👩\u200d🚀.\n".encode()


def test_a_text_in_parts_is_read_and_a_trigger_comes_first(clips: Path, server: CaptionServer) -> None:
    server.usual = said([{"type": "text", "text": "A cat "}, {"type": "text", "text": "walks."}])
    run(clips, server, trigger="ohwx")
    assert set(captions(clips).values()) == {"ohwx A cat walks.\n"}


def test_captions_that_are_cut_off_in_training_are_told(clips: Path, server: CaptionServer) -> None:
    server.replies = [said("a large grey cat " * 40)]
    done, events = run_with_events(clips, server, parallel=1)
    assert done.long == ("a.mp4",) and done.written == 3
    assert any("longer than the 128 tokens" in event.message for event in events if isinstance(event, Notice))


def test_a_table_is_written_instead_and_gone_on_with(clips: Path, server: CaptionServer, tmp_path: Path) -> None:
    table = tmp_path / "new/captions.jsonl"
    server.replies = [Reply(400, {})]
    assert run(clips, server, output=table, parallel=1).written == 2
    with table.open("a") as stream:
        stream.write('{"file_name": "cut o')
    done = run(clips, server, output=table)
    assert (done.written, done.kept) == (1, 2) and captions(clips) == {}
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert sorted(row["file_name"] for row in rows) == ["a.mp4", "c.png", "deep/b.mkv"]
    assert {row.file: row.captions for row in read_table(TableRule(table))} == {
        name: ("A cat walks across a red carpet.",) for name in ("a.mp4", "c.png", "deep/b.mkv")
    }
    (tmp_path / "other.jsonl").write_text('{"image": "x"}\n')
    with pytest.raises(DataError, match="is another table"):
        run(clips, server, output=tmp_path / "other.jsonl")


def test_a_closed_folder_is_told_before_the_first_question(
    clips: Path, server: CaptionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltxtrain.prepare.captioner.may_write", lambda folder: folder.name != "deep")
    with pytest.raises(MachineError, match=r"nothing can be written to .*deep") as refused:
        run(clips, server)
    assert server.asked == [] and "--output" in str(refused.value.hint)


def test_two_clips_of_one_stem_do_not_overwrite_each_other(clips: Path, server: CaptionServer) -> None:
    write_video(clips / "a.mkv", [9])
    done = run(clips, server)
    assert [rejected.detail for rejected in done.failed] == ["a.txt is the caption of a.mkv; rename one"]
    assert run(clips, server, output=clips.parent / "t.jsonl").written == 4


def test_a_clip_that_cannot_be_read_is_told(clips: Path, server: CaptionServer) -> None:
    (clips / "bad.mp4").write_bytes(b"\0" * 100)
    (clips / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (clips / "out.mp4").symlink_to("/etc/passwd")
    done = run(clips, server)
    assert {rejected.name for rejected in done.failed} >= {"bad.mp4", "out.mp4"}
    assert done.written == 3 and len(server.asked) == 3


@pytest.mark.parametrize(
    "settings",
    [{"frames": 0}, {"frames": 33}, {"parallel": 0}, {"trigger": "a\nb"}, {"output": Path("a.csv")}, {"prompt": ""}],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        Asked(tmp_path, read_endpoint("http://h/v1", "m", None, {}, 5), **{"prompt": PROMPT, **settings})  # type: ignore[arg-type]
    assert "dataset caption --help" in str(refused.value.hint)


def test_an_interrupt_ends_the_command_at_once(clips: Path, server: CaptionServer) -> None:
    server.slow_s = 30
    command = [sys.executable, "-m", "ltxtrain", "dataset", "caption", str(clips), "--model", "m"]
    started = subprocess.Popen([*command, "--endpoint", server.address], stderr=subprocess.PIPE, env=os.environ)
    until = time.monotonic() + 60
    while not server.asked and time.monotonic() < until:
        time.sleep(0.05)
    started.send_signal(2)
    began = time.monotonic()
    assert started.wait(20) == 130 and time.monotonic() - began < 10
    assert captions(clips) == {}
