"""A few short captioned clips made on the spot, so that the first run needs no data: moving shapes on plain ground."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltxtrain.data.frames import encode_video
from ltxtrain.facts.digests import sha256_of
from ltxtrain.files import write_atomically

WIDTH, HEIGHT, FRAMES, FPS = 192, 128, 33, 25
COLOURS = {"red": (214, 48, 49), "blue": (9, 132, 227), "green": (0, 184, 148), "yellow": (253, 203, 110)}
GROUNDS = {"dark": (24, 26, 32), "pale": (226, 228, 232), "grey": (120, 124, 132)}
# Where the shape's centre is at the clip's start and end, in parts of the frame.
MOTIONS = {
    "from left to right": ((0.15, 0.5), (0.85, 0.5)),
    "from right to left": ((0.85, 0.5), (0.15, 0.5)),
    "from the top to the bottom": ((0.5, 0.15), (0.5, 0.85)),
    "from the bottom to the top": ((0.5, 0.85), (0.5, 0.15)),
}


@dataclass(frozen=True)
class MadeClip:
    shape: str
    colour: str
    ground: str
    motion: str

    @property
    def caption(self) -> str:
        return f"A {self.colour} {self.shape} moves {self.motion} over a plain {self.ground} background."


def clip_for(index: int) -> MadeClip:
    """The clips differ in shape, colour, ground and motion, in a fixed order."""
    shapes = ("circle", "square", "bar")
    return MadeClip(
        shape=shapes[index % 3],
        colour=list(COLOURS)[index % 4],
        ground=list(GROUNDS)[(index // 2) % 3],
        motion=list(MOTIONS)[(index + index // 4) % 4],
    )


def make_clips(folder: Path, count: int) -> Path:
    """Write ``count`` clips with captions below ``folder`` and return where they are. Those that exist are kept."""
    home = folder / f"made-{sha256_of('made-2', WIDTH, HEIGHT, FRAMES, FPS)[:8]}-{count}"
    for index in range(count):
        clip = clip_for(index)
        name = f"{index:02d}-{clip.colour}-{clip.shape}"
        if not all((home / f"{name}{suffix}").exists() for suffix in (".mp4", ".txt")):
            write_atomically(home / f"{name}.mp4", encode_video(draw_clip(clip), FPS))
            write_atomically(home / f"{name}.txt", clip.caption + "\n")
    return home


def draw_clip(clip: MadeClip) -> np.ndarray:
    """uint8 frames [F, H, W, 3]."""
    start, end = MOTIONS[clip.motion]
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    frames_FHWC = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    frames_FHWC[:] = GROUNDS[clip.ground]
    for index in range(FRAMES):
        along = index / (FRAMES - 1)
        x = (start[0] + (end[0] - start[0]) * along) * WIDTH
        y = (start[1] + (end[1] - start[1]) * along) * HEIGHT
        across, down, size = np.abs(columns - x), np.abs(rows - y), HEIGHT * 0.16
        inside = {
            "circle": across**2 + down**2 <= size**2,
            "square": (across <= size) & (down <= size),
            "bar": (across <= size * 0.5) & (down <= size * 1.6),
        }[clip.shape]
        frames_FHWC[index][inside] = COLOURS[clip.colour]
    return frames_FHWC
