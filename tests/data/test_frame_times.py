"""Which source frames make up a window: by timestamps, from any rate, at any place, in any container."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ltxtrain.data.frames import decode_window
from ltxtrain.errors import DataError
from ltxtrain.facts.media import frames_at, probe_clip

Clip = Callable[..., Path]
SampleOf = Callable[..., object]
NumbersOf = Callable[[np.ndarray], list[int]]

X264 = {"codec": "libx264", "options": (("crf", "1"), ("preset", "ultrafast"))}
VP8 = {"codec": "libvpx", "options": (("deadline", "realtime"), ("cpu-used", "8"))}
TOLERANCE_S = 0.002


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("fps", [10, 24, 25, 30, 50, 60])
def test_frame_of_a_window_is_the_one_on_screen_then(
    fps: int, suffix: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    path = clip(f"clip{suffix}", 3 * fps, fps, **X264)
    got = numbers_of(decode_window(sample_of(path, 49)))
    assert got == [index * fps // 25 for index in range(49)]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60000, 1001)])
def test_rates_of_television_do_not_drift(
    fps: Fraction, suffix: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    path = clip(f"clip{suffix}", 12 * int(fps), fps, **X264)
    for index, number in enumerate(numbers_of(decode_window(sample_of(path, 257)))):
        assert number / fps <= index / 25 + TOLERANCE_S
        assert (number + 1) / fps >= index / 25 - TOLERANCE_S


def test_another_frame_rate_than_25_can_be_asked_for(clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf) -> None:
    path = clip("clip.mkv", 40, 30)
    assert numbers_of(decode_window(sample_of(path, 9, fps=10.0))) == [0, 3, 6, 9, 12, 15, 18, 21, 24]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_variable_rate_is_read_by_timestamps(
    suffix: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    times_ms = [0, 30, 60, 300, 310, 320, 330, 700, 1000, 1033, 1066, 1500]
    path = clip(f"phone{suffix}", times_ms=times_ms, **X264)
    shown = [bisect_right(times_ms, 40 * index) - 1 for index in range(38)]
    assert numbers_of(decode_window(sample_of(path, 38))) == shown


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
@pytest.mark.parametrize("first_ms", [700, 5000])
def test_time_counts_from_the_first_frame_whatever_its_timestamp(
    first_ms: int, suffix: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    path = clip(f"late{suffix}", 60, 25, first_ms=first_ms, **X264)
    assert numbers_of(decode_window(sample_of(path, 9))) == list(range(9))
    assert numbers_of(decode_window(sample_of(path, 9, start=1.6))) == list(range(40, 49))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".avi", "mpeg4"), (".mp4", "mpeg4"), (".mp4", "libx264"), (".mkv", "libx264"), (".flv", "libx264")],
)
def test_no_frame_is_doubled_where_frames_are_reordered(
    suffix: str, codec: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    """The start that AVI and FLV declare is a frame or two before the first frame that is shown."""
    path = clip(f"clip{suffix}", 30, 25, codec=codec, reordered=2)
    assert numbers_of(decode_window(sample_of(path, 17))) == list(range(17))


DISTANT = {
    "mp4 with far keyframes": ("long.mp4", X264 | {"keyframes": 250, "reordered": 3}),
    "mkv": ("long.mkv", X264),
    "webm": ("long.webm", VP8 | {"keyframes": 40}),
    "avi with reordered frames": ("long.avi", {"codec": "mpeg4", "reordered": 2}),
    "wmv": ("long.wmv", {"codec": "wmv2"}),
    "flv": ("long.flv", {"codec": "flv1"}),
    "program stream": ("long.mpg", {"codec": "mpeg2video", "keyframes": 15}),
    "transport stream with far keyframes": ("long.ts", X264 | {"keyframes": 150}),
}


@pytest.mark.parametrize("kind", DISTANT)
def test_window_far_into_a_clip_has_its_own_frames(
    kind: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    name, coding = DISTANT[kind]
    path = clip(name, 300, 25, **coding)
    for first in (50, 199, 275):
        got = numbers_of(decode_window(sample_of(path, 9, start=first / 25)))
        assert got == list(range(first, first + 9)), kind


def test_nothing_after_the_window_is_decoded(clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf) -> None:
    """The clip's later part is destroyed. A window before it never notices, a window in it does."""
    path = clip("clip.mp4", 100, 25, **X264 | {"keyframes": 1})
    content = path.read_bytes()
    middle, end = content.index(b"moov") // 2, content.index(b"moov") - 4
    path.write_bytes(content[:middle] + bytes(end - middle) + content[end:])
    assert numbers_of(decode_window(sample_of(path, 41))) == list(range(41))
    with pytest.raises(DataError, match=r"clip\.mp4"):
        decode_window(sample_of(path, 81))


def test_nothing_far_before_the_window_is_decoded(clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf) -> None:
    path = clip("clip.mp4", 300, 25, **X264)
    content = path.read_bytes()
    frames_end = content.index(b"moov")
    path.write_bytes(content[:5000] + bytes(frames_end // 2) + content[5000 + frames_end // 2 :])
    assert numbers_of(decode_window(sample_of(path, 9, start=10.0))) == list(range(250, 259))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".webm"])
@pytest.mark.parametrize("fps", [5, 12, 24, 25, 30, 60])
def test_every_frame_that_the_facts_promise_can_be_decoded(
    fps: int, suffix: str, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    coding = VP8 if suffix == ".webm" else {"codec": "mpeg4"}
    path = clip(f"clip{suffix}", fps + 3, fps, **coding)
    promised = frames_at(probe_clip(path).duration_s, 25)
    assert promised >= 25
    got = numbers_of(decode_window(sample_of(path, promised)))
    assert (got[-1] + 1) / fps >= (fps + 3) / fps - 1.25 / 25  # less than a quarter of a frame is no frame
    with pytest.raises(DataError, match="ends early"):
        decode_window(sample_of(path, promised + 2))


def test_phone_clip_that_ends_on_a_long_frame_gives_what_the_facts_promise(clip: Clip, sample_of: SampleOf) -> None:
    path = clip("phone.mkv", times_ms=[0, 33, 66, 200, 233, 500])
    promised = frames_at(probe_clip(path).duration_s, 25)
    assert len(decode_window(sample_of(path, promised))) == promised


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_truncated_file_is_an_error_that_names_it(suffix: str, kept: float, clip: Clip, sample_of: SampleOf) -> None:
    options = (("movflags", "faststart"),) if suffix == ".mp4" else ()
    path = clip(f"cut{suffix}", 100, 25, codec="mpeg4", options=options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"cut\{suffix}") as caught:
        decode_window(sample_of(path, 97))
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_file_without_a_frame_is_an_error_that_names_it(clip: Clip, sample_of: SampleOf, tmp_path: Path) -> None:
    path = clip("clip.mkv", 9)
    header = path.read_bytes()
    path.write_bytes(header[: header.index(b"\x1f\x43\xb6\x75")])  # Matroska's id of the first cluster
    for broken in (path, tmp_path / "gone.mkv"):
        with pytest.raises(DataError, match=broken.name):
            decode_window(sample_of(broken, 9))


def test_damaged_bytes_give_frames_or_an_error_that_names_the_file(clip: Clip, sample_of: SampleOf) -> None:
    rng = np.random.default_rng(11)
    outcomes = set()
    for suffix, codec in ((".mp4", "mpeg4"), (".mkv", "libx264"), (".avi", "mpeg4"), (".mpg", "mpeg2video")):
        path = clip(f"bad{suffix}", 60, 25, codec=codec)
        content = path.read_bytes()
        for _ in range(30):
            damaged = bytearray(content)
            span = len(damaged) if rng.random() < 0.5 else 300
            for place in rng.integers(span, size=20):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                frames_FHWC = decode_window(sample_of(path, 9, start=float(rng.choice([0.0, 1.4]))))
            except DataError as error:
                assert path.name in error.message
                outcomes.add("error")
            else:
                assert frames_FHWC.shape[0] == 9
                outcomes.add("frames")
    assert outcomes == {"error", "frames"}
