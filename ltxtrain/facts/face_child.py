"""The process that looks for faces: decodes the picture that is asked for, and searches it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.facts.children_serve import serve
from ltxtrain.facts.media import MediaError
from ltxtrain.facts.media_frames import picture_at

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SEARCHED = (640, 640)  # pixels: a face worth cutting around is large in the picture
LEAST_PART = 0.06  # of the shorter side; smaller ones are as a rule none
LEAST_PIXELS = 24
NEIGHBOURS = 6  # overlapping finds that confirm one another; with fewer, leaves and folds are taken for faces


def answer(task: dict[str, Any], room: memoryview) -> tuple[dict[str, Any], int]:
    """``{"face": [x, y]}``: the middle of the largest face, as parts of the displayed width and height, or None.

    ``{"failed": ...}`` where there is no such picture, ``{"unloaded": ...}`` where OpenCV cannot be loaded.
    """
    try:
        picture_HWC = picture_at(Path(task["path"]), float(task["seconds"]), task["kind"], SEARCHED, None)
    except MediaError as error:
        return {"failed": error.detail}, 0
    try:
        return {"face": largest_face(picture_HWC)}, 0
    except ImportError as error:
        return {"unloaded": str(error)}, 0


def largest_face(picture_HWC: npt.NDArray[np.uint8]) -> list[float] | None:
    import cv2

    gray_HW = cv2.equalizeHist(cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2GRAY))
    height, width = gray_HW.shape
    least = max(LEAST_PIXELS, round(LEAST_PART * min(width, height)))
    found = _cascade().detectMultiScale(gray_HW, 1.1, NEIGHBOURS, minSize=(least, least))
    if not len(found):
        return None
    left, top, wide, high = max(found, key=lambda box: (box[2] * box[3], -box[0], -box[1]))
    return [float(left + wide / 2) / width, float(top + high / 2) / height]


@cache
def _cascade() -> Any:
    """Trained on frontal faces, and a part of opencv: nothing is downloaded."""
    import cv2

    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))


if __name__ == "__main__":
    serve(answer)
