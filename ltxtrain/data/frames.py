"""Video files and images to arrays and back, with PyAV and Pillow.

Shape legend: F frames, H W pixels; frames_FHWC is uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import PIL
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from ltxtrain.errors import DataError
from ltxtrain.facts.children import Reply, Task
from ltxtrain.facts.media import MOST_SECONDS_OF_A_FILE, MediaError, open_clip, open_regular_file, stored_bytes
from ltxtrain.facts.media_facts import printable, told
from ltxtrain.facts.media_frames import FrameRequest, decode_frame, decode_frames, timed_frames, upright_rgb
from ltxtrain.facts.media_images import read_image
from ltxtrain.facts.media_memo import NOT_REMEMBERED as PASSING
from ltxtrain.facts.reasons import REASONS, Reason
from ltxtrain.files import write_atomically

if TYPE_CHECKING:
    from ltxtrain.plan.records import Sample

__all__ = [
    "DECODER_VERSION",
    "ClipFault",
    "FrameRequest",
    "decode_frame",
    "decode_frames",
    "decode_window",
    "encode_png",
    "encode_video",
    "write_video",
]

REPAIR = "re-encode the clip, or set delete_problematic_images: it is left out then, and no file is deleted"
AGAIN = "run it again; if it comes back, re-encode the clip, or take it out of the folder"
# In cache keys: another version may give other pixels. The last part is ours.
_AVCODEC = ".".join(map(str, av.library_versions["libavcodec"]))
DECODER_VERSION = f"pyav-{av.__version__}/avcodec-{_AVCODEC}/pillow-{PIL.__version__}/2"
DECODE_SECONDS = 60.0
DECODE_BYTES_PER_SECOND = 2e6  # where a container cannot be sought, all before the window is decoded


class ClipFault(DataError):
    """A clip that gives no frames. ``reason`` tells what is wrong with it from what may be all right the next time."""

    def __init__(self, message: str, reason: Reason = "damaged") -> None:
        super().__init__(message, hint=AGAIN if reason in PASSING else REPAIR)
        self.reason = reason


@dataclass(frozen=True)
class Cut:
    """What a child must know of a sample. Its fields are those of ``plan.records.Sample``; ``size`` is the bucket's
    width and height."""

    path: str
    kind: str
    start: float
    fps: float
    frames: int
    size: tuple[int, int]
    resize: tuple[int, int]
    crop: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.frames, self.size[1], self.size[0], 3

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def cut_of(sample: Sample) -> Cut:
    bucket = sample.bucket
    size = (bucket.width, bucket.height)
    path = str(Path(sample.path).absolute())
    return Cut(path, sample.kind, sample.start, sample.fps, bucket.frames, size, sample.resize, sample.crop)


def decode_window(sample: Sample) -> np.ndarray:
    """The frames that the plan gives ``sample``: frames_FHWC, resized and cropped to its bucket. In this process.

    Frame i is the one shown at ``start + i / fps`` after the clip's first frame, by timestamps, so that any frame rate,
    also a variable one, is resampled without drift. Only the frames up to the last one used are decoded. Raises
    ``DataError`` when the file ends early or cannot be decoded.
    """
    cut = cut_of(sample)
    frames_FHWC = np.empty(cut.shape, np.uint8)
    decode_cut(cut, frames_FHWC)
    return frames_FHWC


def decode_cut(cut: Cut, frames_FHWC: np.ndarray) -> None:
    """Fill ``frames_FHWC``. Raises ``DataError``."""
    try:
        if cut.kind == "image":
            frames_FHWC[:] = _image(cut)
        else:
            _decode_video(cut, frames_FHWC)
    except MediaError as error:
        raise ClipFault(f"{cut.path} cannot be opened: {error.detail}", error.reason) from error
    except MemoryError as error:
        raise ClipFault(f"{cut.path} cannot be decoded: it takes too much memory", "crashed") from error
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise ClipFault(f"{cut.path} cannot be decoded: {told(error)}") from error
    except OSError as error:
        raise ClipFault(f"{cut.path} cannot be decoded: {told(error)}", "unreadable") from error


def decode_task(cut: Cut) -> Task:
    seconds = DECODE_SECONDS + stored_bytes(Path(cut.path)) / DECODE_BYTES_PER_SECOND
    seconds = min(MOST_SECONDS_OF_A_FILE, seconds)
    return Task(vars(cut), seconds, cut.bytes)


def frames_in(cut: Cut, reply: Reply) -> np.ndarray | DataError:
    """The child's frames when there are as many bytes as asked for; else what is wrong, in words."""
    if reply.failure:
        return ClipFault(f"{cut.path} cannot be decoded: {printable(reply.detail)}", reply.failure)
    if len(reply.data) == cut.bytes:
        return np.frombuffer(reply.data, np.uint8).reshape(cut.shape)
    said: Any = (reply.answer or {}).get("error")
    if not isinstance(said, str):
        said = "cannot be decoded: the process that decodes it gives no frames"
    why = (reply.answer or {}).get("reason")
    reason: Reason = next((reason for reason in REASONS if reason == why), "damaged")
    return ClipFault(f"{cut.path} {printable(said.removeprefix(cut.path))}", reason)


def _image(cut: Cut) -> np.ndarray:
    from PIL.Image import Resampling

    with open_regular_file(Path(cut.path)) as file:
        image = read_image(file).resize(cut.resize, Resampling.LANCZOS)
    left, top = cut.crop
    return np.asarray(image)[top : top + cut.size[1], left : left + cut.size[0]]


def _decode_video(cut: Cut, frames_FHWC: np.ndarray) -> None:
    scaler = VideoReformatter()  # one for the window: it keeps its filters from frame to frame
    left, top = cut.crop
    width, height = cut.size
    done = 0
    for frame, uses in _shown_frames(cut):
        image_HWC = upright_rgb(frame, cut.resize, scaler)
        frames_FHWC[done : done + uses] = image_HWC[top : top + height, left : left + width]
        done += uses
    if done < cut.frames:
        found = f"{done} of the {cut.frames} planned frames could be decoded"
        raise ClipFault(f"{cut.path} ends early: {found}")


def _shown_frames(cut: Cut) -> Iterator[tuple[av.VideoFrame, int]]:
    """Each source frame that is shown at one of the sample's times, and how many of those times it stands for."""
    wanted = [cut.start + index / cut.fps for index in range(cut.frames)]
    done = 0
    with open_clip(Path(cut.path), None) as container:
        for frame, until in timed_frames(container, cut.start):
            uses = sum(1 for moment in wanted[done:] if moment < until)
            if uses:
                yield frame, uses
            done += uses
            if done == len(wanted):
                return


def encode_video(frames_FHWC: np.ndarray, fps: float) -> bytes:
    """An H.264 mp4 that every browser plays. The same frames give the same bytes, on every processor."""
    target = BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames_FHWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Said, not left open: without these tags players guess the colour matrix by the size of the picture.
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        # Without cpu-independent, x264's fast paths do not even agree with themselves from one call to the next.
        stream.options = {"crf": "18", "x264-params": "cpu-independent=1:threads=1"}
        scaler = VideoReformatter()
        for image_HWC in frames_FHWC:
            frame = av.VideoFrame.from_ndarray(image_HWC, format="rgb24")
            container.mux(stream.encode(_to_bt709(frame, scaler)))
        container.mux(stream.encode(None))
    return target.getvalue()


def _to_bt709(frame: av.VideoFrame, scaler: VideoReformatter) -> av.VideoFrame:
    return scaler.reformat(
        frame,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BICUBIC,
        threads=1,
    )


def encode_png(image_HWC: np.ndarray) -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = image_HWC.shape[:2]
    codec.pix_fmt = "rgb24"
    codec.time_base = Fraction(1, 25)
    packets = codec.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")) + codec.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def write_video(path: Path, frames_FHWC: np.ndarray, fps: float) -> None:
    """Write ``path`` (mp4) and, beside it, a poster ``.png`` of the middle frame."""
    write_atomically(path, encode_video(frames_FHWC, fps))
    write_atomically(path.with_suffix(".png"), encode_png(frames_FHWC[len(frames_FHWC) // 2]))
