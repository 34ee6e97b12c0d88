from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.config import CaptionRule
from ltxtrain.errors import DataError
from ltxtrain.facts import index_walk
from ltxtrain.facts.index import FolderIndex, index_clips
from ltxtrain.facts.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from tests.datasets import PLAIN


def index_folder(root: Path, rule: CaptionRule | None = None, **changes: object) -> FolderIndex:
    return index_clips(replace(PLAIN, root=root, captions=rule or CaptionRule(), **changes))


def reasons(index: FolderIndex) -> dict[str, str]:
    return {entry.name: entry.reason for entry in index.rejected}


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """The index never opens a clip, so any bytes will do for one."""

    def write(name: str, content: bytes | str = b"video") -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_clips_are_found_in_all_folders_sorted_with_their_captions(put: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.mkv", "a/y.MOV"):
        put(name)
        put(str(Path(name).with_suffix(".txt")), f"caption of {name}\n")
    put("notes.txt", "no clip")
    index = index_folder(tmp_path / "data")
    assert [(clip.name, clip.captions) for clip in index.clips] == [
        ("a/y.MOV", ("caption of a/y.MOV",)),
        ("a/z.mkv", ("caption of a/z.mkv",)),
        ("b.mp4", ("caption of b.mp4",)),
    ]
    assert index.rejected == ()


def test_all_documented_extensions_are_clips(put: Callable[..., Path], tmp_path: Path) -> None:
    documented = ["mp4", "avi", "mov", "mkv", "webm", "flv", "wmv", "m4v", "mpeg", "mpg", "3gp", "ogv"]
    assert {f".{name}" for name in documented} == VIDEO_EXTENSIONS
    for name in [*documented, "jpg", "wav", "json"]:
        put(f"clip.{name}")
    put("clip.txt", "the same words for all")
    index = index_folder(tmp_path / "data")
    assert len(index.clips) == 12
    assert {clip.captions for clip in index.clips} == {("the same words for all",)}


def test_lines_are_alternatives_unless_told_otherwise(put: Callable[..., Path], tmp_path: Path) -> None:
    put("a.mp4")
    put("a.txt", "\ufeffone\r\n\n  two \n")
    assert index_folder(tmp_path / "data").clips[0].captions == ("one", "two")
    whole = index_folder(tmp_path / "data", CaptionRule(disable_multiline_split=True))
    assert whole.clips[0].captions == ("one\n\n  two",)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (CaptionRule("filename"), ("a red ball",)),
        (CaptionRule("instanceprompt", instance_prompt="a toy"), ("a toy",)),
        (
            CaptionRule("textfile", instance_prompt="in TOK style,", prepend_instance_prompt=True),
            ("in TOK style, it rolls",),
        ),
        (CaptionRule("textfile", instance_prompt="a toy", only_instance_prompt=True), ("a toy",)),
        (CaptionRule("filename", instance_prompt="TOK", prepend_instance_prompt=True), ("TOK a red ball",)),
    ],
)
def test_caption_strategies(
    put: Callable[..., Path], tmp_path: Path, rule: CaptionRule, expected: tuple[str, ...]
) -> None:
    put("a_red_ball.mp4")
    put("a_red_ball.txt", "it rolls")
    assert index_folder(tmp_path / "data", rule).clips[0].captions == expected


@pytest.mark.parametrize(
    ("caption", "reason", "words"),
    [
        (None, "no-caption", "no a.txt"),
        (b"", "no-caption", "empty"),
        (b" \n\x00\n", "no-caption", "empty"),
        (b"it\x92s a dog", "bad-caption", "0x92 at offset 2"),
        ("A dog".encode("utf-16"), "bad-caption", "is UTF-16"),
        (b"x" * 70_000, "bad-caption", "70000 bytes"),
    ],
)
def test_caption_that_cannot_be_used_is_never_silent(
    put: Callable[..., Path], tmp_path: Path, caption: bytes | None, reason: str, words: str
) -> None:
    put("a.mp4")
    if caption is not None:
        put("a.txt", caption)
    index = index_folder(tmp_path / "data")
    assert index.clips == ()
    assert [(entry.name, entry.reason) for entry in index.rejected] == [("a.mp4", reason)]
    assert words in index.rejected[0].detail


def test_links_out_of_the_folder_are_refused_and_links_inside_are_clips(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    put("real.mp4")
    put("real.txt", "a caption")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(b"video")
    (outside / "secret.txt").write_text("secret")
    data = tmp_path / "data"
    (data / "inside.mp4").symlink_to(data / "real.mp4")
    (data / "inside.txt").write_text("the same clip")
    (data / "leak.mp4").symlink_to(outside / "secret.mp4")
    (data / "leak.txt").write_text("a caption")
    (data / "folder").symlink_to(outside)
    put("words.mp4")
    (data / "words.txt").symlink_to(outside / "secret.txt")
    index = index_folder(data)
    assert [clip.name for clip in index.clips] == ["inside.mp4", "real.mp4"]
    assert {entry.name: entry.reason for entry in index.rejected} == {
        "folder": "outside-folder",
        "leak.mp4": "outside-folder",
        "words.mp4": "outside-folder",
    }


def test_folder_may_itself_be_a_link(put: Callable[..., Path], tmp_path: Path) -> None:
    put("a.mp4")
    put("a.txt", "a caption")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(index_folder(tmp_path / "link").clips) == 1


def test_hidden_files_and_circles_of_links_are_passed_over(put: Callable[..., Path], tmp_path: Path) -> None:
    put("._a.mp4")
    put(".cache/b.mp4")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    index = index_folder(tmp_path / "data")
    assert index.clips == ()
    assert index.rejected == ()


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_folder_that_is_none_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match=name):
        index_folder(tmp_path / name)


def test_the_other_kind_of_media_is_counted(put: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("a.mp4", "b.png", "deep/c.JPG", "d.webp", "e.wav"):
        put(name)
        put(str(Path(name).with_suffix(".txt")), "a caption")
    videos, images = (index_folder(tmp_path / "data", kind=kind) for kind in ("video", "image"))
    assert ([clip.name for clip in videos.clips], videos.others) == (["a.mp4"], 3)
    assert ([clip.name for clip in images.clips], images.others) == (["b.png", "d.webp", "deep/c.JPG"], 1)


def test_all_kinds_of_images_are_found(put: Callable[..., Path], tmp_path: Path) -> None:
    for extension in IMAGE_EXTENSIONS:
        put(f"a{extension}")
    put("a.txt", "one caption for two files of one stem")
    index = index_folder(tmp_path / "data", kind="image")
    assert {Path(clip.name).suffix for clip in index.clips} == IMAGE_EXTENSIONS


def test_what_is_no_file_has_its_reason(put: Callable[..., Path], tmp_path: Path) -> None:
    put("good.mp4/inside.mp4")
    put("good.mp4/inside.txt", "a caption")
    data = tmp_path / "data"
    (data / "empty.mp4").mkdir()
    os.mkfifo(data / "pipe.mp4")
    os.mkfifo(data / "words.txt")
    put("words.mp4")
    (data / "loop.mp4").symlink_to("loop.mp4")
    (data / "loop").symlink_to("loop")
    (data / "gone.mp4").symlink_to("nothing.mp4")
    (data / "folder.mp4").symlink_to("good.mp4")
    index = index_folder(data)
    assert [clip.name for clip in index.clips] == ["good.mp4/inside.mp4"]
    assert reasons(index) == {
        "empty.mp4": "unreadable",
        "gone.mp4": "unreadable",
        "loop.mp4": "unreadable",
        "pipe.mp4": "unreadable",
        "words.mp4": "no-caption",
    }


@pytest.mark.skipif(os.uname().sysname == "Darwin", reason="macOS has no names that are not UTF-8")
def test_names_that_would_break_a_report_are_told_on_one_line(put: Callable[..., Path], tmp_path: Path) -> None:
    put("good.mp4")
    for name in (b"\xff\xfe.mp4", b"two\nlines.mp4", b"bell\x07.mp4", "\u2028.mp4".encode()):
        (tmp_path / "data" / os.fsdecode(name)).touch()
    index = index_folder(tmp_path / "data", CaptionRule("filename"))
    assert [clip.name for clip in index.clips] == ["good.mp4"]
    assert reasons(index) == dict.fromkeys(
        ["\\u2028.mp4", "\\xff\\xfe.mp4", "bell\\x07.mp4", "two\\nlines.mp4"], "unreadable"
    )


@pytest.mark.parametrize("name", ["a b.mp4", "ünï.mp4", "日本.mp4", "👩‍🚀.mp4", "-rf.mp4", "a.b.c.mp4", "%s{}$(x).mp4"])
def test_unusual_names_are_clips(put: Callable[..., Path], tmp_path: Path, name: str) -> None:
    put(name)
    put(f"{name[:-4]}.txt", "a caption")
    assert [clip.name for clip in index_folder(tmp_path / "data").clips] == [name]


def test_each_folder_is_listed_once_and_nothing_is_opened_for_a_name(tmp_path: Path) -> None:
    for folder in range(5):
        (tmp_path / str(folder)).mkdir()
        for clip in range(200):
            (tmp_path / str(folder) / f"{clip}.mp4").touch()
    calls: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("os.scandir", "os.listdir", "open"):
            calls.append(event)

    watching = True
    sys.addaudithook(watch)
    index = index_folder(tmp_path, CaptionRule("filename"))
    watching = False
    assert len(index.clips) == 1000
    assert calls == ["os.scandir"] * 6


def test_a_folder_that_cannot_be_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: .*\\x1bgone") as refused:
        index_walk._entries(str(tmp_path / "\x1bgone"))
    assert "right to read it" in str(refused.value.hint)
