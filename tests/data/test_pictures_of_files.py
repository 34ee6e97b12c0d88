"""What comes out of images and of unusual videos: upright, in 8 bits, black where nothing lies behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from ltxtrain.data.frames import decode_window
from ltxtrain.errors import DataError
from ltxtrain.facts.media import probe_clips
from ltxtrain.plan.records import Bucket, Sample

Clip = Callable[..., Path]
SampleOf = Callable[..., Sample]
Picture = Callable[[int], np.ndarray]
NumbersOf = Callable[[np.ndarray], list[int]]


@pytest.fixture
def image_of(sample_of: SampleOf) -> Callable[[Path], np.ndarray]:
    def decode(path: Path) -> np.ndarray:
        (facts,) = probe_clips([path], "image")
        size = (facts.width, facts.height)  # type: ignore[union-attr]
        sample = replace(sample_of(path, 1), kind="image", bucket=Bucket(*size, 1), resize=size)
        frames_FHWC = decode_window(sample)
        assert frames_FHWC.shape == (1, size[1], size[0], 3)
        return frames_FHWC[0]

    return decode


ImageOf = Callable[[Path], np.ndarray]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_photo_is_upright_as_its_exif_says(
    orientation: int, suffix: str, picture: Picture, image_of: ImageOf, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(picture(1234))
    stored.save(tmp_path / f"photo{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(tmp_path / f"photo{suffix}") as image:
        expected_HWC = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.abs(image_of(tmp_path / f"photo{suffix}").astype(int) - expected_HWC).max() == 0


GREY = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", Image.fromarray(GREY)),
        ("sixteen.png", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("sixteen.tiff", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("palette.png", Image.fromarray(GREY).convert("P")),
        ("print.tiff", Image.fromarray(GREY).convert("RGB").convert("CMYK")),
        ("old.bmp", Image.fromarray(GREY).convert("RGB")),
    ],
)
def test_every_depth_and_mode_becomes_eight_bits_of_rgb(
    name: str, image: Image.Image, image_of: ImageOf, tmp_path: Path
) -> None:
    image.save(tmp_path / name)
    assert np.abs(image_of(tmp_path / name).astype(int) - GREY[..., None]).max() <= 1


@pytest.mark.parametrize("form", ["rgba", "la", "palette"])
def test_transparent_parts_are_black_whatever_colour_hides_there(form: str, image_of: ImageOf, tmp_path: Path) -> None:
    rgba_HWC = np.full((48, 64, 4), 200, np.uint8)
    rgba_HWC[:, :32, 3], rgba_HWC[:, 32:, 3] = 0, 255
    image = Image.fromarray(rgba_HWC)
    if form == "palette":
        image = Image.fromarray(np.where(rgba_HWC[..., 3] > 0, 1, 0).astype(np.uint8), "P")
        image.putpalette([200] * 6)
        image.save(tmp_path / "a.png", transparency=0)
    else:
        image.convert("LA" if form == "la" else "RGBA").save(tmp_path / "a.png")
    got_HWC = image_of(tmp_path / "a.png")
    assert got_HWC[:, :32].max() == 0
    assert got_HWC[:, 32:].min() == 200


def test_first_frame_of_what_moves_is_the_image(image_of: ImageOf, tmp_path: Path) -> None:
    shades = [Image.new("RGB", (64, 48), (shade,) * 3) for shade in (10, 200)]
    shades[0].save(tmp_path / "a.webp", save_all=True, append_images=shades[1:], lossless=True)
    assert image_of(tmp_path / "a.webp").max() == 10


def test_image_is_scaled_then_cut_out(sample_of: SampleOf, picture: Picture, tmp_path: Path) -> None:
    Image.fromarray(picture(7)).save(tmp_path / "a.png")
    sample = replace(sample_of(tmp_path / "a.png", 1), kind="image")
    cut_HWC = decode_window(replace(sample, bucket=Bucket(64, 32, 1), resize=(256, 192), crop=(192, 160)))[0]
    expected_HWC = np.kron(picture(7), np.ones((2, 2, 1), np.uint8))[160:192, 192:256]
    assert np.abs(cut_HWC.astype(int) - expected_HWC).mean() < 6


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_image_that_is_none_is_an_error_that_names_it(content: bytes, sample_of: SampleOf, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be opened"):
        decode_window(replace(sample_of(tmp_path / "a.png", 1), kind="image"))


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p12le", "gray16le", "rgb48le", "yuv420p"])
def test_video_of_any_depth_has_its_colours(
    pixels: str, clip: Clip, sample_of: SampleOf, picture: Picture, numbers_of: NumbersOf
) -> None:
    codec = "ffv1"
    path = clip("deep.mkv", 20, codec=codec, pixels=pixels)
    frames_FHWC = decode_window(sample_of(path, 17))
    assert numbers_of(frames_FHWC) == list(range(17))
    if pixels != "gray16le":
        corner = frames_FHWC[3, 84:, 116:].reshape(-1, 3).mean(0)
        assert corner == pytest.approx([220, 20, 20], abs=12)


def test_video_of_odd_size_keeps_its_last_row_and_column(tmp_path: Path, sample_of: SampleOf) -> None:
    image_HWC = np.zeros((49, 65, 3), np.uint8)
    image_HWC[-1], image_HWC[:, -1] = 255, 255
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 65, 49, "bgr0"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    sample = replace(sample_of(tmp_path / "odd.mkv", 9), bucket=Bucket(65, 49, 9), resize=(65, 49))
    assert np.array_equal(decode_window(sample)[4], image_HWC)


def test_transparent_video_is_black_there(tmp_path: Path, sample_of: SampleOf) -> None:
    rgba_HWC = np.full((96, 128, 4), 200, np.uint8)
    rgba_HWC[:, :64, 3], rgba_HWC[:, 64:, 3] = 0, 255
    with av.open(str(tmp_path / "alpha.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgra"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba_HWC, format="rgba")))
        container.mux(stream.encode(None))
    got_HWC = decode_window(sample_of(tmp_path / "alpha.mkv", 9))[5]
    assert got_HWC[:, :60].max() == 0
    assert got_HWC[:, 68:].min() >= 199


@pytest.mark.parametrize("fps", [12, 25, 60, Fraction(30000, 1001)])
def test_as_is_every_frame_of_the_file_is_taken(
    fps: Fraction | int, clip: Clip, sample_of: SampleOf, numbers_of: NumbersOf
) -> None:
    path = clip("clip.mp4", 40, fps, codec="libx264", options=(("crf", "1"),))
    (facts,) = probe_clips([path])
    own = facts.fps  # type: ignore[union-attr]
    assert numbers_of(decode_window(sample_of(path, 33, fps=own))) == list(range(33))
    assert numbers_of(decode_window(sample_of(path, 9, fps=own, start=30 / own))) == list(range(30, 39))
