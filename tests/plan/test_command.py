"""``ltxtrain plan`` as people call it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

AddClip = Callable[..., Path]


def run_plan(folder: Path, *words: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    places = ["--output", str(folder / "output"), "--cache", str(folder / "cache")]
    command = [sys.executable, *python, "-m", "ltxtrain", "plan", *words, *places]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


def test_plan_is_printed_and_writes_nothing_but_what_it_remembers_of_clips(
    add_clip: AddClip, clips: Path, tmp_path: Path
) -> None:
    add_clip("a.mp4")
    add_clip("b.mp4", caption=None)
    done = run_plan(tmp_path, "--preset", "smoke", "--data", str(clips))
    assert done.returncode == 0, done.stderr
    assert "2 found, 1 used, 1 left out" in done.stdout
    assert not (tmp_path / "output").exists()
    written = {path.relative_to(tmp_path / "cache").parts[0] for path in (tmp_path / "cache").rglob("*")}
    assert written <= {"index"}  # and not even that while the clips are so new that they may change unseen


def test_json_goes_to_stdout_whole(add_clip: AddClip, clips: Path, tmp_path: Path) -> None:
    add_clip("a.mp4")
    done = run_plan(tmp_path, "--preset", "smoke", "--data", str(clips), "--json", "--max_train_steps=7")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] == 7
    assert found["sources"]["max_train_steps"] == "--max-train-steps"
    assert [sample["id"] for sample in found["samples"]] == ["clips/a.mp4#0"]


def test_preset_that_makes_its_clips_is_planned_without_data_and_without_torch(tmp_path: Path) -> None:
    done = run_plan(tmp_path, "--preset", "smoke", python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    assert "made for this run): 4 found, 4 used" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "av" in imported
    assert not imported & {"torch", "diffusers", "transformers", "peft", "accelerate"}


def test_nothing_to_train_on_is_two_lines_and_exit_code_3(clips: Path, tmp_path: Path) -> None:
    done = run_plan(tmp_path, "--data", str(clips))
    assert done.returncode == 3
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_hundred_clips_cost_less_than_the_start_of_the_program(add_clip: AddClip, clips: Path, tmp_path: Path) -> None:
    """Half a second on two cores; the aim is two. A ratio, taken in turn, so that a busy machine slows both sides."""
    original = add_clip("clip000.mp4", frames=48, size=(320, 240))
    alone = tmp_path / "alone"
    alone.mkdir()
    for folder, count in ((alone, 1), (clips, 100)):
        for index in range(count):
            (folder / f"clip{index:03d}.mp4").write_bytes(original.read_bytes())
            (folder / f"clip{index:03d}.txt").write_text(f"caption {index}")
    seconds: dict[Path, list[float]] = {alone: [], clips: []}
    for _ in range(3):
        for folder, taken in seconds.items():
            began = time.perf_counter()
            done = run_plan(tmp_path, "--data", str(folder))
            taken.append(time.perf_counter() - began)
            assert done.returncode == 0, done.stderr
            assert ("100 found, 100 used" in done.stdout) is (folder == clips)
    assert min(seconds[clips]) < 2 * min(seconds[alone])
