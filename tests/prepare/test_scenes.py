"""A video with planted cuts becomes a file for each scene, to the frame; nothing is lost, doubled or overwritten."""

from __future__ import annotations

import colorsys
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ltxtrain.errors import ConfigError, DataError, MachineError
from ltxtrain.events import Event, Notice
from ltxtrain.facts.children import Reply
from ltxtrain.prepare import scenes
from ltxtrain.prepare.scenes import Asked, Split, SplitRule, find_sources, iter_split
from ltxtrain.prepare.scenes_child import rate_of
from ltxtrain.prepare.scenes_record import RECORD, read_scenes

WIDTH, HEIGHT, BLOCK = 128, 96, 16


def picture(scene: int, number: int) -> np.ndarray:
    """A colour for each scene, and the frame's number as white blocks in the upper rows."""
    colour = [round(255 * part) for part in colorsys.hsv_to_rgb(scene * 0.31 % 1, 0.9, 0.5 + 0.4 * (scene % 2))]
    image_HWC = np.full((HEIGHT, WIDTH, 3), colour, np.uint8)
    for bit in range(8):
        image_HWC[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image_HWC


def number_of(image_HWC: np.ndarray) -> int:
    return sum(int(image_HWC[4:12, bit * BLOCK + 4 : bit * BLOCK + 12].mean() > 127) << bit for bit in range(8))


def write_video(path: Path, lengths: Sequence[int], fps: Fraction | int = 25, rotation: int = 0) -> Path:
    """Scenes of ``lengths`` frames one after the other. Matroska rounds its times to milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        stream.codec_context.gop_size = 12
        if rotation:
            stream.set_display_rotation(rotation)
        number = 0
        for scene, length in enumerate(lengths):
            for _ in range(length):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(scene, number), format="rgb24")))
                number += 1
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def numbers_of(path: Path) -> list[int]:
    return [number_of(image_HWC) for image_HWC in frames_of(path)]


def run(
    root: Path, to: Path | None, rule: SplitRule | None = None, captions: bool = False
) -> tuple[Split, list[Event]]:
    events = []
    steps = iter_split(Asked(root, to, rule or SplitRule(), captions))
    while True:
        try:
            events.append(next(steps))
        except StopIteration as finished:
            return finished.value, events


@pytest.fixture(autouse=True)
def _one_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a few short films, a second process costs more than it brings."""
    monkeypatch.setattr(scenes, "usable_workers", lambda: 1)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two films with three scenes each, one of them in a sub-folder, and a clip without a cut."""
    write_video(tmp_path / "films/a.mp4", [30, 40, 35])
    write_video(tmp_path / "films/deep/b.mkv", [60, 10, 45], Fraction(30000, 1001))
    write_video(tmp_path / "films/whole.mp4", [30])
    (tmp_path / "films/a.txt").write_text("a film\n")
    return tmp_path / "films"


def test_each_scene_has_exactly_its_own_frames(films: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in films.rglob("*") if path.is_file()}
    done, _ = run(films, tmp_path / "out", SplitRule(min_seconds=0.5))
    out = tmp_path / "out"
    assert numbers_of(out / "a-001.mp4") == list(range(30))
    assert numbers_of(out / "a-002.mp4") == list(range(30, 70))
    assert numbers_of(out / "a-003.mp4") == list(range(70, 105))
    assert numbers_of(out / "deep/b-001.mp4") == list(range(60)), "beyond a jump and with rounded times"
    assert numbers_of(out / "deep/b-002.mp4")[-45:] == list(range(70, 115))
    assert (out / "whole-001.mp4").read_bytes() == (films / "whole.mp4").read_bytes(), "not encoded a second time"
    assert done.written == 6 and done.failed == ()
    assert {path: path.read_bytes() for path in films.rglob("*") if path.is_file()} == before
    with av.open(str(out / "deep/b-001.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_the_record_tells_from_where_to_where(films: Path, tmp_path: Path) -> None:
    run(films, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / RECORD).read_text().splitlines()]
    a = [
        (row["file"], row["start_s"], row["end_s"], row["frames"], row["how"])
        for row in rows
        if row["source"] == "a.mp4"
    ]
    assert a == [
        ("a-001.mp4", 0.0, 1.2, 30, "encoded"),
        ("a-002.mp4", 1.2, 2.8, 40, "encoded"),
        ("a-003.mp4", 2.8, 4.2, 35, "encoded"),
    ]


def test_short_scenes_are_left_out_and_recorded(films: Path, tmp_path: Path) -> None:
    done, _ = run(films, tmp_path / "out", SplitRule(min_seconds=1.5))
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.mp4")) == [
        "a-002.mp4",
        "deep/b-001.mp4",
        "deep/b-002.mp4",
    ]
    assert [scene.how for scene in done.scenes if scene.source == "a.mp4"] == ["too-short", "encoded", "too-short"]
    assert sum(scene.frames for scene in done.scenes) == 105 + 115 + 30, "used and left out is all there is"


def test_a_dry_run_tells_the_same_and_writes_nothing(films: Path, tmp_path: Path) -> None:
    listed, _ = run(films, None)
    done, _ = run(films, tmp_path / "out")
    assert listed.scenes == done.scenes and listed.written == 0


def test_again_nothing_is_written_and_what_is_missing_comes_back(films: Path, tmp_path: Path) -> None:
    run(films, tmp_path / "out")
    out = tmp_path / "out"
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again, events = run(films, out)
    assert again.written == 0 and "scenes" not in {getattr(event, "stage", "") for event in events}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == times
    (out / "a-002.mp4").unlink()
    with (out / RECORD).open("a") as stream:
        stream.write('{"file": "cut by a ki')
    assert run(films, out)[0].written == 1
    assert numbers_of(out / "a-002.mp4") == list(range(30, 70))
    assert len(read_scenes(out)) == 3


def test_other_settings_or_a_changed_video_are_refused(films: Path, tmp_path: Path) -> None:
    run(films, tmp_path / "out")
    with pytest.raises(ConfigError, match="was cut with other settings"):
        run(films, tmp_path / "out", SplitRule(detector="adaptive"))
    os.utime(films / "a.mp4")
    with pytest.raises(ConfigError, match=r"a\.mp4 has changed since"):
        run(films, tmp_path / "out")


def test_captions_come_along_only_when_asked_for(films: Path, tmp_path: Path) -> None:
    run(films, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.txt"))
    (tmp_path / "out/a-002.txt").write_text("better\n")
    run(films, tmp_path / "out", captions=True)
    found = {path.name: path.read_text() for path in (tmp_path / "out").rglob("*.txt")}
    assert found == {"a-001.txt": "a film\n", "a-002.txt": "better\n", "a-003.txt": "a film\n"}


def test_the_adaptive_detector_finds_cuts_between_moving_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    with av.open(str(tmp_path / "films/a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for number in range(90):
            image_HWC = picture(number // 30, 0) // 2 + rng.integers(0, 12, (HEIGHT, WIDTH, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    done, _ = run(tmp_path / "films", None, SplitRule(detector="adaptive"))
    assert [scene.start_s for scene in done.scenes] == [0.0, 1.2, 2.4]


def test_a_threshold_beyond_all_changes_finds_no_cut(films: Path) -> None:
    done, _ = run(films, None, SplitRule(threshold=255))
    assert len(done.scenes) == 3


def test_a_turned_film_is_written_upright_and_odd_sizes_lose_a_line(tmp_path: Path) -> None:
    write_video(tmp_path / "films/turned.mp4", [30, 30], rotation=90)
    run(tmp_path / "films", tmp_path / "out")
    image_HWC = frames_of(tmp_path / "out/turned-001.mp4")[5]
    assert image_HWC.shape == (WIDTH, HEIGHT, 3)
    assert 5 in (number_of(np.rot90(image_HWC, turns)) for turns in (1, 3))


def test_a_bad_video_is_told_and_the_others_go_on(films: Path, tmp_path: Path) -> None:
    (films / "bad.mp4").write_bytes((films / "a.mp4").read_bytes()[:4000])
    (films / "text.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (films / "out.mp4").symlink_to("/etc/passwd")
    done, events = run(films, tmp_path / "out")
    assert {rejected.name for rejected in done.failed} == {"bad.mp4", "text.mp4", "out.mp4"}
    assert done.written == 6
    told = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "text.mp4: its first bytes are of no video container" in told


def test_a_scene_that_is_larger_than_expected_is_encoded_again_with_room(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = scenes._encoding
    monkeypatch.setattr(scenes, "_encoding", lambda *words: replace(usual(*words), most_bytes=100))
    done, _ = run(films, tmp_path / "out")
    assert (done.written, done.failed) == (6, ())
    assert numbers_of(tmp_path / "out/a-003.mp4") == list(range(70, 105))


def test_two_videos_of_one_stem_keep_their_scenes_apart(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4", "A.avi"):
        write_video(tmp_path / "films" / name, [20])
    sources, _ = find_sources(tmp_path / "films")
    assert sorted(source.stem for source in sources) == ["A", "a-mkv", "a-mp4"]


def test_the_folder_of_the_videos_is_never_written_to(films: Path) -> None:
    for to in (films, films / "out", films.parent):
        with pytest.raises(ConfigError, match="lie in each other"):
            run(films, to)


def test_a_record_that_leads_out_is_not_followed(films: Path, tmp_path: Path) -> None:
    run(films, tmp_path / "out")
    record = tmp_path / "out" / RECORD
    record.write_text(record.read_text().replace('"a-002.mp4"', '"../a-002.mp4"'))
    (tmp_path / "a-002.mp4").write_bytes(b"another's")
    with pytest.raises(DataError, match="leads out of"):
        run(films, tmp_path / "out", captions=True)
    assert not list(tmp_path.glob("*.txt"))


def test_without_the_package_one_line_says_what_to_install(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="scenedetect is missing") as refused:
        run(films, None)
    assert refused.value.hint == 'pip install "ltxtrain[scenes]"'


def test_an_opencv_that_cannot_be_loaded_is_not_blamed_on_the_videos(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site/cv2").mkdir(parents=True)
    (tmp_path / "site/cv2/__init__.py").write_text("raise ImportError('libz.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(MachineError, match=r"PySceneDetect cannot be loaded: libz\.so\.1") as refused:
        run(films, None)
    assert refused.value.hint == "make setup, or install ltxtrain's packages again"


@pytest.mark.parametrize(
    "rule", [{"detector": "x"}, {"threshold": 0.0}, {"min_seconds": -1.0}, {"min_seconds": float("nan")}]
)
def test_settings_that_mean_nothing_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        SplitRule(**rule)  # type: ignore[arg-type]
    assert "dataset split --help" in str(refused.value.hint)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no videos"):
        run(tmp_path, None)


def test_the_declared_rate_counts_unless_the_timestamps_say_another() -> None:
    ntsc = Fraction(30000, 1001)
    rounded = [round(index / float(ntsc), 3) for index in range(300)]
    assert rate_of(rounded, ntsc) == ntsc
    assert float(rate_of(rounded, Fraction(7))) == pytest.approx(float(ntsc), abs=0.01)
    assert rate_of([index / 12.5 for index in range(50)], Fraction(25)) == Fraction(25, 2)
    assert rate_of([0.0], Fraction(25)) == rate_of([0.0, 0.0], Fraction(25)) == 25
    assert rate_of([*(index / 25 for index in range(32)), 3600.0], Fraction(33, 3600)) == 25


def write_uneven(path: Path, milliseconds: Sequence[int]) -> None:
    """One scene of frames at these times."""
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1000)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuvj420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(picture(number // 60, number), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_no_frame_of_an_uneven_video_is_lost(tmp_path: Path) -> None:
    times = [*range(0, 2400, 40), *range(2400, 8400, 300), *range(8400, 10000, 40)]
    write_uneven(tmp_path / "films/a.mkv", times)
    done, _ = run(tmp_path / "films", tmp_path / "out")
    found = [number for scene in done.scenes for number in numbers_of(tmp_path / "out" / scene.file)]
    assert done.failed == () and len(done.scenes) == 2
    assert sorted(set(found)) == list(range(len(times)))


def test_a_video_with_a_hole_of_a_day_is_refused(tmp_path: Path) -> None:
    write_uneven(tmp_path / "films/a.mkv", [*range(0, 1280, 40), 90_000_000])
    done, _ = run(tmp_path / "films", tmp_path / "out")
    assert [rejected.detail for rejected in done.failed] == ["its timestamps span 90000 s"]


@pytest.mark.parametrize("said", [("25", 1e9), ("9999", 86_400.0), ("25", float("inf")), ("25", float("nan"))])
def test_a_child_that_tells_of_endless_scenes_is_not_believed(said: tuple[str, float]) -> None:
    source = scenes.Source("a.mp4", Path("a.mp4"), "a", (1, 1))
    reply = Reply({"fps": said[0], "begins_s": [0.0], "end_s": said[1]}, memoryview(b""), "")
    with pytest.raises(DataError, match=r"do not go forward|at most"):
        scenes._scenes(source, reply, SplitRule())
