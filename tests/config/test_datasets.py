"""From what is configured to the data sets of a run, every value settled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.config import Dataset, dataset_settings, load_config, resolve_datasets
from ltxtrain.config.data import DataConfig
from ltxtrain.errors import ConfigError, DataError
from tests.datasets import PLAIN


def from_entries(tmp_path: Path, *entries: dict[str, object], **general: object) -> tuple[Dataset, ...]:
    path = tmp_path / "backend.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return resolve_datasets(DataConfig(data_backend_config=path, **general))  # type: ignore[arg-type]


def test_a_folder_alone_takes_clips_as_long_as_they_are() -> None:
    assert resolve_datasets(DataConfig(instance_data_dir=Path("c"))) == (PLAIN,)
    short = resolve_datasets(DataConfig(instance_data_dir=Path("c"), num_frames=1, video_window="uniform"))
    assert short == (replace(PLAIN, num_frames=1, min_frames=1, window="uniform"),)


def test_an_entry_needs_clips_of_the_whole_length_unless_it_says_otherwise(tmp_path: Path) -> None:
    (found,) = from_entries(tmp_path, {"id": "a", "instance_data_dir": "c"})
    assert (found.num_frames, found.min_frames, found.bucket_strategy) == (121, 121, "aspect_ratio")
    (shorter,) = from_entries(tmp_path, {"id": "a", "instance_data_dir": "c", "video": {"num_frames": "49"}})
    assert (shorter.num_frames, shorter.min_frames) == (49, 49)


def test_an_entry_wins_over_the_general_option_and_that_over_the_default(tmp_path: Path) -> None:
    own = {"id": "a", "instance_data_dir": "c", "resolution": 480, "caption_strategy": "filename", "repeats": "2"}
    plain = {"id": "b", "instance_data_dir": "d", "only_instance_prompt": "false"}
    first, second = from_entries(
        tmp_path,
        own,
        plain,
        resolution=512,
        caption_strategy="instanceprompt",
        instance_prompt="a cat",
        only_instance_prompt=True,
    )
    assert (first.resolution, first.captions.strategy, first.repeats) == (480, "filename", 2)
    assert (second.resolution, second.captions.strategy, second.repeats) == (512, "instanceprompt", 0)
    assert (first.captions.only_instance_prompt, second.captions.only_instance_prompt) == (True, False)
    assert second.captions.instance_prompt == "a cat"


def test_all_keys_of_video_and_crop_arrive(tmp_path: Path) -> None:
    video = {
        "num_frames": 49,
        "min_frames": 57,
        "max_frames": 81,
        "is_i2v": "false",
        "bucket_strategy": "resolution_frames",
        "frame_interval": 8,
        "window": "uniform",
        "windows_per_clip": 3,
    }
    entry = {
        "id": "a",
        "instance_data_dir": "c",
        "crop": "true",
        "crop_style": "centre",
        "crop_aspect": "square",
        "minimum_aspect_ratio": 0.5,
        "maximum_aspect_ratio": 2,
        "max_num_samples": 10,
        "minimum_image_size": 240,
        "resolution_type": "pixel",
        "video": video,
    }
    (found,) = from_entries(tmp_path, entry)
    assert (found.num_frames, found.min_frames, found.max_frames, found.is_i2v) == (49, 57, 81, False)
    assert (found.bucket_strategy, found.frame_interval) == ("resolution_frames", 8)
    assert (found.window, found.windows_per_clip) == ("uniform", 3)
    assert (found.crop, found.crop_style, found.crop_aspect) == (True, "center", "square")
    assert (found.minimum_aspect_ratio, found.maximum_aspect_ratio, found.max_num_samples) == (0.5, 2, 10)
    assert (found.minimum_image_size, found.resolution_type) == (240, "pixel")


def test_disabled_entries_and_text_stores_are_left_out_even_when_they_hold_what_is_not_built(tmp_path: Path) -> None:
    found = from_entries(
        tmp_path,
        {"id": "a", "instance_data_dir": "c"},
        {"id": "b", "dataset_type": "image", "disabled": "true"},
        {"id": "c", "dataset_type": "text_embeds", "default": True, "cache_dir": "x"},
    )
    assert [dataset.id for dataset in found] == ["a"]


def test_nothing_to_train_on_is_a_matter_of_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clips are named"):
        resolve_datasets(DataConfig())
    with pytest.raises(DataError, match="no data set is left"):
        from_entries(tmp_path, {"id": "a", "instance_data_dir": "c", "disabled": True})


def test_a_list_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json: there is no such file"):
        resolve_datasets(DataConfig(data_backend_config=Path("nowhere.json")))


def test_the_same_entries_may_stand_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[[datasets]]\nid = "a"\ninstance_data_dir = "c"\nrepeats = 2\n[datasets.video]\nnum_frames = 49\n',
        encoding="utf-8",
    )
    (from_toml,) = resolve_datasets(load_config(files=[file], env={}).config.data)
    (from_json,) = from_entries(
        tmp_path, {"id": "a", "instance_data_dir": "c", "repeats": 2, "video": {"num_frames": 49}}
    )
    assert from_toml == from_json
    (tmp_path / "other.toml").write_text(file.read_text(encoding="utf-8").replace("2", "3"), encoding="utf-8")
    settings = [
        dataset_settings(load_config(files=[name], env={}).config.data) for name in (file, tmp_path / "other.toml")
    ]
    assert settings[0] == dataset_settings(DataConfig(data_backend_config=tmp_path / "backend.json")) != settings[1]


def test_settings_for_digests_are_those_that_decide_the_result(tmp_path: Path) -> None:
    here, there = (DataConfig(instance_data_dir=Path(name)) for name in ("here", "there"))
    assert dataset_settings(here) == dataset_settings(there)
    assert dataset_settings(here)[0]["min_frames"] == 9
    assert dataset_settings(DataConfig(made_clips=4)) == []


def test_without_num_frames_clips_are_sorted_by_the_frames_that_they_hold(tmp_path: Path) -> None:
    video: dict[str, object] = {"bucket_strategy": "resolution_frames"}
    (free,) = from_entries(tmp_path, {"id": "a", "instance_data_dir": "c", "video": video})
    assert (free.num_frames, free.min_frames) == (121, 9)
    (from_25,) = from_entries(tmp_path, {"id": "a", "instance_data_dir": "c", "video": video | {"min_frames": 25}})
    assert (from_25.num_frames, from_25.min_frames) == (121, 25)
    (single,) = from_entries(tmp_path, {"id": "a", "instance_data_dir": "c", "video": video | {"num_frames": 49}})
    assert (single.num_frames, single.min_frames) == (49, 49)
    (spread,) = from_entries(
        tmp_path, {"id": "a", "instance_data_dir": "c", "video": video | {"num_frames": 49, "min_frames": 17}}
    )
    assert (spread.num_frames, spread.min_frames) == (49, 17)


def test_max_frames_is_compared_with_frames_as_they_are_used(tmp_path: Path) -> None:
    (found,) = from_entries(
        tmp_path, {"id": "a", "instance_data_dir": "c", "video": {"num_frames": 125, "max_frames": 121}}
    )
    assert (found.num_frames, found.max_frames) == (125, 121)
