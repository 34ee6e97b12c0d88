"""What the VAE holds while it encodes and decodes: in one pass, in tiles, and frame group by frame group.

Counted from every tensor of the releases' VAEs. At a quarter of the frame's width and height lie the widest tensors, a
patch of 4 x 4 pixels being one cell there; pixels beside them are three values each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ltxtrain.plan.records import Bucket

# Tensors of the highest inner resolution that are there at once, by the bytes of a value: norms compute in float32.
ENCODE_TENSORS: Final[Mapping[int, float]] = {2: 7.0, 4: 5.1}
DECODE_TENSORS: Final[Mapping[int, float]] = {2: 6.26, 4: 4.34}
# At the least, values for each cell: its pixels before and after the first and the last convolution.
ENCODE_VALUES = 108
DECODE_VALUES = 96

# Encoded and decoded in tiles of this edge, this far apart, when asked for and above so many pixels in a clip.
TILE = 512
TILE_STRIDE = 448
TILE_ABOVE_PIXELS = 768 * 512 * 161
# Frames that go through the VAE together when it works frame group by frame group, and how far groups are apart.
GROUP_FRAMES = 17
GROUP_STRIDE = 8
# What convolutions take beside tensors on a GPU, as a share of them. It grows with the memory that is free: on an 80
# GiB card a trainer published 11.6 GiB reserved for 768x512x49, of which 2.1 are tensors.
CONVOLUTION_WORKSPACE = 0.5


def in_tiles(bucket: Bucket, asked: bool) -> bool:
    """Whether the VAE works in tiles: when asked for, and where one pass would be the run's memory peak."""
    return asked or bucket.width * bucket.height * bucket.frames > TILE_ABOVE_PIXELS


def in_groups(bucket: Bucket, asked: bool) -> bool:
    """Whether the VAE works frame group by frame group. A clip that is a single group is no other for it."""
    return asked and bucket.frames > GROUP_FRAMES


def encode_peak(clip: Bucket, width: int, value_bytes: int, *, tiled: bool, framewise: bool) -> int:
    """Bytes of one clip's pixels and of all tensors while it is encoded. ``width`` is the first block's channels."""
    across, down = _tile(clip, tiled)
    frames = min(clip.frames, GROUP_FRAMES) if framewise else clip.frames
    values = max(ENCODE_TENSORS[value_bytes] * width, ENCODE_VALUES)
    return round(value_bytes * (values * _cells(across, down, frames) + _pixels(clip)))


def decode_peak(clip: Bucket, width: int, value_bytes: int, *, tiled: bool, framewise: bool) -> int:
    """Bytes of all tensors while one clip is decoded. ``width`` is the last block's channels."""
    kept = most = 0
    for frames in _frame_groups(clip.frames) if framewise else [clip.frames]:
        group = Bucket(clip.width, clip.height, frames)
        most = max(most, kept + _decode_group(group, width, value_bytes, tiled=tiled))
        kept += value_bytes * _pixels(group)
    return max(most, kept + value_bytes * _pixels(clip)) if framewise else most


def _decode_group(clip: Bucket, width: int, value_bytes: int, *, tiled: bool) -> int:
    """Frames that are decoded together, as a whole or tile by tile; decoded tiles stay until all are put together."""
    values = max(DECODE_TENSORS[value_bytes] * width, DECODE_VALUES)
    if not tiled or max(clip.width, clip.height) <= TILE:
        return round(value_bytes * values * _cells(clip.width, clip.height, clip.frames))
    kept = most = 0
    for down in _tiles(clip.height):
        for across in _tiles(clip.width):
            most = max(most, kept + round(value_bytes * values * _cells(across, down, clip.frames)))
            kept += value_bytes * 3 * across * down * clip.frames
    return max(most, kept + 2 * value_bytes * _pixels(clip))


def _tiles(edge: int) -> Iterator[int]:
    return (min(TILE, edge - start) for start in range(0, edge, TILE_STRIDE))


def _frame_groups(frames: int) -> Iterator[int]:
    return (min(GROUP_FRAMES, frames - start) for start in range(0, frames, GROUP_STRIDE))


def _tile(clip: Bucket, tiled: bool) -> tuple[int, int]:
    return (min(clip.width, TILE), min(clip.height, TILE)) if tiled else (clip.width, clip.height)


def _cells(width: int, height: int, frames: int) -> int:
    return (width // 4) * (height // 4) * frames


def _pixels(clip: Bucket) -> int:
    return 3 * clip.width * clip.height * clip.frames
