"""The process that opens a video for ``dataset split``: it finds where scenes change, and encodes one of them.

Shape legend: H W pixels; frames are uint8, RGB for the encoder, BGR for PySceneDetect. OpenCV never opens a file here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ltxtrain.facts.children_serve import serve
from ltxtrain.facts.media import MAX_FRAMES, MAX_PIXELS, MediaError, open_clip, video_stream

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

LOOKED_AT_WIDTH = 256  # pixels, as PySceneDetect's own command looks at them
SHORTEST_SCENE = 15  # frames: cuts that follow each other faster are a flash
SLACK_S = 1.5e-3  # containers round timestamps
SEEK_BEYOND_S = 1.0
SEEK_LEAD_S = 0.5
# Program streams give few of their frames a time, so that nothing in them can be sought.
WITHOUT_TIMES = ("mpeg", "mpegvideo")
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
    """The clip's rate, size and the seconds at which a new scene begins, the first of them 0."""
    timecode = import_module("scenedetect").FrameTimecode
    detector = _detector(detector_name, threshold)
    times: list[float] = []
    cuts: set[int] = set()
    with open_clip(path) as container:
        stream = stream_of(container)
        declared = stream.average_rate or stream.guessed_rate or Fraction(25)
        size = (0, 0)
        for frame in container.decode(stream):
            times.append(time_of(frame))
            size = shown_size(frame, stream)
            now = timecode(len(times) - 1, float(declared))
            cuts.update(cut.frame_num for cut in detector.process_frame(now, _small_BGR(frame)))
            if len(times) > MAX_FRAMES:
                raise MediaError("too-large", f"more than {MAX_FRAMES} frames")
    if not times:
        raise MediaError("damaged", "not one frame could be decoded")
    cuts.update(cut.frame_num for cut in detector.post_process(timecode(len(times) - 1, float(declared))))
    rate = rate_of(times, declared)
    begins = [0, *sorted(cut for cut in cuts if 0 < cut < len(times))]
    seconds = [times[index] - times[0] for index in begins]
    end_s = times[-1] - times[0] + float(1 / rate)
    return {"fps": str(rate), "size": list(even(size)), "begins_s": seconds, "end_s": end_s, "frames": len(times)}


def _detector(name: str, threshold: float | None) -> Any:
    detectors = import_module("scenedetect.detectors")
    if name == "content":
        return detectors.ContentDetector(
            **({} if threshold is None else {"threshold": threshold}), min_scene_len=SHORTEST_SCENE
        )
    kept = {} if threshold is None else {"adaptive_threshold": threshold}
    return detectors.AdaptiveDetector(**kept, min_scene_len=SHORTEST_SCENE)


def rate_of(times: list[float], declared: Fraction) -> Fraction:
    """What the container declares, where the timestamps agree on the whole; else their average."""
    if len(times) < 2 or times[-1] <= times[0]:
        return declared
    average = (len(times) - 1) / (times[-1] - times[0])
    off = abs(times[-1] - times[0] - (len(times) - 1) / float(declared))
    return declared if off < 0.5 / float(declared) else Fraction(average).limit_denominator(1001)


def encode(path: Path, cut: Cut) -> bytes:
    """An mp4 of the cut, encoded while it is decoded: in memory is one picture, and what the encoder holds."""
    from ltxtrain.data.frames import encode_video

    with open_clip(path) as container:
        pictures = _Pictures(container, cut)
        return encode_video(cast("np.ndarray", pictures), float(Fraction(cut.fps)))


class _Pictures:
    """Looks to the encoder like an array [F, H, W, 3], and decodes while it is gone through. To be used once."""

    def __init__(self, container: InputContainer, cut: Cut) -> None:
        self._stream = stream_of(container)
        self._cut = cut
        self._frames = shown_frames(container, self._stream, cut)
        self._first = next(self._frames)
        width, height = even(shown_size(self._first, self._stream))
        self.shape = (cut.frames, height, width, 3)

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self._upright(self._first)
        for frame in self._frames:
            yield self._upright(frame)

    def _upright(self, frame: VideoFrame) -> np.ndarray:
        import numpy as np

        _, height, width, _ = self.shape
        wide, high = shown_size(frame, self._stream)
        turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 takes them
        coded = (high, wide) if turns % 2 else (wide, high)
        image_HWC = np.rot90(frame.reformat(*coded, format="rgb24").to_ndarray(), turns)
        if image_HWC.shape[0] < height or image_HWC.shape[1] < width:
            raise MediaError("damaged", "its pictures change their size")
        return np.ascontiguousarray(image_HWC[:height, :width])


def shown_frames(container: InputContainer, stream: VideoStream, cut: Cut) -> Iterator[VideoFrame]:
    """The frame that is shown at each of the cut's moments, by timestamps. Raises ``ValueError`` when there is none."""
    rate = Fraction(cut.fps)
    moments = iter([cut.start_s + float(index / rate) for index in range(cut.frames)])
    wanted = next(moments)
    shown: VideoFrame | None = None
    for time_s, frame in _from(container, stream, cut.start_s):
        while shown is not None and wanted < time_s - SLACK_S:
            yield shown
            following = next(moments, None)
            if following is None:
                return
            wanted = following
        shown = frame
    if shown is None:
        raise ValueError("it ends early")
    yield shown  # nobody tells how long the last frame is shown: to the end
    for _ in moments:
        yield shown


def _from(container: InputContainer, stream: VideoStream, start_s: float) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their seconds after the first one of the clip, from ``start_s`` or a little earlier on."""
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
        raise ValueError("not one frame could be decoded")
    origin = time_of(first)
    if start_s > SEEK_BEYOND_S and container.format.name not in WITHOUT_TIMES and stream.time_base:
        for target in (start_s - SEEK_LEAD_S, 0.0):
            container.seek(int((origin + target) / stream.time_base), stream=stream)
            frames = container.decode(stream)
            first = next(frames, None)
            if first is not None and time_of(first) - origin <= start_s + SLACK_S:
                break  # a jump in a transport stream may land too late
    if first is not None:
        yield time_of(first) - origin, first
    for frame in frames:
        yield time_of(frame) - origin, frame


def stream_of(container: InputContainer) -> VideoStream:
    """Its video, decoded with one thread: there are several children. Raises ``MediaError`` for far too large a one."""
    stream = video_stream(container)
    coded = stream.codec_context
    if coded.width * coded.height > MAX_PIXELS:
        raise MediaError("too-large", f"{coded.width}x{coded.height} pixels; at most {MAX_PIXELS} are opened")
    coded.thread_count = 1
    return stream


def time_of(frame: VideoFrame) -> float:
    if frame.time is None:
        raise ValueError("a frame has no timestamp")
    return float(frame.time)


def shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height as displayed: pixel shape and rotation applied."""
    ratio = stream.sample_aspect_ratio
    shape = float(ratio) if ratio and 0.1 < ratio < 10 else 1.0
    width, height = max(1, round(frame.width * shape)), frame.height
    return (height, width) if frame.rotation % 180 == 90 else (width, height)


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
