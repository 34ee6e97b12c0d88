"""Real video files, tiny, made by the encoder that ships with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

MakeClip = Callable[..., Path]


def write_clip(
    path: Path,
    frames: int | Sequence[int] = 25,
    fps: float = 25,
    size: tuple[int, int] = (64, 48),
    *,
    rotation: int = 0,
    pixel_shape: Fraction | None = None,
) -> Path:
    """``frames`` is how many, or the milliseconds of each, for a rate that varies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = None if isinstance(frames, int) else frames
    count = frames if isinstance(frames, int) else len(frames)
    rng = np.random.default_rng(len(path.name))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libvpx" if path.suffix == ".webm" else "mpeg4", rate=Fraction(fps).limit_denominator(1001)
        )
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if pixel_shape is not None:
            stream.codec_context.sample_aspect_ratio = pixel_shape
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(count):
            picture = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    def make(name: str = "clip.mp4", **options: object) -> Path:
        return write_clip(tmp_path / name, **options)

    return make
