from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ltxtrain.plan.buckets import (
    SizeRule,
    covering_size,
    crop_around,
    crop_offset,
    is_large_enough,
    reduced_size,
    target_size,
)

sides = st.integers(16, 8192)
rules = st.builds(
    SizeRule,
    resolution=st.integers(64, 2048),
    resolution_type=st.sampled_from(["pixel", "pixel_area"]),
    alignment=st.sampled_from([32, 64]),
    rounding=st.integers(1, 4),
    square=st.booleans(),
)


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


@given(
    resize=st.tuples(st.integers(64, 900), st.integers(64, 900)),
    centre=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_cut_around_a_point_lies_inside_and_has_it_in_its_middle_where_it_can(
    resize: tuple[int, int], centre: tuple[float, float]
) -> None:
    left, top = crop_around(resize, (64, 64), centre)
    for offset, full, part in ((left, resize[0], centre[0]), (top, resize[1], centre[1])):
        assert 0 <= offset <= full - 64
        at_an_end = offset in (0, full - 64)
        assert at_an_end or abs(offset + 32 - part * full) <= 0.5
        assert offset <= part * full <= offset + 64


@given(width=sides, height=sides, most=st.integers(100, 3000), to=st.integers(64, 2000))
@pytest.mark.parametrize("kind", ["pixel", "pixel_area", "area"])
def test_reduced_clips_keep_their_shape_and_others_their_size(
    width: int, height: int, most: int, to: int, kind: str
) -> None:
    unit = 1e6 if kind == "area" else 1
    limit, aim = (most**2 / unit, to**2 / unit) if kind == "area" else (most, to)
    reduced = reduced_size(width, height, limit, aim, kind)
    measure = min(width, height) if kind == "pixel" else math.sqrt(width * height)
    if measure <= most * (1 - 1e-9):
        assert reduced == (width, height)
    if measure > most * (1 + 1e-9):
        found = min(reduced) if kind == "pixel" else math.sqrt(reduced[0] * reduced[1])
        scale = to / measure
        assert reduced == (max(1, round(width * scale)), max(1, round(height * scale)))
        assert found == pytest.approx(to, rel=0.01, abs=1 + max(width, height) / min(width, height))


def test_area_of_a_target_is_near_the_one_asked_for() -> None:
    for width, height in ((640, 480), (1920, 1080), (1080, 1920), (2350, 1000)):
        target = target_size(width, height, SizeRule(640))
        assert math.sqrt(target[0] * target[1]) == pytest.approx(640, rel=0.04)
