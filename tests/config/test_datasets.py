"""From what is configured to the data sets of a run, every value settled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.config import CacheRule, Dataset, Schedule, TextRule, dataset_settings, load_config
from ltxtrain.config.data import CacheConfig, DataConfig
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.validation import ValidationConfig
from ltxtrain.errors import ConfigError, DataError
from tests.datasets import PLAIN, resolved


def from_entries(tmp_path: Path, *entries: dict[str, object], **general: object) -> tuple[Dataset, ...]:
    path = tmp_path / "backend.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return resolved(DataConfig(data_backend_config=path, **general))  # type: ignore[arg-type]


def test_a_folder_alone_takes_clips_as_long_as_they_are() -> None:
    assert resolved(DataConfig(instance_data_dir=Path("c"))) == (PLAIN,)
    short = resolved(DataConfig(instance_data_dir=Path("c"), num_frames=1, video_window="uniform"))
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
        resolved(DataConfig())
    with pytest.raises(DataError, match="no data set is left"):
        from_entries(tmp_path, {"id": "a", "instance_data_dir": "c", "disabled": True})


def test_a_list_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json: there is no such file"):
        resolved(DataConfig(data_backend_config=Path("nowhere.json")))


def test_the_same_entries_may_stand_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[[datasets]]\nid = "a"\ninstance_data_dir = "c"\nrepeats = 2\n[datasets.video]\nnum_frames = 49\n',
        encoding="utf-8",
    )
    (from_toml,) = resolved(load_config(files=[file], env={}).config.data)
    (from_json,) = from_entries(
        tmp_path, {"id": "a", "instance_data_dir": "c", "repeats": 2, "video": {"num_frames": 49}}
    )
    assert from_toml == from_json
    (tmp_path / "other.toml").write_text(file.read_text(encoding="utf-8").replace("2", "3"), encoding="utf-8")
    settings = [
        [dataset_settings(found) for found in resolved(load_config(files=[name], env={}).config.data)]
        for name in (file, tmp_path / "other.toml")
    ]
    assert settings[0] == [dataset_settings(from_json)] != settings[1]


def test_settings_for_digests_are_those_that_decide_the_result(tmp_path: Path) -> None:
    here, there = (
        dataset_settings(found) for name in "ab" for found in resolved(DataConfig(instance_data_dir=Path(name)))
    )
    assert here == there
    assert here["min_frames"] == 9


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


def entry(**keys: object) -> dict[str, object]:
    return {"id": "a", "instance_data_dir": "c", **keys}


def test_pictures_are_clips_of_one_frame(tmp_path: Path) -> None:
    (found,) = from_entries(tmp_path, entry(dataset_type="image", video={"num_frames": 49}), video_window="all")
    assert (found.kind, found.role, found.num_frames, found.min_frames) == ("image", "train", 1, 1)
    assert (found.max_frames, found.is_i2v, found.window, found.bucket_strategy) == (
        None,
        False,
        "first",
        "aspect_ratio",
    )


def test_an_eval_set_stands_beside_the_train_sets_and_holds_what_they_hold(tmp_path: Path) -> None:
    held_out: dict[str, object] = {
        "id": "e",
        "instance_data_dir": "d",
        "dataset_type": "eval",
        "repeats": 5,
        "probability": 0.1,
        "start_epoch": 3,
        "is_regularisation_data": True,
        "timestep_sampling_offset": 1,
        "crop": True,
    }
    train, measured = from_entries(tmp_path, entry(), held_out)
    assert (train.role, measured.role, measured.kind, measured.num_frames) == ("train", "eval", "video", 121)
    assert (measured.repeats, measured.schedule, measured.timestep_offset) == (0, Schedule(), 0)
    assert not measured.regularisation and not measured.cache.redrawn
    _, still = from_entries(tmp_path, entry(dataset_type="image"), held_out)
    assert (still.kind, still.num_frames, still.is_i2v) == ("image", 1, False)
    kinds = [found.kind for found in from_entries(tmp_path, entry(dataset_type="image"), entry(id="b"), held_out)]
    assert kinds == ["image", "video", "video"]


def test_the_eval_set_that_is_to_be_measured_is_one() -> None:
    data = DataConfig(datasets=(DatasetEntry(**entry()), DatasetEntry(**entry(id="e", dataset_type="eval"))))
    assert len(resolved(data, validation=ValidationConfig(eval_dataset_id="e"))) == 2
    for wrong in ("a", "x"):
        with pytest.raises(ConfigError, match=rf"eval_dataset_id: {wrong} is no eval set \(there is e\)"):
            resolved(data, validation=ValidationConfig(eval_dataset_id=wrong))
    with pytest.raises(ConfigError, match=r"eval_dataset_id: e is no eval set \(add an entry of dataset_type eval\)"):
        resolved(DataConfig(instance_data_dir=Path("c")), validation=ValidationConfig(eval_dataset_id="e"))


def test_general_sizes_are_no_fault_where_every_entry_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'resolution_type = "area"\n[[datasets]]\nid = "a"\ninstance_data_dir = "c"\nresolution = 0.5\n',
        encoding="utf-8",
    )
    (found,) = resolved(load_config(files=[path], env={}).config.data)
    assert (found.resolution, found.resolution_type) == (0.5, "area")


def test_when_a_data_set_is_drawn_from(tmp_path: Path) -> None:
    later = entry(
        id="b",
        probability=0.5,
        start_epoch=2,
        start_step=9,
        end_epoch=4,
        end_step="90",
        disable_after_epoch_step=50,
    )
    plain, found = from_entries(tmp_path, entry(start_epoch=0, end_epoch=0, end_step=-1), later)
    assert plain.schedule == Schedule()
    assert found.schedule == Schedule(0.5, 2, 9, 4, 90, fade_out_step=50)
    _, even = from_entries(tmp_path, entry(), later, data_backend_sampling="uniform")
    assert even.schedule.fade_out_step is None


@pytest.mark.parametrize("first", [{"start_epoch": 1, "start_step": 1}, {"end_step": 1}, {"probability": 0.001}])
def test_one_data_set_is_drawn_from_in_the_first_step(tmp_path: Path, first: dict[str, object]) -> None:
    assert from_entries(tmp_path, entry(**first), entry(id="b", start_step=2))
    with pytest.raises(ConfigError, match="in the first step"):
        from_entries(tmp_path, entry(**{**first, "probability": 0}), entry(id="b", start_step=2))


def test_sizes_come_from_the_entry_and_from_the_general_options(tmp_path: Path) -> None:
    general = {"maximum_image_size": 1024, "target_downsample_size": 768}
    (plain,) = from_entries(tmp_path, entry(), **general)
    (own,) = from_entries(tmp_path, entry(target_downsample_size=640, resolution_type="pixel"), **general)
    assert (plain.maximum_image_size, plain.target_downsample_size) == (1024, 768)
    assert (own.maximum_image_size, own.target_downsample_size) == (1024, 640)
    assert resolved(DataConfig(instance_data_dir=Path("c"), **general)) == (
        replace(PLAIN, maximum_image_size=1024, target_downsample_size=768),
    )


def test_ratios_have_weights_that_sum_to_one(tmp_path: Path) -> None:
    cut = entry(crop=True, crop_aspect="random", max_upscale_threshold=0.2, crop_aspect_buckets=[1, 1.5, "0.75", 2])
    (even,) = from_entries(tmp_path, cut)
    assert even.aspects == ((1, 0.25), (1.5, 0.25), (0.75, 0.25), (2, 0.25))
    assert even.max_upscale_threshold == 0.2
    weighted = [{"aspect": 1, "weight": 0.25}, {"aspect": 1.78, "weight": 0.75}]
    (found,) = from_entries(tmp_path, entry(crop=True, crop_aspect="closest", crop_aspect_buckets=weighted))
    assert found.aspects == ((1, 0.25), (1.78, 0.75))
    for idle in ({"crop": False}, {"crop_aspect": "preserve"}):
        (unused,) = from_entries(tmp_path, {**cut, **idle})
        assert (unused.aspects, unused.max_upscale_threshold) == ((), None)


def test_first_frames_may_be_asked_for_as_conditioning(tmp_path: Path) -> None:
    for written in ([{"type": "i2v_first_frame"}], {"type": "i2v_first_frame"}):
        (found,) = from_entries(tmp_path, entry(conditioning=written))
        assert found.is_i2v
    (without,) = from_entries(tmp_path, entry(video={"is_i2v": False}))
    assert not without.is_i2v


def test_windows_and_rates_come_from_the_video_table_and_from_the_general_options(tmp_path: Path) -> None:
    general = {"video_window": "all", "video_window_stride": 24, "video_fps_policy": "as_is"}
    (found,) = from_entries(tmp_path, entry(), **general)
    assert (found.window, found.window_stride, found.fps_policy) == ("all", 24, "as_is")
    (own,) = from_entries(tmp_path, entry(video={"window_stride": 8, "fps_policy": "resample"}), **general)
    assert (own.window, own.window_stride, own.fps_policy) == ("all", 8, "resample")
    (first,) = from_entries(tmp_path, entry(video={"window": "first"}), **general)
    assert (first.window, first.window_stride) == ("first", None)


def test_what_is_left_of_a_clip_is_on_its_data_set(tmp_path: Path) -> None:
    keys = {"is_regularization_data": "true", "timestep_sampling_offset": -0.5, "train_batch_size": 3}
    (found,) = from_entries(tmp_path, entry(**keys), delete_problematic_images=True)
    assert (found.regularisation, found.timestep_offset, found.batch_size) == (True, -0.5, 3)
    assert found.quarantine
    (own,) = from_entries(tmp_path, entry(delete_problematic_images=False), delete_problematic_images=True)
    assert not own.quarantine


CACHES: list[tuple[dict[str, object], dict[str, object], CacheRule]] = [
    ({}, {}, CacheRule()),
    ({"vae_cache_ondemand": True}, {}, CacheRule(ondemand=True)),
    ({}, {"vae_cache_ondemand": True}, CacheRule(ondemand=True)),
    ({"vae_cache_ondemand": False}, {"vae_cache_ondemand": True}, CacheRule()),
    ({"vae_cache_disable": True}, {}, CacheRule(ondemand=True, written=False)),
    ({"skip_file_discovery": "vae"}, {}, CacheRule(ondemand=True)),
    ({"skip_file_discovery": "text metadata"}, {}, CacheRule(text=TextRule(ondemand=True))),
    ({"scan_for_errors": True, "vae_batch_size": 4}, {"vae_batch_size": 2}, CacheRule(scanned=True, batch_size=4)),
    ({}, {"vae_batch_size": 2, "text_encoder_batch_size": 8}, CacheRule(batch_size=2, text=TextRule(batch_size=8))),
    ({}, {"text_cache_disable": True}, CacheRule(text=TextRule(ondemand=True, written=False))),
    ({"text_cache_disable": False}, {"text_cache_disable": True}, CacheRule()),
    ({"vae_cache_clear_each_epoch": True}, {}, CacheRule(redrawn=True)),
    ({"crop": True}, {}, CacheRule(redrawn=True)),
    ({"crop": True, "vae_cache_clear_each_epoch": False}, {}, CacheRule()),
    ({"crop": True, "crop_style": "center"}, {}, CacheRule()),
]


@pytest.mark.parametrize(("keys", "general", "expected"), CACHES)
def test_how_a_data_set_is_cached(keys: dict[str, object], general: dict[str, object], expected: CacheRule) -> None:
    data = DataConfig(datasets=(DatasetEntry(**entry(**keys)),))
    (found,) = resolved(data, CacheConfig(**general))
    assert found.cache == expected


def test_general_searches_are_skipped_in_every_data_set(tmp_path: Path) -> None:
    first, second = from_entries(tmp_path, entry(), entry(id="b"), skip_file_discovery="vae,text")
    assert first.cache == second.cache == CacheRule(ondemand=True, text=TextRule(ondemand=True))


def test_a_store_of_prompts_decides_for_the_data_sets_that_use_it(tmp_path: Path) -> None:
    plain = {"id": "t", "dataset_type": "text_embeds", "text_encoder_batch_size": 2, "caption_filter_list": ["old"]}
    default = {"id": "u", "dataset_type": "text_embeds", "default": True, "type": "memory"}
    own = entry(id="b", text_embeds="t", text_encoder_batch_size=7, caption_filter_list=["new"])
    first, second, third = from_entries(tmp_path, entry(), own, entry(id="c", text_embeds="t"), plain, default)
    assert first.cache.text == TextRule(ondemand=True, written=False)
    assert (second.cache.text, second.captions.filters) == (TextRule(batch_size=7), ("new",))
    assert (third.cache.text, third.captions.filters) == (TextRule(batch_size=2), ("old",))
    assert first.captions.filters == ()
    (alone,) = from_entries(tmp_path, entry(), plain)
    assert alone.captions.filters == ("old",)
