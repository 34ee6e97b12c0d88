"""What small pictures of a clip's first, middle and last frame tell: a fingerprint, black, standing still, bars.

Shape legend: F three frames of a clip (or one of an image), H W pixels; stills_FHWC is uint8 RGB, luma_FHW float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ltxtrain.prepare.findings import Finding

Stills = NDArray[np.uint8]
Luma = NDArray[np.float32]

HASH_SIDE = 8
REDUCED = 32
COARSE = 16
BLACK_MEAN = 14.0
BLACK_BRIGHTEST = 40.0
BLOCK = 8
STILL_STEP = 2.5  # grey levels by which a block of 8 x 8 pixels may differ through coding alone
BAR_EVEN = 3.0  # grey levels, on average over a line: coding rings near the edge of the picture
BAR_STEP = 10.0
BAR_LEAST = 0.03
BAR_MOST = 0.45
JPEG_QUALITY = 62


@dataclass(frozen=True)
class Strip:
    """The frames of a clip side by side in one small JPEG of ``width`` x ``height`` pixels."""

    jpeg: bytes
    frames: int
    width: int
    height: int


@dataclass(frozen=True)
class Fingerprint:
    """``bits`` are 64 for each of three frames, ``coarse_FHW`` the same frames as 16 x 16 grey levels."""

    bits: NDArray[np.uint64]
    coarse_FHW: NDArray[np.uint8]


def luma_of(stills_FHWC: Stills) -> Luma:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(stills_FHWC @ weights, np.float32)


def is_black(luma_FHW: Luma) -> bool:
    """All frames are dark everywhere: a night scene has a lamp or a face in it."""
    means = luma_FHW.mean(axis=(1, 2))
    brightest = np.percentile(luma_FHW, 99.5, axis=(1, 2))
    return bool((means < BLACK_MEAN).all() and (brightest < BLACK_BRIGHTEST).all())


def is_still(luma_FHW: Luma) -> bool:
    """No block of the picture differs from frame to frame by more than what coding does to it."""
    frames, height, width = luma_FHW.shape
    if frames < 2:
        return False
    rows, columns = max(1, height // BLOCK), max(1, width // BLOCK)
    cut = luma_FHW[:, : rows * BLOCK, : columns * BLOCK]
    blocks = cut.reshape(frames, rows, -1, columns, cut.shape[2] // columns).mean(axis=(2, 4))
    return bool(np.ptp(blocks, axis=0).max() < STILL_STEP)


def bars_of(luma_FHW: Luma) -> str:
    """``13 % above and below``: even bars at opposite edges, of one colour in all frames; empty without any."""
    _, height, width = luma_FHW.shape
    found = []
    for words, lines, length in (("above and below", luma_FHW, height), ("left and right", luma_FHW.mT, width)):
        first, last = _bar(lines), _bar(lines[:, ::-1])
        if first and last:
            found.append(f"{100 * (first + last) / length:.0f} % {words}")
    return ", ".join(found)


def _bar(lines_FHW: Luma) -> int:
    """How many lines from the edge on have one even colour, if a picture clearly begins behind them; else 0."""
    edge = float(np.median(lines_FHW[:, 0]))
    even = np.abs(lines_FHW - edge).mean(axis=2).max(axis=0) <= BAR_EVEN
    count = int(np.argmin(even)) if not even.all() else len(even)
    if not BAR_LEAST * len(even) <= count <= BAR_MOST * len(even):
        return 0
    behind = lines_FHW[:, min(count + 1, len(even) - 1)]
    return count if float(np.abs(behind - edge).mean()) >= BAR_STEP else 0


def fingerprint(luma_FHW: Luma) -> Fingerprint:
    """The signs of a frame's low frequencies (a perceptual hash): what scaling and coding do not change."""
    from PIL import Image

    bits, coarse = [], []
    for luma_HW in luma_FHW:
        picture = Image.fromarray(np.clip(luma_HW, 0, 255).astype(np.uint8))
        reduced = np.asarray(picture.resize((REDUCED, REDUCED), Image.Resampling.BOX), np.float32)
        waves = (_cosines() @ reduced @ _cosines().T).ravel()[1:]
        signs = np.append(waves > np.median(waves), False)
        bits.append(np.packbits(signs).view(np.uint64)[0])
        coarse.append(reduced.reshape(COARSE, 2, COARSE, 2).mean(axis=(1, 3)).astype(np.uint8))
    times = 3 if len(bits) == 1 else 1
    return Fingerprint(np.array(bits * times, np.uint64), np.stack(coarse * times))


@cache
def _cosines() -> NDArray[np.float32]:
    """The first rows of the discrete cosine transform over 32 values (Ahmed, Natarajan and Rao 1974)."""
    wave, place = np.mgrid[:HASH_SIDE, :REDUCED]
    return np.asarray(np.cos(np.pi / REDUCED * (place + 0.5) * wave), np.float32)


def picture_findings(luma_FHW: Luma) -> list[Finding]:
    """What these frames are enough for. Of a black clip there is no more to say."""
    if is_black(luma_FHW):
        return [Finding("black")]
    bars = bars_of(luma_FHW)
    return [Finding("border", bars)] if bars else []


def strip_of(stills_FHWC: Stills) -> Strip:
    from PIL import Image

    stream = BytesIO()
    whole = np.concatenate(list(stills_FHWC), axis=1)
    Image.fromarray(whole).save(stream, "JPEG", quality=JPEG_QUALITY)
    return Strip(stream.getvalue(), len(stills_FHWC), whole.shape[1], whole.shape[0])
