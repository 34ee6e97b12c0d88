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
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from ltxtrain.errors import DataError
from ltxtrain.facts.media import MediaError, open_clip, video_stream
from ltxtrain.files import write_atomically
from ltxtrain.plan.records import Sample

# Containers round timestamps (Matroska to milliseconds), so a frame counts as shown a little before its own time.
TIMESTAMP_SLACK_S = 1.5e-3
# A window that begins later than this is sought, with a lead: jumping costs more than decoding a few frames.
SEEK_BEYOND_S = 1.0
SEEK_LEAD_S = 0.5
# Program streams give few of their frames a time. After a jump the decoder guesses the others, and is wrong.
WITHOUT_TIMES = ("mpeg", "mpegvideo")
REPAIR = "re-encode the clip, or take it out of the folder"
DECODER_VERSION = f"pyav-{av.__version__}/avcodec-{'.'.join(map(str, av.library_versions['libavcodec']))}"


def decode_window(sample: Sample) -> np.ndarray:
    """The frames that the plan gives ``sample``: frames_FHWC, resized and cropped to its bucket.

    Frame i is the one shown at ``start + i / fps`` after the clip's first frame, by timestamps, so that any frame rate,
    also a variable one, is resampled without drift. Only the frames up to the last one used are decoded. Raises
    ``DataError`` when the file ends early or cannot be decoded.
    """
    bucket = sample.bucket
    scaler = VideoReformatter()  # one for the window: it keeps its filters from frame to frame
    picked: list[np.ndarray] = []
    try:
        for frame, uses in _shown_frames(sample):
            picked += [_prepare(frame, sample, scaler)] * uses
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
    wanted = [sample.start + index / sample.fps for index in range(sample.bucket.frames)]
    done = 0
    with open_clip(Path(sample.path)) as container:
        for frame, until in _timed_frames(container, sample):
            uses = sum(1 for moment in wanted[done:] if moment < until)
            if uses:
                yield frame, uses
            done += uses
            if done == len(wanted):
                return


def _timed_frames(container: av.container.InputContainer, sample: Sample) -> Iterator[tuple[av.VideoFrame, float]]:
    """Frames from the sample's start or earlier on, each with the time until which it is shown.

    Times are seconds since the clip's first frame. That frame is decoded to know its time: what containers declare is
    wrong where frames are reordered.
    """
    stream = video_stream(container)
    stream.thread_type = "NONE"  # a short window decodes faster without the threads' start-up
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
        return
    origin = _time_of(first)
    shown = first
    if sample.start > SEEK_BEYOND_S and container.format.name not in WITHOUT_TIMES:
        shown, frames = _sought_frames(container, stream, origin, origin + sample.start)
    for following in frames:
        yield shown, _time_of(following) - origin - TIMESTAMP_SLACK_S
        shown = following
    # Nobody tells how long the last frame is shown. The facts count on no more than this.
    rate = stream.average_rate or stream.guessed_rate or 25
    yield shown, _time_of(shown) - origin + float(1 / rate)


def _sought_frames(
    container: av.container.InputContainer, stream: av.VideoStream, origin: float, time: float
) -> tuple[av.VideoFrame, Iterator[av.VideoFrame]]:
    """A frame shown at ``time`` or earlier, and those after it.

    A jump in a transport stream may land too late: then everything from the origin on is decoded.
    """
    for target in (time - SEEK_LEAD_S, origin):
        container.seek(int(target / stream.time_base), stream=stream)
        frames = container.decode(stream)
        shown = next(frames, None)
        if shown is not None and _time_of(shown) <= time:
            return shown, frames
    raise ValueError(f"no frame is found at {time - origin:.3f} s")


def _time_of(frame: av.VideoFrame) -> float:
    if frame.time is None:
        raise ValueError("a frame has no timestamp")
    return float(frame.time)


def _prepare(frame: av.VideoFrame, sample: Sample, scaler: VideoReformatter) -> np.ndarray:
    """Resize, turn upright, crop. Colours go through the frame's own matrix and range to full-range RGB."""
    quarter_turns = round(frame.rotation / 90) % 4  # PyAV tells the angle as np.rot90 takes it: counter-clockwise
    width, height = sample.resize if quarter_turns % 2 == 0 else sample.resize[::-1]
    scaled = scaler.reformat(frame, width, height, "rgb24", interpolation=Interpolation.LANCZOS, threads=1)
    image_HWC = scaled.to_ndarray()
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
