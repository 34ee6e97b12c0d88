from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltxtrain.config import CaptionRule
from ltxtrain.config.datasets import TableRule
from ltxtrain.errors import DataError
from ltxtrain.facts.index import FolderIndex, index_clips
from ltxtrain.facts.tables import dig, read_table
from tests.datasets import PLAIN

KINDS = ("parquet", "csv", "jsonl")
Rows = Sequence[dict[str, Any]]


def write_table(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("a.mp4", "b.mp4", "sub/c.mov"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")
    return folder


@pytest.fixture
def index(data: Path, tmp_path: Path) -> Callable[..., FolderIndex]:
    """Of ``data`` with a table of these rows; what is said of its columns goes into the rule."""

    def run(rows: Rows | Path, kind: str = "jsonl", captions: CaptionRule | None = None, **columns: Any) -> FolderIndex:
        path = rows if isinstance(rows, Path) else write_table(tmp_path / f"table.{kind}", rows)
        rule = replace(captions or CaptionRule("parquet"), table=TableRule(path, **columns))
        return index_clips(replace(PLAIN, root=data, captions=rule))

    return run


def captions(index: FolderIndex) -> dict[str, tuple[str, ...]]:
    return {clip.name: clip.captions for clip in index.clips}


def reasons(index: FolderIndex) -> dict[str, str]:
    return {entry.name: entry.reason for entry in index.rejected}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_give_captions_and_sizes(index: Callable[..., FolderIndex], kind: str) -> None:
    rows = [
        {"filename": "a.mp4", "caption": "one, two\nthree", "w": 640, "h": 480},
        {"filename": "./sub/c.mov", "caption": "four", "w": 8, "h": 9},
        {"filename": "b.mp4", "caption": "“five”", "w": None, "h": 9},
    ]
    found = index(rows, kind, width_column="w", height_column="h")
    assert captions(found) == {"a.mp4": ("one, two\nthree",), "b.mp4": ("“five”",), "sub/c.mov": ("four",)}
    assert [clip.stated_size for clip in found.clips] == [(640, 480), None, (8, 9)]
    assert found.rejected == ()


@pytest.mark.parametrize("kind", KINDS)
def test_neither_a_row_nor_a_file_is_passed_over(index: Callable[..., FolderIndex], data: Path, kind: str) -> None:
    outside = data.parent / "outside.mp4"
    outside.write_bytes(b"video")
    (data / "leak.mp4").symlink_to(outside)
    (data / ".hidden.mp4").write_bytes(b"video")
    (data / "picture.png").write_bytes(b"image")
    names = [
        "a.mp4",
        "gone.mp4",
        "../outside.mp4",
        str(outside),
        "leak.mp4",
        "",
        "https://example.org/a.mp4",
        ".hidden.mp4",
        "picture.png",
        "new\nline.mp4",
    ]
    found = index([{"file": name, "caption": "x"} for name in names], kind)
    assert list(captions(found)) == ["a.mp4"]
    line = "row 6" if kind == "parquet" else "line 7" if kind == "csv" else "line 6"
    assert reasons(found) == {
        "../outside.mp4": "outside-folder",
        ".hidden.mp4": "missing-file",
        "b.mp4": "no-row",
        "gone.mp4": "missing-file",
        "https://example.org/a.mp4": "missing-file",
        "leak.mp4": "outside-folder",
        "new\\nline.mp4": "missing-file",
        "picture.png": "missing-file",
        "sub/c.mov": "no-row",
        str(outside): "outside-folder",
        f"table.{kind}, {line}": "missing-file",
    }
    details = {entry.name: entry.detail for entry in found.rejected}
    assert "fetch the file" in details["https://example.org/a.mp4"]
    assert f"table.{kind}" in details["gone.mp4"]


def test_file_may_be_named_with_the_folder_or_by_a_linked_one_or_as_windows_does(
    index: Callable[..., FolderIndex], data: Path
) -> None:
    (data / "linked").symlink_to("sub")
    for name in (str(data / "sub" / "c.mov"), "linked/c.mov", "sub\\c.mov", "b/../sub//c.mov"):
        assert captions(index([{"path": name, "text": "x"}])) == {"sub/c.mov": ("x",)}, name


def test_stems_name_files_whatever_their_extension(index: Callable[..., FolderIndex], data: Path) -> None:
    (data / "a.webm").write_bytes(b"video")
    rows = [{"file": "a", "caption": "x"}, {"file": "sub/c", "caption": "y"}, {"file": "b.mp4", "caption": "z"}]
    found = index(rows, identifier_includes_extension=False)
    assert captions(found) == {"a.mp4": ("x",), "a.webm": ("x",), "b.mp4": ("z",), "sub/c.mov": ("y",)}
    assert reasons(index(rows)) == {
        "a": "missing-file",
        "a.mp4": "no-row",
        "a.webm": "no-row",
        "sub/c": "missing-file",
        "sub/c.mov": "no-row",
    }


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_alternatives_come_from_columns_lists_and_rows(index: Callable[..., FolderIndex], kind: str) -> None:
    rows = [
        {"file": "a.mp4", "meta": {"long": "one"}, "short": ["two", "three"], "last": "x"},
        {"file": "a.mp4", "meta": {"long": "four"}, "short": [], "last": "x"},
        {"file": "b.mp4", "meta": {"long": " "}, "short": None, "last": "five"},
        {"file": "sub/c.mov", "meta": None, "short": [""], "last": ""},
    ]
    found = index(rows, kind, caption_columns=("meta.long", "short"), fallback_caption_column="last")
    assert captions(found) == {"a.mp4": ("one", "two", "three", "four"), "b.mp4": ("five",)}
    assert reasons(found) == {"sub/c.mov": "no-caption"}


def test_what_is_no_text_is_told_for_its_clip_alone(index: Callable[..., FolderIndex]) -> None:
    rows = [{"file": "a.mp4", "caption": 7}, {"file": "b.mp4", "caption": "x"}, {"file": "sub/c.mov"}]
    found = index(rows)
    assert captions(found) == {"b.mp4": ("x",)}
    assert [(entry.name, entry.reason, entry.detail) for entry in found.rejected] == [
        ("a.mp4", "bad-caption", "line 1 of the table: column 'caption' holds int, not text"),
        ("sub/c.mov", "no-caption", "line 3 of the table has no caption"),
    ]


def test_table_of_sizes_leaves_captions_and_clips_alone(index: Callable[..., FolderIndex]) -> None:
    rule = CaptionRule("instanceprompt", instance_prompt="TOK")
    rows = [{"file": "a.mp4", "w": "640", "h": "480"}, {"file": "gone.mp4", "w": "", "h": ""}]
    found = index(rows, "csv", rule, width_column="w", height_column="h")
    assert [clip.stated_size for clip in found.clips] == [(640, 480), None, None]
    assert found.rejected == ()


def test_instance_prompt_alone_takes_the_place_of_the_captions(index: Callable[..., FolderIndex]) -> None:
    rule = CaptionRule("csv", instance_prompt="TOK", only_instance_prompt=True)
    found = index([{"file": "a.mp4", "caption": ""}], "csv", rule)
    assert captions(found) == {"a.mp4": ("TOK",)}
    assert reasons(found) == {"b.mp4": "no-row", "sub/c.mov": "no-row"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"filename_column": "nome"}, "'nome'"),
        ({"caption_columns": ("caption", "titel")}, "'titel'"),
        ({"fallback_caption_column": "other.deep"}, "'other.deep'"),
        ({"width_column": "w", "height_column": "h"}, "'w'"),
    ],
)
def test_column_that_is_not_there_is_told_with_those_that_are(
    index: Callable[..., FolderIndex], kind: str, columns: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError) as error:
        index([{"file": "a.mp4", "caption": "x"}], kind, **columns)
    assert f"table.{kind}" in error.value.message
    assert words in error.value.message
    assert error.value.message.endswith("it has 'file', 'caption'")
    assert error.value.hint


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"file,caption\na.mp4,one,two\n", "line 2 has 3 fields, and the first line has 2"),
        ("t.csv", b'file,caption\na.mp4,"one\ntwo"\nb.mp4\n', "line 4 has 1 fields"),
        ("t.csv", b'file,caption\na.mp4,"one" two\n', "line 2"),
        ("t.csv", b'file,caption\na.mp4,"one', "line 2"),
        ("t.csv", b"file,caption\na.mp4,it\x92s\n", "line 2 is not UTF-8: byte 0x92"),
        ("t.csv", b"file,caption\na.mp4," + b"x" * 17_000_000, "line 2 is longer than"),
        ("t.csv", b"", "no column that names the files; it has none"),
        ("t.csv", b"title,caption\n", "it has 'title', 'caption'"),
        ("t.jsonl", b'{"file": "a.mp4"}\n{"file": \n', "line 2 is no JSON object"),
        ("t.jsonl", b'["a.mp4"]\n', "line 1 is no JSON object"),
        ("t.jsonl", b'{"file": "it\x92s"}\n', "line 1 is no JSON object"),
        ("t.jsonl", b"[" * 100_000, "line 1 is no JSON object"),
        ("t.jsonl", b"\n\n", "is empty"),
        ("t.parquet", b"", "t.parquet"),
        ("t.parquet", b"PAR1 but nothing else PAR1", "t.parquet"),
        ("t.txt", b"", "is no table"),
    ],
)
def test_broken_table_is_one_error_with_the_place(data: Path, name: str, content: bytes, words: str) -> None:
    (data / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_table(TableRule(data / name)))
    assert words in error.value.message
    assert str(data / name) in error.value.message
    assert "\n" not in error.value.message
    assert error.value.hint


def test_table_that_is_not_there_is_an_error(data: Path) -> None:
    for path, words in ((data / "no.csv", "does not exist"), (data / "sub.csv", "is not a file")):
        (data / "sub.csv").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=words):
            list(read_table(TableRule(path)))


@pytest.mark.parametrize("value", ["wide", -1, 0, 1.5, 1e300, [1], 10**400, "9" * 5000])
def test_size_that_is_none_is_an_error_with_its_place(index: Callable[..., FolderIndex], value: Any) -> None:
    with pytest.raises(DataError, match=r"line 1: w is .{1,60}, not a number of pixels"):
        index([{"file": "a.mp4", "caption": "x", "w": value, "h": 1}], width_column="w", height_column="h")


@pytest.mark.parametrize("name", ["\ud800.mp4", "x" * 300, "y/" * 2500, "/z" * 2500, "\0.mp4"])
@pytest.mark.parametrize("whole", [True, False])
def test_name_that_no_file_can_have_is_told_as_missing(
    index: Callable[..., FolderIndex], data: Path, name: str, whole: bool
) -> None:
    for said in (name, str(data / name)):
        found = index(
            [{"file": "a.mp4", "caption": "x"}, {"file": said, "caption": "y"}], identifier_includes_extension=whole
        )
        assert list(captions(found)) == ["a.mp4"]
        (told,) = [entry for entry in found.rejected if entry.reason != "no-row"]
        assert told.reason in ("missing-file", "outside-folder") and len(told.name) < 400 and told.name.encode()


BOMBS = ("caption", "list", "name")


@pytest.mark.parametrize("place", BOMBS)
def test_text_that_a_small_file_repeats_for_ever_is_told_before_it_takes_memory(tmp_path: Path, place: str) -> None:
    """A text of 40 MB stands there once, in 10 kB, and two thousand rows name it: 80 GB."""
    rows = 2048
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 40_000_000]))
    few = pa.array(["a.mp4"] * rows)
    vast = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), texts) if place == "list" else texts
    names, caps = (texts, few) if place == "name" else (few, vast)
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"file": names, "caption": caps}), path, compression="zstd", write_statistics=False)
    assert path.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"rows 1 to 256: column '(caption|file)' holds a text of"):
        list(read_table(TableRule(path)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_many_long_texts_in_one_row_are_told(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["x" * 100_000]))
    table = pa.table({"file": ["a.mp4"], "caption": pa.ListArray.from_arrays(pa.array([0, 4096], pa.int32()), texts)})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="holds 4096 texts of up to"):
        list(read_table(TableRule(tmp_path / "t.parquet")))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_caption_longer_than_any_is_told_for_its_clip_alone(index: Callable[..., FolderIndex], kind: str) -> None:
    rows = [{"file": "a.mp4", "caption": "x" * 70_000}, {"file": "b.mp4", "caption": "x"}]
    found = index(rows, kind)
    assert captions(found) == {"b.mp4": ("x",)}
    assert reasons(found) == {"a.mp4": "bad-caption", "sub/c.mov": "no-row"}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(index: Callable[..., FolderIndex], tmp_path: Path, mark: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f'\ufefffile{mark}caption\r\na.mp4{mark}"said ""x"",\r\ntwice"\r\n\r\n'.encode())
    assert captions(index(path)) == {"a.mp4": ('said "x",\ntwice',)}


def test_a_column_of_files_themselves_is_no_column_of_names(index: Callable[..., FolderIndex]) -> None:
    rows = [{"video": {"bytes": b"x", "path": "a.mp4"}, "caption": "x"}]
    with pytest.raises(DataError, match="no column that names the files"):
        index(rows, "parquet")
    with pytest.raises(DataError, match="not names of files"):
        index(rows, "parquet", filename_column="video")


@pytest.mark.parametrize(
    ("column", "value"),
    [("a.b", 1), ("l.1", 3), ("l.9", None), ("o.x", [4, 5]), ("a.b.c", None), ("no.no", None), ("d.d", 6)],
)
def test_dotted_columns(column: str, value: Any) -> None:
    record = {"a": {"b": 1}, "l": [2, 3], "o": [{"x": 4}, {"x": 5}], "d.d": 6, "d": {"d": 7}}
    assert dig(record, column) == value


NAMES = st.sampled_from(["a.mp4", "b.mp4", "sub/c.mov", "no.mp4", "", "../x", "/x.mp4", "a.mp4/..", "x://y", "\0", "."])
LINES = st.lists(st.tuples(NAMES | st.text(max_size=8), st.text(max_size=12)), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(LINES, st.sampled_from(KINDS), st.booleans())
def test_whatever_stands_in_a_table_each_file_is_used_or_rejected_once(
    index: Callable[..., FolderIndex], lines: list[tuple[str, str]], kind: str, whole: bool
) -> None:
    lines = [(name.encode("utf-8", "ignore").decode(), text.encode("utf-8", "ignore").decode()) for name, text in lines]
    rows = [{"file": name, "caption": text} for name, text in lines]
    try:
        found = index(rows, kind, identifier_includes_extension=whole)
    except DataError:  # such as a carriage return in csv, which is a line's end there
        assert kind == "csv"
        return
    named = [*captions(found), *reasons(found)]
    assert len(named) == len(found.clips) + len(found.rejected) == len(set(named))
    assert {"a.mp4", "b.mp4", "sub/c.mov"} <= set(named)
    assert all("\n" not in name and name.encode() for name in named)


def test_a_table_imports_neither_pandas_nor_datasets(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [{"file": "a.mp4", "caption": "x"}])
    code = (
        "import sys; from pathlib import Path; from ltxtrain.config.datasets import TableRule;"
        "from ltxtrain.facts.index import index_clips; from ltxtrain.facts.tables import read_table;"
        "heavy = {'pandas', 'datasets', 'pyarrow'}; assert not heavy & sys.modules.keys(), heavy & sys.modules.keys();"
        "assert len(list(read_table(TableRule(Path(sys.argv[1]))))) == 1; print(heavy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{'pyarrow'}", done.stderr
