"""The test vectors of the specification (section 28), as far as what they are about is built, each worked out there."""

from __future__ import annotations

import pytest

from ltxtrain.config import load_config
from ltxtrain.learn.schedule import curve_of, learning_rate
from ltxtrain.learn.sigmas import shift_sigma
from ltxtrain.model.transformer import SPATIAL_RATIO, TEMPORAL_RATIO
from ltxtrain.plan.buckets import SizeRule, target_of_ratio, target_size
from ltxtrain.plan.filling import FillRule
from ltxtrain.plan.frames import floor_frames
from ltxtrain.plan.records import Bucket

FRAMES = {1: 1, 8: 1, 9: 9, 17: 17, 48: 41, 49: 49, 81: 81, 120: 113, 121: 121, 125: 121, 128: 121, 129: 129}
RATIOS = (1.0, 1.33, 1.5, 1.78, 2.35, 0.75, 0.67, 0.56)
TARGETS = {
    (480, 512): "512x512 576x448 640x448 704x384 768x320 448x576 448x640 384x704",
    (576,): "576x576 640x512 704x448 768x448 896x384 512x640 448x704 448x768",
    (640,): "640x640 768x576 768x512 832x448 960x448 576x768 512x768 448x832",
    (704, 720): "768x768 832x640 832x576 960x512 1088x448 640x832 576x832 512x960",
    (768, 800): "768x768 896x640 960x640 1024x576 1152x512 640x896 640x960 576x1024",
    (1024,): "1024x1024 1152x896 1280x832 1344x768 1600x640 896x1152 832x1280 768x1344",
}
# The sizes at alignment 32, which is the default here: nearer to the resolution asked for, and no square snaps.
OURS = {
    480: "480x480 544x416 576x384 640x352 736x320 416x544 384x576 352x640",
    704: "704x704 800x608 864x576 928x512 1088x448 608x800 576x864 512x928",
    768: "768x768 896x672 928x640 1024x576 1184x512 672x896 640x928 576x1024",
}
VECTORS = [
    (resolution, ratio, size)
    for resolutions, sizes in TARGETS.items()
    for resolution in resolutions
    for ratio, size in zip(RATIOS, sizes.split(), strict=True)
]


@pytest.mark.parametrize(("asked", "trained"), FRAMES.items())
def test_frame_floor(asked: int, trained: int) -> None:
    assert floor_frames(asked) == trained


def test_latent_frames_and_tokens() -> None:
    assert (Bucket(512, 512, 121).latent_frames, Bucket(512, 512, 49).latent_frames) == (16, 7)
    assert Bucket(768, 512, 121).tokens == 6144
    assert Bucket(640, 448, 121).tokens == 4480


@pytest.mark.parametrize(("resolution", "ratio", "size"), VECTORS)
def test_target_at_alignment_64(resolution: int, ratio: float, size: str) -> None:
    rule = SizeRule(resolution, alignment=64)
    assert "x".join(map(str, target_of_ratio(ratio, rule))) == size
    assert "x".join(map(str, target_size(round(1000 * ratio), 1000, rule))) == size
    in_megapixels = SizeRule(resolution**2 / 1e6, "area", alignment=64)
    assert "x".join(map(str, target_of_ratio(ratio, in_megapixels))) == size


@pytest.mark.parametrize("resolution", OURS)
def test_target_at_alignment_32(resolution: int) -> None:
    sizes = [target_of_ratio(ratio, SizeRule(resolution)) for ratio in RATIOS]
    assert " ".join(f"{width}x{height}" for width, height in sizes) == OURS[resolution]


def test_sigma_shift() -> None:
    assert shift_sigma(0.5, 1) == 0.5
    assert shift_sigma(0.5, 3) == pytest.approx(0.75)
    assert shift_sigma(0.5, 0.1) == pytest.approx(0.0909, abs=5e-5)
    assert shift_sigma(0.5, 4) == pytest.approx(0.8)


def test_rotary_scale() -> None:
    assert (TEMPORAL_RATIO / 25, SPATIAL_RATIO) == (0.32, 32)
    assert pytest.approx(0.3333, abs=5e-5) == TEMPORAL_RATIO / 24


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 5e-5), (1e5, 4.2736e-5), (2e5, 2.52e-5), (4e5, 4e-7), (6e5, 2.52e-5), (8e5, 5e-5)]
)
def test_documented_cosine(step: float, rate: float) -> None:
    flags = {"learning_rate": 5e-5, "lr_end": 4e-7, "lr_warmup_steps": 400_000, "lr_scheduler": "cosine_half_period"}
    config = load_config(env={}, flags=flags).config
    curve = curve_of(config.optimizer, config.schedule, 400_000)
    assert learning_rate("cosine_half_period", curve, int(step)) == pytest.approx(rate, abs=1e-9)


def test_effective_batch_of_the_guides_files() -> None:
    rule = FillRule(batch_size=8, accumulation=1, processes=1)
    assert rule.need_of(("disney-black-and-white", Bucket(512, 512, 121))) == 8
