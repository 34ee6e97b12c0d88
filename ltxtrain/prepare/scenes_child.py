"""The process that opens a video for ``dataset split``: it finds where scenes change, and encodes one of them.

Shape legend: H W pixels; frames are uint8, RGB for the encoder, BGR for PySceneDetect. OpenCV never opens a file here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ltxtrain.facts.children_serve import serve
from ltxtrain.facts.media import MAX_FRAMES, MAX_SECONDS, MediaError, bounded_stream, new_scaler, open_clip
from ltxtrain.facts.media_frames import TIMESTAMP_SLACK_S, displayed_size, frames_from, timed_frames, upright_rgb

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.frame import VideoFrame

LOOKED_AT_WIDTH = 256  # pixels, as PySceneDetect's own command looks at them
SHORTEST_SCENE = 15  # frames: cuts that follow each other faster are a flash
# Damaged files raise nearly any of these; the decoder's own errors derive from them, by kind.
DECODING = (OSError, ValueError, IndexError, ArithmeticError, LookupError, MemoryError, RuntimeError)


def answer(task: dict[str, Any], room: memoryview) -> tuple[dict[str, Any], int]:
    """What ``find`` tells, or an mp4 in ``room``, as ``do`` says; ``{"needs": bytes}`` for one that is larger than its
    room; or ``{"failed": why}``."""
    path = Path(task["path"])
    try:
        if task["do"] == "find":
            return find(path, task["detector"], task["threshold"]), 0
        content = encode(path, Cut(**task["cut"]))
    except ImportError as error:
        return {"unloaded": str(error)}, 0
    except MediaError as error:
        return {"failed": error.detail}, 0
    except DECODING as error:
        return {"failed": f"it cannot be decoded: {str(error) or type(error).__name__}"}, 0
    if len(content) > len(room):
        return {"needs": len(content)}, 0
    room[: len(content)] = content
    return {}, len(content)


@dataclass(frozen=True)
class Cut:
    """``frames`` pictures from ``start_s`` after the clip's first one on. ``fps`` is written as ``30000/1001``."""

    start_s: float
    frames: int
    fps: str


def find(path: Path, detector_name: str, threshold: float | None) -> dict[str, Any]:
    """The clip's rate, its end, and the seconds at which a new scene begins, the first of them 0."""
    timecode = import_module("scenedetect").FrameTimecode
    detector = _detector(detector_name, threshold)
    times: list[float] = []
    cuts: set[int] = set()
    with open_clip(path) as container:
        stream = bounded_stream(container)
        declared = stream.average_rate or stream.guessed_rate or Fraction(25)
        for frame, time_s in frames_from(container, 0.0):
            times.append(time_s)
            now = timecode(len(times) - 1, float(declared))
            cuts.update(cut.frame_num for cut in detector.process_frame(now, _small_BGR(frame)))
            if len(times) > MAX_FRAMES:
                raise MediaError("too-large", f"more than {MAX_FRAMES} frames")
    if not times:
        raise MediaError("damaged", "not one frame could be decoded")
    if times[-1] > MAX_SECONDS:
        raise MediaError("damaged", f"its timestamps span {times[-1]:.0f} s")
    cuts.update(cut.frame_num for cut in detector.post_process(timecode(len(times) - 1, float(declared))))
    rate = rate_of(times, declared)
    begins = [0, *sorted(cut for cut in cuts if 0 < cut < len(times))]
    return {"fps": str(rate), "begins_s": [times[index] for index in begins], "end_s": times[-1] + float(1 / rate)}


def _detector(name: str, threshold: float | None) -> Any:
    detectors = import_module("scenedetect.detectors")
    if name == "content":
        return detectors.ContentDetector(
            **({} if threshold is None else {"threshold": threshold}), min_scene_len=SHORTEST_SCENE
        )
    kept = {} if threshold is None else {"adaptive_threshold": threshold}
    return detectors.AdaptiveDetector(**kept, min_scene_len=SHORTEST_SCENE)


def rate_of(times: list[float], declared: Fraction) -> Fraction:
    """A rate at which no frame is lost: what is declared, where the gaps between most frames agree, else these gaps.

    The average would not do: one picture that stands still for a minute makes it slow, and frames of all others go.
    """
    gaps = sorted(after - before for before, after in pairwise(times) if after > before)
    if not gaps:
        return declared
    median = gaps[len(gaps) // 2]
    usual = [gap for gap in gaps if abs(gap - median) <= TIMESTAMP_SLACK_S]
    gap_s = sum(usual) / len(usual)  # of rounded timestamps, the median alone is off by as much as they are
    off = abs(gap_s - 1 / float(declared)) * len(usual)
    return declared if off < 0.5 / float(declared) else Fraction(1 / gap_s).limit_denominator(1001)


def encode(path: Path, cut: Cut) -> bytes:
    """An mp4 of the cut, encoded while it is decoded: in memory is one picture, and what the encoder holds."""
    from ltxtrain.data.frames import encode_video

    with open_clip(path) as container:
        pictures = _Pictures(container, cut)
        return encode_video(cast("np.ndarray", pictures), float(Fraction(cut.fps)))


class _Pictures:
    """Looks to the encoder like an array [F, H, W, 3], and decodes while it is gone through. To be used once."""

    def __init__(self, container: InputContainer, cut: Cut) -> None:
        self._pixel_shape = bounded_stream(container).sample_aspect_ratio
        self._scaler = new_scaler()
        self._frames = shown_frames(container, cut)
        self._first = next(self._frames)
        width, height = even(displayed_size(self._first, self._pixel_shape))
        self.shape = (cut.frames, height, width, 3)

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self._upright(self._first)
        for frame in self._frames:
            yield self._upright(frame)

    def _upright(self, frame: VideoFrame) -> np.ndarray:
        import numpy as np

        _, height, width, _ = self.shape
        image_HWC = upright_rgb(frame, displayed_size(frame, self._pixel_shape), self._scaler)
        if image_HWC.shape[0] < height or image_HWC.shape[1] < width:
            raise MediaError("damaged", "its pictures change their size")
        return np.ascontiguousarray(image_HWC[:height, :width])


def shown_frames(container: InputContainer, cut: Cut) -> Iterator[VideoFrame]:
    """The frame that is shown at each of the cut's moments, by timestamps. Raises ``ValueError`` when there is none."""
    rate = Fraction(cut.fps)
    moments = (cut.start_s + float(index / rate) for index in range(cut.frames))
    wanted: float | None = next(moments)
    shown: VideoFrame | None = None
    for frame, until in timed_frames(container, cut.start_s):
        shown = frame
        while wanted is not None and wanted < until:
            yield shown
            wanted = next(moments, None)
        if wanted is None:
            return
    if shown is None:
        raise ValueError("it ends early")
    yield shown  # nobody tells how long the last frame is shown: to the end
    for _ in moments:
        yield shown


def even(size: tuple[int, int]) -> tuple[int, int]:
    """Without the last row or column of an odd size: players know no odd ones in H.264 with 4:2:0 colours."""
    if min(size) < 2:
        raise MediaError("too-small", f"{size[0]}x{size[1]} pixels")
    return size[0] // 2 * 2, size[1] // 2 * 2


def _small_BGR(frame: VideoFrame) -> np.ndarray:
    scale = min(1.0, LOOKED_AT_WIDTH / frame.width)
    size = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    return frame.reformat(*size, format="bgr24").to_ndarray()


if __name__ == "__main__":
    serve(answer)
