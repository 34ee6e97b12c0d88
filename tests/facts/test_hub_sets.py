"""Sets of the ``datasets`` library, made by it: saved ones, folders of parquet or media files, and one in its cache."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from ltxtrain.config import CaptionRule, Dataset
from ltxtrain.config.datasets import HubRule
from ltxtrain.errors import DataError, MachineError
from ltxtrain.facts.hub_sets_files import COMPLETE, extension_of
from ltxtrain.facts.index import FolderIndex, index_clips
from ltxtrain.facts.media import probe_clips
from tests.datasets import PLAIN
from tests.facts.conftest import write_clip

VIDEOS = datasets.Features({"video": datasets.Video(decode=False), "caption": datasets.Value("string")})


@pytest.fixture(autouse=True)
def quiet_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    datasets.disable_progress_bars()


@pytest.fixture
def clips(tmp_path: Path) -> list[bytes]:
    names = ("a.mp4", "b.mkv", "c.avi")
    return [write_clip(tmp_path / "made" / name, 3 + place).read_bytes() for place, name in enumerate(names)]


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., FolderIndex]:
    def run(folder: Path | str, captions: CaptionRule | None = None, kind: str = "video", **rule: Any) -> FolderIndex:
        dataset: Dataset = replace(
            PLAIN,
            root=tmp_path / "cache" / "datasets" / "clips",
            kind=kind,
            captions=captions or CaptionRule("huggingface"),
            hub=HubRule(str(folder), **rule),
        )
        return index_clips(dataset, cache_dir=tmp_path / "cache")

    return run


def saved(folder: Path, rows: dict[str, list[Any]], features: datasets.Features | None = None) -> Path:
    """A folder of ``save_to_disk``, which writes no file's content but what is in the rows already."""
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
    return folder


def items(*contents: bytes | None, path: str | None = None) -> list[dict[str, Any]]:
    return [{"bytes": content, "path": path} for content in contents]


def captions(index: FolderIndex) -> dict[str, tuple[str, ...]]:
    return {clip.name: clip.captions for clip in index.clips}


def reasons(index: FolderIndex) -> dict[str, str]:
    return {entry.name: entry.reason for entry in index.rejected}


def test_saved_set_is_written_once_as_the_files_that_it_holds(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = saved(
        tmp_path / "set", {"video": items(*clips, path="x/clip"), "caption": ["one", "two", "three"]}, VIDEOS
    )
    found = index(folder)
    assert captions(found) == {"000000.mp4": ("one",), "000001.mkv": ("two",), "000002.avi": ("three",)}
    assert [clip.path.read_bytes() for clip in found.clips] == clips
    assert [facts.frames for facts in probe_clips([clip.path for clip in found.clips])] == [3, 4, 5]
    assert all(clip.path.is_relative_to(tmp_path / "cache" / "datasets") for clip in found.clips)
    before = [clip.path.stat().st_mtime_ns for clip in found.clips]
    assert index(folder) == found
    assert [clip.path.stat().st_mtime_ns for clip in found.clips] == before


def test_writing_goes_on_where_it_stopped_and_mends_what_was_lost(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = saved(tmp_path / "set", {"video": items(*clips), "caption": ["one", "two", "three"]}, VIDEOS)
    first, second, third = (clip.path for clip in index(folder).clips)
    (first.parent / COMPLETE).unlink()
    kept = first.stat().st_mtime_ns
    second.unlink()
    third.write_bytes(b"cut")
    assert [clip.path.read_bytes() for clip in index(folder).clips] == clips
    assert first.stat().st_mtime_ns == kept
    assert (first.parent / COMPLETE).is_file()
    third.write_bytes(b"cut")
    (first.parent / COMPLETE).write_text('{"../../x": 1, "000000.mp4": "many"}')
    assert [clip.path.read_bytes() for clip in index(folder).clips] == clips


def test_folder_of_parquet_files_is_a_set(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = {"clip": clips, "meta": [{"tags": ["one", "uno"]}, {"tags": []}, None], "alt": ["x", "two", ""]}
    parquet.write_table(pa.table(rows), folder / "train.parquet")
    rule = {"media_column": "clip", "caption_columns": ("meta.tags",)}
    found = index(folder, fallback_caption_column="alt", **rule)
    assert captions(found) == {"000000.mp4": ("one", "uno"), "000001.mkv": ("two",)}
    assert reasons(found) == {"000002.avi": "no-caption"}
    with pytest.raises(DataError, match=r"no column of videos.*it has 'clip', 'meta', 'alt'"):
        index(folder)
    with pytest.raises(DataError, match="Unknown split"):
        index(folder, split="test", **rule)


def test_folder_of_videos_is_used_where_it_lies(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clips[0])
    (folder / "b.mp4").write_bytes(clips[1])
    lines = [{"file_name": "a.mp4", "text": "one"}, {"file_name": "b.mp4", "text": "two"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = index(folder)
    assert captions(found) == {"a.mp4": ("one",), "b.mp4": ("two",)}
    assert [clip.path for clip in found.clips] == [folder / "a.mp4", folder / "b.mp4"]
    assert captions(index(folder, CaptionRule("filename"))) == {"a.mp4": ("a",), "b.mp4": ("b",)}
    (folder / "a.txt").write_text("beside")
    assert captions(index(folder, CaptionRule())) == {"a.mp4": ("beside",)}


def test_images_are_told_from_videos_by_their_bytes(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    kinds = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tiff", "AVIF": ".avif"}
    pictures = []
    for kind, extension in kinds.items():
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(buffer, kind)
        pictures.append(buffer.getvalue())
        assert extension_of(pictures[-1][:512], "image") == extension
        assert extension_of(pictures[-1][:512], "video") is None
    features = datasets.Features({"image": datasets.Image(decode=False), "caption": datasets.Value("string")})
    rows = {"image": [*items(*pictures, clips[0], b""), None], "caption": ["x"] * 9}
    found = index(saved(tmp_path / "set", rows, features), kind="image")
    assert [Path(clip.name).suffix for clip in found.clips] == list(kinds.values())
    assert reasons(found) == {"000006": "not-image", "000007": "empty", "000008": "missing-file"}


def test_set_cannot_name_files_outside_of_its_folder(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = tmp_path / "set"
    (tmp_path / "secret.mp4").write_bytes(clips[0])
    paths = [
        str(tmp_path / "secret.mp4"),
        "../secret.mp4",
        "in.mp4",
        "in.mp4",
        "no.mp4",
        "https://x/a.mp4",
        "li.mp4",
        "\0",
    ]
    saved(folder, {"path": paths, "caption": ["x"] * len(paths)})
    (folder / "in.mp4").write_bytes(clips[0])
    (folder / "li.mp4").symlink_to(tmp_path / "secret.mp4")
    found = index(folder)
    assert captions(found) == {"000003.mp4": ("x",), "in.mp4": ("x",)}
    assert list(reasons(found).values()) == [
        *["outside-folder"] * 2,
        *["missing-file"] * 2,
        "outside-folder",
        "missing-file",
    ]


def test_fingerprint_of_a_set_cannot_lead_out_of_the_cache(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = saved(tmp_path / "set", {"video": items(clips[0]), "caption": ["x"]}, VIDEOS)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_fingerprint": "../../../out"}))
    (clip,) = index(folder).clips
    assert clip.path.parent.parent == tmp_path / "cache" / "datasets"


def test_filter_leaves_out_what_does_not_reach_it_and_counts_it(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    rows = {
        "video": items(*(clips[0] + bytes([place]) for place in range(6))),
        "caption": list("abcdef"),
        "collection": ["film", "film", "film", "film", "art", None],
        "width": [640, 100, 640, 640, 640, 640],
        "height": [480, 480, None, 480, 480, 480],
        "quality_assessment": [{"clear": 0.9}, {"clear": 0.9}, {"clear": 0.9}, {"clear": None}, {"clear": 1.0}, None],
    }
    folder = saved(tmp_path / "set", rows)
    every = {"collection": ["film"], "min_width": 320, "min_height": 240, "quality_thresholds": {"clear": 0.5}}
    sizes = {"width_column": "width", "height_column": "height"}
    for filters, kept in (
        ({}, "abcdef"),
        ({"collection": "art"}, "e"),
        ({"min_width": 320}, "acdef"),
        ({"min_height": 240}, "abdef"),
        ({"quality_thresholds": {"clear": 0.95}}, "e"),
        (every, "a"),
    ):
        found = index(folder, filters=filters, **sizes)
        assert "".join(clip.captions[0] for clip in found.clips) == kept
        assert found.filtered == 6 - len(kept)
        assert all(clip.name == f"{'abcdef'.index(clip.captions[0]):06d}.mp4" for clip in found.clips)
    assert found.clips[0].stated_size == (640, 480)
    with pytest.raises(DataError, match="no column 'nothing'"):
        index(folder, filters={"quality_thresholds": {"clear": 1}, "quality_column": "nothing"})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"media_column": "vid"}, "no column 'vid'; it has 'video', 'titel', 'number'"),
        ({"media_column": "titel.x"}, "is inside of a column"),
        ({"caption_columns": ("caption",)}, "no column 'caption'"),
        ({}, "no column of captions; it has 'video', 'titel', 'number'"),
        ({"media_column": "number", "caption_columns": ("titel",)}, "neither files nor their names"),
    ],
)
def test_column_that_is_not_there_is_told(
    tmp_path: Path, index: Callable[..., FolderIndex], rule: dict[str, Any], words: str
) -> None:
    folder = saved(tmp_path / "set", {"video": items(b"x"), "titel": ["x"], "number": [1]})
    with pytest.raises(DataError) as error:
        index(folder, **rule)
    assert words in error.value.message
    assert error.value.hint


def test_split_of_a_saved_set(tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]) -> None:
    part = datasets.Dataset.from_dict({"video": items(clips[0]), "caption": ["x"]}, features=VIDEOS)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "set"))
    assert captions(index(tmp_path / "set", split="test")) == {"000000.mp4": ("x",)}
    with pytest.raises(DataError, match=r"no split 'valid'; it has 'train', 'test'"):
        index(tmp_path / "set", split="valid")


def test_set_that_cannot_be_read_is_one_error(tmp_path: Path, index: Callable[..., FolderIndex]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "train.tar").write_bytes(b"x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1")
    folder = saved(tmp_path / "cut", {"video": items(b"x"), "caption": ["x"]}, VIDEOS)
    (arrow,) = folder.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:40])
    (saved(tmp_path / "state", {"video": items(b"x")}) / "state.json").write_text("{}")
    for name in ("empty", "tar", "broken", "cut", "state", "./nowhere"):
        with pytest.raises(DataError) as error:
            index(name if name.startswith(".") else tmp_path / name)
        assert "\n" not in error.value.message
        assert error.value.hint, name


def test_cache_that_may_not_be_written_is_told(
    tmp_path: Path, clips: list[bytes], index: Callable[..., FolderIndex]
) -> None:
    folder = saved(tmp_path / "set", {"video": items(clips[0]), "caption": ["x"]}, VIDEOS)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(MachineError, match="cannot be written"):
        index(folder)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.datasets import PLAIN
from ltxtrain.config import CaptionRule
from ltxtrain.config.datasets import HubRule
from ltxtrain.errors import DataError
from ltxtrain.facts.index import index_clips
assert "datasets" not in sys.modules
for name in ("someone/clips", "someone/others"):
    dataset = replace(PLAIN, captions=CaptionRule("huggingface"), hub=HubRule(name))
    try:
        print([clip.captions for clip in index_clips(dataset, cache_dir=Path("cache")).clips])
    except DataError as error:
        print(error.message, "|", error.hint)
assert "torch" not in sys.modules
"""


def test_without_a_network_only_what_was_fetched_before_is_there(tmp_path: Path, clips: list[bytes]) -> None:
    """Laid down as the library does when it has fetched a set, by the library's own builder."""
    folder = tmp_path / "files"
    folder.mkdir()
    table = datasets.Dataset.from_dict({"video": items(clips[0]), "caption": ["kept"]}, features=VIDEOS).data.table
    parquet.write_table(table, folder / "train.parquet")
    builder = datasets.load_dataset_builder(str(folder), cache_dir=str(tmp_path / "made-library"))
    builder.download_and_prepare()
    home = tmp_path / "library" / "someone___clips" / "default" / "0.0.0"
    home.mkdir(parents=True)
    Path(builder.cache_dir).rename(home / "0123456789abcdef")
    for file in (home / "0123456789abcdef").glob("*.arrow"):
        file.rename(file.with_name("clips-train.arrow"))
    places = {"HF_HOME": str(tmp_path / "home"), "HF_DATASETS_CACHE": str(tmp_path / "library"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **places, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 0, done.stderr
    fetched, absent = done.stdout.splitlines()
    assert fetched == "[('kept',)]"
    assert absent.startswith("the data set someone/others is not on this disk and cannot be fetched")
    assert "unset HF_HUB_OFFLINE" in absent
