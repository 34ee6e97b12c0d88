"""Several data sets in one plan: videos, images, sets that are only measured; no clip is lost, everything is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ltxtrain.config import LoadedConfig
from ltxtrain.errors import DataError
from ltxtrain.facts.machine import Machine
from ltxtrain.facts.quarantine import add_quarantine, quarantined
from ltxtrain.plan import material as gathering
from ltxtrain.plan.folder import RunFolder, write_plan_files
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.manifest import dataset_fingerprint
from ltxtrain.plan.records import Plan
from ltxtrain.plan.select import Selection, SelectionRule, select_samples
from ltxtrain.plan.text import WIDTH, render_plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


@pytest.fixture
def add_image(clips: Path) -> Callable[..., Path]:
    def add(name: str, size: tuple[int, int] = (96, 64), caption: str | None = "a picture") -> Path:
        path = clips / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (200, 100, 50)).save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)
        return path

    return add


@pytest.fixture
def sets(clips: Path) -> Callable[..., list[dict[str, object]]]:
    """Three data sets: videos in v, images in i, and in e videos that are only measured."""

    def build(**more: dict[str, object]) -> list[dict[str, object]]:
        video = {"num_frames": 9}
        entries = {
            "v": {"video": video},
            "i": {"dataset_type": "image"},
            "e": {"dataset_type": "eval", "video": video},
        }
        return [
            {"id": name, "instance_data_dir": str(clips / name), "crop_style": "center"} | entry | more.get(name, {})
            for name, entry in entries.items()
        ]

    return build


@pytest.fixture
def material(add_clip: AddClip, add_image: Callable[..., Path]) -> None:
    for index in range(4):
        add_clip(f"v/{index}.mp4", frames=9)
        add_image(f"i/{index}.png")
    add_clip("v/short.mp4", frames=5)
    add_image("i/without_words.png", caption=None)
    add_clip("e/alone.mp4", frames=9, caption="measured")
    add_clip("e/short.mp4", frames=3)


def accounts(plan: Plan) -> dict[str, tuple[int, int, int]]:
    """Found, used and left out, of each set."""
    left_out = {name.id: sum(entry.dataset == name.id for entry in plan.dropped) for name in plan.datasets}
    return {entry.id: (entry.clips_found, entry.clips_used, left_out[entry.id]) for entry in plan.datasets}


@pytest.mark.usefixtures("material")
def test_each_set_has_its_role_its_kind_and_its_account(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]]
) -> None:
    plan = make_plan(load(datasets=sets(v={"repeats": 1}), train_batch_size=4, eval_steps_interval=5), machine)
    assert accounts(plan) == {"v": (5, 4, 1), "i": (5, 4, 1), "e": (2, 1, 1)}
    assert plan.clips_found == plan.clips_used + len(plan.dropped) == 12
    told = {entry.id: (entry.kind, entry.role, entry.samples, entry.uses) for entry in plan.datasets}
    assert told == {"v": ("video", "train", 4, 8), "i": ("image", "train", 4, 4), "e": ("video", "eval", 1, 1)}
    assert [(bucket.dataset, bucket.bucket.frames, bucket.batches) for bucket in plan.buckets] == [
        ("i", 1, 1),
        ("v", 9, 2),
    ]
    assert {(sample.dataset, sample.kind, sample.i2v) for sample in plan.samples} == {
        ("v", "video", True),
        ("i", "image", False),
    }
    assert [sample.id for sample in plan.eval_samples] == ["e/alone.mp4#0"]


@pytest.mark.usefixtures("material")
def test_sets_that_are_measured_need_not_fill_a_batch(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]]
) -> None:
    plan = make_plan(
        load(datasets=sets(), train_batch_size=4, disable_bucket_pruning=True, eval_steps_interval=5), machine
    )
    assert len(plan.eval_samples) == 1
    assert "e" not in {bucket.dataset for bucket in plan.buckets}


def test_what_is_measured_is_the_same_whatever_the_seed_is(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    for name in ("t", "e"):
        for index in range(3):
            add_clip(f"{name}/{index}.mp4", frames=9, size=(192, 96), caption="a, b, c, d, e, f")
    shuffle = {"enable": True, "count": 1, "include_original": False}
    cut = {"crop": True, "crop_style": "random", "crop_aspect": "random", "crop_aspect_buckets": [1.0, 0.5, 2.0]}
    entries = [
        {"id": "t", "instance_data_dir": str(clips / "t"), "video": {"num_frames": 9}},
        {"id": "e", "instance_data_dir": str(clips / "e"), "dataset_type": "eval", "video": {"num_frames": 9}},
    ]
    entries = [entry | cut | {"caption_shuffle": shuffle, "vae_cache_clear_each_epoch": False} for entry in entries]
    first, second = (make_plan(load(datasets=entries, train_batch_size=1, seed=seed), machine) for seed in (1, 2))
    assert first.eval_samples == second.eval_samples
    assert first.samples != second.samples


@pytest.mark.usefixtures("material")
@pytest.mark.parametrize("key", ["start_step", "start_epoch"])
def test_a_set_that_no_batch_is_drawn_from_is_told(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]], key: str
) -> None:
    def warned(start: int) -> list[str]:
        plan = make_plan(load(datasets=sets(i={key: start}), train_batch_size=1, max_train_steps=40), machine)
        return [warning for warning in plan.warnings if "no batch of the run" in warning]

    assert warned(2) == []
    (told,) = warned(1000)
    assert told.startswith("i: no batch of the run is drawn from it") and key in told


@pytest.mark.usefixtures("material")
def test_a_set_that_is_never_drawn_by_chance_is_told_too(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]]
) -> None:
    entries = sets(i={"probability": 1e-9})
    plans = [make_plan(load(datasets=entries, train_batch_size=1, max_train_steps=steps), machine) for steps in (3, 8)]
    told = [[warning[:2] for warning in plan.warnings if "no batch of the run" in warning] for plan in plans]
    assert told == [["i:"], []], "an epoch of eight batches draws from all of them"


@pytest.mark.usefixtures("material")
def test_run_folder_and_fingerprint_hold_what_is_measured(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]], clips: Path
) -> None:
    loaded = load(datasets=sets(), train_batch_size=1, eval_steps_interval=5)
    plan = make_plan(loaded, machine)
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    lines = [json.loads(line) for line in folder.dataset_jsonl.read_text().splitlines()]
    assert [line["role"] for line in lines if line["used"]] == ["train"] * 8 + ["eval"]
    assert {(line["dataset"], line["role"]) for line in lines if not line["used"]} == {
        ("v", "train"),
        ("i", "train"),
        ("e", "eval"),
    }
    assert [line["id"] for line in lines if line["used"] and line["role"] == "eval"] == ["e/alone.mp4#0"]
    before = dataset_fingerprint(plan)
    (clips / "e" / "alone.txt").write_text("other words")
    assert dataset_fingerprint(make_plan(loaded, machine)) != before


@pytest.mark.usefixtures("material")
def test_screen_tells_the_sets_with_their_share_and_when_they_are_active(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]]
) -> None:
    entries = sets(v={"probability": 3, "end_step": 50}, i={"start_epoch": 2, "train_batch_size": 2})
    plan = make_plan(load(datasets=entries, train_batch_size=1, eval_steps_interval=5), machine)
    text = render_plan(plan)
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ") and " of " in line}
    assert rows["v"].split()[1:6] == ["video", "4", "of", "5", "4"]
    assert "step 1 to 50" in rows["v"] and rows["v"].endswith("86 %")  # 3 x 4 batches beside 1 x 2
    assert "epoch 2 on" in rows["i"] and rows["i"].endswith("14 %")
    assert "measured, not trained on" in rows["e"]
    assert "batch 1 to 2" in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    uniform = load(datasets=entries, train_batch_size=1, eval_steps_interval=5, data_backend_sampling="uniform")
    assert "75 %" in render_plan(make_plan(uniform, machine))


def test_one_set_alone_has_no_table_of_sets(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    assert "Data sets" not in render_plan(make_plan(load(num_frames=9), machine))


@pytest.mark.usefixtures("material")
def test_a_set_that_gives_nothing_is_refused_clip_by_clip(
    load: Load, machine: Machine, sets: Callable[..., list[dict[str, object]]]
) -> None:
    for name in ("v", "e"):
        entries = sets(**{name: {"video": {"num_frames": 49}}})
        with pytest.raises(DataError) as caught:
            make_plan(load(datasets=entries, train_batch_size=1, eval_steps_interval=5), machine)
        message = caught.value.message
        assert message.startswith("no samples detected") and f" of {name} can be used" in message
        assert f"in data set {name}" in str(caught.value.hint)
        assert "short.mp4: too-short: " in message
        assert caught.value.hint is not None and "num_frames" in caught.value.hint


def test_a_long_list_of_reasons_is_cut(load: Load, machine: Machine, clips: Path) -> None:
    for index in range(30):
        (clips / f"bad{index:02d}.mp4").write_bytes(b"" if index % 3 else b"words")
        (clips / f"bad{index:02d}.txt").write_text("a caption")
    with pytest.raises(DataError) as caught:
        make_plan(load(), machine)
    lines = caught.value.message.splitlines()
    assert "none of 30 clips can be used: 20 empty, 10 not-video" in lines[0]
    assert lines[1].strip().startswith("bad00.mp4: not-video: ")
    assert lines[-1].strip() == "and 10 more"
    assert len(lines) == 22


def test_quarantined_clips_are_left_out_where_that_is_asked_for(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path
) -> None:
    add_clip("good.mp4")
    bad = add_clip("bad.mp4")
    add_quarantine(tmp_path / "cache", [quarantined(bad, "damaged", "frame 7 does not decode")])
    kept = make_plan(load(num_frames=9), machine)
    assert kept.clips_used == 2
    plan = make_plan(load(num_frames=9, delete_problematic_images=True), machine)
    assert [(entry.path, entry.reason, entry.detail) for entry in plan.dropped] == [
        ("bad.mp4", "quarantined", "damaged: frame 7 does not decode")
    ]
    os.utime(bad, (1, 1))  # mended: it is looked at again
    assert make_plan(load(num_frames=9, delete_problematic_images=True), machine).clips_used == 2


def test_files_of_the_other_kind_and_wrong_tables_are_told(
    add_clip: AddClip, add_image: Callable[..., Path], load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("a.mp4", size=(64, 48))
    add_clip("b.mp4", size=(64, 48))
    add_image("cover.png")
    rows = [{"path": name, "text": "words", "w": width, "h": 48} for name, width in (("a.mp4", 64), ("b.mp4", 1920))]
    table = clips.parent / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {
        "id": "d",
        "instance_data_dir": str(clips),
        "caption_strategy": "parquet",
        "video": {"num_frames": 9},
        "parquet": {
            "path": str(table),
            "filename_column": "path",
            "caption_column": "text",
            "width_column": "w",
            "height_column": "h",
        },
    }
    plan = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    assert plan.clips_used == 2
    assert any("1 image file in its folder is no part of it" in notice for notice in plan.notices)
    [warning] = [warning for warning in plan.warnings if "table states" in warning]
    assert "b.mp4 1920x48, not 64x48" in warning and "a.mp4" not in warning


def test_what_lies_in_the_place_of_clips_is_told(
    add_image: Callable[..., Path], load: Load, machine: Machine, clips: Path
) -> None:
    add_image("a.png")
    with pytest.raises(DataError, match=r"no video files in .*, but 1 file of the other kind") as caught:
        make_plan(load(), machine)
    assert caught.value.hint == 'list the folder with dataset_type = "image"'
    with pytest.raises(DataError, match=r"\(data set pets\), but 1 file of the other kind") as caught:
        make_plan(load(datasets=[{"id": "pets", "instance_data_dir": str(clips)}], train_batch_size=1), machine)
    assert caught.value.hint == 'set dataset_type = "image" in data set pets'
    (clips / "train.jsonl").write_text(json.dumps({"image": "a.png", "text": "words", "width": 96}) + "\n")
    entry = {
        "id": "d",
        "type": "huggingface",
        "dataset_type": "image",
        "dataset_name": str(clips),
        "image_column": "image",
        "caption_column": "text",
        "caption_strategy": "huggingface",
        "filter_func": {"min_width": 1000},
    }
    with pytest.raises(DataError, match="the filter of d leaves out all 1 items"):
        make_plan(load(datasets=[entry], train_batch_size=1), machine)


def test_two_rows_for_one_file_are_two_clips_with_a_caption_each(
    load: Load, machine: Machine, add_image: Callable[..., Path], clips: Path
) -> None:
    for name in ("a.png", "b.png"):
        add_image(name, size=(512, 512), caption=None)
    rows = [{"file": name, "text": text} for name, text in (("a.png", "one"), ("a.png", "two"), ("b.png", "three"))]
    (clips / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {
        "id": "d",
        "type": "huggingface",
        "dataset_type": "image",
        "dataset_name": str(clips),
        "image_column": "file",
        "caption_column": "text",
        "caption_strategy": "huggingface",
        "maximum_image_size": 200,
        "target_downsample_size": 128,
    }
    plan = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    assert plan.clips_found == plan.clips_used == 3
    assert sorted(sample.captions[0] for sample in plan.samples) == ["one", "three", "two"]
    assert len({sample.path for sample in plan.samples}) == 2
    assert any("3 clips above maximum_image_size" in notice for notice in plan.notices)


def test_a_clip_that_is_lost_is_a_defect(
    add_clip: AddClip, load: Load, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_clip("a.mp4")
    add_clip("b.mp4")

    def lose_one(dataset: object, rule: SelectionRule) -> Selection:
        found = select_samples(dataset, rule)  # type: ignore[arg-type]
        return replace(found, samples=found.samples[:1])

    monkeypatch.setattr(gathering, "select_samples", lose_one)
    with pytest.raises(RuntimeError, match="2 clips found, 1 used, 0 left out"):
        make_plan(load(num_frames=9), machine)


def test_clips_reduced_for_their_size_are_told_with_what_is_left_of_the_picture(
    add_clip: AddClip, load: Load, machine: Machine, documented: Callable[..., dict[str, object]]
) -> None:
    add_clip("large.mp4", size=(512, 512))
    add_clip("small.mp4", size=(96, 96))
    entry = documented({"num_frames": 9}, maximum_image_size=200, target_downsample_size=128)
    plan = make_plan(load(datasets=[entry], train_batch_size=1, resolution=64), machine)
    assert {sample.resize for sample in plan.samples} == {(128, 128), (64, 64)}
    told = "1 clip above maximum_image_size and reduced to target_downsample_size"
    assert f"d: {told}" in plan.notices
    assert any(
        warning.startswith("d: only 25 % of each picture is trained on, in 1 clip above maximum_image_size: lower")
        for warning in plan.warnings
    )
    entry = documented({"num_frames": 9}, maximum_image_size=200, target_downsample_size=80)
    plan = make_plan(load(datasets=[entry], train_batch_size=1, resolution=64), machine)
    assert f"d: {told}; about 64 % of each picture is trained on" in plan.notices
    assert not any("of each picture" in warning for warning in plan.warnings)


def test_a_budget_of_tokens_sets_the_batches_of_each_bucket(add_clip: AddClip, load: Load, machine: Machine) -> None:
    for index in range(6):
        add_clip(f"short{index}.mp4", frames=9, size=(64, 64))
        add_clip(f"long{index}.mp4", frames=33, size=(64, 64))
    plan = make_plan(load(train_batch_tokens=40), machine)
    batches = {bucket.bucket.frames: (bucket.batch_size, bucket.batches) for bucket in plan.buckets}
    assert batches == {9: (5, 2), 33: (2, 3)}
    text = render_plan(plan)
    assert "batch 2 to 5" in text


def test_a_budget_below_one_clip_is_told(
    add_clip: AddClip, load: Load, machine: Machine, documented: Callable[..., dict[str, object]]
) -> None:
    add_clip("a.mp4", frames=9, size=(64, 64))
    entries = [documented({"num_frames": 9}), documented({"num_frames": 9}, id="own", train_batch_size=1)]
    for budget, told in ((8, 0), (7, 1)):
        plan = make_plan(load(datasets=entries, train_batch_tokens=budget), machine)
        found = [notice for notice in plan.notices if "train_batch_tokens" in notice]
        assert len(found) == told
    assert "train_batch_tokens 7 (up to 8 tokens)" in found[0] and found[0].endswith("64x64@9 of d")


def test_many_sizes_make_a_short_table(add_clip: AddClip, load: Load, machine: Machine) -> None:
    for index in range(26):
        add_clip(f"{index:02d}.mp4", frames=9 + 8 * index, size=(64, 64))
    text = render_plan(make_plan(load(num_frames=257), machine))
    assert "  and 6 more with 6 samples, in ltxtrain plan --json" in text
