"""What lies at a clip's path when it is opened may be another thing than what lay there when it was found."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ltxtrain.config import Dataset
from ltxtrain.data.cache_decode import Decoder
from ltxtrain.data.frames import decode_window
from ltxtrain.errors import DataError
from ltxtrain.facts.index import index_clips
from ltxtrain.facts.media import ClipFacts, MediaError, probe_clips
from ltxtrain.facts.media_frames import FrameRequest, decode_frames
from ltxtrain.facts.media_open import open_clip, open_regular_file
from ltxtrain.plan.records import Bucket, Sample
from tests.datasets import PLAIN

MakeClip = Callable[..., Path]
PARTS = ("a.mp4", "a.png")


def put_fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def put_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / path.name)


def put_linked_folder(path: Path, outside: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to(outside)


SWAPS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "fifo": (put_fifo, "not a regular file"),
    "link": (put_link, "a link on its path leads to"),
    "linked folder": (put_linked_folder, "a link on its path leads to"),
}


def two(make_clip: MakeClip, folder: Path) -> None:
    make_clip(f"{folder.name}/sub/a.mp4", frames=12)
    Image.new("RGB", (64, 48)).save(folder / "sub/a.png")


@pytest.fixture
def swapped(make_clip: MakeClip, tmp_path: Path) -> Callable[[str, str], Path]:
    """``swapped(name, how)``: the path of a good file in whose place there is something else by now."""
    for folder in ("set", "outside"):
        two(make_clip, tmp_path / folder)

    def swap(name: str, how: str) -> Path:
        for each in PARTS:
            (tmp_path / "set/sub" / each).unlink()
        SWAPS[how][0](tmp_path / "set/sub" / name, tmp_path / "outside/sub")
        return tmp_path / "set/sub" / name

    return swap


def sample_of(path: Path) -> Sample:
    kind, frames = ("image", 1) if path.suffix == ".png" else ("video", 9)
    bucket = Bucket(64, 32, frames)
    return Sample("m/a#0", "m", str(path), ("a",), 0.0, 25.0, bucket, (64, 48), (0, 8), 0, False, kind=kind)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("how", SWAPS)
def test_what_was_put_in_a_files_place_is_not_opened(
    name: str, how: str, swapped: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path, words = swapped(name, how), SWAPS[how][1]
    kind = "image" if path.suffix == ".png" else "video"
    (found,) = probe_clips([path], kind, root=tmp_path / "set")
    assert isinstance(found, MediaError) and words in found.detail
    assert found.reason == ("unreadable" if how == "fifo" else "outside-folder")
    (picture,) = decode_frames([FrameRequest(path, 0.0, kind, (64, 64))])
    assert isinstance(picture, MediaError) and words in picture.detail
    with pytest.raises(DataError, match=words):
        decode_window(sample_of(path))
    decoder = Decoder(64 * 32 * 3 * 9, 1)
    ((_, frames),) = decoder.stream([sample_of(path)])
    decoder.close()
    assert isinstance(frames, DataError) and words in frames.message


def test_link_inside_of_the_folder_is_the_file_that_it_leads_to(make_clip: MakeClip, tmp_path: Path) -> None:
    two(make_clip, tmp_path / "set")
    (tmp_path / "set/b.mp4").symlink_to("sub/a.mp4")
    (tmp_path / "set/b.txt").write_text("a dog")
    (tmp_path / "linked").symlink_to("set")
    (clip,) = index_clips(set_at(tmp_path / "linked")).clips
    assert (clip.name, clip.path, clip.captions) == ("b.mp4", tmp_path / "set/sub/a.mp4", ("a dog",))
    for path in (tmp_path / "set/b.mp4", tmp_path / "linked/b.mp4"):
        (found,) = probe_clips([path], root=tmp_path / "linked")
        assert isinstance(found, ClipFacts)
        with pytest.raises(MediaError), open_regular_file(path):
            pass
        with open_clip(path) as container:  # whoever says so follows links to anywhere
            assert container.streams.video


def set_at(root: Path) -> Dataset:
    return replace(PLAIN, root=root)


def test_file_that_is_another_one_by_now_is_not_opened(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = make_clip("a.mp4", frames=2), make_clip("b.mp4", frames=3)
    opened = os.open

    def swap(*arguments: object) -> int:
        descriptor = opened(*arguments)  # type: ignore[arg-type]
        other.replace(path)
        return descriptor

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(MediaError, match="another file was put"):
        open_regular_file(path)
