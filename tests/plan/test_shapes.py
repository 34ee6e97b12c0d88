"""Which size a clip is trained at and what is cut out of it, for clips of any size; nothing is opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config import Dataset
from ltxtrain.plan.buckets import SizeRule, covering_size
from ltxtrain.plan.shapes import Shape, available_sizes, fit_shape, upscale
from tests.datasets import PLAIN

RULE = SizeRule(480)
DATASET = replace(PLAIN, resolution=480)
ASPECTS = ((0.56, 0.25), (1.0, 0.25), (1.78, 0.5))
CUT = replace(DATASET, crop=True, aspects=ASPECTS)


def shape(dataset: Dataset, size: tuple[int, int], key: str = "k", rule: SizeRule = RULE) -> Shape:
    fitted = fit_shape(dataset, size, rule, key)
    assert isinstance(fitted, Shape), fitted
    return fitted


def test_guides_sizes_change_nothing_where_all_three_are_alike() -> None:
    guides = replace(DATASET, minimum_image_size=480, maximum_image_size=480, target_downsample_size=480)
    rule = replace(RULE, alignment=64)
    for size in ((1920, 1080), (640, 480), (1080, 1920), (480, 480), (3840, 2160)):
        assert shape(guides, size, rule=rule) == shape(DATASET, size, rule=rule)
    assert fit_shape(guides, (479, 480), rule, "k")[0] == "too-small"  # type: ignore[index]


@pytest.mark.parametrize("crop", [False, True])
def test_clips_above_the_maximum_are_cut_out_of_the_downsample_size(crop: bool) -> None:
    reduced = replace(DATASET, crop=crop, crop_aspect="preserve", maximum_image_size=1000, target_downsample_size=720)
    whole, part = shape(replace(reduced, maximum_image_size=None), (1920, 1080)), shape(reduced, (1920, 1080))
    assert part.target == whole.target == (640, 352)
    assert whole.resize == (640, 360)
    assert part.resize == (960, 540)
    assert shape(reduced, (1280, 720)) == shape(DATASET, (1280, 720))


def test_downsample_size_that_does_not_cover_is_enlarged_to_what_does() -> None:
    small = replace(DATASET, maximum_image_size=500, target_downsample_size=100)
    assert shape(small, (1920, 1080)).resize == covering_size(1920, 1080, (640, 352))


def test_one_of_the_two_sizes_alone_does_nothing() -> None:
    for keys in ({"maximum_image_size": 100.0}, {"target_downsample_size": 100.0}):
        assert shape(replace(DATASET, **keys), (1920, 1080)) == shape(DATASET, (1920, 1080))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "target"), [((1920, 1080), (640, 352)), ((1000, 1100), (480, 480)), ((700, 1400), (352, 640))]
)
def test_closest_takes_the_nearest_ratio_of_the_list(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert shape(replace(CUT, crop_aspect="closest"), size).target == target


def test_without_crop_the_list_of_ratios_is_not_looked_at() -> None:
    assert shape(replace(CUT, crop=False, crop_aspect="closest"), (640, 480)).target == (544, 416)


def test_random_ratios_follow_their_weights_and_the_key_alone() -> None:
    drawn = replace(CUT, crop_aspect="random")
    targets = [shape(drawn, (1000, 900), f"42:d/clip{index}.mp4").target for index in range(2000)]
    assert targets == [shape(drawn, (1000, 900), f"42:d/clip{index}.mp4").target for index in range(2000)]
    counts = Counter(targets)
    assert counts[(640, 352)] / 2000 == pytest.approx(0.5, abs=0.05)
    assert counts[(480, 480)] / 2000 == pytest.approx(0.25, abs=0.05)
    assert counts[(352, 640)] / 2000 == pytest.approx(0.25, abs=0.05)


def test_only_ratios_that_need_little_enlarging_are_left() -> None:
    careful = replace(CUT, crop_aspect="random", max_upscale_threshold=0.2)
    # 640x352 would enlarge a 400x420 clip 1.6 times; 480x480 enlarges it 1.2 times.
    assert {shape(careful, (400, 420), str(index)).target for index in range(50)} == {(480, 480)}
    told = fit_shape(careful, (300, 300), RULE, "k")
    assert not isinstance(told, Shape)
    assert told[0] == "too-small"
    assert "max_upscale_threshold 0.2" in told[1] and "crop_aspect_buckets" in told[1]
    assert isinstance(fit_shape(replace(careful, max_upscale_threshold=None), (300, 300), RULE, "k"), Shape)


def test_a_reduced_clip_is_as_small_as_it_was_made() -> None:
    careful = replace(CUT, crop_aspect="closest", max_upscale_threshold=0.0)
    assert isinstance(fit_shape(careful, (1000, 1000), RULE, "k"), Shape)
    reduced = replace(careful, maximum_image_size=600, target_downsample_size=300)
    assert fit_shape(reduced, (1000, 1000), RULE, "k")[0] == "too-small"  # type: ignore[index]


sides = st.integers(16, 5000)
kinds = st.sampled_from([("pixel_area", 480.0, 700.0), ("pixel", 320.0, 500.0), ("area", 0.25, 0.6)])


@given(
    size=st.tuples(sides, sides),
    kind=kinds,
    cut=st.tuples(st.booleans(), st.sampled_from(["square", "preserve", "closest", "random"])),
    threshold=st.none() | st.floats(0, 1),
    alignment=st.sampled_from([32, 64]),
    key=st.text(max_size=8),
)
def test_every_target_is_aligned_covered_and_drawn_from_what_is_left(
    size: tuple[int, int],
    kind: tuple[str, float, float],
    cut: tuple[bool, str],
    threshold: float | None,
    alignment: int,
    key: str,
) -> None:
    dataset = replace(
        CUT,
        resolution_type=kind[0],
        resolution=kind[1],
        maximum_image_size=kind[2],
        target_downsample_size=kind[2],
        crop=cut[0],
        crop_aspect=cut[1],
        max_upscale_threshold=threshold,
    )
    rule = SizeRule(kind[1], kind[0], alignment, square=cut == (True, "square"))
    fitted = fit_shape(dataset, size, rule, key)
    assert fitted == fit_shape(dataset, size, rule, key)
    if not isinstance(fitted, Shape):
        assert fitted[0] == "too-small" and threshold is not None
        return
    assert all(side % alignment == 0 and side > 0 for side in fitted.target)
    assert fitted.resize[0] >= fitted.target[0] and fitted.resize[1] >= fitted.target[1]
    if cut[0] and cut[1] in ("closest", "random"):
        left = available_sizes(dataset, size, rule)
        assert fitted.target in {target for _, _, target in left} or upscale(size, fitted.target) < 1
