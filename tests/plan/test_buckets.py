from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ltxtrain.plan.buckets import SizeRule, covering_size, crop_offset, is_large_enough, target_size

RATIOS = (1.0, 1.33, 1.5, 1.78, 2.35, 0.75, 0.67, 0.56)
DOCUMENTED = {
    (480, 512): "512x512 576x448 640x448 704x384 768x320 448x576 448x640 384x704",
    (576,): "576x576 640x512 704x448 768x448 896x384 512x640 448x704 448x768",
    (640,): "640x640 768x576 768x512 832x448 960x448 576x768 512x768 448x832",
    (704, 720): "768x768 832x640 832x576 960x512 1088x448 640x832 576x832 512x960",
    (768, 800): "768x768 896x640 960x640 1024x576 1152x512 640x896 640x960 576x1024",
    (1024,): "1024x1024 1152x896 1280x832 1344x768 1600x640 896x1152 832x1280 768x1344",
}
VECTORS = [
    (resolution, ratio, size)
    for resolutions, sizes in DOCUMENTED.items()
    for resolution in resolutions
    for ratio, size in zip(RATIOS, sizes.split(), strict=True)
]

sides = st.integers(16, 8192)
rules = st.builds(
    SizeRule,
    resolution=st.integers(64, 2048),
    resolution_type=st.sampled_from(["pixel", "pixel_area"]),
    alignment=st.sampled_from([32, 64]),
    rounding=st.integers(1, 4),
    square=st.booleans(),
)


@pytest.mark.parametrize(("resolution", "ratio", "size"), VECTORS)
def test_documented_sizes_at_alignment_64(resolution: int, ratio: float, size: str) -> None:
    target = target_size(round(1000 * ratio), 1000, SizeRule(resolution, alignment=64))
    assert "x".join(map(str, target)) == size


@pytest.mark.parametrize(("resolution", "ratio", "size"), VECTORS[:8])
def test_area_in_megapixels_is_the_same_rule(resolution: int, ratio: float, size: str) -> None:
    rule = SizeRule(resolution**2 / 1e6, "area", alignment=64)
    assert "x".join(map(str, target_size(round(1000 * ratio), 1000, rule))) == size


def test_nearly_square_clips_share_the_square_bucket() -> None:
    rule = SizeRule(704, alignment=64)
    assert target_size(1020, 1000, rule) == target_size(1000, 1000, rule) == (768, 768)


def test_alignment_32_stays_at_the_resolution_asked_for() -> None:
    assert target_size(1000, 1000, SizeRule(480)) == (480, 480)
    assert target_size(1000, 1000, SizeRule(704)) == (704, 704)
    assert target_size(640, 480, SizeRule(480)) == (544, 416)
    assert target_size(1920, 1080, SizeRule(480)) == (640, 352)


def test_pixel_is_the_shorter_edge() -> None:
    assert target_size(1920, 1080, SizeRule(480, "pixel", 32)) == (864, 480)
    assert target_size(1080, 1920, SizeRule(480, "pixel", 32)) == (480, 864)
    assert target_size(1000, 1000, SizeRule(480, "pixel", 64)) == (512, 512)


def test_square_crop_ignores_the_clips_shape() -> None:
    assert target_size(1920, 1080, SizeRule(512, square=True)) == (512, 512)


@given(width=sides, height=sides, rule=rules)
def test_every_target_is_aligned_and_covered_and_the_crop_lies_inside(width: int, height: int, rule: SizeRule) -> None:
    target = target_size(width, height, rule)
    assert all(side >= rule.alignment and side % rule.alignment == 0 for side in target)
    resize = covering_size(width, height, target)
    assert resize[0] >= target[0] and resize[1] >= target[1]
    assert resize[0] == target[0] or resize[1] == target[1]
    for style in ("center", "corner", "random"):
        left, top = crop_offset(resize, target, style, f"{width}:{height}")
        assert 0 <= left <= resize[0] - target[0]
        assert 0 <= top <= resize[1] - target[1]


@given(width=sides, height=sides, rule=rules)
def test_resize_keeps_the_clips_shape(width: int, height: int, rule: SizeRule) -> None:
    resize = covering_size(width, height, target_size(width, height, rule))
    # One side is floored to a whole pixel, the other is exact.
    assert abs(resize[0] * height - resize[1] * width) <= max(width, height)


@given(width=st.integers(200, 4000), height=st.integers(200, 4000), resolution=st.integers(256, 1024))
def test_a_turned_clip_gets_the_turned_bucket(width: int, height: int, resolution: int) -> None:
    # A long strip's ratio has too few digits left after rounding: 0.07 stands for all from 0.065 to 0.075.
    assume(max(width, height) <= 4 * min(width, height))
    rule = SizeRule(resolution)
    wide, high = target_size(max(width, height), min(width, height), rule)
    # The ratio is rounded to two decimals either way round, so the turned target may differ by one step.
    turned = target_size(min(width, height), max(width, height), rule)
    assert abs(turned[1] - wide) <= 64 and abs(turned[0] - high) <= 64


def test_random_crop_is_a_pure_function_of_its_key() -> None:
    keys = [f"42:d/clip{index}.mp4#0" for index in range(200)]
    offsets = [crop_offset((700, 448), (640, 448), "random", key) for key in keys]
    assert offsets == [crop_offset((700, 448), (640, 448), "random", key) for key in keys]
    lefts = {left for left, _ in offsets}
    assert min(lefts) < 10 and max(lefts) > 50
    assert {top for _, top in offsets} == {0}


def test_crop_that_does_not_fit_or_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match="cover"):
        crop_offset((100, 100), (128, 64), "center", "k")
    with pytest.raises(ValueError, match="crop_style"):
        crop_offset((128, 128), (64, 64), "face", "k")


@pytest.mark.parametrize(
    ("size", "minimum", "kind", "enough"),
    [
        ((480, 480), 480, "pixel_area", True),
        ((640, 359), 480, "pixel_area", False),
        ((640, 360), 480, "pixel_area", True),
        ((640, 360), 480, "pixel", False),
        ((1000, 250), 0.25, "area", True),
        ((1000, 249), 0.25, "area", False),
        ((1, 1), 0, "pixel_area", True),
    ],
)
def test_minimum_size(size: tuple[int, int], minimum: float, kind: str, enough: bool) -> None:
    assert is_large_enough(*size, minimum, kind) is enough


def test_area_of_a_target_is_near_the_one_asked_for() -> None:
    for width, height in ((640, 480), (1920, 1080), (1080, 1920), (2350, 1000)):
        target = target_size(width, height, SizeRule(640))
        assert math.sqrt(target[0] * target[1]) == pytest.approx(640, rel=0.04)
