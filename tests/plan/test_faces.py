"""The cut around a face, on drawn faces in real videos and images, by opencv's own cascade."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from ltxtrain.config import LoadedConfig
from ltxtrain.errors import MachineError
from ltxtrain.facts.faces import NOTE, FaceRequest, find_faces
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.make import make_plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]
SIZE = (320, 180)


def drawn(centre: int | None, radius: int = 50) -> Image.Image:
    """A grey picture with a face whose middle is ``centre`` pixels from the left, or with none."""
    image = Image.new("L", SIZE, 90)
    pen = ImageDraw.Draw(image)

    def oval(x: float, y: float, wide: float, high: float, shade: int) -> None:
        left, top = (centre or 0) + x * radius, SIZE[1] / 2 + y * radius
        pen.ellipse([left - wide * radius, top - high * radius, left + wide * radius, top + high * radius], fill=shade)

    if centre is not None:
        oval(0, -0.1, 0.78, 1.08, 40)
        oval(0, 0.05, 0.75, 0.95, 200)
        for side in (-0.3, 0.3):
            oval(side, -0.31, 0.2, 0.05, 60)
            oval(side, -0.15, 0.17, 0.09, 110)
            oval(side, -0.15, 0.08, 0.08, 20)
        oval(0, 0.15, 0.1, 0.22, 225)
        oval(0, 0.35, 0.14, 0.04, 120)
        oval(0, 0.55, 0.28, 0.08, 80)
    return image.filter(ImageFilter.GaussianBlur(2)).convert("RGB")


def write_clip(path: Path, pictures: list[Image.Image]) -> Path:
    """One second at 25 fps for each picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for _ in range(25):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    path.with_suffix(".txt").write_text("a face")
    return path


def test_largest_face_of_the_frame_that_is_asked_for(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [drawn(80), drawn(240), drawn(None)])
    found = find_faces([FaceRequest(clip, seconds) for seconds in (0.0, 1.0, 1.5, 2.2)])
    assert found[0] is not None and found[0] == pytest.approx((0.25, 0.5), abs=0.05)
    assert found[1] is not None and found[1] == pytest.approx((0.75, 0.5), abs=0.05)
    assert found[2] == found[1]
    assert found[3] is None
    picture = tmp_path / "b.png"
    drawn(240).save(picture)
    assert find_faces([FaceRequest(picture, 0.0, "image")])[0] == pytest.approx((0.75, 0.5), abs=0.05)


def test_of_two_faces_the_larger_one_counts(tmp_path: Path) -> None:
    both = Image.new("RGB", SIZE)
    both.paste(drawn(80, 30).crop((0, 0, 160, 180)), (0, 0))
    both.paste(drawn(240, 60).crop((160, 0, 320, 180)), (160, 0))
    both.save(tmp_path / "both.png")
    [found] = find_faces([FaceRequest(tmp_path / "both.png", 0.0, "image")])
    assert found is not None and found[0] > 0.6


def test_what_was_found_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    clip, memo = write_clip(tmp_path / "a.mp4", [drawn(80)]), tmp_path / "memo"
    asked = [FaceRequest(clip, 0.0)]
    first = find_faces(asked, memo)
    noted = json.loads((memo / NOTE).read_text())
    noted[asked[0].key]["face"] = [0.125, 0.5]
    (memo / NOTE).write_text(json.dumps(noted))
    assert find_faces(asked, memo) == [(0.125, 0.5)]
    write_clip(clip, [drawn(240), drawn(240)])
    assert find_faces(asked, memo) != first and find_faces(asked, memo) != [(0.125, 0.5)]
    for damaged in ("{", "[]", json.dumps({asked[0].key: {"stamp": [1], "face": [7, "x"]}})):
        (memo / NOTE).write_text(damaged)
        assert find_faces(asked, memo)[0] == pytest.approx((0.75, 0.5), abs=0.05)


def test_what_cannot_be_decoded_has_no_face_and_is_not_remembered(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"no video")
    assert find_faces([FaceRequest(clip, 0.0), FaceRequest(tmp_path / "gone.mp4", 0.0)], tmp_path / "memo") == [
        None,
        None,
    ]
    assert json.loads((tmp_path / "memo" / NOTE).read_text()) == {}


def test_an_opencv_that_cannot_be_loaded_is_told_and_not_taken_for_clips_without_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site/cv2").mkdir(parents=True)
    (tmp_path / "site/cv2/__init__.py").write_text("raise ImportError('libz.so.1: cannot open\\nshared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    drawn(240).save(tmp_path / "a.png")
    with pytest.raises(MachineError, match=r"OpenCV cannot be loaded: libz\.so\.1: cannot open") as caught:
        find_faces([FaceRequest(tmp_path / "a.png", 0.0, "image")], tmp_path / "memo")
    assert caught.value.exit_code == 4 and "\n" not in caught.value.message
    assert caught.value.hint == "make setup, or install ltxtrain's packages again"
    assert not (tmp_path / "memo" / NOTE).exists()


def test_plan_cuts_around_faces_and_counts_windows_without_one(
    clips: Path, load: Load, machine: Machine, documented: Callable[..., dict[str, object]]
) -> None:
    write_clip(clips / "left.mp4", [drawn(80), drawn(240)])
    write_clip(clips / "none.mp4", [drawn(None)])
    entry = documented({"num_frames": 25, "window": "all"}, crop=True, crop_style="face", crop_aspect="square")
    loaded = load(datasets=[entry], train_batch_size=1, resolution=96)
    plan = make_plan(loaded, machine)
    middles = [(sample.crop[0] + 48) / sample.resize[0] for sample in plan.samples]
    assert middles == pytest.approx([0.28, 0.72, 0.5], abs=0.04)
    assert any("no face is found in 1 of 3 samples: those are cut in the middle" in notice for notice in plan.notices)
    again = make_plan(loaded, machine)
    assert again.samples == plan.samples


def test_pictures_of_which_nothing_is_cut_off_are_not_searched(
    add_clip: AddClip, load: Load, machine: Machine, documented: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    add_clip("whole.mp4", size=(96, 96))
    entry = documented({"num_frames": 9}, crop_style="face")
    plan = make_plan(load(datasets=[entry], train_batch_size=1, resolution=96), machine)
    assert plan.samples[0].resize == (96, 96)
    assert not (tmp_path / "cache" / "index" / NOTE).exists()
    assert not any("face" in notice for notice in plan.notices)
