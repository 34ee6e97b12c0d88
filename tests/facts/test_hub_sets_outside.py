"""Sets of the ``datasets`` library that name files outside of themselves: nothing of those is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.packaged_modules.csv.csv import Csv

from ltxtrain.config import CaptionRule
from ltxtrain.config.datasets import HubRule
from ltxtrain.errors import ConfigError, DataError
from ltxtrain.facts.hub_sets import refuse_files_elsewhere
from ltxtrain.facts.index import FolderIndex, index_clips
from tests.datasets import PLAIN
from tests.facts.conftest import write_clip

OWN = "hf://datasets/someone/clips"


@pytest.fixture(autouse=True)
def quiet_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    datasets.disable_progress_bars()


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    return write_clip(tmp_path / "made" / "a.mp4", 3).read_bytes()


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., FolderIndex]:
    def run(folder: Path | str, strategy: str = "huggingface", split: str = "train") -> FolderIndex:
        root, rule = tmp_path / "cache" / "datasets" / "clips", HubRule(str(folder), split=split)
        dataset = replace(PLAIN, root=root, captions=CaptionRule(strategy), hub=rule)
        return index_clips(dataset, cache_dir=tmp_path / "cache")

    return run


def saved(folder: Path, clip: bytes) -> Path:
    features = datasets.Features({"video": datasets.Video(decode=False), "caption": datasets.Value("string")})
    rows: dict[str, list[Any]] = {"video": [{"bytes": clip, "path": None}], "caption": ["x"]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
    return folder


def lies(folder: Path, outside: Path, clip: bytes) -> list[tuple[Path, str]]:
    """Sets that name files outside of their folders, and what is told of each."""
    (outside / "x.jsonl").write_text('{"file_name": "a.mp4", "caption": "from outside"}\n')
    for name, place in (
        ("readme", outside / "x.jsonl"),
        ("address", "http://127.0.0.1:9/x"),
        ("linked", ""),
        ("in", ""),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.mp4").write_bytes(clip)
        card = f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n"
        (folder / name / "README.md").write_text(card if place else "")
    (folder / "linked" / "metadata.jsonl").symlink_to(outside / "x.jsonl")
    (folder / "in" / "more").symlink_to(outside)
    told = {"readme": "", "address": "", "linked": "outside of its own folder", "in": "holds a linked folder"}
    return [(folder / name, words) for name, words in told.items()]


def test_folder_that_names_files_elsewhere_is_read_from_itself_alone(
    tmp_path: Path, clip: bytes, index: Callable[..., FolderIndex]
) -> None:
    (tmp_path / "outside").mkdir()
    for folder, words in lies(tmp_path / "sets", tmp_path / "outside", clip):
        if not words:
            assert [found.captions for found in index(folder, "filename").clips] == [("a",)], folder
        else:
            with pytest.raises(DataError, match=words):
                index(folder)


@pytest.mark.parametrize("place", ["filename", "state", "split"])
def test_saved_set_that_names_files_elsewhere_is_refused(
    tmp_path: Path, clip: bytes, index: Callable[..., FolderIndex], place: str
) -> None:
    outside = saved(tmp_path / "outside", clip)
    folder = saved(tmp_path / "set", clip)
    state = json.loads((folder / "state.json").read_text())
    split = "train"
    if place == "filename":
        state["_data_files"][0]["filename"] = f"../outside/{state['_data_files'][0]['filename']}"
        (folder / "state.json").write_text(json.dumps(state))
    elif place == "state":
        (folder / "state.json").unlink()
        (folder / "state.json").symlink_to(outside / "state.json")
    else:
        split = "../outside"
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(DataError, match="outside of its own folder"):
        index(folder, split=split)


def test_set_of_the_hub_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    builder = Csv(cache_dir=str(tmp_path), hash="1")
    for file in ("/etc/hostname", "http://host/x.csv", "hf://datasets/someone/other@1/x.csv", f"{OWN}@1/../../x.csv"):
        builder.config.data_files = {"train": [f"{OWN}@1/x.csv", file]}
        with pytest.raises(DataError, match="which is not its own"):
            refuse_files_elsewhere(HubRule("someone/clips"), builder)
    builder.config.data_files = {"train": [f"{OWN}@1/x.csv"]}
    refuse_files_elsewhere(HubRule("Someone/Clips"), builder)


def test_password_in_the_address_of_the_hub_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, index: Callable[..., FolderIndex]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://bob:s3cret@127.0.0.1:9")
    with pytest.raises(ConfigError, match="HF_ENDPOINT: holds a name or password") as error:
        index("someone/clips")
    assert "s3cret" not in f"{error.value}{error.value.hint}"
