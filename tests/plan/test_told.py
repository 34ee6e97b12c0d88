"""What the plan tells a user before anything is spent."""

from __future__ import annotations

from pathlib import Path

from ltxtrain.config import load_config
from ltxtrain.facts.machine import Machine
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
