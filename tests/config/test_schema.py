"""The schema itself: every option is typed, described, named once, and known to the list of what is not built."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import ltxtrain
from ltxtrain.config import (
    CacheRule,
    CaptionRule,
    Dataset,
    HubRule,
    Schedule,
    ShuffleRule,
    TableRule,
    TextRule,
    load_config,
)
from ltxtrain.config.attentions import ATTENTIONS
from ltxtrain.config.catalogue import options, section_names
from ltxtrain.config.conflicts import conflict_faults
from ltxtrain.config.entries import (
    DatasetEntry,
    HubSettings,
    RowFilter,
    ShuffleSettings,
    TableSettings,
    VideoSettings,
)
from ltxtrain.config.entry_catalogue import GENERAL, dotted, entry_tables
from ltxtrain.config.formats import FORMATS
from ltxtrain.config.idle import GUIDED, IDLE_WHILE, NO_EFFECT, SMALL_BUCKETS, WITHOUT_MASTER
from ltxtrain.config.idle_entries import ENTRY_NO_EFFECT, TEXT_STORE
from ltxtrain.config.json_schema import json_schema
from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.config.read_entries import entry_options, video_options
from ltxtrain.config.refusals import KEYS
from ltxtrain.config.renames import IGNORED, NOT_THE_NAME, RENAMED
from ltxtrain.config.resolve import MEASURING
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.secrets import is_secret_key, shown
from ltxtrain.config.unbuilt import UNBUILT
from ltxtrain.errors import ConfigError


def test_each_name_is_unique_in_the_whole_tree() -> None:
    names = [name for info in TrainConfig.model_fields.values() for name in info.annotation.model_fields]  # type: ignore[union-attr]
    assert len(names) == len(set(names)) == len(options()) >= 250


def test_each_option_has_a_description_that_is_a_sentence() -> None:
    for option in [*options().values(), *entry_options().values(), *video_options().values()]:
        assert option.description[:1].isupper() and option.description.endswith("."), option.name


def test_the_defaults_are_good_and_ask_for_nothing_that_is_not_built() -> None:
    loaded = load_config(env={})
    again = TrainConfig.model_validate_json(loaded.config.model_dump_json())
    assert again == loaded.config == TrainConfig()
    assert conflict_faults(loaded.config, loaded.sources) == []


@pytest.mark.parametrize("name", UNBUILT)
def test_the_default_of_an_unbuilt_option_is_among_its_built_values(name: str) -> None:
    assert options()[name].default in UNBUILT[name]
    assert name not in NO_EFFECT


def test_every_name_in_the_tables_is_an_option() -> None:
    under = {name for names in WITHOUT_MASTER.values() for name in names}
    assert {*UNBUILT, *NO_EFFECT, *WITHOUT_MASTER, *under, *SMALL_BUCKETS, *NOT_THE_NAME.values()} <= set(options())
    assert {name for master, _, names in IDLE_WHILE for name in (master, *names)} <= set(options())
    assert {rename.new for rename in RENAMED.values()} <= set(options())
    assert not {*RENAMED, *IGNORED, *NOT_THE_NAME} & set(options())
    assert {*KEYS, *ENTRY_NO_EFFECT, *TEXT_STORE} <= set(entry_options())
    assert {*GUIDED, *MEASURING} <= set(options())


def test_every_option_is_read_by_the_program_or_told_to_be_not_built_or_without_effect() -> None:
    package = Path(ltxtrain.__file__).parent
    told = {name for master, names in WITHOUT_MASTER.items() for name in names if master in UNBUILT}
    told |= {*UNBUILT, *NO_EFFECT, *SETTLED_IN_THE_CONFIGURATION}
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path.parent != package / "config"]
    words = set(re.findall(r"\w+", "\n".join(texts)))
    assert not set(options()) - told - words


SETTLED_IN_THE_CONFIGURATION = {
    "model_family",  # has one value
    "model_flavour",  # names the model
    "video_windows_per_clip",  # these become fields of Dataset: see the test of its fields
    "video_window",
    "video_window_stride",
    "video_fps_policy",
    "delete_problematic_images",
    "vae_batch_size",  # and these of its CacheRule
    "vae_cache_ondemand",
    "vae_cache_disable",
    "skip_file_discovery",
    "snr_gamma",  # these four are refused, with their reason
    "masked_loss_probability",
    "validation_guidance_skip_layers",
    "evaluation_type",
    "musubi_block_swap_device",  # all but main memory is refused
    "sageattention_usage",  # has one value that works with SageAttention
}


@pytest.mark.parametrize(
    "record", [Dataset, CacheRule, TextRule, CaptionRule, ShuffleRule, TableRule, HubRule, Schedule]
)
def test_every_field_of_a_settled_data_set_is_read_by_the_program(record: type) -> None:
    package = Path(ltxtrain.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path.parent != package / "config"]
    read = set(re.findall(r"\.(\w+)", "\n".join(texts)))
    assert not {field.name for field in fields(record)} - read


def test_no_option_looks_like_a_secret_and_secrets_are_never_shown() -> None:
    assert not [name for name in (*options(), *entry_options(), *video_options()) if is_secret_key(name)]
    for value in ("hf_abcdefghijkl", {"token": "x1"}, ["hf_abcdefghijkl"], "https://me:pw1@host/"):
        assert shown("run_name", value) == "(not shown)"
    assert shown("hub_token", "anything") == "(not shown)"
    assert shown("revision", "0" * 40) == repr("0" * 40)


def test_a_configuration_cannot_be_changed() -> None:
    config = TrainConfig()
    with pytest.raises(ValidationError):
        config.adapter.lora_rank = 3  # type: ignore[misc]


def test_every_key_of_a_data_set_and_of_its_tables_is_listed_once() -> None:
    listed = [dotted(key) for table in entry_tables() for key in table.keys.values()]
    assert len(listed) == len(set(listed))
    bare = {name.rpartition(".")[2] for name in listed}
    models = (DatasetEntry, VideoSettings, ShuffleSettings, TableSettings, HubSettings, RowFilter)
    assert {key for model in models for key in model.model_fields} == bare
    for table in entry_tables():
        for key in table.keys.values():
            assert key.description[:1].isupper() and key.description.endswith("."), dotted(key)


def test_what_a_key_falls_back_on_is_what_the_data_set_gets_without_the_key() -> None:
    keys = {dotted(key): key for table in entry_tables() for key in table.keys.values()}
    for key, general in GENERAL.items():
        own, option = keys[key], options()[general]
        assert own.default is None and (own.kinds, own.choices) == (option.kinds, option.choices), key


def test_the_json_schema_describes_flat_files_and_files_with_sections() -> None:
    schema = json_schema()
    assert set(options()) | set(section_names()) | set(RENAMED) == set(schema["properties"])
    assert schema["properties"]["lora_rank"] == {
        "default": 16,
        "description": options()["lora_rank"].description,
        "maximum": 256,
        "minimum": 1,
        "title": "Lora Rank",
        "type": "integer",
    }
    assert schema["additionalProperties"] is False
    referenced = set(
        TypeAdapter(list[str]).validate_python(
            [word for word in json.dumps(schema).split('"') if word[:8] == "#/$defs/"]
        )
    )
    assert {word.removeprefix("#/$defs/") for word in referenced} <= set(schema["$defs"])


NOT_HERE = {("evaluation_type", "clip"), ("optimizer_cpu_offload_method", "optim-ds")}


def test_choices_of_the_guides_are_all_accepted_by_name() -> None:
    for option in options().values():
        for choice in option.choices:
            if (option.name, choice) in NOT_HERE or _is_refused(option.name, str(choice)):
                continue
            loaded = load_config(env={}, flags=_with_company(option.name, str(choice)), set_aside_unbuilt=True)
            assert loaded.sources[option.name] != "default" or choice == option.default, f"{option.name}={choice}"


TABLES = {
    "base_model_precision": FORMATS,
    "text_encoder_1_precision": FORMATS,
    "optimizer": OPTIMIZERS,
    "attention_mechanism": ATTENTIONS,
}
"""What becomes of each name; those that are refused are refused with the reason of their row."""


def _is_refused(name: str, choice: str) -> bool:
    return name in TABLES and TABLES[name][choice].verdict.refused


@pytest.mark.parametrize("name", TABLES)
def test_a_name_that_is_refused_says_why_and_what_to_take(name: str) -> None:
    refused = [choice for choice in options()[name].choices if _is_refused(name, str(choice))]
    assert refused
    for choice in refused:
        verdict = TABLES[name][str(choice)].verdict
        with pytest.raises(ConfigError) as caught:
            load_config(env={}, flags={name: str(choice)})
        (fault,) = [fault for fault in caught.value.faults if " is refused: " in fault.problem]
        assert fault.problem == f"{choice} is refused: {verdict.why}"
        assert verdict.instead in fault.suggestion
        assert not TABLES[name][verdict.instead].verdict.refused


def test_a_budget_of_tokens_is_no_secret() -> None:
    assert shown("train_batch_tokens", 4480) == "4480"
    assert is_secret_key("tokens") and is_secret_key("hub_tokens")


def _with_company(name: str, value: str) -> dict[str, object]:
    """A choice with the options that it needs beside it."""
    needs: dict[tuple[str, str], dict[str, object]] = {
        ("mixed_precision", "fp8"): {"base_model_precision": "fp8-torchao"},
        ("attention_mechanism", "flex"): {"dynamo_backend": "inductor"},
        ("optimizer", "prodigy"): {"learning_rate": "1"},
        ("caption_strategy", "instanceprompt"): {"instance_prompt": "a cat"},
        ("disk_low_action", "script"): {"disk_low_script": "x.sh"},
        ("validation_method", "external-script"): {"validation_external_script": "x.sh"},
        ("resolution_type", "area"): {"resolution": "0.5"},
    }
    return {name: value, **needs.get((name, value), {})}
