"""What the plan tells a user before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from ltxtrain.config import load_config
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.facts.quarantine import add_quarantine, quarantined
from ltxtrain.plan.folder import RunFolder, write_plan_files
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.text import render_plan
from tests.facts.zoo_files import encoded
from tests.plan.conftest import AddClip, Load


def test_a_clip_that_ends_before_its_header_says_is_told_by_name(
    add_clip: AddClip, load: Load, machine: Machine
) -> None:
    clip = add_clip("cut.mkv", frames=100, size=(320, 240))
    whole = make_plan(load(num_frames=9), machine)
    assert not [warning for warning in whole.warnings if "cut.mkv" in warning]
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    plan = make_plan(load(num_frames=9), machine)
    assert [warning for warning in plan.warnings if "cut.mkv may be cut off: its header says 4.0 s" in warning]


def test_a_released_model_without_a_gpu_is_a_warning(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    released = load(pretrained_model_name_or_path="Lightricks/LTX-Video-0.9.5", num_frames=9)
    assert any("no GPU was found" in warning for warning in make_plan(released, machine).warnings)
    assert not any("no GPU" in warning for warning in make_plan(load(num_frames=9), machine).warnings)


def test_random_weights_are_told(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    plan = make_plan(load(pretrained_model_name_or_path="ltxtrain/random-2b", num_frames=9), machine)
    assert any("ltxtrain/random-2b has random weights" in notice for notice in plan.notices)
    assert not any("random weights" in notice for notice in make_plan(load(num_frames=9), machine).notices)
    assert dict(plan.disk).get("model download", 0) == 0


def test_a_paged_optimiser_that_has_nothing_to_page_is_told(add_clip: AddClip, load: Load, machine: Machine) -> None:
    """The widest factors have rank x 2048 values."""
    add_clip("a.mp4")
    card = replace(machine, device="cuda", gpus=(Gpu("RTX 3060", 12 * 1024**3, "8.6"),))
    options = {"pretrained_model_name_or_path": "ltxtrain/random-2b", "num_frames": 9}

    def told(on: Machine = card, **more: object) -> list[str]:
        flags = {"optimizer": "bnb-lion8bit-paged", **options, **more}
        return [notice for notice in make_plan(load(**flags), on).notices if "pages the states" in notice]

    [notice] = told(lora_rank=16)
    assert "from 100,000 values on" in notice and "largest has 32,768" in notice
    assert told(lora_rank=48)
    assert not told(lora_rank=49)  # 100,352
    assert not told(lora_rank=16, optimizer="bnb-lion8bit")
    assert not told(lora_rank=16, on=machine)


def test_the_resolved_configuration_leads_back_to_the_same_run(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path
) -> None:
    add_clip("a.mp4")
    plan = make_plan(load(presets=("smoke",)), machine)
    write_plan_files(plan, RunFolder(plan.run_dir))
    again = make_plan(load_config(files=[plan.run_dir / "config.toml"], env={}), machine)
    assert plan.run_dir.name == "smoke"
    assert again.run_dir == plan.run_dir


def test_interlaced_clips_are_told(add_clip: AddClip, load: Load, machine: Machine, clips: Path) -> None:
    add_clip("plain.mp4")
    encoded(clips / "fields.mp4", codec="libx264", options={"x264-params": "tff=1:interlaced=1"})
    (clips / "fields.txt").write_text("a caption")
    notices = make_plan(load(num_frames=9), machine).notices
    told = "clips: 1 clip is interlaced (fields.mp4) and trained as whole frames; deinterlace them first"
    assert told in notices


def test_every_window_is_named_on_the_screen(add_clip: AddClip, load: Load, machine: Machine) -> None:
    for name in ("a.mp4", "b.mp4"):
        add_clip(name)
    text = render_plan(make_plan(load(num_frames=9, video_window="all"), machine))
    rows = [line.split() for line in text.splitlines() if ".mp4" in line]
    assert [row[0] for row in rows] == ["a.mp4", "a.mp4#1", "b.mp4", "b.mp4#1"]
    assert rows[1][1:5] == ["0.4", "to", "0.7", "s"]


def test_windows_on_the_screen_are_in_the_order_of_time(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4", frames=120)
    text = render_plan(make_plan(load(num_frames=9, video_window="all"), machine))
    rows = [line.split()[0] for line in text.splitlines() if ".mp4" in line]
    assert rows[:4] == ["a.mp4", "a.mp4#1", "a.mp4#2", "a.mp4#3"] and rows[10] == "a.mp4#10"


def test_a_clip_that_is_measured_and_trained_on_is_told_whatever_link_names_it(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("all/held/a.mp4")
    add_clip("all/b.mp4")
    (clips / "held").symlink_to(clips / "all/held")
    video = {"video": {"num_frames": 9}}
    entries = [
        {"id": "t", "instance_data_dir": str(clips / "all"), **video},
        {"id": "e", "dataset_type": "eval", "instance_data_dir": str(clips / "held"), **video},
    ]
    notices = make_plan(load(datasets=entries, train_batch_size=1, eval_steps_interval=5), machine).notices
    assert any(text.startswith("e: 1 of 1 clip trained on, too (a.mp4): the loss") for text in notices)
    (clips / "other").mkdir()
    add_clip("other/b.mp4")
    entries[0]["instance_data_dir"] = str(clips / "other")
    notices = make_plan(load(datasets=entries, train_batch_size=1, eval_steps_interval=5), machine).notices
    assert not any("trained on, too" in text for text in notices)


def test_pictures_cut_by_chance_without_crop_are_told(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("a.mp4", size=(112, 64))
    entry: dict[str, object] = {"id": "d", "instance_data_dir": str(clips), "video": {"num_frames": 9}}
    told = "d: 1 clip with up to 14 % of the picture cut off, at a place drawn by chance"

    def notices(**more: object) -> list[str]:
        plan = make_plan(load(datasets=[entry | more], train_batch_size=1), machine)
        return [text for text in plan.notices if text.startswith(told)]

    assert len(notices()) == 1
    assert notices(crop_style="center") == notices(crop=True, crop_aspect="square") == []


def test_a_plan_of_pictures_alone_says_no_length_of_video(load: Load, machine: Machine, clips: Path) -> None:
    Image.new("RGB", (96, 64)).save(clips / "a.png")
    (clips / "a.txt").write_text("a picture")
    entry = {"id": "d", "dataset_type": "image", "instance_data_dir": str(clips)}
    text = render_plan(make_plan(load(datasets=[entry], train_batch_size=1), machine))
    assert "Clips: 1 found, 1 used, 0 left out\n" in text


def test_the_list_of_quarantined_clips_is_named_and_counts_what_lies_on_it(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path, tmp_path: Path
) -> None:
    add_clip("good.mp4")
    bad = add_clip("bad.mp4")
    (clips / "empty.mp4").write_bytes(b"")
    notices = make_plan(load(num_frames=9, delete_problematic_images=True), machine).notices
    assert not any("delete_problematic_images" in text for text in notices)
    add_quarantine(tmp_path / "cache", [quarantined(bad, "damaged", "frame 7 does not decode")])
    notices = make_plan(load(num_frames=9, delete_problematic_images=True), machine).notices
    told = "1 clip on the list quarantine.jsonl in the cache folder is left out; no file is deleted or changed"
    assert f"delete_problematic_images: {told}" in notices


def test_a_size_map_for_another_resolution_is_told_with_the_name_that_would_do(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path
) -> None:
    add_clip("a.mp4")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "aspect_resolution_map-0.25.json").write_text('{"1.0": [96, 96]}')
    told = (
        f"size maps in {tmp_path}/output that no data set uses: aspect_resolution_map-0.25.json; "
        "for this run's resolutions the name is aspect_resolution_map-0.004096.json"
    )
    assert told in make_plan(load(num_frames=9), machine).notices
