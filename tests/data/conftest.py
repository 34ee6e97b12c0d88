"""Real video files whose frames carry their number in black and white blocks, which no compression wipes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ltxtrain.plan.records import Bucket, Sample

WIDTH, HEIGHT, BLOCK, BITS = 128, 96, 16, 12
PER_ROW = WIDTH // BLOCK


@dataclass(frozen=True)
class Coding:
    """How a clip is encoded. ``first_ms`` shifts all timestamps; lossless by default."""

    codec: str = "ffv1"
    pixels: str = "yuv420p"
    keyframes: int = 12
    reordered: int = 0
    first_ms: int = 0
    rotation: int = 0
    options: tuple[tuple[str, str], ...] = ()


def numbered(number: int) -> np.ndarray:
    """A grey frame [H, W, 3] with ``number`` in its upper part, one bit a block, and its lower right corner red."""
    image_HWC = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, PER_ROW)
        image_HWC[row * BLOCK :, column * BLOCK :][:BLOCK, :BLOCK] = 255 * (number >> bit & 1)
    image_HWC[-BLOCK:, -BLOCK:] = (220, 20, 20)
    return image_HWC


def number_of(image_HWC: np.ndarray) -> int:
    """What ``numbered`` wrote, read from the middle of each block."""
    number = 0
    for bit in range(BITS):
        top, left = (BLOCK * part + BLOCK // 4 for part in divmod(bit, PER_ROW))
        block = image_HWC[top : top + BLOCK // 2, left : left + BLOCK // 2]
        number |= int(block.mean() > 127) << bit
    return number


def write_numbered(
    path: Path,
    frames: int = 30,
    fps: Fraction | int = 25,
    coding: Coding | None = None,
    *,
    times_ms: Sequence[int] | None = None,
) -> Path:
    """``times_ms`` are the times of the frames, for a rate that varies."""
    coding = coding or Coding()
    tick = Fraction(1, 1000) if times_ms is not None or coding.first_ms else 1 / Fraction(fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(coding.codec, rate=Fraction(fps), options=dict(coding.options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, coding.pixels
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = coding.keyframes
        stream.codec_context.max_b_frames = coding.reordered
        stream.codec_context.time_base = stream.time_base = tick
        if coding.rotation:
            stream.set_display_rotation(coding.rotation)
        times = times_ms if times_ms is not None else [round(index / Fraction(fps) / tick) for index in range(frames)]
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = time + coding.first_ms, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """``clip(name, frames, fps, times_ms=..., codec=..., ...)`` writes a numbered clip and returns its path."""

    def make(
        name: str = "clip.mkv", frames: int = 30, fps: Fraction | int = 25, *, times_ms: object = None, **coding: object
    ) -> Path:
        return write_numbered(tmp_path / name, frames, fps, Coding(**coding), times_ms=times_ms)

    return make


@pytest.fixture
def sample_of() -> Callable[..., Sample]:
    """``sample_of(path, frames, start=...)``: a window at the clip's own size, uncropped."""

    def make(path: Path, frames: int, *, start: float = 0.0, fps: float = 25.0, name: str = "set/clip#0") -> Sample:
        bucket = Bucket(WIDTH, HEIGHT, frames)
        return Sample(name, "set", str(path), ("a",), start, fps, bucket, (WIDTH, HEIGHT), (0, 0), 0, False)

    return make


@pytest.fixture
def picture() -> Callable[[int], np.ndarray]:
    """The picture that carries a number, as it was before encoding."""
    return numbered


@pytest.fixture
def numbers_of() -> Callable[[np.ndarray], list[int]]:
    """The numbers that decoded frames carry."""
    return lambda frames_FHWC: [number_of(image_HWC) for image_HWC in frames_FHWC]
