"""Frames by their time, upright and in RGB; and single small pictures of clips, for people to look at.

Shape legend: H W pixels; image_HWC is uint8 RGB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ltxtrain.facts.children import Children, Task, usable_workers
from ltxtrain.facts.media import (
    PROBE_MEMORY,
    displayed_size,
    found_in,
    new_scaler,
    probe_task,
    video_stream,
)
from ltxtrain.facts.media_facts import Kind, MediaError, told
from ltxtrain.facts.media_images import read_image
from ltxtrain.facts.media_open import ANYWHERE, open_clip, open_regular_file

__all__ = [
    "WITHOUT_TIMES",
    "FrameRequest",
    "decode_frame",
    "decode_frames",
    "displayed_size",
    "fitted",
    "frame_time",
    "frames_from",
    "picture_at",
    "timed_frames",
    "upright_rgb",
]

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

# Containers round timestamps (Matroska to milliseconds), so a frame counts as shown a little before its own time.
TIMESTAMP_SLACK_S = 1.5e-3
# A window that begins later than this is sought, with a lead: jumping costs more than decoding a few frames.
SEEK_BEYOND_S = 1.0
SEEK_LEAD_S = 0.5
# Program streams give few of their frames a time. After a jump the decoder guesses the others, and is wrong.
WITHOUT_TIMES = ("mpeg", "mpegvideo")
LARGEST_EDGE = 4096


class FrameRequest(NamedTuple):
    """The frame shown ``seconds`` after the clip's first one (at the end: the last one), made to fit into ``size``
    (width, height) without being enlarged. An image has only one."""

    path: Path
    seconds: float
    kind: Kind
    size: tuple[int, int]


def decode_frames(requests: Iterable[FrameRequest]) -> Iterator[np.ndarray | MediaError]:
    """One image_HWC, or what is wrong with the file, for each request, in their order. Decoded in children."""
    import numpy as np

    asked = [FrameRequest(*request) for request in requests]
    if not asked:
        return
    with Children("ltxtrain.facts.probe_child", min(usable_workers(), len(asked)), PROBE_MEMORY) as pool:
        for request, reply in zip(asked, pool.run(map(_picture_task, asked)), strict=True):
            shape = _shape(reply.answer, request.size, len(reply.data))
            if shape is not None:
                yield np.frombuffer(reply.data, np.uint8).reshape(shape)
                continue
            found = found_in(request.path, reply)
            yield found if isinstance(found, MediaError) else MediaError("crashed", "it gives no picture")


def decode_frame(path: Path, seconds: float, kind: Kind, size: tuple[int, int]) -> np.ndarray:
    """One picture, as ``decode_frames`` gives it. Raises ``MediaError``."""
    (found,) = decode_frames([FrameRequest(path, seconds, kind, size)])
    if isinstance(found, MediaError):
        raise found
    return found


def _picture_task(request: FrameRequest) -> Task:
    width, height = (max(1, min(LARGEST_EDGE, edge)) for edge in request.size)
    payload = {
        "do": "picture",
        "path": str(request.path.absolute()),
        "kind": request.kind,
        "seconds": request.seconds,
        "size": [width, height],
    }
    return Task(payload, probe_task(request.path, request.kind).seconds, 3 * width * height)


def _shape(answer: dict[str, Any] | None, size: tuple[int, int], count: int) -> tuple[int, int, int] | None:
    width, height = (answer or {}).get("width"), (answer or {}).get("height")
    if not isinstance(width, int) or not isinstance(height, int) or width < 1 or height < 1:
        return None
    return (height, width, 3) if 3 * width * height == count and width <= size[0] and height <= size[1] else None


def picture_at(
    path: Path, seconds: float, kind: Kind, size: tuple[int, int], within: Path | None = ANYWHERE
) -> np.ndarray:
    """In a child: the picture that ``FrameRequest`` describes. ``within`` is as for ``open_regular_file``. Raises
    ``MediaError``."""
    import av
    import numpy as np

    if kind == "image":
        with open_regular_file(path, within) as file:
            image = read_image(file)
        return np.asarray(image.resize(fitted(image.size, size)))
    try:
        with open_clip(path, within) as container:
            shown = None
            for frame, until in timed_frames(container, seconds):
                shown = frame
                if seconds < until:
                    break
            if shown is None:
                raise MediaError("damaged", "not one frame could be decoded")
            size = fitted(displayed_size(shown, video_stream(container).sample_aspect_ratio), size)
            return np.ascontiguousarray(upright_rgb(shown, size, new_scaler()))
    except MemoryError as error:
        raise MediaError("too-large", "reading it takes more memory than one file is given") from error
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError("damaged", f"it cannot be decoded: {told(error)}") from error


def fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """``size``, made smaller so that it fits into ``box``."""
    part = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, math.floor(size[0] * part)), max(1, math.floor(size[1] * part))


def timed_frames(container: InputContainer, start: float) -> Iterator[tuple[VideoFrame, float]]:
    """Frames from ``start`` or earlier on, each with the time until which it is shown.

    Times are seconds since the clip's first frame.
    """
    shown: VideoFrame | None = None
    began = 0.0
    for frame, time in frames_from(container, start):
        if shown is not None:
            yield shown, time - TIMESTAMP_SLACK_S
        shown, began = frame, time
    if shown is not None:
        # Nobody tells how long the last frame is shown. The facts count on no more than this.
        stream = video_stream(container)
        rate = stream.average_rate or stream.guessed_rate or 25
        yield shown, began + float(1 / rate)


def frames_from(container: InputContainer, start: float) -> Iterator[tuple[VideoFrame, float]]:
    """Frames from ``start`` or earlier on, each with its own time, in seconds since the clip's first frame.

    That frame is decoded to know its time: what containers declare is wrong where frames are reordered.
    """
    stream = video_stream(container)
    stream.thread_type = "NONE"  # a short window decodes faster without the threads' start-up
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
        return
    origin = frame_time(first)
    if start > SEEK_BEYOND_S and container.format.name not in WITHOUT_TIMES:
        first, frames = _sought_frames(container, stream, origin, origin + start)
    yield first, frame_time(first) - origin
    for frame in frames:
        yield frame, frame_time(frame) - origin


def _sought_frames(
    container: InputContainer, stream: VideoStream, origin: float, time: float
) -> tuple[VideoFrame, Iterator[VideoFrame]]:
    """A frame shown at ``time`` or earlier, and those after it.

    A jump in a transport stream may land too late: then everything from the origin on is decoded.
    """
    for target in (time - SEEK_LEAD_S, origin):
        container.seek(int(target / (stream.time_base or 1)), stream=stream)
        frames = container.decode(stream)
        shown = next(frames, None)
        if shown is not None and frame_time(shown) <= time:
            return shown, frames
    raise ValueError(f"no frame is found at {time - origin:.3f} s")


def frame_time(frame: VideoFrame) -> float:
    """In seconds of the container's own clock. Raises ``ValueError`` where it has none."""
    if frame.time is None:
        raise ValueError("a frame has no timestamp")
    return float(frame.time)


def _pixels(frame: VideoFrame, channels: int) -> np.ndarray:
    """A packed frame's own memory, without a copy; rows may be padded."""
    import numpy as np

    plane = frame.planes[0]
    rows_HL: np.ndarray = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    image_HWC: np.ndarray = rows_HL[: frame.height, : channels * frame.width].reshape(frame.height, -1, channels)
    return image_HWC


def upright_rgb(frame: VideoFrame, size: tuple[int, int], scaler: VideoReformatter) -> np.ndarray:
    """image_HWC of ``size`` (width, height). Colours go through the frame's own matrix and range to full-range RGB;
    transparent parts become black."""
    import numpy as np

    quarter_turns = round(frame.rotation / 90) % 4  # PyAV tells the angle as np.rot90 takes it: counter-clockwise
    width, height = size if quarter_turns % 2 == 0 else size[::-1]
    see_through = any(component.is_alpha for component in frame.format.components)
    form = "rgba" if see_through else "rgb24"
    scaled = scaler.reformat(frame, width, height, form, interpolation="LANCZOS", threads=1)
    image_HWC = _pixels(scaled, 4 if see_through else 3)
    if see_through:
        opaque_HW1 = image_HWC[..., 3:].astype(np.uint16)
        image_HWC = ((image_HWC[..., :3] * opaque_HW1 + 127) // 255).astype(np.uint8)
    return np.rot90(image_HWC, quarter_turns) if quarter_turns else image_HWC
