"""A flag or a variable that the list of data sets overrules is told, with the sets that do so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from ltxtrain.config import load_config
from ltxtrain.config.overruled import overruled_notices

OWN = {"id": "a", "instance_data_dir": "c", "resolution": 480, "video": {"num_frames": 49, "window": "all"}}


def told(tmp_path: Path, *entries: dict[str, object], env: dict[str, str] | None = None, **flags: object) -> list[str]:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    loaded = load_config(env=env or {}, flags={"data_backend_config": str(path), **flags})
    return list(overruled_notices(loaded.config, loaded.sources))


def test_a_flag_that_a_data_set_overrules_is_told_with_both_values(tmp_path: Path) -> None:
    assert told(tmp_path, OWN, resolution="128", num_frames=17, video_window="first") == [
        "resolution 128 (--resolution) is overruled by data set a: 480",
        "num_frames 17 (--num-frames) is overruled by data set a: 49",
        "video_window first (--video-window) is overruled by data set a: all",
    ]


def test_a_variable_is_told_too_and_several_data_sets_in_one_notice(tmp_path: Path) -> None:
    sets = [{**OWN, "id": name} for name in "abcde"]
    assert told(tmp_path, *sets, env={"LTXTRAIN_RESOLUTION": "128"}) == [
        "resolution 128 (LTXTRAIN_RESOLUTION) is overruled by data sets a: 480, b: 480, c: 480 and 2 more"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "a", "instance_data_dir": "c"},
        {**OWN, "resolution": "128"},
        {**OWN, "disabled": True},
        {"id": "a", "dataset_type": "text_embeds", "resolution": 480},
    ],
)
def test_nothing_is_told_where_the_flag_holds(tmp_path: Path, entry: dict[str, object]) -> None:
    assert told(tmp_path, entry, resolution=128) == []


def test_frames_of_a_picture_overrule_nothing(tmp_path: Path) -> None:
    assert told(tmp_path, {**OWN, "dataset_type": "image"}, num_frames=17) == []


def test_what_a_file_says_is_a_general_value_and_is_not_remarked_on(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'resolution = 128\n[[datasets]]\nid = "a"\ninstance_data_dir = "c"\nresolution = 480\n', encoding="utf-8"
    )
    loaded = load_config(files=[tmp_path / "run.toml"], env={})
    assert overruled_notices(loaded.config, loaded.sources) == ()


def test_texts_are_told_in_quotes(tmp_path: Path) -> None:
    (notice,) = told(tmp_path, {**OWN, "instance_prompt": "a cat"}, instance_prompt="a dog")
    assert notice == "instance_prompt 'a dog' (--instance-prompt) is overruled by data set a: 'a cat'"


def test_validate_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([OWN]), encoding="utf-8")
    assert run(["validate", "--data-backend-config", str(path), "--resolution", "128"]) == 0
    assert "note: resolution 128 (--resolution) is overruled by data set a: 480" in capsys.readouterr().err
