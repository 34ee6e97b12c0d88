from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ltxtrain
from ltxtrain.config import LoadedConfig, load_config
from ltxtrain.errors import CheckpointError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.plan.folder import RunFolder, write_plan_files
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.manifest import dataset_fingerprint, read_events, write_manifest
from ltxtrain.plan.records import Plan
from ltxtrain.plan.text import WIDTH, render_plan
from ltxtrain.plan.toml import dump_toml

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


@pytest.fixture
def plan(add_clip: AddClip, load: Load, machine: Machine) -> Plan:
    add_clip("a.mp4", frames=30)
    add_clip("b.mp4", frames=30, fps=10)
    add_clip("bad.mp4", caption=None)
    add_clip("a_rather_long_folder_name_for_a_clip/" + "another_very_long_name_" * 4 + ".mp4", frames=5)
    return make_plan(load(num_frames=20, max_train_steps=7, lora_rank=4, validation_prompt='a "b" \\ c\nd é'), machine)


def test_run_folder_has_the_names_of_the_contract(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    names = {
        path.name
        for path in (
            folder.run_json,
            folder.config_toml,
            folder.plan_json,
            folder.plan_txt,
            folder.dataset_jsonl,
            folder.metrics_jsonl,
            folder.checkpoints,
            folder.samples,
            folder.export,
            folder.report_html,
            folder.readme,
        )
    }
    assert names == {
        *("run.json", "config.toml", "plan.json", "plan.txt", "dataset.jsonl", "metrics.jsonl"),
        *("checkpoints", "samples", "export", "report.html", "README.md"),
    }
    assert list(tmp_path.iterdir()) == []


def test_config_that_was_written_loads_back_the_same(plan: Plan) -> None:
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    again = load_config(files=[folder.config_toml], env={})
    assert again.config == plan.config
    assert again.notices == ()
    # What stands at its default is there to be seen, as a comment.
    assert "\n# lora_dropout = 0.0\n" in folder.config_toml.read_text()
    assert "\nlora_rank = 4\n" in folder.config_toml.read_text()


def test_data_sets_that_were_written_load_back_the_same(
    add_clip: AddClip, load: Load, machine: Machine, documented: Callable[..., dict[str, object]]
) -> None:
    add_clip("a.mp4")
    entries = [
        documented({"num_frames": 9}),
        documented({"num_frames": 17}, id="e", repeats=2, caption_strategy="filename"),
    ]
    plan = make_plan(load(datasets=entries, train_batch_size=1), machine)
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    assert load_config(files=[folder.config_toml], env={}).config == plan.config


def test_dataset_list_names_every_clip_once(plan: Plan) -> None:
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    lines = [json.loads(line) for line in folder.dataset_jsonl.read_text().splitlines()]
    assert [line["used"] for line in lines] == [True, True, False, False]
    assert len(lines) == plan.clips_found
    assert lines[0]["bucket"] == {"width": 64, "height": 64, "frames": 17}
    assert {line["reason"] for line in lines if not line["used"]} == {"no-caption", "too-short"}


def test_json_holds_the_whole_plan(plan: Plan) -> None:
    folder = RunFolder(plan.run_dir)
    write_plan_files(plan, folder)
    found = json.loads(folder.plan_json.read_text())
    clips = ("samples", "eval_samples", "dropped")
    assert not found.keys() & set(clips), "each clip has a line in dataset.jsonl, and is not written twice"
    found |= {name: plan.to_json()[name] for name in clips}
    assert found == json.loads(json.dumps(plan.to_json()))
    assert found["config"]["adapter"]["lora_rank"] == 4
    assert found["sources"]["lora_rank"] == "--lora-rank"
    assert found["buckets"][0]["bucket"]["tokens"] == plan.buckets[0].bucket.tokens
    assert found["clips_found"] == found["clips_used"] + len(found["dropped"]) == 4
    assert len(found["samples"]) == 2
    assert found["machine"]["cores"] == 2


def test_text_is_readable_in_a_hundred_columns(plan: Plan) -> None:
    text = render_plan(plan)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text
    for words in ("4 found, 2 used, 2 left out", "bad.mp4", "no bad.txt beside it", "too-short", "7 (", "64x64", "17"):
        assert words in text
    for title in ("Buckets", "Memory", "Disk", "Notices", "Warnings"):
        assert f"\n{title}" in text


def test_text_lists_the_first_of_many_clips_left_out(
    add_clip: AddClip, load: Load, machine: Machine, clips: Path
) -> None:
    add_clip("good.mp4")
    for index in range(50):
        (clips / f"bad{index:02d}.mp4").write_bytes(b"")
        (clips / f"bad{index:02d}.txt").write_text("a caption")
    text = render_plan(make_plan(load(), machine))
    assert "left out as empty (the file holds no bytes): 50" in text
    assert "bad19.mp4" in text
    assert "bad20.mp4" not in text
    assert "and 30 more" in text


def test_text_names_the_gpus(add_clip: AddClip, load: Load) -> None:
    add_clip("a.mp4")
    card = Gpu("NVIDIA GeForce RTX 4090", 24 * 1024**3, "8.9")
    text = render_plan(make_plan(load(), Machine("Linux", "a CPU", 8, 64 * 1024**3, "cuda", (card, card))))
    assert "2 x NVIDIA GeForce RTX 4090 (24.0 GiB)" in text
    assert " of 24.0 GiB" in text
    assert " of 64.0 GiB" in text


def test_manifest_keeps_what_happened_before(plan: Plan) -> None:
    folder = RunFolder(plan.run_dir)
    assert read_events(folder) == []
    write_manifest(plan, folder, {"name": "ltxtrain/tiny"}, {"event": "start", "step": 0})
    write_manifest(plan, folder, {"name": "ltxtrain/tiny"}, {"event": "resume", "step": 3})
    manifest = json.loads(folder.run_json.read_text())
    assert [(event["event"], event["step"]) for event in manifest["events"]] == [("start", 0), ("resume", 3)]
    assert manifest["packages"]["av"]
    assert manifest["seeds"]["training"] == 42
    assert manifest["config"]["schedule"]["max_train_steps"] == 7
    assert len(manifest["dataset"]["fingerprint"]) == 64


def test_manifest_of_a_checkout_tells_its_lock_and_no_image(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTX_IMAGE", raising=False)
    folder = RunFolder(plan.run_dir)
    write_manifest(plan, folder, {}, {"event": "start"})
    manifest = json.loads(folder.run_json.read_text())
    lock = Path(__file__).resolve().parents[2] / "requirements" / "lock.txt"
    assert manifest["lock_sha256"] == hashlib.sha256(lock.read_bytes()).hexdigest()
    assert manifest["image"] is None


def test_manifest_written_in_an_image_tells_the_image(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"kind": "cpu", "revision": "c0ffee", "lock_sha256": "10c4", "torch": "2.13.0+cpu"}
    (tmp_path / "image.json").write_text(json.dumps(facts))
    digest = "sha256:" + "0" * 64
    monkeypatch.setenv("LTX_IMAGE", str(tmp_path / "image.json"))
    monkeypatch.setenv("LTX_IMAGE_DIGEST", f"ltxtrain@{digest}")
    monkeypatch.setattr(ltxtrain, "__file__", str(tmp_path / "ltxtrain" / "__init__.py"))  # no checkout is around it
    folder = RunFolder(plan.run_dir)
    write_manifest(plan, folder, {}, {"event": "start"})
    manifest = json.loads(folder.run_json.read_text())
    assert manifest["image"] == {**facts, "digest": digest}
    assert (manifest["git_commit"], manifest["lock_sha256"]) == ("c0ffee", "10c4")


def test_manifest_that_is_damaged_is_not_written_over(plan: Plan) -> None:
    folder = RunFolder(plan.run_dir)
    folder.root.mkdir(parents=True)
    folder.run_json.write_text('{"events": [')
    with pytest.raises(CheckpointError, match=r"run\.json"):
        write_manifest(plan, folder, {}, {"event": "start"})
    assert folder.run_json.read_text() == '{"events": ['


def test_fingerprint_follows_bytes_and_words_and_not_the_place(
    plan: Plan, load: Load, machine: Machine, clips: Path, tmp_path: Path
) -> None:
    flags = {"num_frames": 20, "max_train_steps": 9}
    before = dataset_fingerprint(plan)
    assert dataset_fingerprint(make_plan(load(**flags), machine)) == before
    moved = clips.rename(tmp_path / "elsewhere")
    assert dataset_fingerprint(make_plan(load(instance_data_dir=str(moved), **flags), machine)) == before
    (moved / "a.txt").write_text("other words")
    assert dataset_fingerprint(make_plan(load(instance_data_dir=str(moved), **flags), machine)) != before
    (moved / "a.txt").write_text("a caption")
    (moved / "a.mp4").write_bytes((moved / "a.mp4").read_bytes() + b"\0" * 16)
    assert dataset_fingerprint(make_plan(load(instance_data_dir=str(moved), **flags), machine)) != before


leaves = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
tables = st.recursive(
    st.dictionaries(st.text(min_size=1), leaves | st.lists(leaves, max_size=3), max_size=4),
    lambda inner: st.dictionaries(st.text(min_size=1), inner | st.lists(inner, min_size=1, max_size=3), max_size=4),
    max_leaves=12,
)


@given(tables)
def test_toml_that_was_written_reads_back(table: dict[str, object]) -> None:
    assert tomllib.loads(dump_toml(table)) == table


def test_planning_imports_no_torch_and_opens_clips_in_other_processes(
    add_clip: AddClip, clips: Path, tmp_path: Path
) -> None:
    add_clip("a.mp4")
    script = f"""
import sys
from ltxtrain.config import load_config
from ltxtrain.plan.make import make_plan
flags = {{"instance_data_dir": {str(clips)!r}, "output_dir": {str(tmp_path)!r}}}
make_plan(load_config(("smoke",), env={{}}, flags=flags)).to_json()
print(sorted(set(sys.modules) & {{"av", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
