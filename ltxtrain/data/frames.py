"""Video files to arrays and back, with PyAV.

Shape legend: F frames, H W pixels; frames_FHWC is uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np

from ltxtrain.errors import DataError
from ltxtrain.facts.media import MediaError, open_clip, video_stream
from ltxtrain.files import write_atomically
from ltxtrain.plan.records import Sample

# Containers round timestamps (Matroska to milliseconds), so a frame counts as shown a little before its own time.
TIMESTAMP_SLACK_S = 1e-3
REPAIR = "re-encode the clip, or take it out of the folder"
DECODER_VERSION = f"pyav-{av.__version__}/avcodec-{'.'.join(map(str, av.library_versions['libavcodec']))}"


def decode_window(sample: Sample) -> np.ndarray:
    """The frames that the plan gives ``sample``: frames_FHWC, resized and cropped to its bucket.

    Frame i is the one shown at ``start + i / fps`` after the clip's first frame, by timestamps, so that any frame rate,
    also a variable one, is resampled without drift. Only the frames up to the last one used are decoded. Raises
    ``DataError`` when the file ends early or cannot be decoded.
    """
    bucket = sample.bucket
    picked: list[np.ndarray] = []
    try:
        for frame, uses in _shown_frames(sample):
            picked += [_prepare(frame, sample)] * uses
    except MediaError as error:
        raise DataError(f"{sample.path} cannot be opened: {error.detail}", hint=REPAIR) from error
    except (av.error.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise DataError(f"{sample.path} cannot be decoded: {error}", hint=REPAIR) from error
    if len(picked) < bucket.frames:
        found = f"{len(picked)} of the {bucket.frames} planned frames could be decoded"
        raise DataError(f"{sample.path} ends early: {found}", hint=REPAIR)
    return np.stack(picked)


def decode_ahead(samples: Sequence[Sample]) -> Iterator[tuple[Sample, np.ndarray]]:
    """``decode_window`` of each sample, the next one decoded in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = [pool.submit(decode_window, sample) for sample in samples[:1]]
        for index, sample in enumerate(samples):
            frames_FHWC = upcoming.pop().result()
            upcoming += [pool.submit(decode_window, following) for following in samples[index + 1 : index + 2]]
            yield sample, frames_FHWC


def _shown_frames(sample: Sample) -> Iterator[tuple[av.VideoFrame, int]]:
    """Each source frame that is shown at one of the sample's times, and how many of those times it stands for."""
    with open_clip(Path(sample.path)) as container:
        stream = video_stream(container)
        stream.thread_type = "NONE"  # a short window decodes faster without the threads' start-up
        first = _first_time(container, stream)
        wanted = [first + sample.start + index / sample.fps for index in range(sample.bucket.frames)]
        if sample.start > 1.0:
            container.seek(int((wanted[0] - 0.5) / stream.time_base), stream=stream)
        shown: av.VideoFrame | None = None
        done = 0
        for frame in container.decode(stream):
            uses = sum(1 for time in wanted[done:] if time + TIMESTAMP_SLACK_S < frame.time) if shown else 0
            if shown and uses:
                yield shown, uses
            done += uses
            if done == len(wanted):
                return
            shown = frame
        # The file's last frame stays on the screen for one frame's time, of the clip or of the sample.
        stays = max(float(1 / (stream.average_rate or 25)), 2 / sample.fps)
        if shown:
            yield shown, sum(1 for time in wanted[done:] if time < shown.time + stays)


def _first_time(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds of the first frame. Some containers do not say; then it is decoded, and reading starts over."""
    if stream.start_time is not None:
        return float(stream.start_time * stream.time_base)
    first = next(container.decode(stream))
    container.seek(0)
    return float(first.time)


def _prepare(frame: av.VideoFrame, sample: Sample) -> np.ndarray:
    """Resize, turn upright, crop. Colours go through the frame's own matrix and range to full-range RGB."""
    quarter_turns = round(frame.rotation / 90) % 4
    width, height = sample.resize if quarter_turns % 2 == 0 else sample.resize[::-1]
    image_HWC = frame.reformat(width=width, height=height, format="rgb24", interpolation="LANCZOS").to_ndarray()
    if quarter_turns:
        image_HWC = np.rot90(image_HWC, quarter_turns)
    left, top = sample.crop
    return np.ascontiguousarray(image_HWC[top : top + sample.bucket.height, left : left + sample.bucket.width])


def encode_video(frames_FHWC: np.ndarray, fps: float) -> bytes:
    """An H.264 mp4 that every browser plays. The same frames give the same bytes, on every processor."""
    target = BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames_FHWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Without cpu-independent, x264's fast paths do not even agree with themselves from one call to the next.
        stream.options = {"crf": "18", "x264-params": "cpu-independent=1:threads=1"}
        for image_HWC in frames_FHWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    return target.getvalue()


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
