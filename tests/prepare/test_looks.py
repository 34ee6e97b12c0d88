"""What three small pictures tell: made pictures whose answer is known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ltxtrain.prepare.looks import bars_of, fingerprint, is_black, is_still, luma_of, picture_findings, strip_of

Stills = NDArray[np.uint8]


def scene(seed: int, height: int = 90, width: int = 160) -> Stills:
    """A smooth picture of its own for each seed, as cameras give: a few waves of light."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    light = np.zeros((height, width))
    for _ in range(6):
        slope = rng.uniform(0.5, 5, 2)
        light += rng.uniform(-1, 1) * np.cos(2 * np.pi * (slope[0] * x + slope[1] * y))
    picture = 128 + 110 * np.tanh(light)
    return np.repeat(picture.astype(np.uint8)[..., None], 3, axis=2)


def clip_of(*seeds: int) -> Stills:
    return np.stack([scene(seed) for seed in seeds])


def noisy(stills: Stills, amount: int = 2) -> Stills:
    noise = np.random.default_rng(0).integers(-amount, amount + 1, stills.shape)
    return np.clip(stills.astype(int) + noise, 0, 255).astype(np.uint8)


def with_mark(stills: Stills) -> Stills:
    """A hand's breadth in one corner changes in the last frame."""
    changed = stills.copy()
    changed[-1, :16, :16] = 255 - changed[-1, :16, :16]
    return changed


def distance(left: Stills, right: Stills) -> int:
    bits = fingerprint(luma_of(left)).bits ^ fingerprint(luma_of(right)).bits
    return int(np.bitwise_count(bits).sum())


def test_a_black_clip_is_told_also_with_the_noise_of_a_camera() -> None:
    black = np.full((3, 90, 160, 3), 5, np.uint8)
    assert is_black(luma_of(noisy(black, 5)))
    assert [finding.code for finding in picture_findings(luma_of(black))] == ["black"]


def test_a_night_scene_with_one_lamp_is_not_black() -> None:
    night = np.full((3, 90, 160, 3), 5, np.uint8)
    night[:, 40:48, 70:80] = 200
    assert not is_black(luma_of(night))


def test_equal_frames_stand_still_also_after_coding() -> None:
    assert is_still(luma_of(noisy(clip_of(1, 1, 1))))


@pytest.mark.parametrize("moving", [clip_of(1, 2, 1), with_mark(clip_of(1, 1, 1))], ids=["all of it", "a corner"])
def test_what_moves_in_any_part_of_the_picture_does_not_stand_still(moving: Stills) -> None:
    assert not is_still(luma_of(moving))


def test_an_image_cannot_stand_still() -> None:
    assert not is_still(luma_of(clip_of(1)))


@pytest.mark.parametrize(
    ("axis", "width", "shade", "told"),
    [(1, 12, 0, "27 % above and below"), (2, 20, 255, "25 % left and right"), (2, 20, 90, "25 % left and right")],
    ids=["letterbox", "white pillars", "grey pillars"],
)
def test_bars_at_opposite_edges_are_measured(axis: int, width: int, shade: int, told: str) -> None:
    stills = np.clip(clip_of(1, 2, 3), 30, 225)
    lines = np.moveaxis(stills, axis, 0)
    lines[:width], lines[-width:] = shade, shade
    assert bars_of(luma_of(noisy(stills, 1))) == told


def test_a_plain_wall_and_a_dark_edge_on_one_side_are_no_bars() -> None:
    wall = np.full((3, 90, 160, 3), 180, np.uint8)
    one_side = clip_of(1, 2, 3)
    one_side[:, :20] = 0
    sky = np.interp(np.arange(90), [0, 15, 45, 75, 89], [200, 200, 120, 200, 200]).astype(np.uint8)
    faded = np.broadcast_to(sky[None, :, None, None], (3, 90, 160, 3))
    assert bars_of(luma_of(faded)) == ""
    assert bars_of(luma_of(wall)) == "" == bars_of(luma_of(one_side)) == bars_of(luma_of(clip_of(1, 2, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_a_fingerprint_stays_near_through_scaling_and_coding_and_is_far_from_others(seed: int) -> None:
    stills = clip_of(seed, seed + 10, seed + 20)
    buffer, coded = io.BytesIO(), []
    for picture in stills:
        buffer.seek(0)
        Image.fromarray(picture).resize((112, 63)).save(buffer, "JPEG", quality=30)
        coded.append(np.asarray(Image.open(buffer).convert("RGB")))
        buffer.truncate(0)
    assert distance(stills, np.stack(coded)) <= 11
    assert distance(stills, clip_of(seed + 1, seed + 11, seed + 21)) > 40


@pytest.mark.parametrize("shape", [(1, 1), (1, 160), (160, 1), (7, 9), (17, 160)])
def test_pictures_of_any_shape_are_looked_at(shape: tuple[int, int]) -> None:
    stills = np.random.default_rng(0).integers(0, 255, (3, *shape, 3), dtype=np.uint8)
    luma_FHW = luma_of(stills)
    picture_findings(luma_FHW)
    is_still(luma_FHW)
    assert fingerprint(luma_FHW).coarse_FHW.shape == (3, 16, 16)


def test_a_strip_is_a_jpeg_of_the_frames_side_by_side() -> None:
    strip = strip_of(clip_of(1, 2, 3))
    with Image.open(io.BytesIO(strip.jpeg)) as picture:
        assert picture.format == "JPEG" and picture.size == (480, 90) == (strip.width, strip.height)
        thirds = [np.asarray(picture.convert("RGB"), int)[:, 160 * i : 160 * i + 160] for i in range(3)]
    assert all(np.abs(third - original).mean() < 8 for third, original in zip(thirds, clip_of(1, 2, 3), strict=True))
