"""Where clips and captions come from: tables, sets of the ``datasets`` library, filters and shuffles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.config import (
    CaptionRule,
    Dataset,
    HubRule,
    ShuffleRule,
    TableRule,
    dataset_settings,
)
from ltxtrain.config.data import CacheConfig, DataConfig
from ltxtrain.errors import ConfigError
from tests.datasets import resolved


def from_entry(tmp_path: Path, **keys: Any) -> Dataset:
    path = tmp_path / "backend.json"
    path.write_text(json.dumps([{"id": "a", **keys}]), encoding="utf-8")
    (found,) = resolved(DataConfig(data_backend_config=path), CacheConfig(cache_dir=Path("kept")))
    return found


def test_every_key_of_a_table_arrives(tmp_path: Path) -> None:
    table = {
        "path": "t.parquet",
        "filename_column": "file",
        "caption_column": ["short", "meta.long"],
        "fallback_caption_column": "alt",
        "width_column": "w",
        "height_column": "h",
        "identifier_includes_extension": "false",
    }
    found = from_entry(tmp_path, instance_data_dir="c", caption_strategy="parquet", parquet=table)
    rule = TableRule(Path("t.parquet"), "file", ("short", "meta.long"), "alt", "w", "h", False)
    assert found.captions == CaptionRule(strategy="parquet", table=rule)


@pytest.mark.parametrize(
    ("keys", "strategy", "table"),
    [
        ({"parquet": {"path": "t.jsonl", "caption_column": "c"}}, "parquet", TableRule(Path("t.jsonl"), None, ("c",))),
        ({"jsonl": "t.jsonl"}, "jsonl", TableRule(Path("t.jsonl"))),
        ({"jsonl": {"path": "t.jsonl", "caption_column": "c"}}, "jsonl", TableRule(Path("t.jsonl"), None, ("c",))),
        ({"csv_file": "t.csv", "csv_caption_column": "c"}, "csv", TableRule(Path("t.csv"), None, ("c",))),
        ({"type": "csv", "csv_file": "t.csv"}, "csv", TableRule(Path("t.csv"))),
        ({"parquet": {"path": "t.parquet"}, "caption_strategy": "textfile"}, "textfile", None),
    ],
)
def test_a_table_that_is_named_is_read_unless_captions_come_from_elsewhere(
    tmp_path: Path, keys: dict[str, Any], strategy: str, table: TableRule | None
) -> None:
    captions = from_entry(tmp_path, instance_data_dir="c", **keys).captions
    assert (captions.strategy, captions.table) == (strategy, table)


def test_a_table_is_found_beside_the_list_and_in_the_folder_of_the_clips(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "in.jsonl").touch()
    (tmp_path / "beside.jsonl").touch()
    for name, folder in (("in", clips), ("beside", tmp_path)):
        found = from_entry(tmp_path, instance_data_dir=str(clips), jsonl=f"{name}.jsonl")
        assert found.captions.table is not None and found.captions.table.path == folder / f"{name}.jsonl"


def test_the_clips_of_a_csv_lie_beside_it_where_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    assert from_entry(tmp_path, type="csv", csv_file=str(tmp_path / "t.csv")).root == tmp_path


HUB = {
    "dataset_name": "user/set",
    "split": "validation",
    "revision": "0" * 40,
    "video_column": "clip",
    "image_column": "still",
    "caption_column": "text",
    "fallback_caption_column": "alt",
    "width_column": "w",
    "height_column": "h",
    "filter_func": {"collection": ["a", "b"], "quality_thresholds": {"clip": 0.3}, "min_width": "512"},
}


@pytest.mark.parametrize("flat", [True, False])
def test_every_key_of_a_fetched_set_arrives_flat_or_from_its_table(tmp_path: Path, flat: bool) -> None:
    keys: dict[str, Any] = HUB if flat else {"huggingface": HUB}
    found = from_entry(tmp_path, type="huggingface", **keys)
    filters = {"collection": ("a", "b"), "quality_thresholds": {"clip": 0.3}, "min_width": 512}
    rule = HubRule("user/set", "validation", "0" * 40, "clip", ("text",), "alt", "w", "h", filters)
    assert (found.hub, found.captions.strategy) == (rule, "huggingface")
    still = from_entry(tmp_path, type="huggingface", dataset_type="image", **keys)
    assert still.hub is not None and still.hub.media_column == "still"


def test_a_fetched_set_lies_in_its_folder_or_below_the_cache(tmp_path: Path) -> None:
    named = {"type": "huggingface", "dataset_name": "u/d"}
    assert from_entry(tmp_path, instance_data_dir="c", **named).root == Path("c")
    assert from_entry(tmp_path, **named).root == Path("kept/datasets/a")


@pytest.mark.parametrize("name", ["a b", "a..b", "été", "x" * 80])
def test_no_id_leads_out_of_the_cache(tmp_path: Path, name: str) -> None:
    root = from_entry(tmp_path, type="huggingface", dataset_name="u/d", id=name).root
    assert root.parent == Path("kept/datasets") and root.name not in ("", ".", "..") and len(root.name) <= 64


def test_ids_that_differ_have_folders_that_differ(tmp_path: Path) -> None:
    names = ("a_b", "a b", "é", "è")
    roots = {from_entry(tmp_path, type="huggingface", dataset_name="u/d", id=name).root for name in names}
    assert len(roots) == len(names)


def test_shuffles_arrive_where_they_are_enabled(tmp_path: Path) -> None:
    keys = {"enable": "true", "count": "3", "seed": 7, "split_on": "period", "position_start": 1}
    found = from_entry(tmp_path, instance_data_dir="c", caption_shuffle={**keys, "include_original": "false"})
    assert found.captions.shuffle == ShuffleRule(3, 7, "period", 1, False)
    plain = from_entry(tmp_path, instance_data_dir="c", caption_shuffle={"enable": True})
    assert plain.captions.shuffle == ShuffleRule()
    assert from_entry(tmp_path, instance_data_dir="c", caption_shuffle={"count": 3}).captions.shuffle is None


FILTERS = (
    "blurry",
    "[0-9]+ fps",
    "s/cat/dog/",
    "s/(a) b/\\1 c/",
    "s/a/b",
    "s/A/b/gi",
    "s/a\\/b//",
    "s/.*/one caption for all/",
)


def test_filters_are_a_list_or_a_file_of_lines(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(FILTERS) + "\n\n", encoding="utf-8")
    (tmp_path / "words.json").write_text(json.dumps(FILTERS), encoding="utf-8")
    for written in (list(FILTERS), "words.txt", "words.json", str(tmp_path / "words.txt")):
        found = from_entry(tmp_path, instance_data_dir="c", caption_filter_list=written)
        assert found.captions.filters == FILTERS


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b"{}", b"["])
def test_a_file_of_filters_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.caption_filter_list: words\.json: (cannot be read|holds no list)"):
        from_entry(tmp_path, instance_data_dir="c", caption_filter_list="words.json")


def test_a_bad_line_of_a_file_of_filters_is_told(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("good\n(bad\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"backend\.json:1: a\.caption_filter_list, item 2: '\(bad' is no regular"):
        from_entry(tmp_path, instance_data_dir="c", caption_filter_list="words.txt")


def test_where_a_table_or_a_set_lies_is_no_matter_of_the_result(tmp_path: Path) -> None:
    def settings(**keys: Any) -> dict[str, object]:
        return dataset_settings(from_entry(tmp_path, **keys))

    table = {"path": "t.parquet", "caption_column": "c"}
    first = settings(instance_data_dir="c", parquet=table)
    assert first == settings(instance_data_dir="d", parquet={**table, "path": "u.parquet"}, vae_batch_size=4)
    assert first != settings(instance_data_dir="c", parquet={**table, "caption_column": "d"})
    fetched = {"type": "huggingface", "filter_func": {"min_width": 5}}
    assert settings(dataset_name="/here", **fetched) == settings(dataset_name="/there", **fetched)
    assert json.dumps(settings(dataset_name="/here", **fetched))
