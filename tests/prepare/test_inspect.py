"""An inspection of real clips: the planner's verdict on each, and what the pictures and captions tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.errors import ConfigError, DataError
from ltxtrain.events import Event, StageDone, StageProgress, StageStarted
from ltxtrain.plan.make import make_plan
from ltxtrain.prepare.inspect import InspectRule, iter_inspect
from ltxtrain.prepare.inspect_json import to_json
from ltxtrain.prepare.inspect_records import Inspection
from ltxtrain.prepare.inspect_text import summary
from tests.prepare.inspect_clips import moving, odd_folder, plain_folder, write

Seen = tuple[Inspection, list[Event]]


def look(data: Path, place: Path, **flags: object) -> Seen:
    """``place`` holds cache and results."""
    named = {} if "data_backend_config" in flags else {"data": str(data)}
    every = named | {"cache": str(place / "cache"), "output": str(place / "out")} | flags
    rule = InspectRule(load_config(flags=every), thumbnails=100)
    events, walk = [], iter_inspect(rule)
    while True:
        try:
            events.append(next(walk))
        except StopIteration as finished:
            return finished.value, events


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    place = tmp_path_factory.mktemp("odd")
    return look(odd_folder(place / "clips"), place)


def test_each_odd_clip_is_told_and_the_good_ones_are_left_alone(odd: Seen) -> None:
    found = odd[0]
    told = {clip.name: sorted(finding.code for finding in found.of(clip)) for clip in found.clips if found.of(clip)}
    assert told == {
        "again.mp4": ["caption-duplicate", "near-duplicate"],
        "good0.mp4": ["caption-duplicate", "near-duplicate"],
        "bare.mp4": ["caption-missing"],
        "bars.mp4": ["border"],
        "black.mp4": ["black"],
        "frozen.mp4": ["frozen"],
        "label.mp4": ["caption-short"],
    }


def test_the_verdict_on_each_clip_is_that_of_the_plan_of_a_run(odd: Seen, tmp_path: Path) -> None:
    found = odd[0]
    root = found.verdicts.datasets[0].root
    plan = make_plan(load_config(flags={"data": str(root), "cache": str(tmp_path), "output": str(tmp_path)}))
    assert {clip.name for clip in found.clips if clip.used} == {Path(sample.path).name for sample in plan.samples}
    assert {(clip.name, clip.reason) for clip in found.clips if not clip.used} == {
        (entry.path, entry.reason) for entry in plan.dropped
    }
    assert len(found.clips) == plan.clips_found
    assert tuple(s for clip in found.clips for s in clip.samples) == plan.samples


def test_clips_that_the_plan_leaves_out_for_their_caption_are_shown_all_the_same(odd: Seen) -> None:
    found = odd[0]
    bare = next(clip for clip in found.clips if clip.name == "bare.mp4")
    assert bare.reason == "no-caption" and bare.facts is not None
    broken = next(clip for clip in found.clips if clip.name == "broken.mp4")
    assert broken.facts is None and broken.reason
    assert {clip.name for clip in found.clips if clip.key not in found.sheet} == {"broken.mp4"}


def test_progress_counts_each_clip_that_is_opened(odd: Seen) -> None:
    events = odd[1]
    started = next(e for e in events if isinstance(e, StageStarted) and e.stage == "pictures")
    progress = [e.done for e in events if isinstance(e, StageProgress)]
    assert started.total == 10 and progress == list(range(1, 11))
    assert [e.stage for e in events if isinstance(e, StageDone)] == ["clips", "pictures"]


def test_the_json_holds_every_clip_and_what_to_do(odd: Seen) -> None:
    told = json.loads(json.dumps(to_json(odd[0])))
    assert told["clips_found"] == 11 == len(told["clips"]) and told["clips_used"] == 8
    by_name = {clip["name"]: clip for clip in told["clips"]}
    assert by_name["good1.mp4"]["verdict"] == "used" and by_name["good1.mp4"]["windows"][0]["frames"] == 25
    assert by_name["brief.mp4"]["reason"] == "too-short" and by_name["brief.mp4"]["bucket"] is None
    assert by_name["again.mp4"]["findings"][-1] == {"code": "near-duplicate", "detail": "as good0.mp4"}
    assert told["findings"]["frozen"]["clips"] == 1 and told["findings"]["frozen"]["advice"]


def test_the_summary_counts_verdicts_reasons_and_findings(odd: Seen) -> None:
    lines = summary(odd[0])
    assert lines[0].startswith("11 clips: 8 used, 3 left out (") and "1 too-short" in lines[0]
    assert any("[near-duplicate]" in line and line.split()[0] == "2" for line in lines)


def test_a_run_that_could_not_begin_is_told_and_its_clips_are_shown(tmp_path: Path) -> None:
    found, _ = look(plain_folder(tmp_path / "clips"), tmp_path, minimum_image_size=2000)
    assert not any(clip.used for clip in found.clips)
    assert {clip.reason for clip in found.clips} == {"too-small"}
    assert "none of 3 clips" in found.verdicts.problem and found.verdicts.hint
    assert len(found.sheet) == 3


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        look(tmp_path / "nowhere", tmp_path)


def listed(tmp_path: Path, *entries: dict[str, object]) -> Path:
    path = tmp_path / "sets.json"
    path.write_text(json.dumps(list(entries)))
    return path


def video_set(name: str, root: Path, **more: object) -> dict[str, object]:
    video = {"num_frames": 25, "min_frames": 25}
    return {"id": name, "dataset_type": "video", "instance_data_dir": str(root), "video": video, "repeats": 20} | more


def test_a_clip_for_evaluation_that_is_trained_on_too_is_told(tmp_path: Path) -> None:
    plain_folder(tmp_path / "train")
    write(tmp_path / "eval" / "held.mp4", moving(1), "A field of light, seen once more", quality=8)
    sets = listed(
        tmp_path,
        video_set("train", tmp_path / "train"),
        video_set("eval", tmp_path / "eval") | {"dataset_type": "eval"},
    )
    found, _ = look(tmp_path, tmp_path, data_backend_config=str(sets))
    told = {clip.name: [f.code for f in found.of(clip)] for clip in found.clips if found.of(clip)}
    assert told == {"good1.mp4": ["eval-duplicate"], "held.mp4": ["eval-duplicate"]}
    held = next(clip for clip in found.clips if clip.name == "held.mp4")
    assert held.used and found.of(held)[0].detail == "as train/good1.mp4"


def test_windows_are_counted_and_a_bucket_too_small_is_a_verdict_as_well(tmp_path: Path) -> None:
    write(tmp_path / "one" / "long.mp4", moving(1, 80), "A field of light for some seconds")
    write(tmp_path / "two" / "tall.mp4", moving(2, 25, 160, 96), "A tall field of light")
    for number in range(2):
        write(tmp_path / "two" / f"flat{number}.mp4", moving(3 + number), f"A flat field of light, number {number}")
    windows = {"num_frames": 25, "min_frames": 25, "window": "all"}
    sets = listed(
        tmp_path,
        video_set("one", tmp_path / "one", video=windows),
        video_set("two", tmp_path / "two", repeats=0),
    )
    found, _ = look(tmp_path, tmp_path, data_backend_config=str(sets), train_batch_size=2)
    long, *flat, tall = found.clips
    assert len(flat) == 2 and all(clip.used for clip in flat)
    assert len(long.samples) == 3 and not long.lost
    assert (tall.used, tall.reason) == (False, "small-bucket")


@pytest.mark.parametrize("options", [{"disable_bucket_pruning": True}, {"allow_dataset_oversubscription": True}, {}])
def test_clips_that_a_run_is_refused_for_are_not_told_as_used(tmp_path: Path, options: dict[str, object]) -> None:
    write(tmp_path / "two" / "tall.mp4", moving(2, 25, 160, 96), "A tall field of light")
    write(tmp_path / "one" / "long.mp4", moving(1, 25), "A field of light")
    repeats = 1 if options else 0
    sets = listed(tmp_path, video_set("one", tmp_path / "one"), video_set("two", tmp_path / "two", repeats=repeats))
    found, _ = look(tmp_path, tmp_path, data_backend_config=str(sets), train_batch_size=3, **options)
    assert found.verdicts.problem
    assert [(clip.used, clip.reason) for clip in found.clips] == [(True, ""), (False, "small-bucket")]


def test_without_pictures_no_clip_is_opened_for_them(tmp_path: Path) -> None:
    data = odd_folder(tmp_path / "clips")
    rule = InspectRule(load_config(flags={"data": str(data), "cache": str(tmp_path / "c")}), pictures=False)
    walk: Callable[[], Event] = iter_inspect(rule).__next__
    events = [walk(), walk()]
    with pytest.raises(StopIteration) as finished:
        walk()
    found = finished.value.value
    assert [type(event) for event in events] == [StageStarted, StageDone]
    assert not found.sheet and "caption-short" in found.counts and "black" not in found.counts


def test_a_clip_that_vanishes_between_plan_and_pictures_is_told(tmp_path: Path) -> None:
    data = plain_folder(tmp_path / "clips")
    walk = iter_inspect(InspectRule(load_config(flags={"data": str(data), "cache": str(tmp_path / "c")})))
    while not isinstance(next(walk), StageDone):
        pass
    shutil.move(data / "good1.mp4", tmp_path)
    with pytest.raises(StopIteration) as finished:
        while True:
            next(walk)
    found = finished.value.value
    told = {clip.name: [f.code for f in found.of(clip)] for clip in found.clips if found.of(clip)}
    assert told == {"good1.mp4": ["no-pictures"]}


def test_a_wrong_list_of_data_sets_is_a_configuration_error(tmp_path: Path) -> None:
    sets = listed(tmp_path, video_set("one", tmp_path, caption_strategy="tea leaves"))
    with pytest.raises(ConfigError):
        look(tmp_path, tmp_path, data_backend_config=str(sets))
