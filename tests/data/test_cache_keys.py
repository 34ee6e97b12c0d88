"""Keys: each thing that changes what an entry holds gives it another one, and nothing else does.

The plan is the real one, over real clips; only the encoding is left out, for it is the key that decides.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.config import load_config
from ltxtrain.data import cache_keys
from ltxtrain.data.cache_keys import LatentsRule, PromptsRule, latents_rule, later, text_rules
from ltxtrain.data.made import make_clips
from ltxtrain.model.folder import COMPONENTS, locate_model
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.records import Bucket, Plan, Sample

DIGESTS = {part: part for part in COMPONENTS}
BASE: dict[str, object] = {
    "id": "set",
    "crop": True,
    "crop_style": "center",
    "crop_aspect": "square",
    "resolution": 96,
    "resolution_type": "pixel",
    "caption_strategy": "textfile",
    "video": {"num_frames": 9},
}
Keys = tuple[set[str], set[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three made clips with their captions, and the cache."""
    folder = tmp_path_factory.mktemp("keys")
    clips = make_clips(folder / "made", 3)
    clips.rename(folder / "clips")
    for number, caption in enumerate(sorted((folder / "clips").glob("*.txt"))):
        caption.write_text(f"red, blue, green, number {number}\n")
    return folder


def plan_of(place: Path, entry: dict[str, object] | None = None, data: Path | None = None, **options: object) -> Plan:
    whole = {**BASE, "instance_data_dir": str(data or place / "clips"), **(entry or {})}
    file = place / "datasets.json"
    file.write_text(json.dumps([{key: value for key, value in whole.items() if value is not None}]))
    flags = {
        "data_backend_config": str(file),
        "cache_dir": str(place / "cache"),
        "output_dir": str(place / "out"),
        "validation_disable": "true",
        "max_train_steps": "2",
        "train_batch_size": "1",
        **{name: str(value) for name, value in options.items()},
    }
    return make_plan(load_config(("smoke",), env={}, flags=flags))


def keys_of(plan: Plan) -> Keys:
    latents = latents_rule(plan, DIGESTS, "decoder")
    prompts = PromptsRule(plan.cache_dir, DIGESTS, plan.config.precision.mixed_precision, 128)
    samples = plan.samples + plan.eval_samples
    return {latents.entry(sample).key for sample in samples}, {prompts.entry(text).key for text in text_rules(plan)}


# What changes the latents of every clip, through the plan.
LATENTS_OPTIONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "resolution": ({"resolution": 128}, {}),
    "resolution_type": ({"resolution_type": "area", "resolution": 0.02}, {}),
    "pixel_area": ({"resolution_type": "pixel_area", "resolution": 128}, {}),
    "alignment": ({}, {"aspect_bucket_alignment": 64}),
    "framerate": ({}, {"framerate": 20}),
    "num_frames": ({"video": {"num_frames": 17}}, {}),
    "windows": ({"video": {"num_frames": 9, "window": "uniform", "windows_per_clip": 2}}, {}),
    "crop": ({"crop": False}, {}),
    "crop_style": ({"crop_style": "corner"}, {}),
    "random crop": ({"crop_style": "random"}, {}),
    "crop_aspect": ({"crop_aspect": "preserve"}, {}),
    "vae_dtype": ({}, {"vae_dtype": "bf16"}),
    "tiling": ({}, {"vae_enable_tiling": "true"}),
}
# What changes the texts.
TEXT_OPTIONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "filename captions": ({"caption_strategy": "filename"}, {}),
    "instanceprompt": ({"caption_strategy": "instanceprompt", "instance_prompt": "a clip"}, {}),
    "prefix": ({"prepend_instance_prompt": True, "instance_prompt": "a clip"}, {}),
    "only_instance_prompt": ({"only_instance_prompt": True, "instance_prompt": "a clip"}, {}),
    "caption filter": ({"caption_filter_list": ["red"]}, {}),
    "caption shuffle": ({"caption_shuffle": {"enable": True, "count": 2}}, {}),
    "mixed_precision": ({}, {"mixed_precision": "bf16"}),
}
# What changes neither.
NEITHER: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "id of the set": ({"id": "another"}, {}),
    "repeats": ({"repeats": 3}, {}),
    "probability": ({"probability": 0.5}, {}),
    "start_step": ({"start_step": 0}, {}),
    "batch size of the set": ({"train_batch_size": 2}, {}),
    "vae_batch_size": ({"vae_batch_size": 3}, {}),
    "groups of frames, of a clip that is one": ({}, {"vae_enable_framewise_encoding": "true"}),
    "on demand": ({"vae_cache_ondemand": True}, {}),
    "scan_for_errors": ({"scan_for_errors": True}, {}),
    "is_i2v": ({"video": {"num_frames": 9, "is_i2v": False}}, {}),
    "output_dir": ({}, {"output_dir": "/tmp/elsewhere"}),
    "run_name": ({}, {"run_name": "another"}),
    "train_batch_size": ({}, {"train_batch_size": 2}),
    "learning_rate": ({}, {"learning_rate": 0.5}),
    "seed": ({}, {"seed": 7}),
    "lora_rank": ({}, {"lora_rank": 2}),
    "max_train_steps": ({}, {"max_train_steps": 9}),
    "write_batch_size": ({}, {"write_batch_size": 2}),
    "compress_disk_cache": ({}, {"compress_disk_cache": "true"}),
    "text_encoder_batch_size": ({}, {"text_encoder_batch_size": 3}),
    "max_workers": ({}, {"max_workers": 2}),
    "checkpoint_step_interval": ({}, {"checkpoint_step_interval": 1}),
    "gradient_checkpointing": ({}, {"gradient_checkpointing": "false"}),
    "caption_dropout_probability": ({}, {"caption_dropout_probability": 0.7}),
    "validation_resolution": ({}, {"validation_resolution": "64x64"}),
    "lr_scheduler": ({}, {"lr_scheduler": "constant"}),
    "gradient_accumulation_steps": ({}, {"gradient_accumulation_steps": 2}),
}


def test_options_that_change_the_cut_change_every_key_of_latents_and_none_of_texts(place: Path) -> None:
    latents, texts = keys_of(plan_of(place))
    assert len(latents) == 3 and len(texts) == 4
    for name, (entry, options) in LATENTS_OPTIONS.items():
        other_latents, other_texts = keys_of(plan_of(place, entry, **options))
        missed = other_latents - latents
        assert missed and (name in ("windows", "random crop") or not latents & other_latents), name
        assert other_texts == texts, name
    area = {"resolution_type": "area", "resolution": 0.006, "crop_style": "corner"}
    whole, _ = keys_of(plan_of(place, area))
    shrunk, _ = keys_of(plan_of(place, {**area, "maximum_image_size": 0.01, "target_downsample_size": 0.008}))
    assert not whole & shrunk, "maximum_image_size and target_downsample_size"
    long = {"video": {"num_frames": 25}}
    in_one, _ = keys_of(plan_of(place, long))
    in_groups, _ = keys_of(plan_of(place, long, vae_enable_framewise_encoding="true"))
    assert not in_one & in_groups, "groups of frames"
    slower, _ = keys_of(plan_of(place, framerate=20))
    as_is, _ = keys_of(plan_of(place, {"video": {"num_frames": 9, "fps_policy": "as_is"}}, framerate=20))
    assert not slower & as_is, "fps policy"


def test_options_of_captions_change_keys_of_texts_and_none_of_latents(place: Path) -> None:
    latents, texts = keys_of(plan_of(place))
    for name, (entry, options) in TEXT_OPTIONS.items():
        other_latents, other_texts = keys_of(plan_of(place, entry, **options))
        assert other_texts - texts, name
        assert other_latents == latents, name


def test_options_of_training_change_no_key(place: Path) -> None:
    expected = keys_of(plan_of(place))
    for name, (entry, options) in NEITHER.items():
        assert keys_of(plan_of(place, entry, **options)) == expected, name


def test_where_when_and_in_which_order_files_lie_changes_no_key(place: Path, tmp_path: Path) -> None:
    expected = keys_of(plan_of(place))
    moved = tmp_path / "moved"
    shutil.copytree(place / "clips", moved)
    assert keys_of(plan_of(place, data=moved)) == expected, "the folder's path"
    for number, file in enumerate(sorted(moved.iterdir())):
        os.utime(file, (number, number))
    assert keys_of(plan_of(place, data=moved)) == expected, "the time of change"
    for number, clip in enumerate(sorted(moved.glob("*.mp4"), reverse=True)):
        clip.with_suffix(".txt").rename(moved / f"{number}.txt")
        clip.rename(moved / f"{number}.mp4")
    assert keys_of(plan_of(place, data=moved)) == expected, "names and order"
    (moved / "deeper").mkdir()
    for file in [path for path in moved.iterdir() if path.is_file()]:
        file.rename(moved / "deeper" / file.name)
    assert keys_of(plan_of(place, data=moved)) == expected, "a folder below"


def test_one_byte_of_a_clip_and_one_letter_of_a_caption_change_their_keys_alone(place: Path, tmp_path: Path) -> None:
    latents, texts = keys_of(plan_of(place))
    changed = tmp_path / "changed"
    shutil.copytree(place / "clips", changed)
    clip = sorted(changed.glob("*.mp4"))[0]
    clip.write_bytes(clip.read_bytes() + b"\0")
    clip.with_suffix(".txt").write_text("Red, blue, green, number 0\n")
    other_latents, other_texts = keys_of(plan_of(place, data=changed))
    assert len(other_latents - latents) == len(other_texts - texts) == 1
    assert len(other_latents & latents) == 2 and len(other_texts & texts) == 3


def sample_at(path: Path) -> Sample:
    bucket = Bucket(64, 96, 9)
    return Sample("set/a#0", "set", str(path), ("a",), 0.0, 25.0, bucket, (70, 96), (3, 0), 0, False)


SAMPLE_CHANGES: dict[str, Callable[[Sample], Sample]] = {
    "start": lambda s: replace(s, start=0.04),
    "fps": lambda s: replace(s, fps=24.0),
    "width": lambda s: replace(s, bucket=replace(s.bucket, width=32)),
    "height": lambda s: replace(s, bucket=replace(s.bucket, height=64)),
    "frames": lambda s: replace(s, bucket=replace(s.bucket, frames=17)),
    "resize width": lambda s: replace(s, resize=(71, 96)),
    "resize height": lambda s: replace(s, resize=(70, 97)),
    "left of the crop": lambda s: replace(s, crop=(4, 0)),
    "top of the crop": lambda s: replace(s, crop=(3, 1)),
    "kind": lambda s: replace(s, kind="image"),
}
SAMPLE_SAME: dict[str, Callable[[Sample], Sample]] = {
    "id": lambda s: replace(s, id="set/b#1"),
    "dataset": lambda s: replace(s, dataset="another"),
    "captions": lambda s: replace(s, captions=("b", "c")),
    "repeats": lambda s: replace(s, repeats=4),
    "i2v": lambda s: replace(s, i2v=True),
}
LATENTS_RULE: dict[str, object] = {"decoder": "other", "vae": "other", "dtype": "bf16", "tiling": True, "tf32": True}
PROMPTS_RULE: dict[str, object] = {
    "digests": DIGESTS | {"text_encoder": "other"},
    "dtype": "torch.float32",
    "max_tokens": 256,
    "tf32": True,
}


def test_each_part_of_a_sample_and_of_its_rule_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a clip")
    (tmp_path / "b.mp4").write_bytes(b"A clip")
    sample = sample_at(tmp_path / "a.mp4")
    rule = LatentsRule(tmp_path, "decoder", "vae", "fp32", False, False)
    keys = [rule.entry(sample).key, rule.entry(sample_at(tmp_path / "b.mp4")).key]
    keys += [rule.entry(change(sample)).key for change in SAMPLE_CHANGES.values()]
    keys += [replace(rule, **{name: value}).entry(sample).key for name, value in LATENTS_RULE.items()]
    monkeypatch.setattr(cache_keys, "LATENTS_VERSION", "latents-2")
    keys.append(rule.entry(sample).key)
    assert len(set(keys)) == len(keys) == 3 + len(SAMPLE_CHANGES) + len(LATENTS_RULE)
    for name, change in SAMPLE_SAME.items():
        assert rule.entry(change(sample)).key == keys[-1], name
    assert replace(rule, cache_dir=tmp_path / "elsewhere").entry(sample).key == keys[-1]


def test_each_part_of_a_text_s_rule_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = PromptsRule(tmp_path, DIGESTS, "torch.bfloat16", 128)
    keys = [rule.entry(text).key for text in ("a", "b", "A", " a", "")]
    keys += [replace(rule, **{name: value}).entry("a").key for name, value in PROMPTS_RULE.items()]
    keys.append(replace(rule, digests=DIGESTS | {"tokenizer": "other"}).entry("a").key)
    for other in ("transformer", "vae", "scheduler"):
        assert replace(rule, digests=DIGESTS | {other: "other"}).entry("a").key == keys[0], other
    monkeypatch.setattr(cache_keys, "PROMPTS_VERSION", "prompts-2")
    keys.append(rule.entry("a").key)
    assert len(set(keys)) == len(keys)


def test_every_file_of_the_model_that_an_entry_depends_on_counts(place: Path, tmp_path: Path) -> None:
    config = plan_of(place).config
    source = locate_model(config.model, place / "cache")
    shutil.copytree(source.base, tmp_path / "model")
    model = replace(source, folders={part: tmp_path / "model" / part for part in COMPONENTS}, memo=tmp_path / "memo")
    before = {part: model.digest(part) for part in COMPONENTS}
    changed = 0
    for part in ("vae", "text_encoder", "tokenizer"):
        for file in sorted(model.folders[part].iterdir()):
            content = file.read_bytes()
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            assert {other for other in COMPONENTS if model.digest(other) != before[other]} == {part}, file
            file.write_bytes(content)
            changed += 1
    assert changed >= 6


def test_there_are_as_many_cases_as_were_promised() -> None:
    per_sample = 1 + len(SAMPLE_CHANGES) + len(LATENTS_RULE) + 1
    per_text = 1 + len(PROMPTS_RULE) + 2
    files_of_the_model = 6
    assert len(LATENTS_OPTIONS) + 2 + len(TEXT_OPTIONS) + per_sample + per_text + files_of_the_model >= 40
    assert len(NEITHER) + len(SAMPLE_SAME) + 4 >= 20


def test_texts_of_several_sets_are_encoded_up_front_if_one_of_them_says_so(place: Path) -> None:
    plan = plan_of(place, text_cache_ondemand="true")
    assert all(later(rule) for rule in text_rules(plan).values())
    first, other = plan.samples[0], replace(plan.samples[0], dataset="eager", captions=plan.samples[0].captions)
    [dataset] = plan.datasets
    eager: Any = replace(dataset, id="eager", cache=replace(dataset.cache, text=type(dataset.cache.text)()))
    both = replace(plan, samples=(first, other), datasets=(dataset, eager))
    assert [text for text, rule in text_rules(both).items() if not later(rule)] == list(first.captions)
