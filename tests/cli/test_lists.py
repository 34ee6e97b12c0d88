"""Presets, options and the schema are listed for people and for programs."""

from __future__ import annotations

import json

import pytest

from ltxtrain.config.catalogue import options
from tests.cli.test_command_line import told

Captured = pytest.CaptureFixture[str]


def test_presets_are_listed_and_shown(capsys: Captured) -> None:
    code, out, _ = told(capsys, "presets")
    assert code == 0 and out == told(capsys, "presets", "list")[1]
    assert "smoke" in out and "low-vram" in out
    listed = json.loads(told(capsys, "presets", "list", "--json")[1])
    assert listed["nf4-stable"]["extends"] == ["low-vram"]
    shown = told(capsys, "presets", "show", "nf4-stable")[1]
    assert "[preset]" in shown and 'optimizer = "bnb-adamw8bit"' in shown
    whole = json.loads(told(capsys, "presets", "show", "nf4-stable", "--json")[1])
    assert whole["values"]["base_model_precision"] == "nf4-bnb"
    assert whole["values"]["train_batch_size"] == 4


def test_options_are_listed_and_searched(capsys: Captured) -> None:
    everything = json.loads(told(capsys, "options", "--json")[1])
    assert [option["name"] for option in everything if "flag" in option] == list(options())
    found = json.loads(told(capsys, "options", "lora", "rank", "--json")[1])
    assert found[0]["name"] == "lora_rank"
    assert found[0] | {"description": ""} == {
        "name": "lora_rank",
        "section": "adapter",
        "flag": "--lora-rank",
        "variable": "LTXTRAIN_LORA_RANK",
        "type": "a whole number, at least 1, at most 256",
        "choices": [],
        "default": 16,
        "bounds": {"ge": 1, "le": 256},
        "devices": [],
        "description": "",
        "state": "",
        "built": [],
    }
    text = told(capsys, "options", "--lora-rank".replace("--", ""))[1]
    assert "lora_rank = 16" in text
    assert "use_ema = false  (not built yet)" in told(capsys, "options", "use_ema")[1]
    assert "ramtorch_vae = false  (no effect here: ramtorch is not built yet)" in told(capsys, "options", "ramtorch")[1]
    assert "dynamo_fullgraph = false\n" in told(capsys, "options", "dynamo_fullgraph")[1], "its master is built in part"
    code, out, err = told(capsys, "options", "lora_rnk")
    assert (code, out) == (0, "") and "did you mean lora_rank?" in err


def test_keys_of_a_data_set_are_found_among_the_options_and_said_to_be_such(capsys: Captured) -> None:
    text = told(capsys, "options", "crop_style")[1]
    assert text.splitlines()[:2] == ["[[datasets]]: keys of a data set", "crop_style = random"]
    assert (
        "[datasets.video]: keys of a table of a data set\nwindow = as video_window\n"
        in told(capsys, "options", "which", "part")[1]
    )
    assert "(refused)" in told(capsys, "options", "bbox_column")[1]
    assert "Built: local, memory, csv, huggingface." in told(capsys, "options", "webshart")[1]
    keys = {key["name"]: key for key in json.loads(told(capsys, "options", "datasets", "--json")[1])}
    assert {"id", "video.fps_policy", "parquet.path", "huggingface.filter_func.min_width"} <= set(keys)
    assert keys["video.num_frames"]["general"] == "num_frames" and keys["video.num_frames"]["default"] is None
    assert "The guides' default: 125." in keys["video.num_frames"]["description"]
    code, out, err = told(capsys, "options", "crop_stile")
    assert (code, out) == (0, "") and "did you mean crop_style?" in err


def test_the_schema_is_printed_as_json(capsys: Captured) -> None:
    schema = json.loads(told(capsys, "schema")[1])
    assert schema["properties"]["lora_rank"]["maximum"] == 256
