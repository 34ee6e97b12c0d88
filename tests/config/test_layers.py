"""Later layers win, and every value remembers where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.config.catalogue import options
from ltxtrain.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_layer_everything_is_a_default() -> None:
    loaded = load_config(env={})
    assert set(loaded.sources) == set(options())
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.config.adapter.lora_rank == 16
    assert loaded.presets == () and loaded.notices == ()


def test_each_layer_is_stronger_than_those_before_it(tmp_path: Path) -> None:
    first = write(tmp_path, "first.toml", "lora_rank = 20\n")
    second = write(tmp_path, "second.json", '{\n  "seed": 3,\n  "lora_rank": 21\n}')
    seen = []
    for files, env, flags in (
        ([], {}, {}),
        ([first], {}, {}),
        ([first, second], {}, {}),
        ([first, second], {"LTXTRAIN_LORA_RANK": "22"}, {}),
        ([first, second], {"LTXTRAIN_LORA_RANK": "22"}, {"lora_rank": "23"}),
    ):
        loaded = load_config(["smoke"], files, env=env, flags=flags)
        seen.append((loaded.config.adapter.lora_rank, loaded.sources["lora_rank"]))
    assert seen == [
        (8, "preset smoke"),
        (20, f"{first}:1"),
        (21, f"{second}:3"),
        (22, "LTXTRAIN_LORA_RANK"),
        (23, "--lora-rank"),
    ]


def test_a_later_preset_wins_and_a_base_is_weaker_than_what_extends_it() -> None:
    stacked = load_config(["smoke", "rocm-mi300x"], env={})
    assert stacked.config.data.train_batch_size == 8
    assert stacked.sources["train_batch_size"] == "preset rocm-mi300x"
    assert stacked.sources["num_frames"] == "preset smoke"
    assert stacked.presets == ("smoke", "rocm-mi300x")
    extended = load_config(["nf4-stable"], env={}, set_aside_unbuilt=True)
    assert extended.config.data.train_batch_size == 4
    assert extended.sources["train_batch_size"] == "preset nf4-stable"
    assert extended.sources["resolution"] == "preset low-vram"


def test_a_file_may_be_flat_or_in_sections_or_both(tmp_path: Path) -> None:
    mixed = write(tmp_path, "mixed.toml", "seed = 7\n\n[adapter]\nlora_rank = 4\n\n[data]\nresolution = 512\n")
    loaded = load_config(files=[mixed], env={})
    assert (loaded.config.model.seed, loaded.config.adapter.lora_rank, loaded.config.data.resolution) == (7, 4, 512)
    assert loaded.sources["lora_rank"] == f"{mixed}:4"
    assert loaded.sources["resolution"] == f"{mixed}:7"
    sectioned = write(tmp_path, "sections.json", '{"adapter":\n {"lora_rank": 5}}')
    assert load_config(files=[sectioned], env={}).sources["lora_rank"] == f"{sectioned}:2"


def test_short_names_stand_for_the_three_folders_beside_sections_of_the_same_name(tmp_path: Path) -> None:
    file = write(tmp_path, "short.json", '{"data": "clips", "cache": "c", "output": "o"}')
    config = load_config(files=[file], env={}).config
    assert config.data.instance_data_dir == Path("clips")
    assert config.cache.cache_dir == Path("c")
    assert config.checkpoint.output_dir == Path("o")


@pytest.mark.parametrize("word", ["false", "False", " no ", "off", "0", "n", False, 0])
def test_every_spelling_of_false_means_false(tmp_path: Path, word: object) -> None:
    file = write(tmp_path, "c.json", json.dumps({"gradient_checkpointing": word}))
    assert load_config(files=[file], env={}).config.memory.gradient_checkpointing is False


@pytest.mark.parametrize("word", ["true", "TRUE", "yes", "on", "1", "y", True, 1])
def test_every_spelling_of_true_means_true(tmp_path: Path, word: object) -> None:
    file = write(tmp_path, "c.json", json.dumps({"strict_epoch_limit": word}))
    assert load_config(files=[file], env={}).config.schedule.strict_epoch_limit is True


def test_null_and_empty_texts_leave_a_value_as_it_was(tmp_path: Path) -> None:
    file = write(tmp_path, "c.json", '{"lora_rank": null, "validation_prompt": "", "max_train_steps": " "}')
    loaded = load_config(["smoke"], [file], env={})
    assert loaded.config.adapter.lora_rank == 8
    assert loaded.config.schedule.max_train_steps == 30
    assert loaded.sources["validation_prompt"] == "preset smoke"


def test_an_empty_text_is_a_value_where_text_is_always_there() -> None:
    loaded = load_config(env={}, flags={"resume_from_checkpoint": "", "validation_negative_prompt": ""})
    assert loaded.config.checkpoint.resume_from_checkpoint == ""
    assert loaded.config.validation.validation_negative_prompt == ""


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ('{"lora_rank": "4"}', "lora_rank", 4),
        ('{"lora_rank": 4.0}', "lora_rank", 4),
        ('{"learning_rate": "5e-5"}', "learning_rate", 5e-5),
        ('{"learning_rate": 1}', "learning_rate", 1.0),
        ('{"max_train_steps": 1e5}', "max_train_steps", 100_000),
        ('{"aspect_bucket_alignment": "64"}', "aspect_bucket_alignment", 64),
        ('{"validation_resolution": 512}', "validation_resolution", "512"),
        ('{"peft_lora_target_modules": ["to_q", "to_k"]}', "peft_lora_target_modules", ("to_q", "to_k")),
        ('{"peft_lora_target_modules": "[\\"to_q\\"]"}', "peft_lora_target_modules", ("to_q",)),
        ('{"peft_lora_target_modules": "to_q, to_k"}', "peft_lora_target_modules", ("to_q", "to_k")),
        ('{"peft_lora_target_modules": "my/targets.json"}', "peft_lora_target_modules", Path("my/targets.json")),
        ('{"instance_data_dir": "my clips"}', "instance_data_dir", Path("my clips")),
    ],
)
def test_values_take_the_type_of_their_option(tmp_path: Path, written: str, name: str, value: object) -> None:
    loaded = load_config(files=[write(tmp_path, "c.json", written)], env={})
    found = getattr(getattr(loaded.config, options()[name].section), name)
    assert found == value and type(found) is type(value)


def test_old_names_are_read_and_told(tmp_path: Path) -> None:
    old = {"save_total_limit": 2, "validation_steps": 50, "--checkpointing_steps": 60}
    file = write(tmp_path, "c.json", json.dumps(old | {"lr_scheduler": "cosine_with_warmup"}))
    loaded = load_config(files=[file], env={})
    assert loaded.config.checkpoint.checkpoints_total_limit == 2
    assert loaded.config.validation.validation_step_interval == 50
    assert loaded.config.checkpoint.checkpoint_step_interval == 60
    assert loaded.config.schedule.lr_scheduler == "cosine"
    assert sum("is an old name" in notice for notice in loaded.notices) == 4


def test_ignore_final_epochs_is_the_opposite_of_strict_epoch_limit_and_yields_to_it(tmp_path: Path) -> None:
    only = write(tmp_path, "a.json", '{"ignore_final_epochs": false}')
    assert load_config(files=[only], env={}).config.schedule.strict_epoch_limit is True
    for order in (
        '{"ignore_final_epochs": true, "strict_epoch_limit": true}',
        '{"strict_epoch_limit": true, "ignore_final_epochs": true}',
    ):
        assert load_config(files=[write(tmp_path, "b.json", order)], env={}).config.schedule.strict_epoch_limit is True


def test_keys_that_the_guides_pass_over_are_told_to_have_no_effect(tmp_path: Path) -> None:
    file = write(tmp_path, "c.json", '{"aspect_ratio_bucketing": true, "__active_tab__": "basic", "repeats": 3}')
    loaded = load_config(files=[file], env={})
    assert sum("has no effect" in notice for notice in loaded.notices) == 3
    assert all(notice.startswith(f"{file}:1: ") for notice in loaded.notices)


def test_constant_with_a_warmup_is_read_as_documented() -> None:
    loaded = load_config(env={}, flags={"lr_scheduler": "constant", "lr_warmup_steps": "10"})
    assert loaded.config.schedule.lr_scheduler == "constant_with_warmup"
    assert any("constant_with_warmup" in notice for notice in loaded.notices)


def test_references_to_the_environment_are_filled_in_and_never_shown(tmp_path: Path) -> None:
    file = write(tmp_path, "c.json", '{"run_name": "{env:NAME}-1", "lora_rank": "{env:RANK}"}')
    loaded = load_config(files=[file], env={"NAME": "cats", "RANK": "12"})
    assert (loaded.config.checkpoint.run_name, loaded.config.adapter.lora_rank) == ("cats-1", 12)
    with pytest.raises(ConfigError) as caught:
        load_config(files=[file], env={"NAME": "secret/thing", "RANK": "9999"})
    assert "secret" not in str(caught.value) and "9999" not in str(caught.value)
    assert len(caught.value.faults) == 2


def test_the_flavour_names_the_model_unless_one_is_named() -> None:
    old = load_config(env={}, flags={"model_flavour": "0.9.0"})
    assert old.config.model.pretrained_model_name_or_path == "Lightricks/LTX-Video"
    assert old.sources["pretrained_model_name_or_path"] == "model_flavour, --model-flavour"
    named = load_config(env={}, flags={"model_flavour": "0.9.0", "pretrained_model_name_or_path": "mine"})
    assert named.config.model.pretrained_model_name_or_path == "mine"


def test_data_named_by_a_stronger_layer_replaces_data_named_by_a_weaker_one(tmp_path: Path) -> None:
    file = write(tmp_path, "c.json", '{"data_backend_config": "backend.json"}')
    loaded = load_config(files=[file], env={}, flags={"data": "clips"})
    assert loaded.config.data.data_backend_config is None
    assert loaded.config.data.instance_data_dir == Path("clips")
    assert loaded.sources["data_backend_config"] == "default"
    assert f"instance_data_dir replaces data_backend_config of {file}:1" in loaded.notices


def test_data_that_is_named_twice_is_told_in_the_words_that_were_typed() -> None:
    with pytest.raises(ConfigError, match=r"data is named 2 times: --data, --data-backend-config \(keep one\)"):
        load_config(env={}, flags={"--data": "c", "--data-backend-config": "l.json"})
    with pytest.raises(ConfigError, match="data is named 2 times: instance_data_dir, data_backend_config"):
        load_config(env={"LTXTRAIN_INSTANCE_DATA_DIR": "c", "LTXTRAIN_DATA_BACKEND_CONFIG": "l.json"})


def test_what_is_only_a_flag_is_said_to_be_one_in_the_environment_too() -> None:
    with pytest.raises(ConfigError, match="it is a flag: --preset smoke"):
        load_config(env={"LTXTRAIN_PRESET": "smoke"})


def test_a_length_named_by_a_stronger_layer_replaces_the_other_kind_of_length() -> None:
    loaded = load_config(["smoke"], env={}, flags={"num_train_epochs": "3"})
    assert (loaded.config.schedule.max_train_steps, loaded.config.schedule.num_train_epochs) == (0, 3)


def test_an_object_replaces_an_object_and_is_not_merged_into_it(tmp_path: Path) -> None:
    weak = write(tmp_path, "weak.json", '{"webhook_config": {"webhook_type": "raw", "callback_url": "http://a/"}}')
    strong = write(tmp_path, "strong.json", '{"webhook_config": {"webhook_type": "discord"}}')
    with pytest.raises(ConfigError) as caught:
        load_config(files=[weak, strong], env={})
    assert "{'webhook_type': 'discord'}" in str(caught.value)


def test_a_list_of_data_sets_is_found_beside_the_configuration_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "mine", "backend.json", '[{"id": "a", "instance_data_dir": "clips"}]')
    file = write(tmp_path / "mine", "config.json", '{"data_backend_config": "config/ltxvideo/backend.json"}')
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_config(files=[file], env={})
    assert loaded.config.data.data_backend_config == tmp_path / "mine" / "backend.json"
    assert any("beside the configuration" in notice for notice in loaded.notices)


def test_what_is_set_aside_goes_back_to_its_default_and_says_so(tmp_path: Path) -> None:
    file = write(tmp_path, "c.json", '{"lora_type": "lycoris", "use_ema": true, "ema_decay": 0.9, "lora_rank": 4}')
    loaded = load_config(files=[file], env={}, set_aside_unbuilt=True)
    assert loaded.config.adapter.lora_type == "standard"
    assert loaded.config.ema.use_ema is False
    assert loaded.config.adapter.lora_rank == 4
    assert f"{file}:1: lora_type: 'lycoris' is not built yet: set aside" in loaded.notices
    assert any("ema_decay has no effect while use_ema is false" in notice for notice in loaded.notices)
    assert loaded.sources["lora_type"] == f"default, instead of {file}:1"


def test_an_option_without_its_master_is_told_to_have_no_effect() -> None:
    loaded = load_config(env={}, flags={"crepa_lambda": "0.4", "hub_model_id": "mine"})
    assert "crepa_lambda has no effect while crepa_enabled is false" in loaded.notices
    assert "hub_model_id has no effect while push_to_hub is false" in loaded.notices


def test_faults_of_all_layers_are_told_in_one_pass(tmp_path: Path) -> None:
    file = write(tmp_path, "c.json", '{"lora_rnk": 1}')
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as caught:
        load_config(["smok"], [file, missing], env={"LTXTRAIN_SEAD": "1"}, flags={"lora_rank": "0"})
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.faults) == 5
    assert "did you mean smoke" in lines[0]
    assert lines[1] == f"{missing}: there is no such file"
    assert lines[2] == f"{file}:1: lora_rnk: is not an option (did you mean lora_rank?)"
    assert lines[3] == "LTXTRAIN_SEAD: sead: is not an option (did you mean seed?)"
    assert lines[4] == "--lora-rank: 0 is out of range: at least 1"


def test_what_conflicts_only_through_unbuilt_options_goes_on_without_them() -> None:
    flags = {"base_model_precision": "nf4-bnb", "use_dora": True}
    with pytest.raises(ConfigError, match=r"DoRA measures the weights of a base model that is not quantised"):
        load_config(env={}, flags=flags)
    loaded = load_config(env={}, flags=flags, set_aside_unbuilt=True)
    assert (loaded.config.precision.base_model_precision, loaded.config.adapter.use_dora) == ("nf4-bnb", False)
    with pytest.raises(ConfigError, match="exclude each other"):
        load_config(
            env={}, flags={"flow_schedule_shift": "3", "flow_schedule_auto_shift": True}, set_aside_unbuilt=True
        )
