"""What is said where a data set gives nothing: the cause, its set, and the one thing to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig
from ltxtrain.errors import DataError
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.make import make_plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


def entry(folder: Path, name: str, **keys: object) -> dict[str, object]:
    return {"id": name, "instance_data_dir": str(folder / name), "video": {"num_frames": 9}} | keys


def refusal(load: Load, machine: Machine, *entries: dict[str, object], batch: int = 1) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        make_plan(load(datasets=list(entries), train_batch_size=batch), machine)
    return caught.value.message, str(caught.value.hint)


def test_a_folder_that_is_not_there_is_named_with_its_set_and_its_whole_path(
    load: Load, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message, hint = refusal(load, machine, {"id": "g", "instance_data_dir": "films/g", "video": {"num_frames": 9}})
    assert message == f"the folder of data set g does not exist: films/g ({tmp_path}/films/g)"
    assert "working folder" in hint


def test_a_set_that_small_buckets_leave_without_a_clip_is_named(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    for name in ("good/a.mp4", "good/b.mp4", "reg/a.mp4"):
        add_clip(name)
    message, hint = refusal(load, machine, entry(clips, "good"), entry(clips, "reg"), batch=2)
    assert message.startswith("data set reg would have no clip left, of 1 clip: 1 small-bucket\n")
    assert "repeats 1 would do" in message and "in data set reg" in hint


def test_filters_that_empty_each_caption_are_what_the_hint_is_about(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("v/a.mp4")
    message, hint = refusal(load, machine, entry(clips, "v", caption_filter_list=["a caption"]))
    assert message.startswith("no samples detected: the only clip cannot be used: 1 no-caption")
    assert "caption_filter_list" in hint and ".txt" not in hint


def test_max_frames_that_leaves_long_clips_out_is_what_the_hint_is_about(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    for name, frames in (("a", 25), ("b", 25), ("c", 41)):
        add_clip(f"v/{name}.mp4", frames=frames)
    video = {"num_frames": 33, "max_frames": 33}
    message, hint = refusal(load, machine, entry(clips, "v", video=video))
    assert "2 too-short, 1 too-long" in message and "the longest clip" not in message
    assert hint == "raise max_frames in data set v, or leave it out: 1 clip above 33 frames, the others too short"


def test_a_length_that_the_entry_asks_for_is_said_to_be_the_entrys(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("v/a.mp4", frames=5)
    message, hint = refusal(load, machine, entry(clips, "v", video={"num_frames": 49}))
    assert message.endswith("the longest clip is a.mp4 with 0.2 s; num_frames is 49")
    assert hint == "lower num_frames (and min_frames) in data set v, or use longer clips"
    with pytest.raises(DataError) as caught:
        make_plan(load(num_frames=49), machine)
    assert caught.value.hint == "lower num_frames (and min_frames), or use longer clips"
