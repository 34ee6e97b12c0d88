"""What is set and does nothing is told: no option and no key of a data set is passed over in silence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.config import Dataset, load_config
from ltxtrain.config.catalogue import Option, fields_of, options
from ltxtrain.config.data import DataConfig
from ltxtrain.config.entries import DatasetEntry, HubSettings, RowFilter, ShuffleSettings, TableSettings
from ltxtrain.config.idle import IDLE_WHILE
from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.config.read_entries import entry_options, video_options
from ltxtrain.config.validation import ValidationConfig
from ltxtrain.errors import ConfigError, DataError
from ltxtrain.learn.draws import Place
from ltxtrain.learn.schedule import SCHEDULES, Curve, learning_rate
from ltxtrain.learn.sigmas import draw_sigma
from tests.datasets import noticed, resolved

BASE: dict[str, object] = {"id": "a", "instance_data_dir": "c", "crop": True, "instance_prompt": "TOK"}
IMAGE = {**BASE, "dataset_type": "image"}
EVAL = {**BASE, "id": "e", "dataset_type": "eval"}
FETCHED = {**BASE, "type": "huggingface", "dataset_name": "u/d"}
CSV = {**BASE, "type": "csv", "csv_file": "t.csv"}
STORE: dict[str, object] = {"id": "t", "dataset_type": "text_embeds"}
OTHERS: dict[str, object] = {
    "instance_data_dir": "d",
    "resolution_type": "pixel",
    "crop_style": "corner",
    "vae_cache_clear_each_epoch": False,
    "skip_file_discovery": "vae,text,metadata",
    "csv_file": "x.csv",
    "caption_filter_list": ("blurry",),
    "caption_shuffle": {"count": 2},
    "parquet": {"path": "t.parquet"},
    "jsonl": {"path": "t.jsonl"},
    "huggingface": {"revision": "v2"},
    "filter_func": {"min_width": 9},
    "quality_thresholds": {"clip": 0.3},
}
"""Values for keys whose kind alone does not tell of a good one that makes a difference."""


def other_value(option: Option, now: object) -> Any:
    """A good value of ``option`` that is not ``now``."""
    if option.name in OTHERS:
        return OTHERS[option.name]
    for choice in reversed(option.choices):
        if choice not in (now, option.default):
            return choice
    if option.kinds == {"bool"}:
        return not (option.default if now is None else now)
    for kind, value in (
        ("float", 0.5),
        ("int", 63),
        ("text", "x"),
        ("path", "x"),
        ("object", {"x": 1}),
        ("list", (0.5,)),
    ):
        if kind in option.kinds:
            return value
    raise AssertionError(option.name)


def outcome(*entries: dict[str, Any]) -> tuple[tuple[Dataset, ...] | str, str]:
    """The data sets, or the faults; and the notices."""
    data = DataConfig(datasets=tuple(DatasetEntry(**entry) for entry in entries))
    try:
        return resolved(data), "\n".join(noticed(data))
    except (ConfigError, DataError) as error:
        return str(error), ""


def assert_not_silent(key: str, before: tuple[object, str], after: tuple[object, str]) -> None:
    found, notices = after
    if isinstance(found, str):
        assert key in found or key in ("disabled", "disable"), found
    else:
        assert found != before[0] or key in notices, f"{key} is passed over in silence"


ENTRIES = {"video": BASE, "image": IMAGE, "eval": EVAL, "fetched": FETCHED, "csv": CSV}
KEYS = [key for key in entry_options() if key != "id"]


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("key", [key for key in KEYS if key != "video"])
def test_each_key_of_a_data_set_is_used_or_refused_or_told(key: str, kind: str) -> None:
    entry = ENTRIES[kind]
    beside = [BASE] if kind == "eval" else []
    value = other_value(entry_options()[key], entry.get(key))
    assert_not_silent(key, outcome(*beside, entry), outcome(*beside, {**entry, key: value}))


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("dataset_type", "disabled", "disable")])
def test_each_key_of_a_text_store_is_used_or_refused_or_told(key: str) -> None:
    value = {"num_frames": 9} if key == "video" else other_value(entry_options()[key], None)
    if key == "vae_cache_clear_each_epoch":
        value = True
    before, after = outcome(BASE, STORE), outcome(BASE, {**STORE, key: value})
    if key == "default":
        assert after == before, "there is one store, and it is the default one"
    else:
        assert_not_silent(key, before, after)


FRAMES = {"num_frames": 49, "min_frames": 129, "max_frames": 200}


@pytest.mark.parametrize("key", video_options())
def test_each_key_of_video_reaches_the_plan(key: str) -> None:
    window = {"window": "all"} if key == "window_stride" else {}
    value = FRAMES.get(key) or other_value(video_options()[key], None)
    before, after = outcome({**BASE, "video": window}), outcome({**BASE, "video": {**window, key: value}})
    assert not isinstance(after[0], str) and before[0] != after[0]


def test_a_picture_has_no_video_table_and_that_is_told() -> None:
    found, notices = outcome({**IMAGE, "video": {"num_frames": 9}})
    assert found == outcome(IMAGE)[0] and "video has no effect: a picture is one frame" in notices


TABLES = {
    "caption_shuffle": (ShuffleSettings, {"enable": True}),
    "parquet": (TableSettings, {"path": "t.parquet"}),
    "jsonl": (TableSettings, {"path": "t.jsonl"}),
    "huggingface": (HubSettings, {}),
    "filter_func": (RowFilter, {}),
}


@pytest.mark.parametrize(("table", "key"), [(table, key) for table in TABLES for key in TABLES[table][0].model_fields])
def test_each_key_inside_of_a_table_reaches_the_plan_or_is_refused_or_told(table: str, key: str) -> None:
    model, given = TABLES[table]
    entry = FETCHED if model in (HubSettings, RowFilter) else BASE
    if key == "dataset_name":
        entry = {name: value for name, value in entry.items() if name != "dataset_name"}
    value = other_value(fields_of(model, table)[key], given.get(key))
    if key == "path":
        value = given["path"].replace("t.", "u.")
    if key == "image_column":
        entry = {**entry, "dataset_type": "image"}
    assert_not_silent(key, outcome({**entry, table: given}), outcome({**entry, table: {**given, key: value}}))


def test_keys_that_say_what_holds_anyway_are_passed_over() -> None:
    quiet = {"hash_filenames": True, "scan_for_errors": False, "vae_batch_size": 1, "disabled": False, "type": "local"}
    assert outcome({**BASE, **quiet}) == outcome(BASE)
    assert outcome({**BASE, "crop": False})[1] == ""


def test_cuts_that_are_drawn_anew_without_being_asked_for_are_told() -> None:
    found, notices = outcome(BASE)
    assert not isinstance(found, str) and found[0].cache.redrawn
    assert notices.splitlines() == [
        "data set a: its random cuts are drawn anew in each epoch, so its clips are encoded anew too; "
        "vae_cache_clear_each_epoch false keeps them"
    ]
    for quiet in ({"vae_cache_clear_each_epoch": True}, {"vae_cache_clear_each_epoch": False}, {"crop": False}):
        assert outcome({**BASE, **quiet})[1] == ""


def rates(name: str, changed: dict[str, float]) -> list[float]:
    settings = {"end": 1e-6, "warmup": 5, "power": 1.0, "cycles": 1} | changed
    curve = Curve(base=1e-3, total=50, **settings)  # type: ignore[arg-type]
    return [learning_rate(name, curve, step) for step in range(60)]


@pytest.mark.parametrize(
    ("name", "option"), list(itertools.product(SCHEDULES, ("lr_end", "lr_power", "lr_num_cycles")))
)
def test_settings_that_a_schedule_does_not_use_are_told_and_no_others(name: str, option: str) -> None:
    part = {"lr_end": ("end", 1e-4), "lr_power": ("power", 3.0), "lr_num_cycles": ("cycles", 3)}[option]
    used = rates(name, {}) != rates(name, dict([part]))
    loaded = load_config(env={}, flags={"lr_scheduler": name, option: "3" if option != "lr_end" else "1e-5"})
    told = f"{option} has no effect while lr_scheduler is {name}"
    assert (told in loaded.notices) is not used


def test_settings_of_the_warm_up_are_used_by_every_schedule_that_can_be_loaded_with_them() -> None:
    for name in SCHEDULES:
        loaded = load_config(env={}, flags={"lr_scheduler": name, "lr_warmup_steps": "9"}).config.schedule
        assert rates(loaded.lr_scheduler, {}) != rates(loaded.lr_scheduler, {"warmup": 9})


def test_several_settings_without_effect_are_one_notice() -> None:
    flags = {"lr_scheduler": "linear", "lr_end": "1e-3", "lr_power": "3", "lr_num_cycles": "5"}
    notices = load_config(env={}, flags=flags).notices
    assert notices == ("lr_end, lr_power, lr_num_cycles have no effect while lr_scheduler is linear",)


BY_VALUE = [(master, values[0], name) for master, values, under in IDLE_WHILE for name in under]


@pytest.mark.parametrize(("master", "value", "name"), BY_VALUE)
def test_a_value_that_makes_another_option_idle_is_told(master: str, value: object, name: str) -> None:
    option = options()[name]
    flags = {name: "1e-5" if name == "lr_end" else other_value(option, option.default)}
    loaded = load_config(env={}, flags=flags if value is None else {**flags, master: value})
    assert [notice for notice in loaded.notices if name in notice and f"no effect while {master} is" in notice]


@pytest.mark.parametrize("part", ["base_model_precision", "text_encoder_1_precision"])
def test_where_to_quantise_is_told_to_do_nothing_where_nothing_is_quantised(part: str) -> None:
    flags = {"quantize_via": "accelerator"}
    assert load_config(env={}, flags=flags).notices == ("quantize_via has no effect while nothing is quantised",)
    assert not [notice for notice in load_config(env={}, flags={**flags, part: "nf4-bnb"}).notices if "via" in notice]


def test_captions_that_are_the_prompt_alone_are_neither_shuffled_nor_filtered_and_that_is_told() -> None:
    shaped = {**BASE, "caption_filter_list": ("x",), "caption_shuffle": {"enable": True}}
    told = "caption_shuffle, caption_filter_list have no effect: every caption is instance_prompt alone"
    for alone in ({"only_instance_prompt": True}, {"caption_strategy": "instanceprompt"}):
        assert told in outcome({**shaped, **alone})[1]
    assert told not in outcome(shaped)[1]


def test_how_eval_sets_are_measured_is_told_where_they_never_are() -> None:
    flags = {"num_eval_images": "2", "eval_timesteps": "9"}
    assert load_config(env={}, flags=flags).notices == (), "without an interval: before the first step and at the end"
    told = "num_eval_images, eval_timesteps have no effect while eval_loss_disable is true"
    assert load_config(env={}, flags=flags | {"eval_loss_disable": "true"}).notices == (told,)


def measured(*entries: dict[str, Any], **settings: Any) -> tuple[str, ...]:
    data = DataConfig(datasets=tuple(DatasetEntry(**entry) for entry in entries))
    return noticed(data, ValidationConfig(**settings))


def test_measuring_without_an_eval_set_and_eval_sets_without_measuring_are_told() -> None:
    plain, held_out = {**BASE, "crop": False}, {**EVAL, "crop": False}
    assert measured(plain) == measured(plain, held_out, eval_epoch_interval=0.5) == measured(plain, held_out) == ()
    assert measured(plain, eval_steps_interval=5) == (
        "eval_steps_interval has no effect: there is no data set of dataset_type eval",
    )
    assert "num_eval_images has no effect" in measured(plain, num_eval_images=2)[0]
    two = (plain, held_out, {**held_out, "id": "f"})
    assert measured(*two, eval_dataset_id="f") == ("eval set e is never measured: eval_dataset_id is f",)
    assert "eval_loss_disable" in measured(plain, held_out, eval_steps_interval=5, eval_loss_disable=True)[0]


def test_fading_out_is_told_to_do_nothing_where_data_sets_are_drawn_evenly() -> None:
    entries = (DatasetEntry(**{**BASE, "crop": False, "disable_after_epoch_step": 9}),)
    told = "data set a: disable_after_epoch_step has no effect: data_backend_sampling is uniform"
    assert noticed(DataConfig(datasets=entries, data_backend_sampling="uniform")) == (told,)
    assert noticed(DataConfig(datasets=entries)) == ()


NOISE = {"timestep_sampling_offset": 1.0}
FIRST_FRAME: dict[str, Any] = {"conditioning": ({"type": "i2v_first_frame"},)}


@pytest.mark.parametrize(
    ("keys", "objective", "told"),
    [
        (NOISE, {"flow_use_uniform_schedule": True}, "timestep_sampling_offset has no effect: flow_use_uniform"),
        (NOISE, {"flow_use_beta_schedule": True}, "timestep_sampling_offset has no effect: flow_use_beta"),
        (FIRST_FRAME, {"ltx_train_mode": "t2v"}, "conditioning has no effect: ltx_train_mode is t2v"),
        (FIRST_FRAME, {"ltx_i2v_prob": 0.0}, "conditioning has no effect: ltx_i2v_prob is 0"),
        ({"video": {"is_i2v": False}}, {"ltx_train_mode": "t2v"}, "video.is_i2v has no effect: ltx_train_mode is t2v"),
    ],
)
def test_keys_of_draws_that_the_objective_does_not_make_are_told(
    keys: dict[str, Any], objective: dict[str, Any], told: str
) -> None:
    data = DataConfig(datasets=(DatasetEntry(**{**BASE, "crop": False, **keys}),))
    assert noticed(data) == ()
    (notice,) = noticed(data, None, ObjectiveConfig(**objective))
    assert told in notice


def test_the_offset_moves_the_normal_draw_alone() -> None:
    def drawn(offset: float, **objective: Any) -> float:
        return draw_sigma(Place(1, 1, 0), "a", ObjectiveConfig(**objective), 1.0, offset)

    assert drawn(0) < drawn(1)
    for schedule in ("flow_use_uniform_schedule", "flow_use_beta_schedule"):
        assert drawn(0, **{schedule: True}) == drawn(1, **{schedule: True})


def test_a_folder_named_alone_has_no_eval_set_and_that_is_told() -> None:
    data = DataConfig(instance_data_dir=Path("c"))
    assert "eval_steps_interval has no effect" in noticed(data, ValidationConfig(eval_steps_interval=5))[0]


def test_a_batch_size_under_a_budget_of_tokens_is_told() -> None:
    notices = load_config(env={}, flags={"train_batch_size": "2", "train_batch_tokens": "4480"}).notices
    assert notices == ("train_batch_size has no effect while train_batch_tokens is set",)


def test_words_of_skip_file_discovery_without_effect_are_told_alone() -> None:
    notices = load_config(env={}, flags={"skip_file_discovery": "vae, metadata"}).notices
    assert len(notices) == 1 and notices[0].startswith("skip_file_discovery metadata has no effect: facts of clips")


def test_small_buckets_of_a_folder_named_alone_are_always_kept_and_that_is_told() -> None:
    notices = load_config(env={}, flags={"data": "c", "disable_bucket_pruning": True}).notices
    told = "disable_bucket_pruning has no effect for a folder named alone: its small buckets are always kept, as short"
    assert any(told in notice for notice in notices)


def test_a_flavour_beside_a_named_model_is_told() -> None:
    flags = {"model_flavour": "0.9.0", "pretrained_model_name_or_path": "mine"}
    assert any("model_flavour has no effect" in notice for notice in load_config(env={}, flags=flags).notices)
    for quiet in ({"model_flavour": "0.9.0"}, {"pretrained_model_name_or_path": "mine", "model_flavour": "0.9.5"}):
        assert load_config(env={}, flags=quiet).notices == ()


@pytest.mark.parametrize("guidance", ["1", "0.5", "3"])
def test_what_shapes_guidance_is_told_where_there_is_none(guidance: str) -> None:
    flags = {"validation_guidance": guidance, "validation_negative_prompt": "x", "validation_guidance_rescale": "0.5"}
    notices = load_config(env={}, flags=flags).notices
    told = f"{', '.join(list(flags)[1:])} have no effect while validation_guidance is {guidance}"
    assert notices == (() if guidance == "3" else (told,))
