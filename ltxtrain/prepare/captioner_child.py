"""The process that opens clips for ``dataset caption``: some frames of each, as small JPEGs.

Shape legend: H W pixels; pictures are uint8 RGB.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.facts.children_serve import serve
from ltxtrain.facts.media import MediaError, open_clip, open_regular_file
from ltxtrain.facts.media_images import read_image
from ltxtrain.prepare.scenes_child import DECODING, WITHOUT_TIMES, shown_size, stream_of, time_of

if TYPE_CHECKING:
    import numpy as np

LONGEST_SIDE = 768  # pixels; models that see pictures scale larger ones down themselves
QUALITY = 88


def answer(task: dict[str, Any], room: memoryview) -> tuple[dict[str, Any], int]:
    """``{"sizes": [bytes of each JPEG]}`` and in ``room`` the JPEGs one after the other; or ``{"failed": why}``."""
    path, count = Path(task["path"]), int(task["frames"])
    try:
        pictures = [image_of(path)] if task["kind"] == "image" else frames_of(path, count)
    except MediaError as error:
        return {"failed": error.detail}, 0
    except DECODING as error:
        return {"failed": f"it cannot be decoded: {str(error) or type(error).__name__}"}, 0
    content = b"".join(pictures)
    if len(content) > len(room):
        return {"failed": f"its pictures have {len(content)} bytes"}, 0
    room[: len(content)] = content
    return {"sizes": [len(picture) for picture in pictures]}, len(content)


def frames_of(path: Path, count: int) -> list[bytes]:
    """``count`` frames, each from the middle of its part of the clip; fewer where the clip has fewer."""
    with open_clip(path) as container:
        stream = stream_of(container)
        ticks = {packet.pts for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard}
        sought = container.format.name not in WITHOUT_TIMES
    if not ticks or stream.time_base is None:
        raise MediaError("damaged", "it holds no frames with a time")
    times = sorted(float(tick * stream.time_base) for tick in ticks)
    count = min(count, len(times))
    wanted = [times[int((index + 0.5) * len(times) / count)] for index in range(count)]
    return [_frame_at(path, second, sought) for second in wanted]


def _frame_at(path: Path, second: float, sought: bool) -> bytes:
    """The frame of that timestamp, or the last one before the clip ends."""
    with open_clip(path) as container:
        stream = stream_of(container)
        if sought and stream.time_base:
            container.seek(int(second / stream.time_base), stream=stream)
        shown = None
        for frame in container.decode(stream):
            shown = frame
            if time_of(frame) >= second - 1e-4:
                break
        if shown is None:
            raise MediaError("damaged", "one of its frames could not be decoded")
        import numpy as np

        width, height = shown_size(shown, stream)
        turns = round(shown.rotation / 90) % 4  # counter-clockwise, as np.rot90 takes them
        scale = min(1.0, LONGEST_SIDE / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        coded = size[::-1] if turns % 2 else size
        return _jpeg(np.rot90(shown.reformat(*coded, format="rgb24").to_ndarray(), turns))


def image_of(path: Path) -> bytes:
    """An image as it is shown: turned by its own note, small, without transparency."""
    import numpy as np

    with open_regular_file(path) as file:
        upright = read_image(file)
        upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return _jpeg(np.asarray(upright))


def _jpeg(image_HWC: np.ndarray) -> bytes:
    from PIL import Image

    target = BytesIO()
    Image.fromarray(image_HWC).save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


if __name__ == "__main__":
    serve(answer)
