"""What a decoded frame looks like: upright, at its size, in its colours. And videos that are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ltxtrain.data.frames import decode_window, encode_png, encode_video, write_video
from ltxtrain.facts.media import probe_clip
from ltxtrain.plan.records import Bucket

Clip = Callable[..., Path]
SampleOf = Callable[..., object]
Picture = Callable[[int], np.ndarray]

# The 2 x 2 matrix that ISO/IEC 14496-12 stores in the track header: (x, y) -> (a x + c y, b x + d y), y downwards.
CLOCKWISE = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def set_track_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write the matrix into an mp4 file by hand, so that no library's idea of an angle is asked."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: flags, times, id, duration, reserved, layer, group, volume
    for index, value in enumerate((a, b, 0, c, d, 0, 0, 0)):
        content[start + 4 * index : start + 4 * index + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)


@pytest.mark.parametrize("degrees", CLOCKWISE)
def test_clip_filmed_with_a_turned_camera_is_upright(
    degrees: int, clip: Clip, sample_of: SampleOf, picture: Picture
) -> None:
    path = clip("turned.mp4", 9, codec="libx264", options=(("crf", "1"),))
    set_track_matrix(path, *CLOCKWISE[degrees])
    upright_HWC = np.rot90(picture(5), -degrees // 90)
    height, width = upright_HWC.shape[:2]
    facts = probe_clip(path)
    assert (facts.width, facts.height) == (width, height)
    sample = replace(sample_of(path, 9), bucket=Bucket(width, height, 9), resize=(width, height))
    got_HWC = decode_window(sample)[5]
    assert got_HWC.shape == upright_HWC.shape
    assert np.abs(got_HWC.astype(int) - upright_HWC).mean() < 3


def test_frames_are_scaled_then_cut_out(clip: Clip, sample_of: SampleOf, picture: Picture) -> None:
    path = clip("clip.mkv", 9, pixels="yuv444p")
    sample = replace(sample_of(path, 9), bucket=Bucket(64, 32, 9), resize=(256, 192), crop=(192, 160))
    corner_HWC = decode_window(sample)[4]
    assert corner_HWC.shape == (32, 64, 3)
    expected_HWC = np.kron(picture(4), np.ones((2, 2, 1), np.uint8))[160:192, 192:256]
    assert np.abs(corner_HWC.astype(int) - expected_HWC).mean() < 6
    assert corner_HWC[20, 50, 0] > 180 > 60 > corner_HWC[20, 10, 2] - 40


# Luma weights of red and blue, from the recommendations BT.601 and BT.709.
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
TAGS = {"untagged": 2, "bt601": 6, "bt709": 1}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "skin": (224, 172, 105), "grey": (40, 40, 40)}


def luma_and_chroma(colour: tuple[int, int, int], matrix: str, full: bool) -> tuple[int, int, int]:
    """Y, Cb, Cr of a colour, by the recommendation's own formula."""
    red, green, blue = (part / 255 for part in colour)
    weight_red, weight_blue = MATRICES[matrix]
    luma = weight_red * red + (1 - weight_red - weight_blue) * green + weight_blue * blue
    chroma_blue, chroma_red = (blue - luma) / (2 * (1 - weight_blue)), (red - luma) / (2 * (1 - weight_red))
    if full:
        return round(255 * luma), *(min(255, round(128 + 255 * chroma)) for chroma in (chroma_blue, chroma_red))
    return round(16 + 219 * luma), round(128 + 224 * chroma_blue), round(128 + 224 * chroma_red)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("tag", TAGS)
def test_colours_go_through_the_matrix_and_range_that_the_clip_declares(
    tag: str, full: bool, tmp_path: Path, sample_of: SampleOf
) -> None:
    matrix = "bt601" if tag == "untagged" else tag
    for name, colour in COLOURS.items():
        path = tmp_path / f"{name}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = TAGS[tag], 2 if full else 1
            for _ in range(3):
                frame = av.VideoFrame(128, 96, "yuv420p")
                for plane, value in zip(frame.planes, luma_and_chroma(colour, matrix, full), strict=True):
                    plane.update(bytes([value]) * plane.buffer_size)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        got_FHWC = decode_window(sample_of(path, 1))
        assert np.abs(got_FHWC.astype(int) - colour).max() <= 4, name


@pytest.fixture
def frames_FHWC(picture: Picture) -> np.ndarray:
    return np.stack([picture(number) for number in range(9)])


def test_same_frames_give_the_same_video_bytes_every_time() -> None:
    """At this size x264's fast paths give several different files in twelve calls."""
    ramp_HW = np.add.outer(np.arange(128) * 0.7, np.arange(192) * 0.9)
    frames_FHWC = np.stack([ramp_HW + 3 * index for index in range(33)]).astype(np.uint8)[..., None].repeat(3, axis=3)
    written, in_between = set(), []
    for index in range(12):
        in_between.append(bytearray(7 + 1001 * index))  # so that the encoder's memory lies elsewhere each time
        written.add(encode_video(frames_FHWC, 25))
    assert len(written) == 1
    assert encode_video(frames_FHWC[::-1], 25) != encode_video(frames_FHWC, 25)
    assert len({encode_png(frames_FHWC[0]) for _ in range(3)}) == 1


@pytest.mark.parametrize("fps", [25, 24, 23.976, 30])
def test_written_video_is_what_browsers_play_and_has_its_frames(
    fps: float, frames_FHWC: np.ndarray, tmp_path: Path, sample_of: SampleOf
) -> None:
    (tmp_path / "video.mp4").write_bytes(encode_video(frames_FHWC, fps))
    facts = probe_clip(tmp_path / "video.mp4")
    assert (facts.codec, facts.pixel_format, facts.frames, facts.variable_rate) == ("h264", "yuv420p", 9, False)
    assert facts.fps == pytest.approx(fps, rel=1e-4)
    got_FHWC = decode_window(sample_of(tmp_path / "video.mp4", 9, fps=fps))
    assert np.abs(got_FHWC.astype(int) - frames_FHWC).mean() < 3


def test_written_video_says_its_colours_and_keeps_them(tmp_path: Path, sample_of: SampleOf) -> None:
    for name, colour in COLOURS.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode_video(np.full((3, 96, 128, 3), colour, np.uint8), 25))
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
        expected = luma_and_chroma(colour, "bt709", full=False)
        assert [plane[0] for plane in map(memoryview, frame.planes)] == pytest.approx(expected, abs=3)
        assert np.abs(decode_window(sample_of(path, 3)).astype(int) - colour).max() <= 8, name


def test_poster_is_the_middle_frame(frames_FHWC: np.ndarray, tmp_path: Path) -> None:
    write_video(tmp_path / "deep" / "cat.mp4", frames_FHWC, 25)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["cat.mp4", "cat.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "deep" / "cat.png")), frames_FHWC[4])


def test_single_frame_is_a_video_too(frames_FHWC: np.ndarray, tmp_path: Path) -> None:
    write_video(tmp_path / "still.mp4", frames_FHWC[:1], 25)
    assert probe_clip(tmp_path / "still.mp4").frames == 1
    image = Image.open(BytesIO(encode_png(frames_FHWC[0])))
    assert (image.format, image.size, image.mode) == ("PNG", (128, 96), "RGB")
