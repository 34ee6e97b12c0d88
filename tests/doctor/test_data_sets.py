"""Each data set of a list is looked at for what it should hold: images, captions beside clips or elsewhere, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.config import TrainConfig
from ltxtrain.config.data import DataConfig
from ltxtrain.doctor.clips import check_data, check_dataset
from ltxtrain.doctor.findings import Finding
from ltxtrain.doctor.needs import data_sets
from tests.datasets import resolved
from tests.doctor.children import STRANGER, folder_for_all, in_child, needs_root, wrong
from tests.doctor.world import World

PLANTED = ("data-no-table", "data-no-clips", "data-no-captions", "data-missing", "data-empty", "data-unreadable")


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")
    return folder


def sets_of(tmp_path: Path, *entries: dict[str, Any]) -> DataConfig:
    path = tmp_path / "sets.json"
    path.write_text(json.dumps([{"id": f"set-{index}", **entry} for index, entry in enumerate(entries)]))
    return DataConfig(data_backend_config=path)


def look(tmp_path: Path, **entry: Any) -> Finding:
    """What is told of the one data set that ``entry`` describes."""
    (dataset,) = resolved(sets_of(tmp_path, entry))
    return check_dataset(dataset, listed=True)


def test_images_count_in_a_set_of_images_alone(tmp_path: Path) -> None:
    folder = files(tmp_path / "pictures", "a.png", "a.txt", "b.JPG", "b.txt", "film.mp4")
    found = look(tmp_path, instance_data_dir=str(folder), dataset_type="image")
    assert (found.state, found.says) == ("ok", f"2 images with captions in {folder}")
    found = look(tmp_path, instance_data_dir=str(folder), dataset_type="video")
    assert wrong(found) == ["data-no-captions"] and found.says.startswith("1 of 1 clip in") and "film.txt" in found.fix


@pytest.mark.parametrize(("name", "kind", "other"), [("a.png", "video", "image"), ("a.mp4", "image", "video")])
def test_a_folder_of_the_other_kind_is_told_with_the_kind_to_set(
    tmp_path: Path, name: str, kind: str, other: str
) -> None:
    folder = files(tmp_path / "clips", name, "a.txt")
    found = look(tmp_path, instance_data_dir=str(folder), dataset_type=kind)
    assert wrong(found) == ["data-no-clips"]
    assert found.fix == f"set dataset_type of set-0 to {other}"


def test_pictures_in_a_folder_alone_are_to_be_listed(tmp_path: Path) -> None:
    found = check_data(files(tmp_path, "a.webp"))
    assert wrong(found) == ["data-no-clips"] and "dataset_type image" in found.fix


def test_an_eval_set_holds_what_is_trained_on(tmp_path: Path) -> None:
    train = files(tmp_path / "train", "a.png", "a.txt")
    held_out = files(tmp_path / "held-out", "b.mp4", "b.txt")
    data = sets_of(
        tmp_path,
        {"instance_data_dir": str(train), "dataset_type": "image"},
        {"instance_data_dir": str(held_out), "dataset_type": "eval"},
    )
    first, second = (check_dataset(dataset, listed=True) for dataset in resolved(data))
    assert first.state == "ok"
    assert wrong(second) == ["data-no-clips"] and second.fix.startswith("name a folder of images")


@pytest.mark.parametrize(
    ("captions", "told"),
    [
        ({"caption_strategy": "instanceprompt", "instance_prompt": "a ball"}, "captioned by instance_prompt"),
        ({"only_instance_prompt": True, "instance_prompt": "a ball"}, "captioned by instance_prompt"),
        ({"caption_strategy": "filename"}, "captioned by their names"),
        ({"caption_strategy": "jsonl", "jsonl": "rows.jsonl"}, "captioned by a table"),
    ],
)
def test_no_text_is_missed_where_captions_come_from_elsewhere(
    tmp_path: Path, captions: dict[str, Any], told: str
) -> None:
    folder = files(tmp_path / "clips", "a.mp4", "rows.jsonl")
    found = look(tmp_path, instance_data_dir=str(folder), **captions)
    assert (found.state, found.says) == ("ok", f"1 clip in {folder}, {told}")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    folder = files(tmp_path / "clips", "a.mp4")
    found = look(tmp_path, instance_data_dir=str(folder), parquet={"path": str(tmp_path / "rows.parquet")})
    assert wrong(found) == ["data-no-table"] and str(tmp_path / "rows.parquet") in found.says
    (tmp_path / "rows.parquet").mkdir()
    found = look(tmp_path, instance_data_dir=str(folder), parquet={"path": str(tmp_path / "rows.parquet")})
    assert wrong(found) == ["data-no-table"]


@needs_root
def test_a_table_that_this_user_may_not_read() -> None:
    with folder_for_all() as folder:
        data = files(folder / "clips", "a.mp4", "rows.csv")
        (data / "rows.csv").chmod(0o600)
        (found,) = in_child("check_table(folder / 'rows.csv')", data, uid=STRANGER)
    assert wrong(found) == ["data-unreadable"] and "belongs to 0:0, mode 600" in found.says


def test_a_set_of_the_library(tmp_path: Path) -> None:
    assert look(tmp_path, type="huggingface", dataset_name="someone/clips").code == "data-of-hub"
    assert wrong(look(tmp_path, type="huggingface", dataset_name="./nowhere")) == ["data-missing"]
    (tmp_path / "saved").mkdir()
    assert wrong(look(tmp_path, type="huggingface", dataset_name=str(tmp_path / "saved"))) == ["data-empty"]
    files(tmp_path / "saved", "state.json")
    assert look(tmp_path, type="huggingface", dataset_name=str(tmp_path / "saved")).state == "ok"


def test_a_missing_folder_of_a_list_is_told_with_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltxtrain.doctor.clips.in_container", lambda environment: False)
    found = look(tmp_path, instance_data_dir=str(tmp_path / "gone"))
    assert wrong(found) == ["data-missing"] and found.fix == "correct instance_data_dir of set-0"


def test_a_place_of_several_sets_is_looked_at_once(tmp_path: Path) -> None:
    entry = {"instance_data_dir": str(tmp_path / "clips"), "resolution": 256}
    other = {"instance_data_dir": str(tmp_path / "others")}
    data = sets_of(tmp_path, entry, other, entry | {"resolution": 512}, entry | {"dataset_type": "image"})
    found = data_sets(TrainConfig().model_copy(update={"data": data}))
    assert isinstance(found, list)
    assert [dataset.id for dataset in found] == ["set-0", "set-1", "set-3"]


def test_each_set_of_the_list_is_told_and_the_report_names_none_of_them(world: World) -> None:
    work = world.place / "work"
    files(work / "my films", "a.mp4", "a.txt")
    files(work / "my pictures", "b.png")
    entries = [
        {"id": "films", "instance_data_dir": "my films"},
        {
            "id": "pictures",
            "dataset_type": "image",
            "instance_data_dir": "my pictures",
            "csv_file": "my secret words.csv",
            "caption_strategy": "csv",
        },
        {"id": "fetched", "type": "huggingface", "dataset_name": "someone/secret-clips"},
    ]
    (work / "sets.json").write_text(json.dumps(entries))
    words = ["--preset", "smoke", "--data-backend-config", "sets.json"]
    report = world.command("--offline", "--report", *words).stdout
    assert "data-no-table" in report
    assert "my " not in report and "secret" not in report
    answer = world.examine(*words)
    told = {f["check"]: f["code"] for f in answer.found["findings"] if f["check"].startswith("data")}
    assert told == {"data 1": "ok", "data 2": "data-no-table", "data 3": "data-of-hub"}
    assert answer.exit_code == 3
