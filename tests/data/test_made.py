"""The clips that are made when there is no data: what a caption says is what is drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from ltxtrain.data.made import clip_for, draw_clip, make_clips

CLIPS = range(48)


def shape_of(image_HWC: np.ndarray) -> np.ndarray:
    """Where the picture differs from its own corner, as [H, W] of bool."""
    return (image_HWC != image_HWC[0, 0]).any(axis=2)


def centre_of(image_HWC: np.ndarray) -> np.ndarray:
    """(x, y) of the middle of what is drawn, in pixels."""
    rows, columns = np.nonzero(shape_of(image_HWC))
    return np.array([columns.mean(), rows.mean()])


def name_of(colour: np.ndarray) -> str:
    red, green, blue = (int(part) for part in colour)
    if max(red, green, blue) - min(red, green, blue) < 20:
        return "dark" if red < 60 else "pale" if red > 200 else "grey"
    if red > 200 and green > 180:
        return "yellow"
    return ("red", "green", "blue")[int(np.argmax((red, green, blue)))]


def direction_of(frames_FHWC: np.ndarray) -> str:
    across, down = centre_of(frames_FHWC[-4]) - centre_of(frames_FHWC[4])
    if abs(across) > abs(down):
        return "from left to right" if across > 0 else "from right to left"
    return "from the top to the bottom" if down > 0 else "from the bottom to the top"


def form_of(image_HWC: np.ndarray) -> str:
    mask_HW = shape_of(image_HWC)
    rows, columns = np.nonzero(mask_HW)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    if height > 2 * width:
        return "bar"
    filled = mask_HW.sum() / (height * width)
    return "square" if filled > 0.95 else "circle" if abs(filled - np.pi / 4) < 0.03 else "something else"


@pytest.mark.parametrize("index", CLIPS)
def test_caption_names_what_is_drawn(index: int) -> None:
    clip = clip_for(index)
    frames_FHWC = draw_clip(clip)
    middle_HWC = frames_FHWC[len(frames_FHWC) // 2]
    colour = name_of(middle_HWC[tuple(centre_of(middle_HWC)[::-1].astype(int))])
    ground = name_of(middle_HWC[0, 0])
    form, direction = form_of(middle_HWC), direction_of(frames_FHWC)
    assert clip.caption == f"A {colour} {form} moves {direction} over a plain {ground} background."


def test_forty_eight_clips_are_all_different() -> None:
    assert len({clip_for(index).caption for index in CLIPS}) == 48
    assert len({draw_clip(clip_for(index)).tobytes() for index in CLIPS}) == 48


def test_any_four_neighbours_differ_in_colour_and_show_three_shapes() -> None:
    four = [clip_for(index) for index in range(4)]
    assert len({clip.colour for clip in four}) == 4
    assert len({clip.shape for clip in four}) == 3


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_made_clips_are_captioned_videos_of_a_usable_length(tmp_path: Path) -> None:
    home = make_clips(tmp_path, 4)
    assert home.parent == tmp_path
    assert sorted(path.suffix for path in home.iterdir()) == [".mp4"] * 4 + [".txt"] * 4
    for path in home.glob("*.mp4"):
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        caption = path.with_suffix(".txt").read_text().strip()
        assert len(frames) % 8 == 1
        assert (frames[0].width % 32, frames[0].height % 32) == (0, 0)
        picture_HWC = frames[len(frames) // 2].to_ndarray(format="rgb24")
        corner_H = np.abs(picture_HWC.astype(int) - picture_HWC[0, 0]).sum(axis=2) > 90
        rows, columns = np.nonzero(corner_H)
        assert f"A {name_of(picture_HWC[int(rows.mean()), int(columns.mean())])} " in caption


def test_clips_that_exist_are_kept_and_missing_ones_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    home = make_clips(tmp_path, 3)
    first = contents(home)
    gone, kept, uncaptioned = sorted(home.glob("*.mp4"))
    gone.unlink()
    uncaptioned.with_suffix(".txt").unlink()
    before = kept.stat().st_mtime_ns
    assert make_clips(tmp_path, 3) == home
    assert kept.stat().st_mtime_ns == before
    assert contents(home) == first


def test_another_number_of_clips_has_another_folder(tmp_path: Path) -> None:
    """A data set is a whole folder: leftovers of a larger number would be trained on."""
    assert make_clips(tmp_path, 2) != make_clips(tmp_path, 3)
    assert len(list(make_clips(tmp_path, 2).glob("*.mp4"))) == 2
