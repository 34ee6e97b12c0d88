"""Decisions on one clip, for clips of any size, rate and length: facts are made up, nothing is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config import Dataset
from ltxtrain.facts.index import FoundClip
from ltxtrain.facts.media import ClipFacts
from ltxtrain.facts.reasons import REASONS
from ltxtrain.plan.records import Dropped, clip_name
from ltxtrain.plan.select import ProbedClip, SelectionRule, fit_clip
from tests.datasets import PLAIN

DATASET = replace(PLAIN, id="d", root=Path("/data"), resolution=480, crop_style="random")
RULE = SelectionRule(framerate=25.0, alignment=32, rounding=2, seed=42)


def clip(
    width: int = 640, height: int = 480, frames: int = 50, fps: float = 25.0, name: str = "a/b#c.mp4"
) -> ProbedClip:
    facts = ClipFacts(
        path=Path("/data") / name,
        bytes=1,
        width=width,
        height=height,
        rotation=0,
        frames=frames,
        declared_frames=frames,
        fps=fps,
        first_pts_s=0.0,
        duration_s=frames / fps,
        variable_rate=False,
        codec="h264",
        pixel_format="yuv420p",
    )
    return ProbedClip(FoundClip(facts.path, name, ("words",)), facts)


datasets = st.builds(
    replace,
    st.just(DATASET),
    resolution=st.integers(64, 1024),
    minimum_image_size=st.sampled_from([0, 300]),
    crop=st.booleans(),
    crop_style=st.sampled_from(["random", "center", "corner", "face"]),
    crop_aspect=st.sampled_from(["square", "preserve", "closest", "random"]),
    aspects=st.just(((1.0, 0.5), (1.78, 0.25), (0.56, 0.25))),
    max_upscale_threshold=st.none() | st.floats(0, 1),
    maximum_image_size=st.none() | st.integers(300, 1500),
    target_downsample_size=st.integers(200, 1500),
    fps_policy=st.sampled_from(["resample", "as_is"]),
    kind=st.sampled_from(["video", "image"]),
    window_stride=st.none() | st.integers(1, 400),
    num_frames=st.integers(1, 300),
    min_frames=st.integers(1, 60),
    max_frames=st.none() | st.integers(60, 400),
    bucket_strategy=st.sampled_from(["resolution_frames", "aspect_ratio"]),
    frame_interval=st.none() | st.integers(1, 50),
    window=st.sampled_from(["first", "uniform", "all"]),
    windows_per_clip=st.integers(1, 5),
    maximum_aspect_ratio=st.none() | st.floats(0.5, 3),
)
probed = st.builds(
    clip,
    width=st.integers(16, 4096),
    height=st.integers(16, 4096),
    frames=st.integers(1, 2000),
    fps=st.sampled_from([8.0, 23.976, 25.0, 29.97, 60.0, 120.0]),
)


@given(dataset=datasets, probed_clip=probed)
def test_every_clip_is_used_inside_of_itself_or_dropped_with_a_reason(
    dataset: Dataset, probed_clip: ProbedClip
) -> None:
    fitted = fit_clip(dataset, probed_clip, RULE)
    if isinstance(fitted, Dropped):
        assert fitted.reason in REASONS
        assert fitted.detail
        return
    assert fitted
    assert fit_clip(dataset, probed_clip, RULE) == fitted
    assert len({sample.bucket for sample in fitted}) == 1
    assert len({sample.start for sample in fitted}) == len(fitted)
    for sample in fitted:
        bucket = sample.bucket
        assert bucket.frames % 8 == 1
        assert bucket.frames <= dataset.num_frames
        assert sample.kind == dataset.kind and (bucket.frames == 1 or dataset.kind == "video")
        assert sample.fps == (probed_clip.facts.fps if dataset.fps_policy == "as_is" else 25.0) or bucket.frames == 1
        assert bucket.width % 32 == 0 and bucket.height % 32 == 0
        assert 0 <= sample.crop[0] <= sample.resize[0] - bucket.width
        assert 0 <= sample.crop[1] <= sample.resize[1] - bucket.height
        # The last frame that is wanted is on the screen within the clip.
        assert sample.start + (bucket.frames - 1) / sample.fps < probed_clip.facts.duration_s
        assert sample.i2v == (bucket.frames > 1)
        assert clip_name(sample) == "a/b#c.mp4"


@given(probed_clip=probed, frames=st.integers(1, 300))
def test_by_aspect_ratio_all_clips_have_the_frames_asked_for(probed_clip: ProbedClip, frames: int) -> None:
    dataset = replace(DATASET, bucket_strategy="aspect_ratio", num_frames=frames, min_frames=frames)
    fitted = fit_clip(dataset, probed_clip, RULE)
    if isinstance(fitted, Dropped):
        assert fitted.reason == "too-short"
    else:
        assert {sample.bucket.frames for sample in fitted} == {(frames - 1) // 8 * 8 + 1}


def test_interval_that_leaves_too_little_drops_the_clip() -> None:
    dataset = replace(DATASET, frame_interval=24, min_frames=25)
    assert fit_clip(dataset, clip(frames=48), RULE)[0].bucket.frames == 25  # type: ignore[index]
    short = fit_clip(dataset, clip(frames=24), RULE)
    assert isinstance(short, Dropped) and short.reason == "too-short"


def test_interval_never_makes_a_picture_of_a_video() -> None:
    dataset = replace(DATASET, frame_interval=1000, min_frames=17)
    assert isinstance(fit_clip(dataset, clip(frames=500), RULE), Dropped)


def test_interval_does_not_make_a_clip_of_the_whole_length_too_short() -> None:
    dataset = replace(DATASET, frame_interval=50, min_frames=121)
    assert fit_clip(dataset, clip(frames=130), RULE)[0].bucket.frames == 97  # type: ignore[index]


def test_min_frames_above_num_frames_asks_for_longer_clips() -> None:
    for strategy in ("aspect_ratio", "resolution_frames"):
        dataset = replace(DATASET, num_frames=49, min_frames=80, bucket_strategy=strategy)
        assert fit_clip(dataset, clip(frames=80), RULE)[0].bucket.frames == 49  # type: ignore[index]
        assert isinstance(fit_clip(dataset, clip(frames=72), RULE), Dropped)


def test_crop_to_a_square_takes_the_square_bucket() -> None:
    fitted = fit_clip(replace(DATASET, crop=True, crop_aspect="square", crop_style="corner"), clip(1920, 1080), RULE)
    assert not isinstance(fitted, Dropped)
    assert (fitted[0].bucket.width, fitted[0].bucket.height) == (480, 480)
    assert (fitted[0].resize, fitted[0].crop) == ((853, 480), (0, 0))


def test_frames_as_they_are_are_counted_and_shown_at_the_clips_own_rate() -> None:
    as_is = replace(DATASET, fps_policy="as_is", window="all", num_frames=49)
    fast = fit_clip(as_is, clip(frames=100, fps=60.0), RULE)
    assert not isinstance(fast, Dropped)
    assert [(sample.fps, sample.start) for sample in fast] == [(60.0, 0.0), (60.0, 49 / 60)]
    # At 25 fps there would be 42 of them.
    resampled = fit_clip(replace(as_is, fps_policy="resample"), clip(frames=100, fps=60.0), RULE)
    assert [(sample.fps, sample.bucket.frames) for sample in resampled] == [(25.0, 41)]  # type: ignore[union-attr]


def test_an_image_is_a_clip_of_one_frame_without_a_first_frame_to_go_on_from() -> None:
    picture = replace(clip().facts, fps=0.0, duration_s=0.0, frames=1, kind="image")
    pictures = replace(DATASET, kind="image", window="all", min_frames=9, max_frames=None, is_i2v=True)
    [sample] = fit_clip(pictures, ProbedClip(clip().found, picture), RULE)  # type: ignore[misc]
    assert (sample.bucket.frames, sample.start, sample.fps, sample.i2v) == (1, 0.0, 25.0, False)


def test_windows_of_one_clip_have_one_ratio_and_cuts_of_their_own() -> None:
    drawn = replace(
        DATASET,
        crop=True,
        crop_aspect="random",
        aspects=((1.0, 0.5), (1.78, 0.5)),
        window="all",
        num_frames=9,
        crop_style="random",
    )
    fitted = fit_clip(drawn, clip(1920, 1080, frames=200), RULE)
    assert not isinstance(fitted, Dropped)
    assert len(fitted) == 22
    assert len({sample.bucket for sample in fitted}) == 1
    assert fitted[0].resize == (fitted[0].bucket.width, fitted[0].bucket.height) or len({s.crop for s in fitted}) > 5


def test_seed_configuration_gives_the_documented_buckets_at_64() -> None:
    rule = replace(RULE, alignment=64)
    sizes = {
        size: fit_clip(DATASET, clip(*size), rule)[0].bucket  # type: ignore[index]
        for size in ((640, 480), (1920, 1080), (480, 480), (1080, 1920))
    }
    assert {size: f"{bucket.width}x{bucket.height}" for size, bucket in sizes.items()} == {
        (640, 480): "576x448",
        (1920, 1080): "704x384",
        (480, 480): "512x512",
        (1080, 1920): "384x704",
    }
