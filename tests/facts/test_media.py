from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.facts import media
from ltxtrain.facts.media import ClipFacts, MediaError, frames_at, probe_clip, probe_clips, probe_task, sniff_format
from ltxtrain.facts.reasons import EXPLANATIONS, REASONS
from tests.facts.zoo_files import encoded

MakeClip = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".m4v", ".wmv"])
def test_frames_are_counted_in_every_container(make_clip: MakeClip, suffix: str) -> None:
    facts = probe_clip(make_clip(f"clip{suffix}", frames=13, fps=25))
    assert (facts.frames, facts.width, facts.height, facts.variable_rate) == (13, 64, 48, False)
    assert facts.fps == pytest.approx(25)
    assert facts.duration_s == pytest.approx(13 / 25, abs=2e-3)


def test_matroska_declares_no_count_and_is_counted_all_the_same(make_clip: MakeClip) -> None:
    facts = probe_clip(make_clip("clip.mkv", frames=9))
    assert facts.declared_frames == 0
    assert facts.frames == 9


def test_container_is_told_by_content_and_not_by_name(make_clip: MakeClip, tmp_path: Path) -> None:
    renamed = make_clip("clip.mkv", frames=9).rename(tmp_path / "clip.mp4")
    assert probe_clip(renamed).frames == 9


def test_rotated_clip_has_its_displayed_size(make_clip: MakeClip) -> None:
    assert probe_clip(make_clip("upright.mp4")).width == 64
    turned = probe_clip(make_clip("turned.mp4", rotation=90))
    assert (turned.width, turned.height, turned.rotation) == (48, 64, 90)
    upside_down = probe_clip(make_clip("upside_down.mp4", rotation=180))
    assert (upside_down.width, upside_down.height) == (64, 48)


def test_pixels_that_are_not_square_count_as_shown(make_clip: MakeClip) -> None:
    facts = probe_clip(make_clip("wide.mp4", pixel_shape=Fraction(2, 1)))
    assert (facts.width, facts.height) == (128, 48)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rate_is_measured_by_timestamps(make_clip: MakeClip, suffix: str) -> None:
    times = [0, 40, 80, 200, 240, 280, 500]
    facts = probe_clip(make_clip(f"phone{suffix}", frames=times))
    assert facts.variable_rate
    assert facts.frames == 7
    assert facts.fps == pytest.approx(12)
    assert facts.duration_s == pytest.approx(0.54, abs=2e-3)
    assert frames_at(facts.duration_s, 25) == 14


def test_rounded_timestamps_are_no_variable_rate(make_clip: MakeClip) -> None:
    times = [round(index * 1000 / 30) for index in range(30)]
    facts = probe_clip(make_clip("thirty.mkv", frames=times))
    assert not facts.variable_rate
    assert frames_at(facts.duration_s, 30) == 30
    assert frames_at(facts.duration_s, 25) == 25


def test_single_frame_is_a_clip_of_one_frame(make_clip: MakeClip) -> None:
    facts = probe_clip(make_clip("still.mp4", frames=1))
    assert (facts.frames, frames_at(facts.duration_s, 25)) == (1, 1)


def test_file_that_is_cut_off_keeps_what_can_be_read(make_clip: MakeClip) -> None:
    path = make_clip("cut.avi", frames=25)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    facts = probe_clip(path)
    assert 1 <= facts.frames < 25


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _truncated_moov(make_clip: MakeClip, tmp_path: Path) -> Path:
    path = make_clip("clip.mp4")
    return _write(path, path.read_bytes()[: path.stat().st_size * 3 // 4])


def _audio_only(make_clip: MakeClip, tmp_path: Path) -> Path:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _playlist_to_a_neighbour(make_clip: MakeClip, tmp_path: Path) -> Path:
    make_clip("secret.mp4")
    return _write(tmp_path / "list.mp4", b"ffconcat version 1.0\nfile secret.mp4\n")


def _folder(make_clip: MakeClip, tmp_path: Path) -> Path:
    path = tmp_path / "folder.mp4"
    path.mkdir()
    return path


def _fifo(make_clip: MakeClip, tmp_path: Path) -> Path:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    return path


def _link_to_nothing(make_clip: MakeClip, tmp_path: Path) -> Path:
    path = tmp_path / "link.mp4"
    path.symlink_to(tmp_path / "gone.mp4")
    return path


def _header_without_frames(make_clip: MakeClip, tmp_path: Path) -> Path:
    path = make_clip("clip.mkv")
    return _write(path, path.read_bytes()[:300])


BAD_MEDIA: dict[str, tuple[str, Callable[[MakeClip, Path], Path]]] = {
    "no bytes": ("empty", lambda _, folder: _write(folder / "a.mp4", b"")),
    "text": ("not-video", lambda _, folder: _write(folder / "a.mp4", b"a man walks\n" * 100)),
    "ffconcat": ("not-video", _playlist_to_a_neighbour),
    "m3u8": ("not-video", lambda _, folder: _write(folder / "a.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hosts\n")),
    "png": ("not-video", lambda _, folder: _write(folder / "a.mp4", b"\x89PNG\r\n\x1a\n" + bytes(100))),
    "zeros": ("not-video", lambda _, folder: _write(folder / "a.mp4", bytes(5000))),
    "folder": ("unreadable", _folder),
    "fifo": ("unreadable", _fifo),
    "link to nothing": ("unreadable", _link_to_nothing),
    "missing": ("unreadable", lambda _, folder: folder / "nothing.mp4"),
    "index cut off": ("damaged", _truncated_moov),
    "header only": ("damaged", _header_without_frames),
    "magic and noise": (
        "damaged",
        lambda _, folder: _write(folder / "a.mkv", b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 8),
    ),
    "sound only": ("no-video", _audio_only),
}


@pytest.mark.parametrize("kind", BAD_MEDIA)
def test_bad_media_gets_its_reason(kind: str, make_clip: MakeClip, tmp_path: Path) -> None:
    reason, build = BAD_MEDIA[kind]
    with pytest.raises(MediaError) as caught:
        probe_clip(build(make_clip, tmp_path))
    assert caught.value.reason == reason
    assert caught.value.exit_code == 3
    assert caught.value.detail


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4"])
def test_names_of_protocols_are_names_of_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError) as caught:
        probe_clip(Path(name))
    assert caught.value.reason == "unreadable"


def test_header_of_a_giant_is_refused_before_it_is_decoded(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip("clip.mp4")
    monkeypatch.setattr("ltxtrain.facts.media.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError) as caught:
        probe_clip(path)
    assert caught.value.reason == "too-large"


def test_timestamps_that_span_days_are_refused(make_clip: MakeClip) -> None:
    with pytest.raises(MediaError) as caught:
        probe_clip(make_clip("days.mkv", frames=[0, 40, 100_000_000]))
    assert caught.value.reason == "too-large"


def test_cover_picture_is_no_video(make_clip: MakeClip, tmp_path: Path) -> None:
    song, film = tmp_path / "song.mp4", tmp_path / "film.mp4"
    for path in (song, film):
        with av.open(str(path), "w") as container:
            cover = container.add_stream("mjpeg")
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            sound = container.add_stream("aac", rate=44100)
            video = container.add_stream("mpeg4", rate=25, width=64, height=48) if path == film else None
            container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            container.mux(cover.encode(None))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
            if video is not None:
                for _ in range(5):
                    container.mux(
                        video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
                    )
                container.mux(video.encode(None))
    with pytest.raises(MediaError) as caught:
        probe_clip(song)
    assert caught.value.reason == "no-video"
    facts = probe_clip(film)
    assert (facts.width, facts.frames) == (64, 5)


def test_damaged_bytes_always_end_in_facts_or_in_a_reason(make_clip: MakeClip, tmp_path: Path) -> None:
    rng = random.Random(7)
    originals = [make_clip(f"clip{suffix}", frames=6).read_bytes() for suffix in (".mp4", ".mkv", ".avi", ".mpg")]
    verdicts = set()
    for index in range(160):
        content = bytearray(originals[index % 4])
        if index % 3 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            span = len(content) if index % 3 == 1 else 200
            for _ in range(rng.randrange(1, 40)):
                content[rng.randrange(min(span, len(content)))] = rng.randrange(256)
        path = _write(tmp_path / "mutated.mp4", bytes(content))
        try:
            facts = probe_clip(path)
        except MediaError as error:
            verdicts.add(error.reason)
        else:
            assert facts.frames >= 1
            assert facts.duration_s > 0
            verdicts.add("facts")
    assert verdicts <= {"facts", "empty", "not-video", "damaged", "no-video", "too-large"}
    assert {"facts", "damaged"} <= verdicts


HEADS = {"mpeg": b"\x00\x00\x01\xba", "mpegvideo": b"\x00\x00\x01\xb3", "flv": b"FLV\x01\x05\x00\x00\x00\x09"}


@pytest.mark.parametrize("head", HEADS)
def test_forty_gigabytes_of_nothing_are_not_read_to_the_end(head: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "hole.mpg", HEADS[head])
    os.truncate(path, 40 << 30)
    began = time.process_time()
    with pytest.raises(MediaError, match="MiB of it hold not one") as caught:
        probe_clip(path)
    assert time.process_time() - began < 10
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize(("suffix", "form", "codec"), [("mpg", "mpeg", "mpeg1video"), ("ts", "mpegts", "mpeg2video")])
def test_hole_behind_a_clip_is_not_read_to_the_end(suffix: str, form: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"hole.{suffix}"
    encoded(path, codec, 10, form=form)
    os.truncate(path, 40 << 30)
    assert probe_task(path, "video").seconds < 11
    with pytest.raises(MediaError, match="MiB of it hold not one"):
        probe_clip(path)


def test_time_for_a_file_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "stored_bytes", lambda path: 1 << 40)
    assert probe_task(tmp_path / "film.mov", "video").seconds == media.MOST_SECONDS_OF_A_FILE


def test_many_are_probed_in_the_order_given(make_clip: MakeClip, tmp_path: Path) -> None:
    good = make_clip("good.mp4", frames=5)
    bad = _write(tmp_path / "bad.mp4", b"")
    found = probe_clips([good, bad, good])
    assert [type(entry) for entry in found] == [ClipFacts, MediaError, ClipFacts]
    assert probe_clips([]) == []


@given(
    frames=st.integers(1, 2000), fps=st.sampled_from([10.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 120.0])
)
def test_counts_at_another_rate_lie_within_the_clip(frames: int, fps: float) -> None:
    duration = frames / fps
    assert frames_at(duration, fps) == frames
    count = frames_at(duration, 25)
    assert (count - 1) / 25 < duration
    assert count >= duration * 25 - 0.25 - 1e-9


def test_sniffing_needs_no_more_than_it_is_given() -> None:
    assert [sniff_format(head) for head in (b"", b"RIFF", b"\x47", b"OggS")] == [None, None, None, "ogg"]


def test_every_reason_is_explained_and_there_are_few() -> None:
    assert set(EXPLANATIONS) == set(REASONS)
    assert len(REASONS) <= 25
