"""The image's folders, LTX_*_DIR, hold as long as nothing else is said, and what is said is stronger in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.errors import ConfigError
from tests.datasets import resolved

IMAGE = {"LTX_DATA_DIR": "/data", "LTX_CACHE_DIR": "/cache", "LTX_OUTPUT_DIR": "/output"}
SETS = [{"id": "mine", "instance_data_dir": "/mine", "crop_style": "center"}]


def test_the_image_s_folders_take_the_place_of_the_defaults_and_are_told_as_the_source() -> None:
    loaded = load_config(["bf16"], env=IMAGE)
    config, sources = loaded.config, loaded.sources
    assert (config.data.instance_data_dir, config.cache.cache_dir) == (Path("/data"), Path("/cache"))
    assert config.checkpoint.output_dir == Path("/output")
    assert sources["instance_data_dir"] == "LTX_DATA_DIR, of the image"
    assert sources["cache_dir"] == "LTX_CACHE_DIR, of the image"
    assert sources["output_dir"] == "LTX_OUTPUT_DIR, of the image"
    assert loaded.notices == load_config(["bf16"], env={}).notices


def test_each_layer_is_stronger(tmp_path: Path) -> None:
    preset = load_config(["documented-example"], env=IMAGE, set_aside_unbuilt=True)
    assert preset.sources["output_dir"] == "preset documented-example"
    file = tmp_path / "run.toml"
    file.write_text('data = "/f"\n[cache]\ncache_dir = "/f"\n[checkpoint]\noutput = "/f"\n')
    names = {"LTXTRAIN_DATA": "/e", "LTXTRAIN_CACHE_DIR": "/e", "LTXTRAIN_OUTPUT": "/e"}
    flags = {"data": "/x", "cache": "/x", "output": "/x"}
    for files, env, given, folder in (([file], {}, {}, "/f"), ([file], names, {}, "/e"), ([], {}, flags, "/x")):
        loaded = load_config(["bf16"], files, env=IMAGE | env, flags=given)
        found = (
            loaded.config.data.instance_data_dir,
            loaded.config.cache.cache_dir,
            loaded.config.checkpoint.output_dir,
        )
        assert found == (Path(folder),) * 3
        assert loaded.notices == load_config(["bf16"], files, env=env, flags=given).notices
    assert loaded.sources["cache_dir"] == "--cache"


def test_one_place_can_be_said_and_the_others_kept() -> None:
    loaded = load_config(env=IMAGE, flags={"cache": "/x"})
    assert loaded.config.cache.cache_dir == Path("/x")
    assert loaded.config.checkpoint.output_dir == Path("/output")
    assert loaded.config.data.instance_data_dir == Path("/data")


@pytest.mark.parametrize("way", ["datasets", "tables", "data_backend_config", "variable", "flag"])
def test_data_named_in_another_way_replace_the_image_s_and_nothing_is_told(tmp_path: Path, way: str) -> None:
    sets = tmp_path / "sets.json"
    sets.write_text(json.dumps(SETS))
    texts = {
        "datasets": json.dumps({"datasets": SETS}),
        "tables": '[[datasets]]\nid = "mine"\ninstance_data_dir = "/mine"\ncrop_style = "center"\n',
        "data_backend_config": json.dumps({"--data_backend_config": str(sets)}),
    }
    file = tmp_path / ("run.toml" if way == "tables" else "run.json")
    file.write_text(texts.get(way, "{}"))
    env = {"LTXTRAIN_DATA_BACKEND_CONFIG": str(sets)} if way == "variable" else {}
    flags = {"data_backend_config": str(sets)} if way == "flag" else {}
    loaded = load_config(["bf16"], [file], env=IMAGE | env, flags=flags)
    without = load_config(["bf16"], [file], env=env, flags=flags)
    assert loaded.config.data == without.config.data
    assert loaded.sources["instance_data_dir"] == "default"
    assert loaded.notices == without.notices
    assert [dataset.root for dataset in resolved(loaded.config.data)] == [Path("/mine")]


def test_other_layers_still_tell_what_they_replace(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"datasets": SETS}))
    loaded = load_config(files=[file], env=IMAGE | {"LTXTRAIN_DATA": "/e"})
    assert loaded.config.data.instance_data_dir == Path("/e")
    assert f"instance_data_dir replaces datasets of {file}:1" in loaded.notices


def test_the_image_s_clips_come_before_clips_that_would_be_made() -> None:
    """As clips that are named in any way do."""
    assert load_config(["smoke"], env=IMAGE).config.data.instance_data_dir == Path("/data")


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_says_nothing(empty: str) -> None:
    loaded = load_config(env=dict.fromkeys(IMAGE, empty))
    assert loaded == load_config(env={})


def test_faults_name_the_variable() -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(env=IMAGE | {"LTX_CACHE_DIR": "{env:NOT_SET}", "LTX_OUTPUT_DIR": "hf_" + "aBcDeFgH0123456789"})
    assert [(fault.source, fault.key) for fault in refused.value.faults] == [
        ("LTX_CACHE_DIR", "cache_dir"),
        ("LTX_OUTPUT_DIR", "output_dir"),
    ]
    assert "aBcDeFgH" not in refused.value.message


def test_the_command_explains_where_a_folder_comes_from() -> None:
    command = [sys.executable, "-m", "ltxtrain", "validate", "--preset", "bf16", "--explain", "--output", "/x"]
    done = subprocess.run(command, capture_output=True, text=True, env=IMAGE, check=True)
    assert 'cache_dir = "/cache"  # LTX_CACHE_DIR, of the image' in done.stdout.splitlines()
    assert 'output_dir = "/x"  # --output' in done.stdout.splitlines()
