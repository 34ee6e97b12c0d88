"""Data sets in a locked-down container: media is opened in processes of its own, and OpenCV finds what it needs."""

from __future__ import annotations

import json
from pathlib import Path

from containers import NOBODY, docker, expect, locked_down, make_volumes, run_docker, timed

# The memory that children write pictures into is asked for by itself: without it they go on, by a slower way.
MAKE = """
from pathlib import Path
from PIL import Image
from ltxtrain.data.made import make_clips
from ltxtrain.facts.children_memory import LEAST_BYTES, SharedMemory

print(make_clips(Path("/data"), 4))
Path("/data/pictures").mkdir()
for number in range(2):
    picture = Path(f"/data/pictures/{number}.png")
    Image.new("RGB", (160, 128), (80 * number, 90, 150)).save(picture)
    picture.with_suffix(".txt").write_text("a plain colour")
assert SharedMemory(0).room(LEAST_BYTES) is not None, "no sealed memory"
"""
# 33 frames of 128x128: more than goes through a pipe.
SETS = """
[[datasets]]
id = "clips"
type = "local"
dataset_type = "video"
instance_data_dir = "{clips}"
crop = true
crop_style = "face"
crop_aspect = "square"
resolution = 128
[datasets.video]
num_frames = 33

[[datasets]]
id = "pictures"
type = "local"
dataset_type = "image"
instance_data_dir = "/data/pictures"
"""


def check_data_sets(tag: str, place: Path) -> None:
    """Clips and pictures are inspected, cut around faces, split into scenes and trained on."""
    container = ["run", "--rm", *locked_down(), *make_volumes(place, NOBODY), tag]
    clips = docker(*container, "python", "-c", MAKE).strip()
    inspect = [*container, "dataset", "inspect", clips, "--preset", "smoke", "--json"]
    seen = json.loads(timed("locked down: dataset inspect", lambda: docker(*inspect)))
    expect(seen["clips_used"] == 4 and seen["looked_at_frames"], f"dataset inspect: {seen}")
    split = [*container, "dataset", "split", clips, "--to", "/cache/scenes"]
    told = timed("locked down: dataset split", lambda: docker(*split))
    expect(len(list(place.glob("cache/scenes/*.mp4"))) == 4, f"dataset split: {told}")
    (place / "cache/sets.toml").write_text(SETS.format(clips=clips))
    words = ["train", "--preset", "smoke", "--config", "/cache/sets.toml", "--max-train-steps", "6"]
    train = [*container, *words, "--validation-disable"]
    trained = timed("locked down: train on clips and pictures", lambda: run_docker(*train))
    said = trained.stdout + trained.stderr
    expect(trained.returncode == 0 and "no process of its own" not in said, said)
    looked = json.loads((place / "cache/index/faces-1.json").read_text())
    expect(len(looked) == 4, f"faces were looked for in {sorted(looked)}: {said}")
    steps = [json.loads(line) for line in (place / "out/smoke/metrics.jsonl").read_text().splitlines()]
    expect({"clips", "pictures"} <= {step["dataset"] for step in steps}, f"trained on {steps}")
