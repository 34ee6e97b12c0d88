"""The data sets of a run are settled once, when it is planned: what happens to the list afterwards changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig
from ltxtrain.facts.machine import Machine
from ltxtrain.learn.identity import identity_of, told_settings
from ltxtrain.learn.resume import changed_settings
from ltxtrain.model.adapter import adapter_spec
from ltxtrain.plan import records
from ltxtrain.plan.folder import RunFolder, write_plan_files
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.manifest import config_sha256, write_manifest

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


@pytest.fixture
def listed(tmp_path: Path, add_clip: AddClip, documented: Callable[..., dict[str, object]]) -> Path:
    add_clip("a.mp4", frames=9)
    path = tmp_path / "list.json"
    entry = documented({"num_frames": 9}, repeats=3, probability=0.5, delete_problematic_images=True)
    path.write_text(json.dumps([entry]))
    return path


@pytest.mark.parametrize("after", ["", "[]", None], ids=["emptied", "no sets", "removed"])
def test_a_list_that_changes_after_the_plan_changes_nothing(
    load: Load, machine: Machine, listed: Path, after: str | None
) -> None:
    plan = make_plan(load(data_backend_config=str(listed), train_batch_size=1), machine)
    before = told_settings(plan), config_sha256(plan)
    listed.write_text(after) if after is not None else listed.unlink()
    assert (told_settings(plan), config_sha256(plan)) == before
    assert before[0]["d.repeats"] == 3 and before[0]["d.schedule.weight"] == 0.5
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    write_manifest(plan, folder, {}, {"event": "start", "step": 0})


def test_the_run_folder_holds_the_settings_of_each_set(load: Load, machine: Machine, listed: Path, clips: Path) -> None:
    plan = make_plan(load(data_backend_config=str(listed), train_batch_size=1), machine)
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    write_manifest(plan, folder, {}, {"event": "start", "step": 0})
    (of_plan,) = json.loads(folder.plan_json.read_text())["settled"]
    (of_run,) = json.loads(folder.run_json.read_text())["dataset"]["sets"]
    assert of_plan == of_run
    assert (of_plan["root"], of_plan["repeats"], of_plan["crop_style"]) == (str(clips), 3, "center")
    assert (of_plan["captions"]["strategy"], of_plan["resolution"], of_plan["quarantine"]) == ("textfile", 64, True)


HOW = [{"repeats": 5}, {"probability": 0.1}, {"train_batch_size": 2}, {"video": {"num_frames": 9, "is_i2v": False}}]
WHAT = [{"video": {"num_frames": 1}}, {"instance_prompt": "x", "only_instance_prompt": True}, {"resolution": 32}]


def test_how_clips_are_used_may_change_in_a_run_and_is_told(load: Load, machine: Machine, listed: Path) -> None:
    spec = adapter_spec(load().config.adapter)
    (entry,) = json.loads(listed.read_text())
    before = make_plan(load(datasets=[entry], train_batch_size=1), machine)
    for change in (*HOW, *WHAT):
        after = make_plan(load(datasets=[entry | change], train_batch_size=1), machine)
        assert (identity_of(after, spec) == identity_of(before, spec)) == (change in HOW), change
        assert changed_settings(told_settings(before), told_settings(after)), change


def test_the_clips_are_read_once_for_a_plan(
    load: Load, machine: Machine, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(load(data_backend_config=str(listed), train_batch_size=1), machine)
    read: list[object] = []
    monkeypatch.setattr(records, "samples_digest", lambda samples, memo: read.append(samples) or "digest")
    spec = adapter_spec(plan.config.adapter)
    assert identity_of(plan, spec) == identity_of(plan, spec)
    assert len(read) == 1


def test_the_digest_of_the_settings_knows_the_sets_wherever_they_stand(
    load: Load, machine: Machine, listed: Path
) -> None:
    entries = json.loads(listed.read_text())
    digests = [
        config_sha256(make_plan(load(train_batch_size=1, **data), machine))
        for data in (
            {"data_backend_config": str(listed)},
            {"datasets": entries},
            {"datasets": [entries[0] | {"repeats": 4}]},
        )
    ]
    assert digests[0] == digests[1] != digests[2]
