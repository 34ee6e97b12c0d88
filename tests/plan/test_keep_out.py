"""Nothing is written into a data set: a cache or output that lies in one is refused before anything is looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig
from ltxtrain.doctor.needs import data_sets
from ltxtrain.errors import ConfigError
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.make import make_plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(("flag", "option"), [("--cache", "cache_dir"), ("--output", "output_dir")])
def test_place_in_a_data_set_is_refused_by_plan_and_doctor(
    add_clip: AddClip, load: Load, machine: Machine, flag: str, option: str
) -> None:
    clips = add_clip("a.mp4").parent
    (clips.parent / "link").symlink_to(clips)
    before = below(clips)
    for place in (clips, clips / "sub" / "place", clips.parent / "link" / "x"):
        loaded = load(**{option: str(place)})
        with pytest.raises(ConfigError) as error:
            make_plan(loaded, machine)
        assert [fault.key for fault in error.value.faults] == [flag]
        assert f"{place} lies inside of the data set {clips}" in error.value.message
        assert flag in (error.value.hint or "")
        found = data_sets(loaded.config)
        assert getattr(found, "code", "") == "data-written"
    assert below(clips) == before
    make_plan(load(**{option: str(clips.parent / "beside")}), machine)


def test_every_set_of_a_list_counts_and_so_does_the_folder_of_one_of_the_library(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path
) -> None:
    add_clip("a.mp4")
    (tmp_path / "library").mkdir()
    hub = {"type": "huggingface", "dataset_name": str(tmp_path / "library"), "caption_strategy": "huggingface"}
    entries = [
        {"id": "clips", "dataset_type": "video", "instance_data_dir": str(tmp_path / "clips")},
        {"id": "library", "dataset_type": "video", **hub},
    ]
    (tmp_path / "sets.json").write_text(json.dumps(entries))
    listed = {"data_backend_config": str(tmp_path / "sets.json")}
    for name in ("clips", "library"):
        with pytest.raises(ConfigError, match=f"inside of the data set .*{name}"):
            make_plan(load(**listed, cache_dir=os.fspath(tmp_path / name / "cache")), machine)
    assert below(tmp_path / "library") == []
