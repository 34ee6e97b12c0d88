"""A folder of small real clips, each with something about it that an inspection should see."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FRAMES = 160, 96, 25
CAPTION = "A field of light moves slowly over a wall, number"


def moving(seed: int, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A few waves of light that wander: frames_FHWC, another scene for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / WIDTH
    light = np.zeros((frames, height, width))
    for _ in range(5):
        (rise, slope), speed, depth = rng.uniform(1, 6, 2), rng.uniform(-3, 3), rng.uniform(-1, 1)
        phase = np.arange(frames)[:, None, None] / FRAMES * speed
        light += depth * np.cos(2 * np.pi * (rise * x + slope * y + phase))
    grey = (128 + 100 * np.tanh(light)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def write(path: Path, frames_FHWC: NDArray[np.uint8], caption: str | None = None, quality: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qmin": str(quality), "qmax": str(quality)})
        stream.height, stream.width = frames_FHWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image_HWC in frames_FHWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def plain_folder(root: Path, count: int = 3) -> Path:
    """Clips with nothing wrong."""
    for number in range(count):
        write(root / f"good{number}.mp4", moving(number), f"{CAPTION} {number}")
    return root


def odd_folder(root: Path) -> Path:
    """Two good clips, and one of each kind that is worth telling."""
    plain_folder(root, 2)
    write(root / "again.mp4", moving(0), f"{CAPTION} 0", quality=9)
    write(root / "black.mp4", np.full((FRAMES, HEIGHT, WIDTH, 3), 3, np.uint8), "A room without any light")
    write(root / "frozen.mp4", np.repeat(moving(5, 1), FRAMES, axis=0), "A field that does not move at all")
    there = moving(6, 7)
    once = np.concatenate([there, there[5::-1]])  # twice there and back: first, middle and last frame are the same
    write(root / "loop.mp4", np.concatenate([once, once[1:]]), "A field that moves there and back")
    barred = np.clip(moving(7), 40, 255)
    barred[:, :14] = barred[:, -14:] = 0
    write(root / "bars.mp4", barred, "A field between two black bars")
    write(root / "label.mp4", moving(8), "light")
    write(root / "bare.mp4", moving(9))
    write(root / "brief.mp4", moving(10, 4), "A field that is over at once")
    (root / "broken.mp4").write_bytes((root / "good0.mp4").read_bytes()[:700])
    (root / "broken.txt").write_text("A field that was cut off")
    return root
