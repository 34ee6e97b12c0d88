from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import av
import pytest

from ltxtrain.config import LoadedConfig
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.errors import ConfigError, DataError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.records import Bucket, Plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]
Documented = Callable[..., dict[str, object]]


def check_accounts(plan: Plan) -> None:
    """What must be true of every plan."""
    assert plan.clips_found == plan.clips_used + len(plan.dropped)
    assert len({sample.id for sample in plan.samples}) == len(plan.samples)
    assert sum(bucket.samples for bucket in plan.buckets) == len(plan.samples)
    for sample in plan.samples:
        assert sample.bucket in {bucket.bucket for bucket in plan.buckets}
        assert sample.bucket.frames % 8 == 1
        for side, crop, resize in zip(
            (sample.bucket.width, sample.bucket.height), sample.crop, sample.resize, strict=True
        ):
            assert side % plan.config.data.aspect_bucket_alignment == 0
            assert 0 <= crop <= resize - side


def reasons(plan: Plan) -> dict[str, str]:
    return {entry.path: entry.reason for entry in plan.dropped}


def test_folder_alone_is_enough_and_short_clips_are_used_at_what_they_hold(
    add_clip: AddClip, load: Load, machine: Machine
) -> None:
    add_clip("long.mp4", frames=140)
    add_clip("short.mp4", frames=30)
    add_clip("tiny.mp4", frames=8)
    add_clip("sixty.mkv", frames=60, fps=60)
    plan = make_plan(load(), machine)
    check_accounts(plan)
    frames = {Path(sample.path).name: sample.bucket.frames for sample in plan.samples}
    assert frames == {"long.mp4": 121, "short.mp4": 25, "sixty.mkv": 25}
    assert reasons(plan) == {"tiny.mp4": "too-short"}
    assert plan.steps == 2000
    text = "\n".join(plan.notices)
    assert "2 clips shorter than 121 frames" in text
    assert "resampled to 25 fps" in text
    assert "batches of them are short" in text


def test_bad_media_and_captions_are_all_accounted_for(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("good.mp4")
    add_clip("no_words.mp4", caption=None)
    add_clip("no_text.mp4", caption=" \n")
    (add_clip("latin.mp4").with_suffix(".txt")).write_bytes(b"caf\xe9")
    for name, content in (
        ("zero.mp4", b""),
        ("words.mp4", b"a story"),
        ("list.mp4", b"ffconcat version 1.0\nfile good.mp4\n"),
    ):
        (clips / name).write_bytes(content)
        (clips / name).with_suffix(".txt").write_text("a caption")
    plan = make_plan(load(), machine)
    check_accounts(plan)
    assert plan.clips_found == 7
    assert reasons(plan) == {
        "no_words.mp4": "no-caption",
        "no_text.mp4": "no-caption",
        "latin.mp4": "bad-caption",
        "zero.mp4": "empty",
        "words.mp4": "not-video",
        "list.mp4": "not-video",
    }
    assert any("6 of 7 clips left out for a fault" in warning for warning in plan.warnings)


def test_deleting_what_is_damaged_deletes_nothing(add_clip: AddClip, load: Load, machine: Machine, clips: Path) -> None:
    add_clip("good.mp4")
    (clips / "bad.mp4").write_bytes(b"damaged")
    (clips / "bad.txt").write_text("a caption")
    plan = make_plan(load(delete_problematic_images=True), machine)
    assert [entry.reason for entry in plan.dropped] == ["not-video"]  # found again by each plan, so on no list
    assert not any("on the list" in notice for notice in plan.notices)
    assert sorted(path.name for path in clips.iterdir()) == ["bad.mp4", "bad.txt", "good.mp4", "good.txt"]
    assert not any("delete" in notice for notice in make_plan(load(), machine).notices)


def test_documented_entry_keeps_its_rules(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    for index in range(4):
        add_clip(f"fits{index}.mp4", frames=35)
    add_clip("short.mp4", frames=32)
    add_clip("long.mp4", frames=60)
    add_clip("small.mp4", frames=35, size=(48, 32))
    add_clip("flat.mp4", frames=35, size=(256, 32))
    video = {"num_frames": 35, "min_frames": 35, "max_frames": 50}
    entry = documented(video, minimum_image_size=50, maximum_aspect_ratio=4, repeats=1)
    plan = make_plan(load(datasets=[entry], train_batch_size=4), machine)
    check_accounts(plan)
    assert {sample.bucket.frames for sample in plan.samples} == {33}
    assert reasons(plan) == {
        "short.mp4": "too-short",
        "long.mp4": "too-long",
        "small.mp4": "too-small",
        "flat.mp4": "wrong-shape",
    }
    assert [(bucket.samples, bucket.uses, bucket.batches) for bucket in plan.buckets] == [(4, 8, 2)]
    assert any("num_frames 35 was asked, 33 are trained" in notice for notice in plan.notices)


def test_measured_frames_are_floored_before_they_are_compared(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    add_clip("a.mp4", frames=33)
    add_clip("b.mp4", frames=40)
    # 35 asks for 33 after rounding; 40 frames are 33 after rounding, which is not above max_frames 36.
    plan = make_plan(load(datasets=[documented({"num_frames": 35, "max_frames": 36})], train_batch_size=1), machine)
    assert plan.dropped == ()


def test_frames_that_no_clip_reaches_are_refused_with_the_longest(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    add_clip("a.mp4", frames=50)
    add_clip("b.mp4", frames=75)
    with pytest.raises(DataError) as caught:
        make_plan(load(datasets=[documented({"num_frames": 125})]), machine)
    assert "2 too-short" in caught.value.message
    assert "b.mp4 with 3.0 s" in caught.value.message
    assert caught.value.hint is not None and "num_frames" in caught.value.hint


def test_small_buckets_follow_the_documented_switches(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    for index in range(4):
        add_clip(f"wide{index}.mp4", size=(96, 48))
    add_clip("high.mp4", size=(48, 96))
    options = {"datasets": [documented({"num_frames": 17})], "train_batch_size": 4}
    pruned = make_plan(load(**options), machine)
    check_accounts(pruned)
    assert reasons(pruned) == {"high.mp4": "small-bucket"}
    with pytest.raises(DataError, match="repeats 3 would do"):
        make_plan(load(**options, disable_bucket_pruning=True), machine)
    filled = make_plan(load(**options, allow_dataset_oversubscription=True), machine)
    assert filled.dropped == ()
    assert len(filled.buckets) == 2
    with pytest.raises(DataError, match="5 small-bucket") as caught:
        make_plan(load(**options | {"train_batch_size": 8}), machine)
    assert caught.value.hint is not None and "repeats" in caught.value.hint


def test_documented_entry_without_num_frames_gives_several_frame_buckets(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    for frames in (30, 50, 140):
        add_clip(f"{frames}.mp4", frames=frames)
    video = {"bucket_strategy": "resolution_frames"}
    several = make_plan(load(datasets=[documented(video)], train_batch_size=1), machine)
    assert sorted(sample.bucket.frames for sample in several.samples) == [25, 49, 121]
    single = make_plan(load(datasets=[documented(video | {"num_frames": 49})], train_batch_size=1), machine)
    assert [sample.bucket.frames for sample in single.samples] == [49, 49]
    assert reasons(single) == {"30.mp4": "too-short"}
    from_57 = make_plan(load(datasets=[documented(video | {"min_frames": 57})], train_batch_size=1), machine)
    assert reasons(from_57) == {"30.mp4": "too-short", "50.mp4": "too-short"}


def test_long_clips_give_windows_as_asked(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("long.mp4", frames=100)
    first = make_plan(load(num_frames=25), machine)
    assert [sample.start for sample in first.samples] == [0.0]
    assert any("video_window all" in notice for notice in first.notices)
    every = make_plan(load(num_frames=25, video_window="all"), machine)
    assert [(sample.id, sample.start) for sample in every.samples] == [
        (f"clips/long.mp4#{index}", float(index)) for index in range(4)
    ]
    check_accounts(every)
    spread = make_plan(load(num_frames=25, video_window="uniform", video_windows_per_clip=3), machine)
    assert [sample.start for sample in spread.samples] == [0.0, 37 / 25, 3.0]


def test_subset_is_the_same_whatever_else_is_there(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    for index in range(8):
        add_clip(f"clip{index}.mp4", frames=9)
    entry = documented({"num_frames": 9}, max_num_samples=3)
    plan = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    check_accounts(plan)
    assert (plan.clips_used, set(reasons(plan).values())) == (3, {"over-limit"})
    add_clip("another.mp4", frames=9)
    again = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    assert len({sample.id for sample in plan.samples} & {sample.id for sample in again.samples}) >= 2


def test_two_data_sets_have_buckets_of_their_own_and_keep_their_repeats(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine, clips: Path
) -> None:
    add_clip("a/one.mp4")
    add_clip("b/two.mp4")
    sets = [
        documented({"num_frames": 17}, id="a", instance_data_dir=str(clips / "a")),
        documented({"num_frames": 17, "is_i2v": False}, id="b", instance_data_dir=str(clips / "b"), repeats=4),
    ]
    plan = make_plan(load(datasets=sets, train_batch_size=1), machine)
    check_accounts(plan)
    assert [(sample.id, sample.repeats, sample.i2v) for sample in plan.samples] == [
        ("a/one.mp4#0", 0, True),
        ("b/two.mp4#0", 4, False),
    ]
    buckets = [(bucket.dataset, bucket.uses, bucket.batches) for bucket in plan.buckets]
    assert buckets == [("a", 1, 1), ("b", 5, 5)]


def test_random_crop_follows_the_seed_and_nothing_else(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    for index in range(6):
        add_clip(f"clip{index}.mp4", size=(160, 64), frames=9)
    entry = documented({"num_frames": 9}, crop=True, crop_style="random")

    def crops(seed: int) -> list[tuple[int, int]]:
        loaded = load(datasets=[entry], seed=seed, train_batch_size=1)
        return [sample.crop for sample in make_plan(loaded, machine).samples]

    assert crops(1) == crops(1)
    assert crops(1) != crops(2)
    assert len(set(crops(1))) > 1
    plan = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    assert {sample.bucket for sample in plan.samples} == {Bucket(64, 64, 9)}


def test_keys_that_do_nothing_together_are_told(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine
) -> None:
    add_clip("a.mp4")
    entry = documented({"num_frames": 9, "frame_interval": 8, "min_frames": 12}, instance_prompt="TOK")
    text = "\n".join(make_plan(load(datasets=[entry], train_batch_size=1), machine).notices)
    assert "frame_interval has no effect" in text
    assert "instance_prompt has no effect" in text
    assert "min_frames 12 was asked, 9 is the least" in text
    alone = documented({"num_frames": 9}, instance_prompt="TOK", only_instance_prompt=True)
    both = alone | {"prepend_instance_prompt": True, "disable_multiline_split": True}
    text = "\n".join(make_plan(load(datasets=[both], train_batch_size=1), machine).notices)
    assert "prepend_instance_prompt has no effect" in text and "disable_multiline_split has no effect" in text
    assert "has no effect" not in "\n".join(make_plan(load(datasets=[alone], train_batch_size=1), machine).notices)
    with pytest.raises(ConfigError, match="prepend_instance_prompt"):
        make_plan(load(datasets=[documented({"num_frames": 9}, prepend_instance_prompt=True)]), machine)


def choices(key: str) -> list[str]:
    """What the schema lets an entry say."""
    return list(get_args(DatasetEntry.model_fields[key].annotation))


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key in ("crop_style", "crop_aspect") for value in choices(key)]
)
def test_every_way_to_cut_is_built(
    add_clip: AddClip, load: Load, documented: Documented, machine: Machine, key: str, value: str
) -> None:
    add_clip("a.mp4", size=(96, 64))
    entry = documented({"num_frames": 9}, crop=True, crop_aspect_buckets=[1.0, 1.5]) | {key: value}
    plan = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    assert plan.clips_used == 1


@pytest.mark.parametrize(
    ("flags", "steps", "epochs"),
    [({"max_train_steps": 30}, 30, 10.0), ({"num_train_epochs": 4}, 12, 4.0), ({}, 2000, 2000 / 3)],
)
def test_length(
    add_clip: AddClip, load: Load, machine: Machine, flags: dict[str, object], steps: int, epochs: float
) -> None:
    for index in range(5):
        add_clip(f"clip{index}.mp4", frames=9)
    plan = make_plan(load(train_batch_size=2, **flags), machine)
    assert (plan.steps, plan.steps_per_epoch, plan.epochs) == (steps, 3, pytest.approx(epochs))
    assert any("neither" in notice for notice in plan.notices) is not bool(flags)


def test_low_frame_rate_is_a_warning(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("slow.mp4", frames=20, fps=10)
    plan = make_plan(load(), machine)
    assert plan.samples[0].bucket.frames == 49
    assert any("frames are repeated" in warning for warning in plan.warnings)


def test_device_that_is_too_small_is_a_warning_before_anything_is_spent(add_clip: AddClip, load: Load) -> None:
    add_clip("a.mp4", frames=121)
    small = Machine("Linux", "a CPU", 8, 64 * 1024**3, "cuda", (Gpu("Small", 4 * 1024**3, "7.5"),))
    big = Machine("Linux", "a CPU", 8, 64 * 1024**3, "cuda", (Gpu("Big", 80 * 1024**3, "9.0"),))
    loaded = load(pretrained_model_name_or_path="Lightricks/LTX-Video-0.9.5", resolution=480, train_batch_size=1)
    assert any("memory: text embeddings" in warning for warning in make_plan(loaded, small).warnings)
    assert not any("memory" in warning for warning in make_plan(loaded, big).warnings)


def test_unknown_model_is_planned_without_an_estimate(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    plan = make_plan(load(pretrained_model_name_or_path="somebody/else"), machine)
    assert (plan.memory, plan.disk) == ((), ())
    assert any("somebody/else" in warning for warning in plan.warnings)


def test_disk_counts_the_download_once_it_is_needed(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_clip("a.mp4")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    loaded = load(pretrained_model_name_or_path="Lightricks/LTX-Video-0.9.5")
    assert dict(make_plan(loaded, machine).disk)["model download"] > 20 * 1024**3
    (tmp_path / "hub" / "models--Lightricks--LTX-Video-0.9.5" / "snapshots" / "abc").mkdir(parents=True)
    disk = dict(make_plan(loaded, machine).disk)
    assert "model download" not in disk
    # 14.7 M adapter parameters at 12 bytes, for 4 kept checkpoints, 1 at the end and 1 in the making.
    assert disk["checkpoints"] == 12 * 14_680_064 * 6


def test_made_clips_are_planned_like_any_others(add_clip: AddClip, load: Load, machine: Machine, clips: Path) -> None:
    add_clip("a.mp4")
    plan = make_plan(load(instance_data_dir=None, made_clips=1), machine, data_dir=clips)
    assert plan.made_clips
    assert plan.clips_used == 1
    assert plan.config.data.instance_data_dir is None


def test_empty_folder_and_no_usable_clip_are_errors_that_say_why(
    add_clip: AddClip, load: Load, machine: Machine
) -> None:
    with pytest.raises(DataError, match="no video files"):
        make_plan(load(), machine)
    add_clip("a.mp4", caption=None)
    with pytest.raises(DataError, match="1 no-caption") as caught:
        make_plan(load(), machine)
    assert caught.value.hint is not None and ".txt" in caught.value.hint


def test_planning_a_hundred_clips_costs_less_than_decoding_them(add_clip: AddClip, load: Load, clips: Path) -> None:
    original = add_clip("clip000.mp4", frames=48, size=(320, 240))
    for index in range(1, 100):
        (clips / f"clip{index:03d}.mp4").write_bytes(original.read_bytes())
        (clips / f"clip{index:03d}.txt").write_text(f"caption {index}")

    def decode_all() -> int:
        frames = 0
        for path in clips.glob("*.mp4"):
            with av.open(str(path)) as container:
                frames += sum(1 for _ in container.decode(video=0))
        return frames

    planning, decoding = [], []
    for _ in range(3):  # processor time, in turn: what else the machine does is not counted
        began = time.process_time()
        plan = make_plan(load())
        planning.append(time.process_time() - began)
        assert decode_all() == 4800
        decoding.append(time.process_time() - began - planning[-1])
    check_accounts(plan)
    assert plan.clips_used == 100
    assert min(planning) < min(decoding)
