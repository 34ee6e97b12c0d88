"""The process that looks for faces: opens a clip, decodes the frame that is asked for, and searches it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.facts.children_serve import Answer, serve
from ltxtrain.facts.media import MediaError, open_clip, open_regular_file, video_stream
from ltxtrain.facts.media_images import read_image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LONGEST_SIDE = 640  # pixels that are searched: a face worth cutting around is large in the picture
LEAST_PART = 0.06  # of the shorter side; smaller ones are as a rule none
NEIGHBOURS = 6  # overlapping finds that confirm one another; with fewer, leaves and folds are taken for faces
SEEK_BEYOND_S = 1.0


def answer(task: dict[str, Any]) -> Answer:
    """``{"face": [x, y]}``: the middle of the largest face, as parts of the displayed width and height, or None.

    ``{"failed": ...}`` where there is no such frame.
    """
    path = Path(task["path"])
    try:
        gray_HW = _picture(path) if task["kind"] == "image" else _frame(path, float(task["seconds"]))
    except MediaError as error:
        return {"failed": error.detail}, b""
    # Damaged files raise nearly any of these; the decoder's own errors derive from them, by kind.
    except (OSError, ValueError, IndexError, ArithmeticError, LookupError, MemoryError, RuntimeError) as error:
        return {"failed": str(error)}, b""
    return {"face": largest_face(gray_HW)}, b""


def largest_face(gray_HW: npt.NDArray[np.uint8]) -> list[float] | None:
    import cv2

    height, width = gray_HW.shape
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        gray_HW = cv2.resize(gray_HW, size, interpolation=cv2.INTER_AREA)
    height, width = gray_HW.shape
    least = max(24, round(LEAST_PART * min(width, height)))
    found = _cascade().detectMultiScale(cv2.equalizeHist(gray_HW), 1.1, NEIGHBOURS, minSize=(least, least))
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


def _frame(path: Path, seconds: float) -> npt.NDArray[np.uint8]:
    """The frame that is shown ``seconds`` after the first one, grey, turned as a player turns it."""
    import numpy as np

    with open_clip(path) as container:
        stream = video_stream(container)
        stream.codec_context.thread_count = 1
        shown = next(container.decode(stream), None)
        if shown is None:
            raise MediaError("damaged", "not one frame could be decoded")
        origin = 0.0 if shown.pts is None else shown.time
        if seconds > SEEK_BEYOND_S and stream.time_base:
            container.seek(int((origin + seconds) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None or frame.time - origin > seconds + 1e-3:
                break
            shown = frame
        return np.ascontiguousarray(np.rot90(shown.to_ndarray(format="gray"), round(shown.rotation / 90) % 4))


def _picture(path: Path) -> npt.NDArray[np.uint8]:
    import numpy as np

    with open_regular_file(path) as file:
        return np.asarray(read_image(file).convert("L"))


if __name__ == "__main__":
    serve(answer)
