"""The guides' own list of data sets, on real clips: what the specification says of it (section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig, load_config
from ltxtrain.errors import DataError
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.make import make_plan

AddClip = Callable[..., Path]
GUIDES = Path(__file__).parents[1] / "config" / "documented"


@pytest.fixture
def guides(clips: Path, tmp_path: Path) -> Callable[..., LoadedConfig]:
    """The guides' list, with the folder of the clips put in place of theirs, and their resolution options."""

    def build(**flags: object) -> LoadedConfig:
        entries = json.loads((GUIDES / "multidatabackend.json").read_text())
        entries[0]["instance_data_dir"] = str(clips)
        listed = tmp_path / "multidatabackend.json"
        listed.write_text(json.dumps(entries))
        places = {"output_dir": str(tmp_path / "output"), "cache_dir": str(tmp_path / "cache")}
        basis = {"pretrained_model_name_or_path": "ltxtrain/tiny", "data_backend_config": str(listed)}
        return load_config(env={}, flags=basis | places | {"resolution": 800, "train_batch_size": 1} | flags)

    return build


def test_guides_list_trains_121_frames_at_edge_512_and_leaves_small_clips_out(
    add_clip: AddClip, guides: Callable[..., LoadedConfig], machine: Machine
) -> None:
    add_clip("square.mp4", frames=130, size=(480, 480))
    add_clip("three_to_two.mp4", frames=200, size=(720, 480))
    add_clip("small.mp4", frames=130, size=(640, 352))  # 225,280 pixels; 480 x 480 are 230,400
    add_clip("short.mp4", frames=120, size=(480, 480))
    plan = make_plan(guides(aspect_bucket_alignment=64), machine)
    assert {Path(sample.path).name: sample.bucket.key for sample in plan.samples} == {
        "square.mp4": "512x512@121",
        "three_to_two.mp4": "640x448@121",
    }
    assert {entry.path: entry.reason for entry in plan.dropped} == {"small.mp4": "too-small", "short.mp4": "too-short"}
    assert all(sample.start == 0 and sample.i2v and sample.repeats == 0 for sample in plan.samples)
    assert any("num_frames 125 was asked, 121 are trained" in notice for notice in plan.notices)
    ours = make_plan(guides(), machine)
    assert {Path(sample.path).name: sample.bucket.key for sample in ours.samples} == {
        "square.mp4": "480x480@121",
        "three_to_two.mp4": "576x384@121",
    }


def test_guides_smallest_data_set_is_a_batch_of_eight(
    add_clip: AddClip, guides: Callable[..., LoadedConfig], machine: Machine
) -> None:
    original = add_clip("clip0.mp4", frames=125, size=(480, 480))
    for index in range(1, 7):
        (original.parent / f"clip{index}.mp4").write_bytes(original.read_bytes())
        (original.parent / f"clip{index}.txt").write_text("a caption")
    with pytest.raises(DataError, match="7 uses in an epoch, one step needs 8; repeats 1 would do"):
        make_plan(guides(train_batch_size=8, disable_bucket_pruning=True), machine)
    (original.parent / "clip7.mp4").write_bytes(original.read_bytes())
    (original.parent / "clip7.txt").write_text("a caption")
    plan = make_plan(guides(train_batch_size=8, disable_bucket_pruning=True), machine)
    assert [(bucket.samples, bucket.batches) for bucket in plan.buckets] == [(8, 1)]
