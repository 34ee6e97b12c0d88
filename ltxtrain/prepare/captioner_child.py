"""The process that opens clips for ``dataset caption``: some frames of each, as small JPEGs.

Shape legend: H W pixels; pictures are uint8 RGB.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.facts.children_serve import serve
from ltxtrain.facts.media import MediaError, bounded_stream, open_clip
from ltxtrain.facts.media_frames import picture_at
from ltxtrain.prepare.scenes_child import DECODING

if TYPE_CHECKING:
    import numpy as np

LARGEST = (768, 768)  # pixels; models that see pictures scale larger ones down themselves
QUALITY = 88


def answer(task: dict[str, Any], room: memoryview) -> tuple[dict[str, Any], int]:
    """``{"sizes": [bytes of each JPEG]}`` and in ``room`` the JPEGs one after the other; or ``{"failed": why}``."""
    path, count = Path(task["path"]), int(task["frames"])
    try:
        image = task["kind"] == "image"
        pictures = [_jpeg(picture_at(path, 0.0, "image", LARGEST))] if image else frames_of(path, count)
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
        stream = bounded_stream(container)
        ticks = {packet.pts for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard}
        tick_s = stream.time_base
    if not ticks or tick_s is None:
        raise MediaError("damaged", "it holds no frames with a time")
    first = min(ticks)
    times = [float((tick - first) * tick_s) for tick in sorted(ticks)]
    count = min(count, len(times))
    wanted = [times[int((index + 0.5) * len(times) / count)] for index in range(count)]
    return [_jpeg(picture_at(path, second, "video", LARGEST)) for second in wanted]


def _jpeg(image_HWC: np.ndarray) -> bytes:
    from PIL import Image

    target = BytesIO()
    Image.fromarray(image_HWC).save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


if __name__ == "__main__":
    serve(answer)
